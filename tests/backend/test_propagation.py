"""Requests to tracks with the real predictor, and which masks are answered."""

import numpy as np
import pytest

from backend.propagation import output_control
from backend.tracking import TrackingOptions, TrackingRun, nearest_to_prompts
from converters.label_studio.config import UnsupportedConfigError, parse_label_config
from converters.label_studio.results import ObjectRequest
from converters.masks import encode_mask, mask_area
from converters.types import Box, Direction, Prompt, Track
from sam2_model.video import open_frame_source
from tests.backend.conftest import FRAME_COUNT

BOX = Box(70, 50, 150, 130)
MASK = encode_mask(np.ones((2, 2), bool))


@pytest.fixture
def source(media_root):
    with open_frame_source(media_root / "n25.mp4") as opened:
        yield opened


def request(object_id, *frames):
    prompts = tuple(Prompt(object_id, frame, box=BOX) for frame in frames)
    return ObjectRequest(object_id, ("Car",), prompts)


def run_of(source, tracker, *requests, **options):
    run = TrackingRun(requests, source.info, TrackingOptions(**options))
    run.run(source, tracker)
    return run.tracked()


@pytest.mark.parametrize(
    ("direction", "expected_a", "expected_b"),
    [
        (Direction.FORWARD, range(2, FRAME_COUNT), range(5, FRAME_COUNT)),
        (Direction.BACKWARD, range(3), range(6)),
        (Direction.BOTH, range(FRAME_COUNT), range(FRAME_COUNT)),
    ],
)
def test_an_object_is_followed_from_its_own_prompts(
    source, tracker, direction, expected_a, expected_b
):
    tracked = run_of(source, tracker, request("b", 5), request("a", 2), direction=direction)
    assert tracked.is_complete
    assert [track.object_id for track in tracked.tracks] == ["b", "a"]
    b, a = tracked.tracks
    assert list(a.scores) == list(expected_a)
    assert list(b.scores) == list(expected_b)
    assert a.labels == ("Car",)


def test_masks_are_kept_where_they_have_pixels(source, tracker):
    (track,) = run_of(source, tracker, request("a", 0)).tracks
    assert list(track.masks) == sorted(track.masks)
    assert {(mask.height, mask.width) for mask in track.masks.values()} == {(240, 320)}
    assert all(mask_area(mask) > 0 for mask in track.masks.values())


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (100, {"a": {0, 1, 2, 3, 9}, "b": {3, 4}}),
        (2, {"a": {1}, "b": {4}}),
        (4, {"a": {0, 1, 2}, "b": {4}}),  # a's 0 and 2 come before b's 3
        (1, {"a": {1}, "b": set()}),
    ],
)
def test_the_masks_nearest_to_their_own_prompts_are_answered(limit, expected):
    tracks = [
        Track("a", ("Car",), dict.fromkeys((0, 1, 2, 3, 9), MASK)),
        Track("b", ("Car",), dict.fromkeys((3, 4), MASK)),
    ]
    assert nearest_to_prompts(tracks, [request("a", 1), request("b", 4)], limit) == expected


def config(*controls):
    inner = "".join(
        f'<{tag} name="{tag}{n}" toName="img"><Label value="{label}"/></{tag}>'
        for n, (tag, label) in enumerate(controls)
    )
    return parse_label_config(f'<View>{inner}<Image name="img" valueList="$frames"/></View>')


@pytest.mark.parametrize(
    ("controls", "expected"),
    [
        ([("BitmaskLabels", "Car"), ("BrushLabels", "Car")], "BrushLabels1"),
        ([("RectangleLabels", "Car"), ("BitmaskLabels", "Car")], "BitmaskLabels1"),
        ([("BrushLabels", "Dog"), ("BitmaskLabels", "Car")], "BitmaskLabels1"),
        ([("KeyPointLabels", "Car"), ("RectangleLabels", "Car")], "RectangleLabels1"),
    ],
)
def test_masks_go_to_the_best_control_that_has_the_label(controls, expected):
    assert output_control(config(*controls), "img", ("Car",)).name == expected


def test_masks_without_a_place_to_go_are_refused():
    with pytest.raises(UnsupportedConfigError, match="Car"):
        output_control(config(("BrushLabels", "Dog")), "img", ("Car",))
