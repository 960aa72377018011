"""Frame sources: real files, written at test time, that show their frame indices."""

import gc
import itertools
import os
import random
import threading
import time
import warnings

import av
import numpy as np
import pytest
from PIL import Image

from sam2_model.video import (
    ImageFolderSource,
    ImageListSource,
    VideoDecodeError,
    VideoDecodeWarning,
    VideoFileSource,
    open_frame_source,
    video_file,
)
from sam2_model.video.frame_index import index_by_packets
from sam2_model.video.reader import Reader
from tests.video_files import (
    TICKS_PER_FRAME,
    TICKS_PER_SECOND,
    decoded_pts,
    index_picture,
    overwrite_packet,
    set_display_matrix,
    shown_index,
    write_tone,
    write_video,
)

FILES = [
    # name, arguments of write_video, does the index need only the packets
    ("h264.mp4", {}, True),
    ("h264_b.mp4", {"b_frames": 3}, True),
    ("h264_open.mp4", {"b_frames": 3, "open_gop": True}, True),
    ("h264_one_gop.mkv", {"b_frames": 2, "key_interval": 250}, True),
    ("h264_audio.mp4", {"b_frames": 2, "with_audio": True}, True),
    ("h264.mov", {"b_frames": 2}, True),
    ("h264_fragments.mp4", {"container_options": {"movflags": "frag_keyframe"}}, True),
    ("h264.ts", {"b_frames": 2}, False),
    ("h264.flv", {"b_frames": 2}, False),
    ("h264.avi", {"b_frames": 2}, False),  # no presentation times
    ("h264.h264", {"b_frames": 2, "container_format": "h264"}, False),  # no times
    ("hevc.mp4", {"codec": "libx265", "b_frames": 3}, True),
    ("hevc_open.mkv", {"codec": "libx265", "b_frames": 3, "open_gop": True}, True),
    ("vp9.webm", {"codec": "libvpx-vp9"}, True),
    ("vp9.ivf", {"codec": "libvpx-vp9"}, False),
    ("av1.mp4", {"codec": "libsvtav1"}, True),
    ("av1.mkv", {"codec": "libsvtav1"}, True),
    ("mpeg4.mp4", {"codec": "mpeg4", "b_frames": 2}, False),
    ("mpeg4.avi", {"codec": "mpeg4"}, False),
    ("mpeg4_b.avi", {"codec": "mpeg4", "b_frames": 2}, False),
    ("mjpeg.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}, False),
    ("mjpeg.mp4", {"codec": "mjpeg", "pixel_format": "yuvj420p"}, True),
    ("mjpeg.mjpeg", {"codec": "mjpeg", "pixel_format": "yuvj420p"}, False),  # no times
    ("ten_bit.mp4", {"codec": "libx265", "pixel_format": "yuv420p10le"}, True),
    ("ten_bit.mkv", {"pixel_format": "yuv420p10le", "b_frames": 2}, True),
    ("odd.mkv", {"pixel_format": "yuv444p", "size": (97, 65)}, True),
    ("odd.webm", {"codec": "libvpx-vp9", "size": (97, 65)}, True),
    ("odd.avi", {"codec": "mpeg4", "size": (97, 65)}, False),
]


def prefetch_threads():
    return [t for t in threading.enumerate() if t.name == "frame-prefetch"]


def shown(frames):
    return [(index, shown_index(image)) for index, image in frames]


def same(indices):
    return [(index, index) for index in indices]


def without_decoding(path):
    """Whether the index of a file is built from its packets alone."""
    reader = Reader(path, 1)
    try:
        return index_by_packets(reader) is not None
    finally:
        reader.close()


# ------------------------------------------------------------- every container


@pytest.mark.parametrize("name, arguments, clean", FILES, ids=[f[0] for f in FILES])
def test_forward_backward_and_random_reading_give_the_same_frames(
    tmp_path, name, arguments, clean
):
    path = write_video(tmp_path / name, **arguments)
    with VideoFileSource(path) as source:
        assert len(source) == source.info.frame_count == 24
        size = arguments.get("size", (96, 64))
        assert (source.info.width, source.info.height) == size
        assert len(decoded_pts(path)) == 24
        forward = dict(source.frames())
        assert shown(forward.items()) == same(range(24))
        backward = dict(source.frames(step=-1))
        assert list(backward) == list(range(23, -1, -1))
        order = random.Random(0).sample(range(24), 24)
        for index in order:
            image = source.frame(index)
            assert image.dtype == np.uint8 and image.flags.c_contiguous
            assert image.flags.writeable
            np.testing.assert_array_equal(image, forward[index])
            np.testing.assert_array_equal(image, backward[index])
    assert without_decoding(path) == clean


@pytest.mark.parametrize("name, arguments, clean", FILES, ids=[f[0] for f in FILES])
def test_times_start_at_zero_and_follow_the_frame_rate(
    tmp_path, name, arguments, clean
):
    source = VideoFileSource(write_video(tmp_path / name, **arguments))
    tolerance = 0.0011  # Matroska and FLV store whole milliseconds
    expected = [i / 25 for i in range(24)]
    assert source.info.frame_times_seconds[0] == 0.0
    assert source.info.frame_times_seconds == pytest.approx(expected, abs=tolerance)
    assert source.info.fps == pytest.approx(25)
    assert source.info.duration_seconds == pytest.approx(24 / 25, abs=tolerance)


@pytest.mark.parametrize("b_frames", [0, 3])
def test_variable_rate_keeps_each_frames_own_time(tmp_path, b_frames):
    gaps = [512, 512, 1536, 256, 512, 4096, 512, 300, 700, 512, 512]
    ticks = list(itertools.accumulate(gaps, initial=0))
    path = write_video(
        tmp_path / "vfr.mp4", len(ticks), frame_ticks=ticks, b_frames=b_frames
    )
    with VideoFileSource(path) as source:
        times = [tick / TICKS_PER_SECOND for tick in ticks]
        assert list(source.info.frame_times_seconds) == pytest.approx(times, abs=1e-9)
        assert source.info.fps == pytest.approx(11 / times[-1], rel=0.1)
        assert shown(source.frames()) == same(range(12))
        assert shown_index(source.frame(6)) == 6


def test_first_frame_is_at_zero_when_the_container_starts_later(tmp_path):
    path = write_video(tmp_path / "late.mkv", shift_ticks=TICKS_PER_SECOND * 3)
    source = VideoFileSource(path)
    assert source.info.frame_times_seconds[:2] == (0.0, pytest.approx(0.04, abs=1e-3))
    assert source.info.duration_seconds == pytest.approx(24 / 25, abs=1e-3)


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("hidden", [3, 12])
def test_frames_hidden_by_an_edit_list_have_no_index(tmp_path, b_frames, hidden):
    path = write_video(
        tmp_path / "edit.mp4",
        30,
        b_frames=b_frames,
        shift_ticks=-hidden * TICKS_PER_FRAME,
    )
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert any(packet.is_discard for packet in packets)
    count = len(decoded_pts(path))
    assert count == 30 - hidden
    with VideoFileSource(path) as source:
        expected = [(i, i + hidden) for i in range(count)]
        assert shown(source.frames()) == expected
        assert shown(source.frames(step=-1)) == expected[::-1]
        assert shown_index(source.frame(20 - hidden)) == 20
        assert shown_index(source.frame(0)) == hidden
        assert source.info.frame_times_seconds == pytest.approx(
            [i / 25 for i in range(count)]
        )


@pytest.mark.parametrize(
    "matrix, undo",
    [
        # (a, b, c, d) of the display matrix; how to get the stored picture back
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, 1)),  # clockwise, as phones
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),  # mirrored
    ],
    ids=["none", "clockwise", "half_turn", "counterclockwise", "mirrored"],
)
def test_rotation_metadata_is_applied(tmp_path, matrix, undo):
    path = set_display_matrix(write_video(tmp_path / "rotated.mp4", 12), matrix)
    with VideoFileSource(path) as source:
        turned = matrix[0] == 0
        size = (source.info.width, source.info.height)
        assert size == ((64, 96) if turned else (96, 64))
        for index, image in [*source.frames(), (7, source.frame(7))]:
            assert image.shape == (size[1], size[0], 3) and image.flags.c_contiguous
            assert shown_index(undo(image)) == index


