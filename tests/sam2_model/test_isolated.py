"""Decoding in a process of its own: the same frames, and nothing that a file does is felt here."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_model.video import (
    DecodingLimits,
    IsolatedSource,
    OpeningGivenUp,
    VideoDecodeError,
    VideoDecodeWarning,
    VideoFileSource,
)
from sam2_model.video import isolated as isolated_module
from sam2_model.video.channel import Channel
from tests import hostile_media
from tests.video_files import overwrite_packet, shown_index, write_video

LIMITS = DecodingLimits(memory_bytes=1024 * 2**20, open_seconds=120, max_frames=1000)


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "a.mp4", 24)


def decoder_of(source):
    return source._decoder.process_id


def test_frames_are_those_of_the_same_process(video):
    with IsolatedSource(video) as there, VideoFileSource(video) as here:
        assert there.info == here.info and len(there) == 24
        for step in (1, -1):
            for (i, a), (j, b) in zip(there.frames(3, 20, step=step), here.frames(3, 20, step=step)):
                assert i == j and a.flags.c_contiguous and a.flags.writeable
                np.testing.assert_array_equal(a, b)
        for index in (23, 0, 11):
            np.testing.assert_array_equal(there.frame(index), here.frame(index))


def test_images_are_frames_too(tmp_path):
    files = []
    for shade in (10, 20, 30):
        files.append(tmp_path / f"{shade}.png")
        Image.new("RGB", (8, 6), (shade, 0, 0)).save(files[-1])
    with IsolatedSource(files) as source:
        assert (source.info.width, source.info.height, len(source)) == (8, 6, 3)
        assert [image[0, 0, 0] for _, image in source.frames()] == [10, 20, 30]


def test_many_threads_read_at_once(video):
    problems = []

    def read(source, number):
        try:
            for index, image in source.frames(number):
                assert shown_index(image) == index
            assert shown_index(source.frame(number)) == number
        except BaseException as error:
            problems.append(error)

    with IsolatedSource(video) as source:
        threads = [threading.Thread(target=read, args=(source, n)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not problems


def test_closing_leaves_running_iterators_and_then_ends_the_process(video):
    source = IsolatedSource(video)
    frames = source.frames()
    next(frames)
    source.close()
    source.close()
    assert [index for index, _ in frames] == list(range(1, 24))
    with pytest.raises(ValueError, match="is closed"):
        source.frame(0)
    with pytest.raises(ValueError, match="is closed"):
        source.frames()


def test_a_dropped_iterator_does_not_keep_the_others_waiting(video):
    with IsolatedSource(video) as source:
        for _ in range(20):
            frames = source.frames()
            next(frames)
            frames.close()
        assert shown_index(source.frame(7)) == 7


def test_damage_is_told_as_here(tmp_path):
    path = overwrite_packet(write_video(tmp_path / "a.mp4", 24), 15, 4, bytes(200))
    told = []
    for kind in (VideoFileSource, IsolatedSource):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with kind(path) as source:
                list(source.frames())
        told.append([str(w.message) for w in caught if w.category is VideoDecodeWarning])
    assert told[0] and told[0] == told[1]


def test_errors_are_those_of_the_same_process(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such video file"):
        IsolatedSource(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoDecodeError, match="text.mp4: not a video that can be read"):
        IsolatedSource(tmp_path / "text.mp4")


# --- a decoder that breaks --------------------------------------------------------


def test_a_decoder_that_crashes_is_an_error_about_the_file_and_is_started_again(video):
    with IsolatedSource(video) as source:
        before = decoder_of(source)
        os.kill(before, signal.SIGSEGV)
        with pytest.raises(VideoDecodeError, match=r"a\.mp4: cannot be decoded: .*crashed"):
            source.frame(0)
        assert shown_index(source.frame(5)) == 5
        assert decoder_of(source) != before


def test_a_decoder_that_stalls_is_ended(video):
    with IsolatedSource(video, limits=DecodingLimits(frame_seconds=0.2)) as source:
        os.kill(decoder_of(source), signal.SIGSTOP)
        with pytest.raises(VideoDecodeError, match="took longer than 0.2 s"):
            source.frame(0)


def test_a_decoder_ends_with_whoever_started_it_and_so_does_what_starts_them(video):
    source = IsolatedSource(video)
    isolated_module._processes.end()
    with pytest.raises(VideoDecodeError, match="crashed"):
        source.frame(0)
    assert shown_index(source.frame(1)) == 1  # by others, that were started anew
    source.close()


def test_an_idle_decoder_gives_its_memory_back_and_goes_on(tmp_path):
    path = write_video(tmp_path / "a.mp4", 12, size=(1920, 1088))
    with IsolatedSource(path, limits=DecodingLimits(idle_seconds=0.2)) as source:
        kept, here = source.frames(), decoder_of(source)
        next(kept)  # a range that nobody reads on does not keep others waiting
        assert shown_index(source.frame(3)) == 3
        most = memory_bytes(here)
        assert [index for index, _ in kept] == list(range(1, 12))
        assert shown_index(source.frame(9)) == 9
        ends = time.monotonic() + 30
        while memory_bytes(here) > most - 30 * 2**20 and time.monotonic() < ends:
            time.sleep(0.05)
        assert memory_bytes(here) <= most - 30 * 2**20
        assert shown_index(source.frame(7)) == 7 and decoder_of(source) == here


def memory_bytes(process_id):
    """What is the process's own."""
    lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) * 1024


