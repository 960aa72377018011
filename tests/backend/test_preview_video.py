"""Videos and GIFs with masks drawn in: times, sizes and pictures, read back by others."""

import tracemalloc

import av
import numpy as np
import pytest
from PIL import Image

from backend.preview import object_styles, save_gif, save_video
from backend.preview import video as video_module
from converters.masks import encode_mask
from converters.types import Track
from sam2_model.video import open_frame_source
from sam2_model.video.images import ImageListSource
from tests.video_files import TICKS_PER_SECOND, write_video

SIZE = (640, 360)
COLOUR = np.array(object_styles(["a"])["a"].colour)
SQUARE = np.s_[200:240, 300:340]


def track(frames, *, size=SIZE, object_id="a"):
    mask = np.zeros(size[::-1], bool)
    mask[SQUARE] = True
    rle = encode_mask(mask)
    return Track(object_id, ("Car",), {index: rle for index in frames}, {0: 3.0})


def grey(count=12, size=SIZE):
    return [np.full((*size[::-1], 3), 120, np.uint8)] * count


def is_marked(picture):
    """Whether the square is filled with the object's colour."""
    found = np.asarray(picture.convert("RGB"), float)[210:230, 310:330].mean(axis=(0, 1))
    return np.abs(found - (0.6 * 120 + 0.4 * COLOUR)).max() < 12


