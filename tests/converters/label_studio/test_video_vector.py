import copy
import json

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface

from converters.label_studio.config import parse_label_config
from converters.label_studio.video_vector import (
    drawn_outlines,
    read_video_vector,
    stored_vector_masks,
    track_to_video_vector_region,
    video_vector_requests,
)
from converters.masks import decode_mask, encode_mask, mask_iou
from converters.types import Track, VideoInfo
from tests.converters.cases import DATA, constant_rate_info, five_parts_with_holes, moving_track

XML = {
    name: (DATA / f"configs/config_{name}.xml").read_text()
    for name in ("d1_videovector", "d2_videovectorlabels")
}
CONTROLS = {name: parse_label_config(xml).video_vectors[0] for name, xml in XML.items()}
LABELS = CONTROLS["d2_videovectorlabels"]
INFO = constant_rate_info(40)
TIMES = tuple(np.cumsum([0.0, *np.random.default_rng(5).choice([0.01, 0.03, 0.09], 39)]).tolist())
VARIABLE = VideoInfo(64, 48, 40, 25.0, TIMES, TIMES[-1] + 0.04)
FRAMES = [*range(3, 12), 20, *range(30, 40)]


def to_region(track, *, control=LABELS, info=INFO, framerate=25.0, **options):
    region = track_to_video_vector_region(
        track, control=control, info=info, framerate=framerate, **options
    )
    return json.loads(json.dumps(region))


@pytest.mark.parametrize("name", XML)
def test_the_sdk_accepts_the_region(name):
    region = to_region(moving_track(INFO, FRAMES), control=CONTROLS[name])
    prediction = {"result": [region], "score": region["score"], "model_version": "m"}
    assert LabelInterface(XML[name]).validate_prediction(prediction, return_errors=True) == []
    assert region["type"] == CONTROLS[name].result_type
    for keyframe in region["value"]["sequence"]:
        assert keyframe["time"] == keyframe["frame"] / 25 and keyframe["closed"] is True


@pytest.mark.parametrize(
    ("info", "framerate"),
    [(INFO, 25.0), (INFO, 60.0), (INFO, 10.0), (VARIABLE, 25.0)],
)
def test_masks_come_back_whole(info, framerate):
    track = moving_track(info, FRAMES)
    region = to_region(track, info=info, framerate=framerate)
    masks, scores = read_video_vector(region, info, framerate)
    assert masks == track.masks
    assert scores == pytest.approx(track.scores, rel=1e-2)


def test_each_stretch_is_closed_by_a_keyframe_without_vertices():
    sequence = to_region(moving_track(INFO, FRAMES))["value"]["sequence"]
    ends = [k["frame"] for k in sequence if not k["enabled"]]
    assert ends == [13, 22]  # the last one goes on to the end
    assert all(bool(k["vertices"]) is k["enabled"] for k in sequence)


def test_without_embedded_masks_the_outline_is_the_mask():
    holes = encode_mask(np.pad(five_parts_with_holes(), ((0, 4), (0, 0))))
    info = constant_rate_info(3, width=80, height=64)
    region = to_region(Track("t", ("Car",), {1: holes}), info=info, polygon_tolerance_pixels=0)
    for keyframe in region["value"]["sequence"]:
        keyframe.pop("mask", None)
    assert read_video_vector(region, info, 25.0)[0] == {1: holes}


def test_a_moved_vertex_makes_the_outline_count():
    track = moving_track(INFO, range(5))
    region = to_region(track)
    moved = copy.deepcopy(region)
    moved["value"]["sequence"][2]["vertices"][0]["x"] += 3

    masks, _ = read_video_vector(moved, INFO, 25.0)

    assert masks[2] != track.masks[2] and mask_iou(masks[2], track.masks[2]) > 0.5
    assert {i: m for i, m in masks.items() if i != 2} == {
        i: m for i, m in track.masks.items() if i != 2
    }


def shape(frame, left, **fields):
    corners = [(left, 0), (left + 25, 0), (left + 25, 50), (left, 50)]
    return {"frame": frame, "vertices": [{"x": x, "y": y} for x, y in corners], **fields}


def columns(masks):
    """Frame index -> the columns that the mask covers."""
    return {i: np.flatnonzero(decode_mask(m).any(axis=0)).tolist() for i, m in masks.items()}


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        # Equally many points move in straight lines, then hold to the end.
        ([shape(1, 0), shape(3, 50)], {0: [0], 1: [1], 2: [2], 3: [2]}),
        # Otherwise the earlier outline holds.
        (
            [shape(1, 0), {"frame": 3, "vertices": shape(1, 50)["vertices"][:3]}],
            {0: [0], 1: [0], 2: [2], 3: [2]},
        ),
        # What disables hides the frames after it.
        ([shape(1, 0, enabled=False), shape(4, 50)], {0: [0], 3: [2]}),
        ([shape(1, 0), {"frame": 3, "enabled": False}], {0: [0], 1: [0]}),
        ([{"frame": 2, "enabled": False, "vertices": []}], {}),
        # Past the end.
        ([shape(9, 0)], {}),
    ],
)
def test_a_vector_drawn_by_a_person(sequence, expected):
    info = constant_rate_info(4, width=4, height=4)
    region = {"id": "v", "value": {"framesCount": 4, "duration": 0.16, "sequence": sequence}}
    assert columns(read_video_vector(region, info, 25.0)[0]) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": 0}, r"value\.sequence\[1\]\.frame: 0 must be an integer from 1"),
        ({"frame": -3}, r"value\.sequence\[1\]\.frame: -3"),
        ({"vertices": [{"x": float("nan"), "y": 1}] * 3}, r"sequence\[1\]\.vertices\[0\]\.x: nan"),
        ({"vertices": [{"x": 1, "y": 1}]}, r"sequence\[1\]\.vertices: .* three or more"),
        ({"masks": {"99": {}}}, r"sequence\[1\]\.masks: entry '99'"),
    ],
)
def test_malformed_keyframes_are_named(change, message):
    region = to_region(moving_track(INFO, range(3)))
    region["value"]["sequence"][1].update(change)
    with pytest.raises(ValueError, match=message):
        read_video_vector(region, INFO, 25.0)