def test_a_file_that_nobody_waits_for_any_more_is_given_up(tmp_path, video):
    path = hostile_media.gif_of_costly_frames(tmp_path / "a.gif")
    with IsolatedSource(video) as other:
        known = hostile_media.decoders()
        asked = iter([False, True])
        with pytest.raises(OpeningGivenUp):
            IsolatedSource(path, is_given_up=lambda: next(asked))
        assert shown_index(other.frame(3)) == 3
        assert hostile_media.no_more_decode_than(known)


def test_a_file_that_takes_too_long_to_open_leaves_no_process(tmp_path):
    path, known = hostile_media.gif_of_costly_frames(tmp_path / "a.gif"), hostile_media.decoders()
    with pytest.raises(VideoDecodeError, match="a.gif: .*took longer than 0.3 s"):
        IsolatedSource(path, limits=DecodingLimits(open_seconds=0.3))
    assert hostile_media.no_more_decode_than(known)


def test_the_decoder_knows_nothing_of_the_environment(video, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "planted-key")
    isolated_module._processes.end()
    with IsolatedSource(video) as source:
        with open(f"/proc/{decoder_of(source)}/environ", "rb") as file:
            assert b"planted-key" not in file.read()
        with open(f"/proc/{decoder_of(source)}/limits", encoding="ascii") as file:
            limits = {line[:26].strip(): line.split()[3:] for line in file}
    assert limits["Max file size"][0] == "0"


@pytest.mark.parametrize(
    "answer",
    [
        {"info": {}, "warnings": []},
        {"warnings": []},
        [],
        {"info": {"width": -1, "height": 1, "frame_count": 0, "fps": 0.0,
                  "frame_times_seconds": [], "duration_seconds": 0.0}, "warnings": []},
        {"info": {"width": 10**6, "height": 10**6, "frame_count": 0, "fps": 0.0,
                  "frame_times_seconds": [], "duration_seconds": 0.0}, "warnings": []},
    ],
)  # fmt: skip
def test_what_a_captured_decoder_says_is_not_trusted(video, monkeypatch, answer):
    class Captured:
        process_id, parent = 0, None

        def __init__(self):
            self.channel, theirs = Channel.pair()
            with theirs:
                Channel(theirs).send(answer)
                self.theirs = theirs.dup()

        def close(self):
            self.channel.close()
            self.theirs.close()

        kill = close

    captured = Captured()
    monkeypatch.setattr(isolated_module._processes, "start", lambda memory_bytes: captured)
    with pytest.raises(VideoDecodeError, match="gave a wrong answer"):
        IsolatedSource(video)