def test_rotation_agrees_with_ffmpegs_own_angle(tmp_path):
    path = set_display_matrix(write_video(tmp_path / "r.mp4", 1), (0, 1, -1, 0))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        expected = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    np.testing.assert_array_equal(VideoFileSource(path).frame(0), expected)


def test_colours_are_rgb(tmp_path):
    colour = np.full((64, 96, 3), (200, 30, 60), dtype=np.uint8)
    path = write_video(tmp_path / "colour.mp4", 1, pictures=[colour])
    difference = VideoFileSource(path).frame(0).astype(int) - colour
    assert np.abs(difference).max() <= 6


def test_frames_after_a_change_of_size_are_scaled_to_the_first_size(tmp_path):
    small = write_video(tmp_path / "a.h264", 8, container_format="h264")
    large = write_video(
        tmp_path / "b.h264", 8, size=(192, 128), container_format="h264"
    )
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with VideoFileSource(both) as source:
        assert (source.info.width, source.info.height) == (96, 64)
        images = dict(source.frames())
    assert {image.shape for image in images.values()} == {(64, 96, 3)}
    assert [shown_index(image) for image in images.values()] == [*range(8)] * 2


@pytest.mark.parametrize(
    "size, codec, pixel_format",
    [((1, 1), "libx264", "yuv444p"), ((1, 1), "libvpx-vp9", "yuv420p")],
)
def test_one_frame_of_one_pixel(tmp_path, size, codec, pixel_format):
    white = np.full((1, 1, 3), 255, dtype=np.uint8)
    path = write_video(
        tmp_path / "dot.mkv",
        1,
        size=size,
        codec=codec,
        pixel_format=pixel_format,
        pictures=[white],
    )
    with VideoFileSource(path) as source:
        assert (source.info.width, source.info.height, len(source)) == (1, 1, 1)
        assert source.frame(0).shape == (1, 1, 3) and source.frame(0).min() > 200
        assert [index for index, _ in source.frames(step=-1)] == [0]
        assert source.info.frame_times_seconds == (0.0,)
        assert source.info.duration_seconds == pytest.approx(0.04, abs=1e-3)