def pictures_of(path):
    with av.open(str(path)) as container:
        return [Image.fromarray(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


@pytest.mark.parametrize(
    "ticks",
    [
        pytest.param([i * 600 for i in range(12)], id="constant"),
        pytest.param([0, 600, 1200, 5000, 5100, 9000, 9001, 20000], id="variable"),
        pytest.param([i * 1001 // 2 for i in range(12)], id="NTSC, rounded by the file"),
    ],
)
def test_every_frame_keeps_its_time_and_has_its_masks(tmp_path, ticks):
    count = len(ticks)
    write_video(tmp_path / "in.mp4", count, size=SIZE, frame_ticks=ticks, pictures=grey(count))
    marked = {2, 3, 7}
    with open_frame_source(tmp_path / "in.mp4") as source:
        steps = []
        save_video(
            tmp_path / "out.mp4", source, [track(marked)],
            progress=lambda *step: steps.append(step),
        )
        times = source.info.frame_times_seconds
    assert steps == [(done, count) for done in range(1, count + 1)]
    with open_frame_source(tmp_path / "out.mp4") as drawn:
        assert (drawn.info.width, drawn.info.height) == SIZE
        np.testing.assert_allclose(drawn.info.frame_times_seconds, times, atol=1e-5)
    found = {i for i, picture in enumerate(pictures_of(tmp_path / "out.mp4")) if is_marked(picture)}
    assert found == marked
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "out.mp4"}


def test_an_mp4_is_h264_that_browsers_play_from_its_start(tmp_path):
    with open_frame_source(grey()) as source:
        assert save_video(tmp_path / "out.mp4", source, [track([1])]) == "libx264"
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        first = next(container.demux(stream))
        assert first.pts == first.dts == 0 and first.is_keyframe
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads


def test_the_last_frame_is_shown_as_long_as_the_one_before(tmp_path):
    with ImageListSource(grey(10), fps=10) as source:
        save_video(tmp_path / "out.mp4", source, [track([1])])
    with open_frame_source(tmp_path / "out.mp4") as drawn:
        assert drawn.info.duration_seconds == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("frames", [None, range(0, 12)])
@pytest.mark.parametrize("shift", [0.5, -0.2])
def test_it_is_in_step_with_a_video_that_does_not_start_at_zero(tmp_path, shift, frames):
    clip = write_video(
        tmp_path / "in.mp4", 24, b_frames=2, with_audio=True,
        shift_ticks=round(shift * TICKS_PER_SECOND),
        container_options={
            "movflags": "frag_keyframe+empty_moov+delay_moov", "avoid_negative_ts": "disabled",
        },
    )
    with open_frame_source(clip) as source:
        assert source.info.start_seconds == pytest.approx(shift, abs=1e-3)
        save_video(tmp_path / "out.mp4", source, [], frames=frames)
        times = source.info.frame_times_seconds[: len(frames or source)]
    with open_frame_source(tmp_path / "out.mp4") as drawn:
        np.testing.assert_allclose(
            drawn.info.frame_times_seconds, np.maximum(times, 0), atol=1e-4
        )
    with av.open(str(tmp_path / "out.mp4")) as container:
        # What Chromium says it is, and no seek goes further.
        assert container.duration / 1e6 == pytest.approx(times[-1] + 0.04, abs=1e-3)


def test_a_part_of_the_video_starts_at_zero(tmp_path):
    with ImageListSource(grey(10), fps=10) as source:
        save_video(tmp_path / "out.mp4", source, [track([4])], frames=range(3, 6))
    with open_frame_source(tmp_path / "out.mp4") as drawn:
        np.testing.assert_allclose(drawn.info.frame_times_seconds, [0, 0.1, 0.2], atol=1e-5)
    assert [is_marked(picture) for picture in pictures_of(tmp_path / "out.mp4")] == [0, 1, 0]


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [
        ((641, 361), None, (642, 362)),
        ((640, 360), 321, (322, 182)),
        ((640, 360), 320, (320, 180)),
        ((96, 64), None, (480, 320)),
        ((1, 1), None, (480, 480)),
        ((3, 700), None, (16, 3734)),
    ],
)
def test_sizes_are_even_and_small_videos_enlarged(tmp_path, size, width, expected):
    with open_frame_source(grey(2, size)) as source:
        save_video(tmp_path / "out.mp4", source, [], width=width)
    with open_frame_source(tmp_path / "out.mp4") as drawn:
        assert (drawn.info.width, drawn.info.height) == expected


@pytest.mark.parametrize("codec", [codec.name for codec in video_module._CODECS])
def test_every_codec_that_is_there_writes_the_same_frames(tmp_path, monkeypatch, codec):
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this PyAV has no {codec}")
    chosen = [item for item in video_module._CODECS if item.name == codec]
    monkeypatch.setattr(video_module, "_CODECS", chosen)
    with ImageListSource(grey(5), fps=25) as source:
        assert save_video(tmp_path / "out.mp4", source, [track([2])]) == codec
    with open_frame_source(tmp_path / "out.mp4") as drawn:
        np.testing.assert_allclose(
            drawn.info.frame_times_seconds, np.arange(5) / 25, atol=1e-4
        )
    assert [is_marked(p) for p in pictures_of(tmp_path / "out.mp4")] == [0, 0, 1, 0, 0]


def test_without_any_encoder_the_names_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(
        video_module, "_CODECS", [video_module._Codec("libnone", "yuv420p", 90_000, {})]
    )
    with open_frame_source(grey(1)) as source:
        with pytest.raises(ValueError, match="no video encoder for mp4: none of libnone"):
            save_video(tmp_path / "out.mp4", source, [])


@pytest.mark.parametrize("save", [save_video, save_gif])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": range(5, 5)}, "must be consecutive"),
        ({"frames": range(0, 13)}, "within \\[0, 12\\)"),
        ({"frames": range(0, 10, 2)}, "must be consecutive"),
        ({"frames": range(-1, 3)}, "must be consecutive"),
        ({"width": 15}, "width=15 must be at least 16"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, save, options, message):
    with open_frame_source(grey()) as source, pytest.raises(ValueError, match=message):
        save(tmp_path / "out", source, [], **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("save", [save_video, save_gif])
def test_stopping_in_the_middle_leaves_the_old_file_as_it_was(tmp_path, save):
    (tmp_path / "out").write_bytes(b"old")

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with open_frame_source(grey()) as source, pytest.raises(KeyboardInterrupt):
        save(tmp_path / "out", source, [], progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_bytes() == b"old"


@pytest.mark.parametrize("save", [save_video, save_gif])
def test_a_folder_that_is_not_there_is_an_os_error(tmp_path, save):
    with open_frame_source(grey()) as source, pytest.raises(OSError, match="No such file"):
        save(tmp_path / "none" / "out", source, [])


@pytest.mark.parametrize("save", [save_video, save_gif])
def test_a_size_the_format_cannot_hold_is_a_value_error(tmp_path, save):
    with open_frame_source([np.zeros((1, 4000, 3), np.uint8)]) as source:
        with pytest.raises(ValueError, match="cannot be encoded"):
            save(tmp_path / "out", source, [], width=70_000)


def test_a_gif_keeps_times_and_masks_and_repeats(tmp_path):
    ticks = [0, 2000, 4000, 9000, 11000, 13000]
    seconds = np.array(ticks) / TICKS_PER_SECOND
    write_video(tmp_path / "in.mp4", 6, size=SIZE, frame_ticks=ticks, pictures=grey(6))
    with open_frame_source(tmp_path / "in.mp4") as source:
        save_gif(tmp_path / "out.gif", source, [track([1, 4])], width=640)
    with Image.open(tmp_path / "out.gif") as gif:
        assert (gif.format, gif.n_frames, gif.size, gif.info["loop"]) == ("GIF", 6, SIZE, 0)
        marked, durations = [], []
        for place in range(gif.n_frames):
            gif.seek(place)
            durations.append(gif.info["duration"] / 1000)
            marked.append(is_marked(gif))
    np.testing.assert_allclose(durations[:-1], np.diff(seconds), atol=0.011)
    assert durations[-1] == pytest.approx(durations[-2], abs=0.011)
    assert marked == [False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("fps", "max_fps", "expected"), [(25, 12.5, 8), (30, 10, 5), (5, 12.5, 15), (1, 50, 15)]
)
def test_a_gif_leaves_frames_out_to_keep_its_rate(tmp_path, fps, max_fps, expected):
    moving = [np.full((64, 96, 3), 10 * i, np.uint8) for i in range(15)]
    with ImageListSource(moving, fps=fps) as source:
        save_gif(tmp_path / "out.gif", source, [], max_fps=max_fps, width=96)
    with Image.open(tmp_path / "out.gif") as gif:
        assert gif.n_frames == expected


@pytest.mark.parametrize("max_fps", [0, -1, 51, float("nan")])
def test_a_rate_that_no_gif_has_is_refused(tmp_path, max_fps):
    with open_frame_source(grey(2)) as source, pytest.raises(ValueError, match="max_fps="):
        save_gif(tmp_path / "out.gif", source, [], max_fps=max_fps)


@pytest.mark.parametrize("save", [save_video, save_gif])
def test_memory_does_not_grow_with_the_frames(tmp_path, save):
    def peak(count):
        with ImageListSource(grey(1, (64, 36)) * count, fps=25) as source:
            tracemalloc.start()
            save(tmp_path / "out", source, [], width=64)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return most

    peak(300)  # what is loaded once, and fills caches that are bounded
    few, many = peak(300), peak(1200)
    assert many - few < 900 * 6912 / 10  # a tenth of a picture: its time and place


@pytest.mark.parametrize("save", [save_video, save_gif])
def test_the_same_input_gives_the_same_bytes(tmp_path, save):
    for name in ("one", "two"):
        with open_frame_source(grey(4)) as source:
            save(tmp_path / name, source, [track([1])])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