# --- files that are made to harm --------------------------------------------------


def is_refused(files, message, limits=LIMITS):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoDecodeWarning)
        with pytest.raises(VideoDecodeError, match=message):
            with IsolatedSource(files, limits=limits) as source:
                for _ in source.frames():
                    pass


@pytest.mark.parametrize("make", [hostile_media.huge_png_header, hostile_media.png_bomb])
def test_an_image_that_unfolds_is_refused_by_its_header(tmp_path, make):
    is_refused([make(tmp_path / "a.png")], "may have 64000000 in all|not an image")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (hostile_media.y4m_of_huge_frames, "a.y4m"),
        (hostile_media.gif_of_huge_frames, "a.gif"),
        (hostile_media.mp4_of_huge_pictures, "a.mp4"),
    ],
)
def test_pictures_of_any_size_are_not_made_room_for(tmp_path, make, name):
    is_refused(make(tmp_path / name), "a.(y4m|gif|mp4)")


def test_a_picture_over_the_limit_is_told_with_the_rule(video):
    is_refused(video, "pictures have 96 x 64 pixels, may have 6000", DecodingLimits(max_pixels=6000))


@pytest.mark.parametrize(
    ("make", "name"),
    [(hostile_media.gif_of_many_frames, "a.gif"), (hostile_media.y4m_of_tiny_frames, "a.y4m")],
)
def test_frames_are_counted_no_further_than_allowed(tmp_path, make, name):
    is_refused(make(tmp_path / name, 20_000), "has more than 1000 frames")


@pytest.mark.parametrize("count", [0x7FFFFFFF, 60_000_000])
def test_tables_that_tell_of_endless_frames_take_the_decoders_memory_alone(tmp_path, count):
    is_refused(hostile_media.mp4_of_endless_duration(tmp_path / "a.mp4", count), "a.mp4")


def test_a_thousand_streams_are_no_more_than_one(tmp_path):
    path = hostile_media.mkv_of_many_streams(tmp_path / "a.mkv", 600)
    with IsolatedSource(path, limits=LIMITS) as source:
        assert len(source) == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.png"])
def test_an_archive_is_not_unpacked(tmp_path, name):
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.mp4", bytes(50 * 2**20))
    is_refused([path] if name == "a.png" else path, "not a video|not an image")


def test_an_image_that_is_a_program_is_not_run(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    is_refused([path], "not an image")


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"), ("a.mkv", "libx265"), ("a.webm", "libvpx-vp9"),
        ("a.mp4", "libsvtav1"), ("a.avi", "mpeg4"), ("a.ts", "libx264"), ("a.mov", "mjpeg"),
    ],
)  # fmt: skip
def test_flipped_bits_and_cuts_are_errors_or_damage(tmp_path, name, codec):
    good = write_video(
        tmp_path / name, 20, codec=codec, b_frames=2 if codec == "libx264" else 0,
        pixel_format="yuvj420p" if codec == "mjpeg" else "yuv420p",
    ).read_bytes()
    chance = random.Random(codec + name)
    path = tmp_path / f"broken-{name}"
    for number in range(40):
        data = bytearray(good)
        if number % 4 == 0:
            del data[chance.randrange(len(data)) :]
        for _ in range(min(len(data), chance.choice((1, 5, 50, 300)))):
            # The container's tables are at the ends.
            at = chance.choice((chance.randrange(len(data)), -1 - chance.randrange(len(data)) // 8))
            data[at] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VideoDecodeWarning)
            try:
                with IsolatedSource(path, limits=LIMITS) as source:
                    size = (source.info.height, source.info.width, 3)
                    assert all(image.shape == size for _, image in source.frames())
            except VideoDecodeError as error:
                assert name in str(error)