@pytest.mark.parametrize("threads", [1, 4])
def test_decoder_threads_do_not_change_the_frames(tmp_path, threads):
    path = write_video(tmp_path / "a.mp4", b_frames=3)
    with VideoFileSource(path, decoder_threads=threads) as source:
        assert shown(source.frames()) == same(range(24))
        assert shown_index(source.frame(13)) == 13


def test_file_names_that_look_like_protocols_are_files(tmp_path, monkeypatch):
    write_video(tmp_path / "http:clip 100%.mp4", 2)
    monkeypatch.chdir(tmp_path)
    assert len(VideoFileSource("http:clip 100%.mp4")) == 2


# ----------------------------------------------------------------- random access


@pytest.fixture
def decoding_starts(monkeypatch):
    """The timestamps where decoding started, None for the start of the file."""
    starts = []
    real = Reader.frames_from

    def frames_from(self, key, keys):
        frames = real(self, key, keys)
        first = next(frames, None)
        if first is not None:  # a seek that lands
            starts.append(None if key is None else key.pts)
            frames = itertools.chain([first], frames)
        return frames

    monkeypatch.setattr(Reader, "frames_from", frames_from)
    return starts


def test_reading_frame_after_frame_does_not_seek(tmp_path, decoding_starts):
    path = write_video(tmp_path / "a.mp4", 40, key_interval=10)
    with VideoFileSource(path) as source:
        decoding_starts.clear()
        for index in [0, 1, 2, 2, 5, 9, 10, 11]:
            assert shown_index(source.frame(index)) == index
        assert decoding_starts == [None]
        assert shown_index(source.frame(35)) == 35  # a later key frame: seek
        assert decoding_starts == [None, 30 * TICKS_PER_FRAME]


@pytest.mark.parametrize(
    "name",
    [
        *("h264_b.mp4", "h264_open.mp4", "h264.ts", "h264.flv", "hevc_open.mkv"),
        *("vp9.webm", "av1.mp4", "mpeg4.avi", "mjpeg.mp4"),
    ],
)
def test_random_access_starts_at_the_key_frame_before(tmp_path, decoding_starts, name):
    arguments = next(case[1] for case in FILES if case[0] == name)
    with VideoFileSource(write_video(tmp_path / name, **arguments)) as source:
        decoding_starts.clear()
        assert shown_index(source.frame(22)) == 22
    assert len(decoding_starts) == 1 and decoding_starts[0] is not None


