import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.label_studio.keyframes import PercentBox
from converters.label_studio.lifespan import read_lifespan, rectangle_mask
from converters.label_studio.polygons import outline_mask
from converters.masks import decode_mask, encode_mask
from tests.converters.cases import constant_rate_info

INFO = constant_rate_info(10, width=20, height=10)
SIZE = (10, 20)


def keyframe(frame, x=10.0, enabled=True, **fields):
    return {"frame": frame, "x": x, "y": 0, "width": 10, "height": 100, "enabled": enabled, **fields}


def span_of(*sequence, count=10, framerate=25.0):
    region = {"id": "r", "value": {"framesCount": count, "duration": 0.4, "sequence": list(sequence)}}
    return read_lifespan(region, INFO, framerate)


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        # Before the first none; after the last it holds, to framesCount.
        ([keyframe(4)], range(3, 10)),
        # The key frame that disables is itself visible.
        ([keyframe(2), keyframe(5, enabled=False)], range(1, 5)),
        ([keyframe(2), keyframe(5, enabled=False), keyframe(8)], [1, 2, 3, 4, 7, 8, 9]),
        # Unsorted and duplicate.
        ([keyframe(8), keyframe(2)], [7, 8, 9]),
        ([keyframe(8), keyframe(2, enabled=False)], []),
        ([keyframe(3), keyframe(3, x=50, enabled=False)], [2]),
        # Past framesCount: aimed at, never shown.
        ([keyframe(2), keyframe(50, x=60)], range(1, 10)),
        ([keyframe(50)], []),
        # Without enabled, rotation and time: visible on its own frame.
        ([{"frame": 3, "x": 0, "y": 0, "width": 9, "height": 9}], [2]),
        ([], []),
    ],
)
def test_the_life_span_is_the_editors(sequence, expected):
    span = span_of(*sequence)
    assert list(span.boxes) == list(expected) == list(span.stale)
    assert span.masks == {} and span.hidden == ()


def test_boxes_move_in_straight_lines():
    span = span_of(keyframe(1, x=0), keyframe(10, x=90))
    assert [box.x_percent for box in span.boxes.values()] == pytest.approx([*range(0, 100, 10)])


def test_frames_that_the_browser_counts_beyond_ours_show_the_last_picture():
    span = span_of(keyframe(11, x=50), count=11)
    assert list(span.boxes) == [9] and list(span.drawn) == [9]


percents = st.floats(-50, 150)


@settings(max_examples=300, deadline=None)
@given(percents, percents, st.floats(-20, 120), st.floats(-20, 120), st.sampled_from([0, 360, -720]))
def test_an_upright_box_written_as_runs_is_the_filled_box(x, y, width, height, turn):
    box = PercentBox(x, y, width, height, turn)
    filled = outline_mask(PercentBox(x, y, width, height).corners(SIZE), SIZE)
    rle = rectangle_mask(box, SIZE)
    assert rle == (encode_mask(filled) if filled.any() else None)


def test_a_turned_box_turns_in_pixels_about_its_top_left_corner():
    rle = rectangle_mask(PercentBox(50, 50, 25, 10, 90), SIZE)
    assert np.argwhere(decode_mask(rle)).tolist() == [[row, 9] for row in range(5, 10)]
