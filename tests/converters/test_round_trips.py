"""Every mask that FORMATS section 8 names comes back as it was, through each format."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.coco import load_coco, save_coco
from converters.davis import load_davis, save_davis
from converters.masks import decode_mask, encode_mask
from converters.sav import load_sav, save_sav
from converters.tracks_json import load_tracks, save_tracks
from converters.types import AnnotatedVideo, Track, VideoInfo
from converters.youtube_vis import load_youtube_vis, save_youtube_vis
from tests.converters.cases import ADVERSARIAL_MASKS, annotated_video

FORMATS = {
    "coco": (save_coco, load_coco, "x.json"),
    "youtube-vis": (save_youtube_vis, load_youtube_vis, "x.json"),
    "youtube-vis, compressed": (
        lambda path, videos: save_youtube_vis(path, videos, compressed=True),
        load_youtube_vis,
        "x.json",
    ),
    "sav, json": (save_sav, load_sav, "x"),
    "sav, folders": (
        lambda path, videos: save_sav(path, videos, layout="folders"),
        load_sav,
        "x",
    ),
    "davis": (save_davis, load_davis, "x"),
    "tracks": (save_tracks, load_tracks, "x.json"),
}
each_format = pytest.mark.parametrize(("save", "load", "name"), FORMATS.values(), ids=FORMATS.keys())


def one_frame_video(mask: np.ndarray) -> AnnotatedVideo:
    height, width = mask.shape
    # Beside the mask an object that is surely there, so that the video is in every format.
    info = VideoInfo(width, height, 2, 25.0, (0.0, 0.04), 0.08)
    there = Track("there", ("Dog",), {1: encode_mask(np.ones((height, width), bool))})
    return AnnotatedVideo("v", info, (there, Track("it", ("Car",), {0: encode_mask(mask)})))


def masks_by_label(video: AnnotatedVideo) -> dict[str, dict[int, np.ndarray]]:
    masks = {}
    for track in video.tracks:
        decoded = {frame: decode_mask(mask) for frame, mask in track.masks.items()}
        masks[track.labels[0]] = {frame: mask for frame, mask in decoded.items() if mask.any()}
    return masks


def assert_same_masks(before: AnnotatedVideo, after: AnnotatedVideo) -> None:
    expected, found = masks_by_label(before), masks_by_label(after)
    # An object on no frame is no object in most formats.
    expected = {label: masks for label, masks in expected.items() if masks}
    found = {label: masks for label, masks in found.items() if masks}
    assert expected.keys() == found.keys()
    for label, masks in expected.items():
        assert masks.keys() == found[label].keys(), label
        for frame, mask in masks.items():
            assert np.count_nonzero(mask != found[label][frame]) == 0, (label, frame)


@each_format
@pytest.mark.parametrize("mask", ADVERSARIAL_MASKS.values(), ids=ADVERSARIAL_MASKS.keys())
def test_a_mask_comes_back_with_no_pixel_changed(tmp_path, save, load, name, mask):
    video = one_frame_video(mask)
    save(tmp_path / name, [video])
    (read,) = load(tmp_path / name)
    assert (read.info.width, read.info.height, read.info.frame_count) == (*mask.shape[::-1], 2)
    assert_same_masks(video, read)


@each_format
def test_videos_gaps_labels_and_image_names_come_back(tmp_path, save, load, name):
    videos = (annotated_video("one"), annotated_video("two ü"))
    save(tmp_path / name, videos)
    read = list(load(tmp_path / name))
    assert [video.name for video in read] == ["one", "two ü"]
    for before, after in zip(videos, read):
        assert_same_masks(before, after)
        assert [t.labels for t in after.tracks] == [("Car",), ("Hund ü 犬",)]
        if load is not load_tracks:
            assert after.file_names == tuple(f"{before.name}/{i:05d}.jpg" for i in range(10))


@each_format
def test_what_was_read_can_be_written_again_to_the_same_bytes(tmp_path, save, load, name):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    save(tmp_path / "a" / name, [annotated_video("one"), annotated_video("two")])
    save(tmp_path / "b" / name, load(tmp_path / "a" / name))

    def files(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    first, second = files(tmp_path / "a"), files(tmp_path / "b")
    if load is load_youtube_vis or load is load_davis:
        assert first == second
    elif load is load_coco:
        assert first == second
    else:
        # SA-V's names for objects are numbers, and its durations are sums.
        assert first.keys() == second.keys()


def _masks(height: int, width: int):
    return st.binary(min_size=height * width, max_size=height * width).map(
        lambda data: (np.frombuffer(data, np.uint8) % 2 == 1).reshape(height, width)
    )


@st.composite
def _videos(draw):
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    frame_count = draw(st.integers(1, 5))
    info = VideoInfo(
        width, height, frame_count, 10.0, tuple(i / 10 for i in range(frame_count)), frame_count / 10
    )
    taken = [np.zeros((height, width), bool) for _ in range(frame_count)]
    tracks = []
    for number in range(draw(st.integers(1, 3))):
        frames = draw(st.sets(st.integers(0, frame_count - 1)))
        masks = {}
        for frame in sorted(frames):
            # Without overlap, which DAVIS cannot hold.
            mask = draw(_masks(height, width)) & ~taken[frame]
            taken[frame] |= mask
            masks[frame] = encode_mask(mask)
        tracks.append(Track(number, (f"label {number}",), masks))
    return AnnotatedVideo("v", info, tuple(tracks))


@each_format
@settings(max_examples=25, deadline=None)
@given(video=_videos())
def test_any_video_comes_back(tmp_path_factory, save, load, name, video):
    path = tmp_path_factory.mktemp("trip") / name
    save(path, [video])
    (read,) = load(path)
    assert_same_masks(video, read)


@each_format
def test_overlapping_masks_come_back_where_the_format_holds_them(tmp_path, save, load, name):
    full = encode_mask(np.ones((48, 64), bool))
    tracks = [Track("a", ("Car",), {0: full}), Track("b", ("Dog",), {0: full})]
    video = annotated_video(tracks=tracks)
    report = save(tmp_path / name, [video])
    (read,) = load(tmp_path / name)
    if load is load_davis:
        assert report.changed == {"pixels given to a smaller object": 48 * 64}
        assert report.dropped == {
            "masks (wholly under smaller objects)": 1,
            "objects (on no frame)": 1,
        }
        kept = dataclasses.replace(video, tracks=(tracks[1],))
        assert_same_masks(kept, read)
    else:
        assert report.changed == {}
        assert_same_masks(video, read)