@pytest.mark.parametrize(
    ("track", "message"),
    [
        (Track("t", ("Cat",), {}), "label 'Cat' is not in the label config"),
        (moving_track(INFO, [40]), r"frame index 40: must be in \[0, 40\)"),
    ],
)
def test_tracks_that_make_no_vector_are_refused(track, message):
    with pytest.raises(ValueError, match=message):
        to_region(track)


def test_an_object_that_is_never_shown_gives_no_region():
    assert to_region(Track("t", ("Car",), {})) is None


# --- prompts -----------------------------------------------------------------

CONFIG = parse_label_config(XML["d2_videovectorlabels"])
TRIANGLE = [{"id": str(i), "x": x, "y": y} for i, (x, y) in enumerate([(10, 10), (60, 10), (10, 60)])]


def drawn_region(**keyframe):
    item = {"frame": 6, "enabled": True, "closed": True, "vertices": TRIANGLE, **keyframe}
    return {
        "id": "mine", "from_name": LABELS.name, "to_name": LABELS.to_name,
        "type": "videovectorlabels", "meta": {"text": "x"},
        "value": {"sequence": [item], "labels": list(LABELS.labels[:1])},
    }


def requests(*regions):
    return video_vector_requests(regions, config=CONFIG, info=INFO, framerate=25.0)


def test_a_drawn_outline_is_a_mask_prompt():
    (request,) = requests(drawn_region(), {"type": "videorectangle"})
    (prompt,) = request.prompts
    assert (request.object_id, request.labels) == ("mine", LABELS.labels[:1])
    assert prompt.frame_index == 5
    assert prompt.mask[6, 8] and not prompt.mask[40, 50] and prompt.mask.any()


def test_a_drawn_outline_stays_as_drawn_and_a_prompt_and_a_moved_one_becomes_one():
    source = drawn_region()
    track = Track("mine", LABELS.labels[:1], dict(moving_track(INFO, range(5, 20)).masks))
    region = to_region(track, source_region=source)
    assert (region["id"], region["meta"]) == ("mine", {"text": "x"})
    sequence = region["value"]["sequence"]
    assert sequence[0]["frame"] == 6 and sequence[0]["vertices"] == TRIANGLE
    assert read_video_vector(region, INFO, 25.0)[0] == track.masks
    (request,) = requests(region)
    assert [prompt.frame_index for prompt in request.prompts] == [5]
    sequence[4] = copy.deepcopy(sequence[4])
    sequence[4]["vertices"][0]["x"] += 5
    (request,) = requests(region)
    assert [prompt.frame_index for prompt in request.prompts] == [5, 9]


def test_two_vectors_of_one_id_are_refused():
    with pytest.raises(ValueError, match="more than one vector of this id"):
        requests(drawn_region(), drawn_region())


def test_an_outline_on_a_frame_without_a_mask_is_kept_and_shows_there_alone():
    track = Track("mine", LABELS.labels[:1], dict(moving_track(INFO, range(2)).masks))
    region = to_region(track, source_region=drawn_region())
    last = region["value"]["sequence"][-1]
    assert (last["frame"], last["vertices"], last["enabled"]) == (6, TRIANGLE, False)
    assert list(read_video_vector(region, INFO, 25.0)[0]) == [0, 1, 5]
    (request,) = requests(region)
    assert [prompt.frame_index for prompt in request.prompts] == [5]
    assert drawn_outlines(region) == drawn_outlines(drawn_region())


def test_what_a_person_drew_is_read_without_a_video():
    track = moving_track(INFO, range(3))
    region = to_region(track)
    assert drawn_outlines(region) == []
    region["value"]["sequence"][1]["vertices"] = TRIANGLE
    assert drawn_outlines(region) == [[2, [[10.0, 10.0], [60.0, 10.0], [10.0, 60.0]]]]
    region["value"]["sequence"][1]["frame"] = 0
    with pytest.raises(ValueError, match=r"sequence\[1\]\.frame"):
        drawn_outlines(region)


def test_stored_masks_are_those_of_untouched_outlines():
    track = moving_track(INFO, range(5))
    region = to_region(track, framerate=10.0)
    assert stored_vector_masks(region, INFO, 10.0)[0] == track.masks
    region["value"]["sequence"][0]["vertices"][0]["x"] += 3
    left = stored_vector_masks(region, INFO, 10.0)[0]
    assert left and 0 not in left and left.items() <= track.masks.items()
    assert stored_vector_masks(drawn_region(), INFO, 25.0) == ({}, {})
