"""Long videos go through without being in memory."""

import tracemalloc
from collections.abc import Mapping

import numpy as np
import pytest

from converters.coco import load_coco, save_coco
from converters.davis import load_davis, save_davis
from converters.masks import encode_mask
from converters.reading import video_info
from converters.sav import load_sav, save_sav
from converters.tracks_json import load_tracks, save_tracks
from converters.types import AnnotatedVideo, MaskRLE, Track
from converters.youtube_vis import load_youtube_vis, save_youtube_vis

FRAMES = 2_000
NOISE = [encode_mask(np.random.default_rng(i).random((50, 80)) < 0.5) for i in range(5)]
BYTES_A_MASK = len(NOISE[0].counts)


class Masks(Mapping):
    """A mask for every frame, made when asked for."""

    def __init__(self, count, some):
        self._count, self._some = count, some

    def __getitem__(self, frame):
        if not 0 <= frame < self._count:
            raise KeyError(frame)
        mask = self._some[frame % len(self._some)]
        # A copy, as a mask that was read would be.
        return MaskRLE(mask.height, mask.width, mask.counts[:-1] + mask.counts[-1])

    def __iter__(self):
        return iter(range(self._count))

    def __len__(self):
        return self._count


def long_video(count, some=NOISE):
    info = video_info(some[0].width, some[0].height, count, 25.0)
    return AnnotatedVideo("long", info, (Track(1, ("Car",), Masks(count, some)),))


def peak_bytes(function):
    tracemalloc.start()
    function()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def read_all(load, path):
    count = 0
    for video in load(path):
        for track in video.tracks:
            for frame in track.masks:
                count += track.masks[frame].height > 0
    return count


@pytest.mark.parametrize(
    ("save", "load"),
    [
        (save_coco, load_coco),
        (lambda path, videos: save_youtube_vis(path, videos, compressed=True), load_youtube_vis),
        (save_tracks, load_tracks),
        (save_sav, load_sav),
    ],
    ids=["coco", "youtube-vis", "tracks", "sav"],
)
def test_many_frames_are_written_and_read_without_their_masks_in_memory(tmp_path, save, load):
    all_masks = FRAMES * BYTES_A_MASK
    assert all_masks > 3_900_000
    path = tmp_path / "x"
    assert peak_bytes(lambda: save(path, [long_video(FRAMES)])) < all_masks / 3
    found = []
    assert peak_bytes(lambda: found.append(read_all(load, path))) < all_masks / 2
    assert found == [FRAMES]


@pytest.mark.parametrize(
    ("save", "load"),
    [(save_davis, load_davis), (lambda p, v: save_sav(p, v, layout="folders"), load_sav)],
    ids=["davis", "sav"],
)
def test_folders_are_written_and_read_a_frame_at_a_time(tmp_path, save, load):
    few, many = (peak_bytes(lambda: save(tmp_path / str(count), [long_video(count)])) for count in (50, 500))
    assert many - few < 450 * BYTES_A_MASK / 2
    found = []
    assert peak_bytes(lambda: found.append(read_all(load, tmp_path / "500"))) < 500 * BYTES_A_MASK
    assert found == [500]


def test_ten_thousand_frames_at_720p_are_at_most_80_megabytes_of_compressed_youtube_vis(tmp_path):
    """One object with a ragged outline, some 7 kB a mask as SAM 2 makes them."""
    y, x = np.mgrid[:720, :1280]
    generator = np.random.default_rng(0)
    ragged = 200 + generator.normal(0, 6, 1280).cumsum().clip(-100, 100)[x]
    mask = (np.abs(np.abs(y - 360) - 20) < ragged) & (np.abs(y - 360) > ragged / 3)
    some = [encode_mask(mask & (x > 100) & (x < 1180))]
    assert 5000 < len(some[0].counts) < 8000
    video = long_video(10_000, some)
    path = tmp_path / "x.json"
    save_youtube_vis(path, [video], compressed=True)
    assert path.stat().st_size <= 80_000_000