def test_a_returned_frame_is_the_callers_to_change(tmp_path):
    with VideoFileSource(write_video(tmp_path / "a.mp4", 4)) as source:
        source.frame(3)[:] = 0
        assert shown_index(source.frame(3)) == 3


@pytest.mark.parametrize("index", [-1, 24, 10**9])
def test_frame_index_out_of_range_names_value_and_rule(tmp_path, index):
    with VideoFileSource(write_video(tmp_path / "a.mp4")) as source:
        with pytest.raises(IndexError, match=rf"a\.mp4.*{index} .*\[0, 24\)"):
            source.frame(index)


@pytest.mark.parametrize("start, stop", [(-1, 5), (0, 25), (7, 6), (25, None)])
def test_frame_range_out_of_range_names_value_and_rule(tmp_path, start, stop):
    with VideoFileSource(write_video(tmp_path / "a.mp4")) as source:
        with pytest.raises(ValueError, match=r"start <= stop <= 24"):
            source.frames(start, stop)


@pytest.mark.parametrize("step", [0, 2, -2])
def test_bad_step_is_refused_at_the_call(step):
    source = ImageListSource([index_picture(0, 8, 8)])
    with pytest.raises(ValueError, match=f"step is {step}, must be 1 or -1"):
        source.frames(step=step)


def test_bad_decoder_threads_are_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", 1)
    with pytest.raises(ValueError, match="decoder_threads is 0, must be >= 1"):
        VideoFileSource(path, decoder_threads=0)


@pytest.mark.parametrize("start, stop", [(0, 24), (3, 17), (10, 11), (9, 21), (5, 5)])
def test_ranges_are_half_open_in_both_directions(tmp_path, start, stop):
    with VideoFileSource(write_video(tmp_path / "a.mp4", b_frames=2)) as source:
        assert shown(source.frames(start, stop)) == same(range(start, stop))
        assert shown(source.frames(start, stop, step=-1)) == same(
            reversed(range(start, stop))
        )


@pytest.mark.parametrize("limit", ["frames", "bytes"])
def test_backward_over_a_long_gop_holds_few_frames(tmp_path, monkeypatch, limit):
    if limit == "frames":
        monkeypatch.setattr(video_file, "_BACKWARD_FRAMES", 4)
    else:
        monkeypatch.setattr(video_file, "_BACKWARD_BYTES", 4 * 96 * 64 * 3)
    held = []
    real = video_file._popped
    monkeypatch.setattr(
        video_file, "_popped", lambda items: held.append(len(items)) or real(items)
    )
    path = write_video(tmp_path / "long.mp4", 30, key_interval=250, b_frames=2)
    with VideoFileSource(path) as source:
        assert shown(source.frames(step=-1)) == same(range(29, -1, -1))
    assert held == [4] * 7 + [2]


def test_backward_chunks_begin_at_key_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, "_BACKWARD_FRAMES", 16)
    held = []
    real = video_file._popped
    monkeypatch.setattr(
        video_file, "_popped", lambda items: held.append(len(items)) or real(items)
    )
    with VideoFileSource(write_video(tmp_path / "a.mp4", 35)) as source:
        assert shown(source.frames(step=-1)) == same(range(34, -1, -1))
    assert held == [15, 10, 10]


# ---------------------------------------------------------------------- threads


def test_iterators_over_one_source_are_independent(tmp_path):
    with VideoFileSource(write_video(tmp_path / "a.mp4", b_frames=2)) as source:
        forward, backward = source.frames(), source.frames(step=-1)
        for i in range(24):
            assert shown_index(next(forward)[1]) == i
            assert shown_index(next(backward)[1]) == 23 - i
            assert shown_index(source.frame((i * 7) % 24)) == (i * 7) % 24
        assert next(forward, None) is next(backward, None) is None


