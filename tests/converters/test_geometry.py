import math
import time

import numpy as np
import pytest

from converters.geometry import (
    box_iou,
    clip_box,
    index_to_ls_frame,
    indices_of_ls_frames,
    ls_frame_to_index,
    ls_frames_count,
    percent_to_pixel_box,
    pixel_to_percent_box,
)
from converters.types import Box
from tests.converters.cases import payload

OBSERVED = payload("frames_observed_sample")["data"]
REAL_FPS = {"n25": 25.0, "n30": 30.0, "n2997": 30000 / 1001}


def times(fps, count):
    return tuple(i / fps for i in range(count))


def variable_rate_times(count, seed=0):
    steps = np.random.default_rng(seed).choice([0.01, 0.02, 0.033, 0.04, 0.2], count - 1)
    return tuple(np.concatenate([[0.0], np.cumsum(steps)]).tolist())


@pytest.mark.parametrize("series", OBSERVED, ids=[s["video"] for s in OBSERVED])
def test_frames_are_those_that_the_real_editor_showed(series):
    frame_times = times(REAL_FPS[series["video"]], 120)
    for ls_frame, shown, *_ in series["rows"]:
        assert ls_frame_to_index(ls_frame, series["cfg"], frame_times) == shown


@pytest.mark.parametrize(
    ("framerate", "frame_times"),
    [
        # The video's own rate, also the ones that are no whole number.
        (25, times(25, 300)),
        (30000 / 1001, times(30000 / 1001, 300)),
        # Below: some frames are never shown. Above: some are shown twice.
        (10, times(30, 300)),
        (24, times(30, 300)),
        (60, times(30, 300)),
        # A video whose first time is not 0, and one with frames before 0.
        (25, tuple(0.5 + t for t in times(25, 300))),
        (24, tuple(0.51 + t for t in times(25, 300))),
        (25, tuple(t - 0.2 for t in times(25, 300))),
        # Variable rate.
        (25, variable_rate_times(300)),
        # Faster than the editor's 2 ms steps.
        (1000, times(25, 50)),
    ],
)
def test_the_ls_frame_of_an_index_shows_that_index(framerate, frame_times):
    ls_frames = range(1, 2 + math.ceil((frame_times[-1] + 0.3) * framerate))
    shown = [ls_frame_to_index(n, framerate, frame_times) for n in ls_frames]

    assert shown == indices_of_ls_frames(ls_frames, framerate, frame_times).tolist()
    for index in range(len(frame_times)):
        expected = ls_frames[shown.index(index)] if index in shown else None
        assert index_to_ls_frame(index, framerate, frame_times) == expected


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        (0.5, [0] * 14 + list(range(1, 11))),  # sound first, an mp4
        (0.1, [0] * 4 + list(range(1, 21))),  # sound first, a WebM
        (0.08, [0] * 3 + list(range(1, 22))),  # B-frames, no edit list
        (-0.2, list(range(5, 29))),  # a fragmented mp4 that hides five frames
    ],
)
def test_the_first_picture_is_shown_until_its_time_as_chromium_does(start, shown):
    frame_times = tuple(start + t for t in times(25, 30))
    assert [ls_frame_to_index(n, 25, frame_times) for n in range(1, 25)] == shown
    assert index_to_ls_frame(0, 25, frame_times) == (1 if start > 0 else None)
    assert index_to_ls_frame(7, 25, frame_times) == 1 + shown.index(7)


def test_a_frame_after_the_editors_last_one_cannot_be_shown():
    assert index_to_ls_frame(9, 25, times(25, 10), frames_count=10) == 10
    assert index_to_ls_frame(9, 25, times(25, 10), frames_count=9) is None


def test_ten_thousand_frames_are_fast():
    frame_times = times(29.97, 10_000)
    start = time.perf_counter()
    for index in range(0, 10_000):
        index_to_ls_frame(index, 29.97, frame_times)
    assert time.perf_counter() - start < 2


def test_the_frame_count_is_rounded_half_up():
    assert ls_frames_count(4.0, 25) == 100
    assert ls_frames_count(42.008633, 25) == 1050
    assert ls_frames_count(0.1, 25) == 3  # 2.5, which Python would round to 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ls_frame_to_index(0, 25, (0.0,)), "ls_frame=0 must be an integer >= 1"),
        (lambda: ls_frame_to_index(1.5, 25, (0.0,)), "ls_frame=1.5"),
        (lambda: ls_frame_to_index(1, 0, (0.0,)), "framerate=0"),
        (lambda: ls_frame_to_index(1, math.nan, (0.0,)), "framerate=nan"),
        (lambda: ls_frame_to_index(1, 25, ()), "frame_times_seconds is empty"),
        (lambda: index_to_ls_frame(1, 25, (0.0,)), r"frame_index=1 must be in \[0, 1\)"),
        (lambda: index_to_ls_frame(-1, 25, (0.0,)), "frame_index=-1"),
        (lambda: indices_of_ls_frames([0], 25, (0.0,)), "must be integers >= 1"),
    ],
)
def test_bad_frames_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_boxes_between_percent_and_pixels():
    box = percent_to_pixel_box(25, 50, 50, 25, size_hw=(100, 200))
    assert box == Box(50, 50, 150, 75)
    assert pixel_to_percent_box(box, (100, 200)) == (25, 50, 50, 25)


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        # A quarter turn clockwise about the top-left corner swings it to the left.
        (90, (70, 50, 100, 150)),
        (180, (0, 20, 100, 50)),
        (270, (100, -50, 130, 50)),
        (-90, (100, -50, 130, 50)),
        (360, (100, 50, 200, 80)),
    ],
)
def test_a_box_turns_clockwise_about_its_top_left_corner(degrees, expected):
    box = percent_to_pixel_box(
        25, 12.5, 25, 7.5, size_hw=(400, 400), rotation_degrees=degrees
    )
    got = (box.x_min, box.y_min, box.x_max, box.y_max)
    assert got == pytest.approx(expected)


def test_a_turned_box_is_computed_in_pixels():
    box = percent_to_pixel_box(35, 40, 20, 30, size_hw=(1080, 1920), rotation_degrees=30)
    width, height = 0.2 * 1920, 0.3 * 1080
    cosine, sine = math.cos(math.pi / 6), 0.5
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == pytest.approx(
        (672 - height * sine, 432, 672 + width * cosine, 432 + width * sine + height * cosine)
    )


def test_clipping_keeps_the_part_inside_the_frame():
    assert clip_box(Box(-5, 2, 20, 300), (100, 10)) == Box(0, 2, 10, 100)
    assert clip_box(Box(-5, 2, 0, 30), (100, 10)) is None
    assert clip_box(Box(3, 3, 3, 30), (100, 10)) is None


def test_box_iou():
    assert box_iou(Box(0, 0, 2, 2), Box(1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert box_iou(Box(0, 0, 2, 2), Box(2, 0, 3, 2)) == 0.0
    assert box_iou(Box(1, 1, 1, 1), Box(1, 1, 1, 1)) == 0.0