def test_frame_may_be_called_from_many_threads(tmp_path):
    wrong = []
    with VideoFileSource(write_video(tmp_path / "a.mp4", b_frames=2)) as source:

        def read(seed):
            for index in random.Random(seed).choices(range(24), k=12):
                if shown_index(source.frame(index)) != index:
                    wrong.append(index)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("step", [1, -1])
def test_a_closed_or_dropped_iterator_leaves_no_thread(tmp_path, step):
    with VideoFileSource(write_video(tmp_path / "a.mp4", 60)) as source:
        frames = source.frames(step=step)
        assert prefetch_threads() == []  # none before the first frame is wanted
        next(frames)
        assert len(prefetch_threads()) == 1
        frames.close()
        assert prefetch_threads() == []
        for _ in source.frames(step=step):
            break
        gc.collect()
        assert prefetch_threads() == []
        list(source.frames(step=step))
        assert prefetch_threads() == []


def test_prefetching_stays_a_few_frames_ahead():
    read = []

    class Counting(ImageListSource):
        def _read_frame(self, index):
            read.append(index)
            return super()._read_frame(index)

    frames = Counting([index_picture(i, 16, 16) for i in range(50)]).frames()
    next(frames)
    deadline = time.monotonic() + 5
    while len(read) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert read == [0, 1, 2, 3, 4]
    frames.close()


def test_an_error_in_the_thread_is_raised_to_the_consumer(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(index_picture(i, 64, 64)).save(folder / f"{i}.png")
    data = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(data[: len(data) // 2])
    frames = open_frame_source(folder).frames()
    assert shown(itertools.islice(frames, 3)) == same(range(3))
    with pytest.raises(VideoDecodeError, match=r"3\.png: frame 3 cannot be decoded"):
        next(frames)
    assert prefetch_threads() == []


def test_a_closed_source_says_so_and_leaves_running_iterators(tmp_path):
    source = VideoFileSource(write_video(tmp_path / "a.mp4"))
    frames = source.frames()
    next(frames)
    source.frame(0)
    source.close()
    source.close()
    for read in (lambda: source.frame(1), source.frames):
        with pytest.raises(ValueError, match=r"a\.mp4: the frame source is closed"):
            read()
    assert shown(frames) == same(range(1, 24))


# ----------------------------------------------------------------------- damage


def assert_consistent(source, count):
    """All three ways to read agree, and give every index once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoDecodeWarning)
        forward = dict(source.frames())
        assert list(forward) == list(range(count))
        backward = dict(source.frames(step=-1))
        assert list(backward) == list(range(count))[::-1]
        found = {i: shown_index(image) for i, image in forward.items()}
        assert {i: shown_index(image) for i, image in backward.items()} == found
        for i in reversed(range(count)):
            assert shown_index(source.frame(i)) == found[i]
    return list(found.values())


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("cut.mp4", {"container_options": {"movflags": "faststart"}}),
        ("cut_b.mp4", {"container_options": {"movflags": "faststart"}, "b_frames": 3}),
        ("cut_fragments.mp4", {"container_options": {"movflags": "frag_keyframe"}}),
        ("cut.mkv", {"b_frames": 3}),
        ("cut.webm", {"codec": "libvpx-vp9"}),
        ("cut.avi", {"codec": "mpeg4"}),
        ("cut.ts", {"b_frames": 3}),
        ("cut_av1.mkv", {"codec": "libsvtav1"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("kept", [0.5, 0.8])
def test_a_truncated_file_gives_the_frames_that_decode_and_a_warning(
    tmp_path, name, arguments, kept
):
    path = write_video(tmp_path / name, 30, **arguments)
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    middle = packets[int(30 * kept)]
    path.write_bytes(path.read_bytes()[: middle.pos + middle.size // 2])
    with pytest.warns(VideoDecodeWarning, match=rf"{name}: damaged.*frames decode"):
        source = VideoFileSource(path)
    with source:
        assert 0 < len(source) < 30
        found = assert_consistent(source, len(source))
    # The last of them may be half there; what comes before is in its place.
    assert found[:-4] == list(range(len(found)))[:-4]


def test_an_mp4_cut_off_before_its_index_names_file_and_cause(tmp_path):
    path = write_video(tmp_path / "cut.mp4")  # the index comes last
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(VideoDecodeError, match=r"cut\.mp4: not a video.*[Ii]nvalid"):
        VideoFileSource(path)


BAD_PACKETS = [
    # where in the packet, what is written over it
    (0, b"\xff\xff\xff\xff"),  # a length past the end: the packet is an error
    (4, b"\x1f"),  # a reserved NAL type: skipped without an error
]


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("offset, content", BAD_PACKETS, ids=["error", "silent"])
@pytest.mark.parametrize("packet", [27, 39])
def test_a_frame_that_does_not_decode_keeps_its_index_and_shows_the_one_before(
    tmp_path, packet, offset, content, threads
):
    path = write_video(tmp_path / "hole.mp4", 40, key_interval=1)
    overwrite_packet(path, packet, offset, content)
    expected = list(range(40))
    expected[packet] = packet - 1
    with VideoFileSource(path, decoder_threads=threads) as source:
        assert len(source) == 40
        with pytest.warns(VideoDecodeWarning, match=rf"hole\.mp4.*frame {packet} "):
            assert [shown_index(image) for _, image in source.frames()] == expected
        assert assert_consistent(source, 40) == expected


@pytest.mark.parametrize(
    "arguments",
    [{"key_interval": 1}, {"key_interval": 250, "b_frames": 2}],
    ids=["intra", "b_frames"],
)
@pytest.mark.parametrize("packet", [36, 37, 38, 39])
def test_damage_near_the_end_costs_the_same_frames_with_any_number_of_threads(
    tmp_path, packet, arguments
):
    # Decoder threads lose good frames at the end of a file, some without an error.
    path = write_video(tmp_path / "end.mp4", 40, **arguments)
    overwrite_packet(path, packet, 0, b"\xff" * 8)
    found, verified = [], []
    for threads in (1, 4):
        with VideoFileSource(path, decoder_threads=threads) as source:
            found.append(assert_consistent(source, 40))
        with pytest.warns(VideoDecodeWarning, match="39 frames decode"):
            verified.append(VideoFileSource(path, verify=True, decoder_threads=threads))
    assert found[0] == found[1]
    assert sum(a == b for a, b in enumerate(found[0])) >= 37
    assert verified[0].info == verified[1].info


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("packet", [0, 5])
def test_damage_at_the_start_is_found_when_the_file_is_opened(
    tmp_path, packet, threads
):
    path = write_video(tmp_path / "start.mp4", 20, key_interval=1)
    overwrite_packet(path, packet, *BAD_PACKETS[0])
    with pytest.warns(VideoDecodeWarning, match=r"start\.mp4: damaged.*19 frames"):
        source = VideoFileSource(path, decoder_threads=threads)
    with source:
        expected = [i for i in range(20) if i != packet]
        assert assert_consistent(source, 19) == expected


def test_seeking_by_an_index_that_disagrees_with_the_file_gives_no_wrong_frame(
    tmp_path,
):
    # AVI stores no times: read in order, frames are counted; after a seek the
    # index at the end counts them, and still has the one that is lost.
    path = write_video(tmp_path / "lost.avi", codec="mjpeg", pixel_format="yuvj420p")
    overwrite_packet(path, 3, -8, b"JUNK")  # the name of its chunk
    with VideoFileSource(path) as source:
        expected = [i for i in range(24) if i != 3]
        assert [shown_index(image) for _, image in source.frames()] == expected
        assert [shown_index(source.frame(i)) for i in reversed(range(23))] == (
            expected[::-1]
        )


def test_verify_leaves_out_frames_that_do_not_decode(tmp_path):
    path = write_video(tmp_path / "hole.mp4", 40, key_interval=1)
    overwrite_packet(path, 27, 0, b"\xff\xff\xff\xff")
    with pytest.warns(VideoDecodeWarning, match=r"hole\.mp4: damaged.*39 frames"):
        source = VideoFileSource(path, verify=True)
    with source:
        expected = [i for i in range(40) if i != 27]
        assert [shown_index(image) for _, image in source.frames()] == expected
        assert source.info.frame_times_seconds[26:28] == pytest.approx((1.04, 1.12))


def test_verify_of_an_undamaged_file_is_silent(tmp_path):
    path = write_video(tmp_path / "a.mp4", b_frames=3)
    assert VideoFileSource(path, verify=True).info == VideoFileSource(path).info


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1"])
@pytest.mark.parametrize("seed", range(3))
def test_flipped_bits_never_hang_nor_lose_an_index(tmp_path, codec, seed):
    path = write_video(tmp_path / "flipped.mkv", 40, codec=codec)
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        spans = [(p.pos, p.size) for p in packets[18:]]
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    for position, size in chance.sample(spans, 6):
        data[position + chance.randrange(12, 12 + size)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoDecodeWarning)
        source = VideoFileSource(path)
    with source, warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoDecodeWarning)
        count = len(source)
        forward = dict(source.frames())
        assert list(forward) == list(range(count))
        assert [i for i, _ in source.frames(step=-1)] == list(range(count))[::-1]
        # Where nothing is damaged every frame is itself.
        assert [shown_index(forward[i]) for i in range(10)] == list(range(10))
        for i in (0, 5, count - 1):
            assert source.frame(i).shape == (64, 96, 3)


def test_a_hole_in_the_only_gop_shows_the_picture_before_it_everywhere(tmp_path):
    path = write_video(tmp_path / "hole.mp4", 40, key_interval=250)
    for packet in range(30, 40):
        overwrite_packet(path, packet, 4, b"\x1f")
    with VideoFileSource(path) as source:
        with pytest.warns(VideoDecodeWarning, match="frame 39 does not decode"):
            assert shown_index(source.frame(39)) == 29
        assert assert_consistent(source, 40) == [*range(30)] + [29] * 10


# -------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    "name, content, cause",
    [
        ("empty.mp4", b"", "the file is empty"),
        ("notes.txt", b"These are not frames.\n" * 50, "not a video"),
        ("noise.mp4", random.Random(0).randbytes(5000), "not a video"),
        # FFmpeg would open what a playlist or a script names.
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nother.ts\n", "not a video"),
        ("list.mp4", b"ffconcat version 1.0\nfile 'other.mp4'\n", "not a video"),
    ],
)
def test_a_file_that_is_no_video_names_file_and_cause(tmp_path, name, content, cause):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VideoDecodeError, match=rf"{name}: .*{cause}"):
        open_frame_source(path)


def test_an_audio_file_has_no_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        write_tone(container, container.add_stream("aac", rate=48000))
    with pytest.raises(VideoDecodeError, match=r"sound\.mp4: it has no video"):
        VideoFileSource(path)


def test_the_cover_picture_of_a_song_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(index_picture(5, 64, 64), format="rgb24")
        for packet in cover.encode(picture.reformat(format="yuvj420p")):
            container.mux(packet)
        write_tone(container, sound)
    with pytest.raises(VideoDecodeError, match=r"song\.mp4: it has no video"):
        VideoFileSource(path)


def test_a_video_without_frames_is_an_error(tmp_path):
    path = write_video(
        tmp_path / "header.mp4",
        1,
        container_options={"movflags": "empty_moov+frag_keyframe"},
    )
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])
    with pytest.raises(
        VideoDecodeError, match=r"header\.mp4: no frame .*holds no video packets"
    ):
        VideoFileSource(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
        open_frame_source(tmp_path / "nowhere.mp4")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoDecodeError, match=r"pipe\.mp4: not a regular file"):
        VideoFileSource(tmp_path / "pipe.mp4")


# ----------------------------------------------------------------------- images


def save_pictures(folder, names, size=(64, 48)):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(index_picture(i, *size)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ["9.jpg", "10.jpg", "100.jpg"],  # by number
        ["00000.jpg", "00001.JPEG", "2.png"],  # by number, any suffix
        ["a2.png", "a10.png", "b1.png"],  # natural
        ["shot1_9.jpg", "shot1_10.jpg", "shot2_1.jpg"],
        ["7.jpg", "10.jpg", "x.jpg"],  # one name is no number: natural
    ],
)
def test_a_folder_is_in_the_order_of_its_numbers(tmp_path, names):
    folder = save_pictures(tmp_path / "frames", names)
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.jpg").write_text("not a frame")
    with open_frame_source(str(folder)) as source:
        assert shown(source.frames()) == same(range(3))
        assert shown(source.frames(step=-1)) == same([2, 1, 0])
        assert shown_index(source.frame(1)) == 1
        assert (source.info.width, source.info.height) == (64, 48)


def test_times_of_images_tick_once_a_second_unless_a_rate_is_given(tmp_path):
    folder = save_pictures(tmp_path / "frames", ["0.jpg", "1.jpg", "2.jpg"])
    unknown = ImageFolderSource(folder).info
    assert (unknown.fps, unknown.frame_times_seconds) == (0.0, (0.0, 1.0, 2.0))
    assert unknown.duration_seconds == 3.0
    known = ImageFolderSource(folder, fps=4).info
    assert (known.fps, known.frame_times_seconds) == (4.0, (0.0, 0.25, 0.5))
    assert known.duration_seconds == 0.75


def test_one_frame_number_for_two_files_is_refused(tmp_path):
    folder = save_pictures(tmp_path / "frames", ["0001.jpg", "0001.png"])
    with pytest.raises(VideoDecodeError, match=r"0001\.jpg and 0001\.png"):
        ImageFolderSource(folder)


def test_a_folder_with_images_of_two_sizes_names_the_file(tmp_path):
    folder = save_pictures(tmp_path / "frames", ["0.png", "1.png"])
    Image.new("RGB", (32, 48)).save(folder / "2.png")
    with pytest.raises(VideoDecodeError, match=r"2\.png: 32x48 .*64x48"):
        ImageFolderSource(folder)


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(VideoDecodeError, match="no image file"):
        open_frame_source(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        ImageFolderSource(tmp_path / "gone")


def test_a_file_that_is_no_image_is_named(tmp_path):
    folder = save_pictures(tmp_path / "frames", ["0.png"])
    (folder / "1.png").write_text("text")
    with pytest.raises(VideoDecodeError, match=r"1\.png: not an image"):
        ImageFolderSource(folder)


def test_a_list_takes_arrays_pil_images_and_paths(tmp_path):
    save_pictures(tmp_path / "f", ["0.png"] * 3)
    images = [
        index_picture(0, 64, 48),
        Image.fromarray(index_picture(1, 64, 48)),
        str(tmp_path / "f" / "0.png"),
    ]
    with open_frame_source(images) as source:
        assert shown(source.frames()) == same(range(3))
        source.frame(0)[:] = 255
        assert shown_index(source.frame(0)) == 0  # the list's array is untouched
        assert all(source.frame(i).flags.c_contiguous for i in range(3))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "I;16"])
def test_images_of_other_modes_become_rgb(tmp_path, mode):
    if mode == "I;16":
        gray = index_picture(77, 64, 48)[:, :, 0].astype(np.uint16) * 257
        image = Image.fromarray(gray)
    else:
        image = Image.fromarray(index_picture(77, 64, 48)).convert(mode)
    image.save(tmp_path / "0.png")
    np.testing.assert_array_equal(
        ImageFolderSource(tmp_path).frame(0), index_picture(77, 64, 48)
    )


@pytest.mark.parametrize(
    "images, rule",
    [
        ([], "images is empty"),
        ([np.zeros((4, 4), np.uint8)], r"images\[0\] .*must be \(H, W, 3\) uint8"),
        ([np.zeros((4, 4, 3), np.float32)], r"float32, must be \(H, W, 3\) uint8"),
        ([np.zeros((0, 4, 3), np.uint8)], "it has no pixels"),
        ([7], r"images\[0\] is int, must be an array"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], "5x4 .*4x4"),
    ],
)
def test_a_bad_list_names_the_image_and_the_rule(images, rule):
    with pytest.raises(ValueError, match=rule):
        open_frame_source(images)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_bad_rate_is_refused(fps):
    with pytest.raises(ValueError, match="fps is .*must be a finite number > 0"):
        ImageListSource([index_picture(0, 8, 8)], fps=fps)


def test_a_path_in_a_list_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        open_frame_source([tmp_path / "gone.png"])


def test_a_frame_source_is_returned_as_it_is():
    source = ImageListSource([index_picture(0, 8, 8)])
    assert open_frame_source(source) is source


def test_a_source_of_another_type_is_refused():
    with pytest.raises(ValueError, match="source is dict, must be a path"):
        open_frame_source({})
