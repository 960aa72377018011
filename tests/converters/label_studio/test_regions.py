import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from converters import bitmask_png, brush_rle
from converters.geometry import box_iou, index_to_ls_frame, indices_of_ls_frames
from converters.label_studio.config import parse_label_config
from converters.label_studio.keyframes import read_keyframe
from converters.label_studio.lifespan import read_lifespan, region_to_track
from converters.label_studio.regions import (
    editor_box,
    track_to_frame_regions,
    track_to_video_region,
)
from converters.label_studio.results import frame_requests, mask_of, video_requests
from converters.masks import decode_mask, encode_mask, mask_box, mask_iou
from converters.types import MaskRLE, Track, VideoInfo
from tests.converters.cases import DATA, blob, constant_rate_info, moving_track
from tests.converters.label_studio.test_results import FRAMES_CONFIG, FRAMES_XML

CONFIG_XML = (DATA / "configs/config_video_rectangle.xml").read_text()
CONFIG = parse_label_config(CONFIG_XML)
CONTROL = CONFIG.video_rectangles[0]
INFO = constant_rate_info(40)
SIZE = (INFO.height, INFO.width)

VARIABLE_TIMES = tuple(
    np.cumsum([0.0, *np.random.default_rng(5).choice([0.01, 0.03, 0.09], 39)]).tolist()
)
VARIABLE = VideoInfo(64, 48, 40, 25.0, VARIABLE_TIMES, VARIABLE_TIMES[-1] + 0.04)

every_keyframes = pytest.mark.parametrize("keyframes", ["thin", "all"])


def to_region(track, *, info=INFO, framerate=25.0, through_json=True, **options):
    region = track_to_video_region(
        track, control=CONTROL, info=info, framerate=framerate, **options
    )
    return json.loads(json.dumps(region)) if through_json else region


def drawn(*boxes, **fields):
    """A region with a person's key frames: (frame, x) or (frame, x, rotation)."""
    sequence = [
        {"frame": f, "x": x, "y": 10, "width": 30, "height": 40, "rotation": turn,
         "enabled": True, "time": f / 25}
        for f, x, turn in ((*box, 0)[:3] for box in boxes)
    ]  # fmt: skip
    return {
        "id": "drawn", "from_name": "box", "to_name": "video", "type": "videorectangle",
        "origin": "manual", "meta": {"text": ["kept"]},
        "value": {"framesCount": 40, "duration": 1.6, "sequence": sequence, "labels": ["Car"]},
        **fields,
    }  # fmt: skip


def sequence_of(region):
    return region["value"]["sequence"]


def frames_of(region):
    return [keyframe["frame"] for keyframe in sequence_of(region)]


def prompt_frames(region, *, info=INFO, framerate=25.0):
    (request,) = video_requests([region], config=CONFIG, info=info, framerate=framerate)
    return [prompt.frame_index for prompt in request.prompts]


# --- what is written ---------------------------------------------------------


def test_a_region_has_every_field_that_label_studio_wants():
    region = to_region(moving_track(INFO, range(40)))

    assert {k: v for k, v in region.items() if k not in ("value", "score")} == {
        "id": "car", "from_name": "box", "to_name": "video",
        "type": "videorectangle", "origin": "prediction",
    }  # fmt: skip
    assert 0 < region["score"] < 1
    assert region["value"]["framesCount"] == 40 and region["value"]["duration"] == 1.6
    assert region["value"]["labels"] == ["Car"]
    for keyframe in sequence_of(region):
        assert type(keyframe["frame"]) is int and type(keyframe["enabled"]) is bool
        assert keyframe["time"] == keyframe["frame"] / 25
        assert keyframe["rotation"] == 0
        assert 0 < keyframe["score"] < 1
        mask = keyframe["mask"]
        assert mask["frame"] == keyframe["frame"] and mask["size"] == list(SIZE)
        assert mask["box"] == [keyframe[k] for k in ("x", "y", "width", "height")]
    prediction = {"result": [region], "score": region["score"], "model_version": "m"}
    assert LabelInterface(CONFIG_XML).validate_prediction(prediction, return_errors=True) == []


@every_keyframes
@pytest.mark.parametrize(
    "frames",
    [
        range(40),
        # Absent in the middle, at the start, at the end; single frames.
        [*range(5, 12), *range(20, 33)],
        [0],
        [39],
        [3, 5, 7, 20, 21],
    ],
)
def test_the_editor_shows_the_object_exactly_while_it_is_there(frames, keyframes):
    region = to_region(moving_track(INFO, frames), keyframes=keyframes)

    sequence = sequence_of(region)
    assert frames_of(region) == sorted(set(frames_of(region)))
    shown = [f - 1 for f in range(1, 41) if editor_box(sequence, f) is not None]
    assert shown == list(frames)


@every_keyframes
@pytest.mark.parametrize(
    ("info", "framerate"),
    [
        (INFO, 25.0),
        # Editor faster, slower and at odd rates; variable rate.
        (INFO, 60.0),
        (INFO, 10.0),
        (constant_rate_info(40, fps=30000 / 1001), 30.0),
        (VARIABLE, 25.0),
    ],
)
def test_boxes_are_near_the_masks_and_masks_come_back_whole(info, framerate, keyframes):
    track = moving_track(info, [*range(3, 18), *range(22, 40)])

    region = to_region(track, info=info, framerate=framerate, keyframes=keyframes)

    sequence = [read_keyframe(item) for item in sequence_of(region)]
    count = region["value"]["framesCount"]
    indices = indices_of_ls_frames(range(1, count + 1), framerate, info.frame_times_seconds)
    for ls_frame, index in enumerate(indices.tolist(), start=1):
        box = editor_box(sequence, ls_frame)
        assert (box is not None) == (index in track.masks)
        if box is not None:
            assert box_iou(box.to_pixels(SIZE), mask_box(track.masks[index])) >= 0.9
    back = region_to_track(region, info, framerate)
    assert back.masks == track.masks
    assert back.labels == track.labels and back.object_id == track.object_id
    assert back.scores == pytest.approx(track.scores, rel=1e-2)
    assert prompt_frames(region, info=info, framerate=framerate) == []


def test_thinning_leaves_few_key_frames_and_all_leaves_all():
    still = moving_track(INFO, range(40), speed=0)
    still = Track("s", ("Car",), {i: still.masks[0] for i in range(40)})

    assert frames_of(to_region(still)) == [1, 40]
    assert list(sequence_of(to_region(still))[0]["masks"]) == [str(i) for i in range(1, 39)]
    assert frames_of(to_region(still, keyframes="all")) == list(range(1, 41))


def test_a_higher_iou_leaves_more_key_frames():
    track = moving_track(INFO, range(40))
    counts = [len(frames_of(to_region(track, min_iou=iou))) for iou in (0.5, 0.9, 1.0)]
    assert counts == sorted(counts) and counts[0] < counts[2]


def test_masks_of_frames_that_the_editor_never_shows_ride_along():
    track = moving_track(INFO, range(2, 40))
    region = to_region(track, framerate=5.0, keyframes="all")

    times = INFO.frame_times_seconds
    hidden = {i for i in range(2, 40) if index_to_ls_frame(i, 5.0, times, frames_count=8) is None}
    riding = {int(i) for k in sequence_of(region) for i in k.get("masks", {})}
    assert hidden and riding == hidden
    # The first ones have no key frame before them and ride on the first.
    first = sequence_of(region)[0]
    assert min(riding) < int(indices_of_ls_frames([first["frame"]], 5.0, times)[0])
    assert region_to_track(region, INFO, 5.0).masks == track.masks


def some_masks(seed_and_gaps):
    """Rectangles that jump about on random frames of INFO."""
    seed, absent = seed_and_gaps
    rng = np.random.default_rng(seed)
    masks = {}
    for index in sorted(set(range(40)) - absent):
        mask = np.zeros(SIZE, bool)
        top, left = rng.integers(0, 40), rng.integers(0, 50)
        mask[top : top + rng.integers(1, 9), left : left + rng.integers(1, 15)] = True
        masks[index] = encode_mask(mask) if rng.random() < 0.5 or not masks else masks[max(masks)]
    return masks


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(0, 10**6), st.sets(st.integers(0, 39), max_size=38)).map(some_masks),
    st.floats(0.1, 1.0),
    st.sampled_from(["thin", "all"]),
    st.sampled_from([25.0, 24.0, 30.0, 60.0, 7.0]),
)
def test_thinning_keeps_every_box_near_and_every_mask(masks, min_iou, keyframes, framerate):
    region = to_region(
        Track("t", ("Car",), masks), framerate=framerate, keyframes=keyframes, min_iou=min_iou
    )
    if region is None:
        assert all(index_to_ls_frame(i, framerate, INFO.frame_times_seconds) is None for i in masks)
        return
    count = region["value"]["framesCount"]
    indices = indices_of_ls_frames(range(1, count + 1), framerate, INFO.frame_times_seconds)
    sequence = [read_keyframe(item) for item in sequence_of(region)]
    for ls_frame, index in enumerate(indices.tolist(), start=1):
        box = editor_box(sequence, ls_frame)
        assert (box is not None) == (index in masks)
        if box is not None:
            assert box_iou(box.to_pixels(SIZE), mask_box(masks[index])) >= min_iou - 1e-5
    assert region_to_track(region, INFO, framerate).masks == masks


def test_an_object_that_the_editor_cannot_show_gives_no_region():
    assert to_region(Track("t", ("Car",), {})) is None
    empty = encode_mask(np.zeros(SIZE, bool))
    assert to_region(Track("t", ("Car",), {3: empty})) is None
    assert to_region(moving_track(INFO, [1]), framerate=5.0) is None


def test_an_empty_mask_is_not_visible():
    track = moving_track(INFO, range(10))
    masks = {**track.masks, 4: encode_mask(np.zeros(SIZE, bool))}
    region = to_region(Track("t", ("Car",), masks))
    assert editor_box(sequence_of(region), 5) is None
    assert 4 not in region_to_track(region, INFO, 25).masks


@pytest.mark.parametrize("logit", [-1000.0, -3.0, 0.0, 3.0, 1000.0, np.float32(2.5)])
def test_scores_stay_between_0_and_1_and_can_be_turned_back(logit):
    track = Track("t", ("Car",), {0: encode_mask(blob(*SIZE))}, {0: logit})
    region = to_region(track)
    assert 0 < sequence_of(region)[0]["score"] < 1
    back = region_to_track(region, INFO, 25).scores[0]
    assert back == pytest.approx(max(-13.8, min(13.8, float(logit))), abs=0.1)


def test_no_scores_means_none_are_written():
    region = to_region(moving_track(INFO, range(40), with_scores=False))
    assert "score" not in region and "score" not in json.dumps(region)
    assert region_to_track(region, INFO, 25).scores == {}


def test_ten_thousand_frames():
    info = constant_rate_info(10_000)
    masks = list(moving_track(info, range(40)).masks.values())
    track = Track("t", ("Car",), {i: masks[i // 7 % 40] for i in range(10_000)})

    region = to_region(track, info=info)

    assert len(frames_of(region)) < 5000
    assert region_to_track(region, info, 25).masks == track.masks


# --- a person's key frames ---------------------------------------------------


def test_a_persons_key_frames_stay_as_drawn_and_stay_prompts():
    source = drawn((1, 10.123456789), (21, 33.3, 15))
    track = moving_track(INFO, range(40), object_id="drawn")

    region = to_region(track, source_region=source)

    by_frame = {keyframe["frame"]: keyframe for keyframe in sequence_of(region)}
    for original in sequence_of(source):
        kept = by_frame[original["frame"]]
        assert {name: kept[name] for name in original} == original
        assert "mask" not in kept
        assert str(original["frame"] - 1) in kept["masks"]
    assert prompt_frames(region) == [0, 20]
    assert region_to_track(region, INFO, 25).masks == track.masks
    assert region["id"] == "drawn" and region["meta"] == {"text": ["kept"]}


def test_writing_again_changes_nothing():
    track = moving_track(INFO, range(40), object_id="drawn")
    once = to_region(track, source_region=drawn((1, 10), (21, 33, 15)))
    assert to_region(track, source_region=once) == once


def test_boxes_between_a_persons_key_frames_are_near_the_masks():
    track = moving_track(INFO, range(40))
    source = drawn((11, 60), (21, 5, 40), (22, 5, 40), (40, 50))
    sequence = sequence_of(to_region(track, source_region=source))
    for index, mask in track.masks.items():
        if index + 1 not in (11, 21, 22, 40):
            box = editor_box(sequence, index + 1)
            assert box_iou(box.to_pixels(SIZE), mask_box(mask)) >= 0.9


def test_a_persons_key_frame_where_the_object_was_not_found_is_shown_alone():
    region = to_region(moving_track(INFO, range(10)), source_region=drawn((1, 10), (30, 10)))
    shown = [f for f in range(1, 41) if editor_box(sequence_of(region), f)]
    assert shown == [*range(1, 11), 30]
    assert prompt_frames(region) == [0, 29]
    assert 29 not in region_to_track(region, INFO, 25).masks


def test_a_track_that_goes_on_reopens_what_was_closed_and_closes_at_its_end():
    source = drawn((1, 10), (20, 10))
    sequence_of(source)[1]["enabled"] = False
    region = to_region(moving_track(INFO, range(30)), source_region=source)
    shown = [f for f in range(1, 41) if editor_box(sequence_of(region), f)]
    assert shown == list(range(1, 31))


def test_a_persons_key_frame_after_our_last_frame_is_kept_where_the_browser_has_one():
    source = drawn((1, 10), (41, 10))
    source["value"]["framesCount"] = 41
    region = to_region(moving_track(INFO, range(40)), source_region=source)
    assert frames_of(region)[-1] == 41 and prompt_frames(region) == [0, 39]


def edit(region, frame, **fields):
    """What the editor does when a person moves the box on a frame."""
    edited = copy.deepcopy(region)
    sequence = sequence_of(edited)
    at = next(i for i, k in enumerate(sequence) if k["frame"] >= frame)
    changed = {**copy.deepcopy(sequence[at]), **fields, "frame": frame}
    sequence[at : at + (sequence[at]["frame"] == frame)] = [changed]
    return edited


def test_moving_a_key_frame_of_ours_makes_it_a_prompt_and_drops_its_masks():
    track = moving_track(INFO, range(40), object_id="drawn")
    region = to_region(track, source_region=drawn((1, 10)))
    moved = next(k for k in sequence_of(region)[2:] if "masks" in k and "mask" in k)
    edited = edit(region, moved["frame"], x=moved["x"] + 5)

    assert prompt_frames(edited) == [0, moved["frame"] - 1]
    back = region_to_track(edited, INFO, 25).masks
    gone = {moved["frame"] - 1, *map(int, moved["masks"])}
    assert back == {i: m for i, m in track.masks.items() if i not in gone}

    again = to_region(track, source_region=edited)
    assert prompt_frames(again) == [0, moved["frame"] - 1]
    kept = next(k for k in sequence_of(again) if k["frame"] == moved["frame"])
    assert kept["x"] == moved["x"] + 5
    assert region_to_track(again, INFO, 25).masks == track.masks


def test_a_new_key_frame_that_inherits_the_next_ones_mask_is_a_prompt():
    track = moving_track(INFO, range(40), object_id="drawn")
    region = to_region(track, source_region=drawn((1, 10)))
    frames = frames_of(region)
    new = next(b - 1 for a, b in zip(frames[1:], frames[2:]) if b - a > 1)
    edited = edit(region, new, x=1.0)
    assert "mask" in next(k for k in sequence_of(edited) if k["frame"] == new)

    assert prompt_frames(edited) == [0, new - 1]
    back = region_to_track(edited, INFO, 25).masks
    assert back == {i: m for i, m in track.masks.items() if i != new - 1}
    assert prompt_frames(to_region(track, source_region=edited)) == [0, new - 1]


def test_moving_an_answered_key_frame_drops_the_masks_that_rode_on_it():
    track = moving_track(INFO, range(40), object_id="drawn")
    region = to_region(track, source_region=drawn((1, 10)))
    assert 0 in region_to_track(region, INFO, 25).masks
    edited = edit(region, 1, x=12.0)
    assert prompt_frames(edited) == [0]
    assert 0 not in region_to_track(edited, INFO, 25).masks


def test_toggling_the_lifespan_changes_no_prompt_and_hides_masks_without_losing_them():
    track = moving_track(INFO, range(40), object_id="drawn")
    region = to_region(track, source_region=drawn((1, 10)))
    toggled = copy.deepcopy(region)
    for keyframe in sequence_of(toggled):
        keyframe["enabled"] = not keyframe["enabled"]
    assert prompt_frames(toggled) == [0]
    shown = [i for i in range(40) if editor_box(sequence_of(toggled), i + 1) is not None]
    assert 0 < len(shown) < 40
    assert region_to_track(toggled, INFO, 25).masks == {i: track.masks[i] for i in shown}
    for keyframe in sequence_of(toggled):
        keyframe["enabled"] = not keyframe["enabled"]
    assert region_to_track(toggled, INFO, 25).masks == track.masks


def test_frames_beside_a_moved_key_frame_are_left_out_as_an_export_leaves_them_out():
    track = moving_track(INFO, range(40), object_id="drawn")
    region = to_region(track, source_region=drawn((1, 10)))
    frames = frames_of(region)
    middle = frames[len(frames) // 2]
    moved = next(k for k in sequence_of(region) if k["frame"] == middle)
    edited = edit(region, middle, x=moved["x"] + 5)
    span = read_lifespan(edited, INFO, 25)
    before, after = frames[len(frames) // 2 - 1], frames[len(frames) // 2 + 1]
    assert span.stale == tuple(range(before, after - 1))
    assert region_to_track(edited, INFO, 25).masks == span.masks


# --- what is refused ---------------------------------------------------------

BIG = {0: encode_mask(np.ones((49, 64), bool))}


@pytest.mark.parametrize(
    ("track", "options", "message"),
    [
        (Track("t", ("Cat",), {}), {}, "label 'Cat' is not in the label config"),
        (Track("t", ("Car",), BIG), {}, "'t', frame index 0: mask has size 49 x 64"),
        (moving_track(INFO, [40]), {}, r"frame index 40: must be in \[0, 40\)"),
        (moving_track(INFO, [0]), {"keyframes": "some"}, "keyframes='some' must be"),
        (moving_track(INFO, [0]), {"min_iou": 0}, "min_iou=0 must be"),
        (moving_track(INFO, [0]), {"framerate": 0}, "framerate=0 must be"),
        (moving_track(INFO, [0]), {"source_region": {"id": "x", "value": {}}}, "'x': value.seq"),
    ],
)
def test_tracks_that_make_no_region_are_refused(track, options, message):
    with pytest.raises(ValueError, match=message):
        to_region(track, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": "?"}, r"'car': value\.sequence\[0\]\.mask\.counts: mask counts '\?' (end|cover)"),
        ({"counts": 7}, "must be a str"),
        ({"size": [48]}, r"mask\.size: \[48\] must be \[height, width\]"),
        ({"size": [480, 640]}, "mask has size 480 x 640, must be the video's"),
    ],
)
def test_malformed_masks_name_the_region(change, message):
    region = to_region(moving_track(INFO, range(3)))
    sequence_of(region)[0]["mask"].update(change)
    with pytest.raises(ValueError, match=message):
        region_to_track(region, INFO, 25)


@pytest.mark.parametrize("key", ["40", "-1", "x", "", "1.0", "²", "9" * 5000])
def test_masks_of_no_frame_name_the_region(key):
    region = to_region(moving_track(INFO, range(3)))
    sequence_of(region)[0]["masks"] = {key: {}}
    with pytest.raises(ValueError, match=r"region 'car': value\.sequence\[0\]\.masks: entry"):
        region_to_track(region, INFO, 25)


# --- frames as images --------------------------------------------------------

FRAMES_INFO = constant_rate_info(6)
BRUSH, BITMASK, KEY_POINT, RECTANGLE, POLYGON, VECTOR = FRAMES_CONFIG.image_controls


def frame_regions(track, control=BRUSH, **options):
    regions = track_to_frame_regions(track, control=control, info=FRAMES_INFO, **options)
    return json.loads(json.dumps(regions))


def test_brush_regions_one_a_frame():
    track = moving_track(FRAMES_INFO, [1, 2, 5])
    regions = frame_regions(track)

    assert [region["item_index"] for region in regions] == [1, 2, 5]
    for region in regions:
        assert len(region["id"]) == 10
        assert {k: region[k] for k in ("from_name", "to_name", "type", "origin")} == {
            "from_name": "brush", "to_name": "img", "type": "brushlabels", "origin": "prediction",
        }  # fmt: skip
        assert (region["original_width"], region["original_height"]) == (64, 48)
        assert region["image_rotation"] == 0 and region["meta"] == {"track": "car"}
        assert 0 < region["score"] < 1
        assert region["value"]["format"] == "rle"
        assert region["value"]["brushlabels"] == ["Car"]
        np.testing.assert_array_equal(
            brush_rle.decode(region["value"]["rle"], (48, 64)),
            decode_mask(track.masks[region["item_index"]]),
        )


def test_bitmask_and_rectangle_regions():
    track = moving_track(FRAMES_INFO, [4])
    (bitmask,) = frame_regions(track, BITMASK)
    (rectangle,) = frame_regions(track, RECTANGLE)

    assert bitmask["type"] == "bitmasklabels" and bitmask["value"]["bitmasklabels"] == ["Car"]
    decoded = bitmask_png.decode(bitmask["value"]["imageDataURL"], (48, 64))
    np.testing.assert_array_equal(decoded, decode_mask(track.masks[4]))
    value = rectangle["value"]
    assert value["rectanglelabels"] == ["Car"] and value["rotation"] == 0
    box = mask_box(track.masks[4])
    assert value["x"] * 64 / 100 == pytest.approx(box.x_min)
    assert (value["y"] + value["height"]) * 48 / 100 == pytest.approx(box.y_max)


@pytest.mark.parametrize("control", [POLYGON, VECTOR], ids=["polygon", "vector"])
@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_polygon_and_vector_regions_are_one_closed_line(control, tolerance):
    track = moving_track(FRAMES_INFO, [1, 4])
    regions = frame_regions(track, control, polygon_tolerance_pixels=tolerance)

    assert [r["item_index"] for r in regions] == [1, 4]
    for region in regions:
        value, mask = region["value"], track.masks[region["item_index"]]
        assert value["closed"] is True and value[region["type"]] == ["Car"]
        back = encode_mask(mask_of(region, control.kind, (48, 64)))
        assert (back == mask) is (tolerance == 0)
        assert mask_iou(back, mask) > 0.85
    vertices = regions[0]["value"].get("vertices")
    if vertices:
        ids = [vertex["id"] for vertex in vertices]
        assert [vertex["prevPointId"] for vertex in vertices] == [ids[-1], *ids[:-1]]


def test_what_smoothing_would_make_vanish_keeps_its_outline():
    pixel = np.zeros((48, 64), bool)
    pixel[7, 9] = True
    track = Track("t", ("Car",), {0: encode_mask(pixel)})
    (region,) = frame_regions(track, POLYGON, polygon_tolerance_pixels=5)
    np.testing.assert_array_equal(mask_of(region, POLYGON.kind, (48, 64)), pixel)


def test_the_sdk_accepts_regions_of_every_kind():
    track = moving_track(FRAMES_INFO, [2, 3])
    controls = (BRUSH, BITMASK, RECTANGLE, POLYGON, VECTOR)
    regions = [r for control in controls for r in frame_regions(track, control)]
    prediction = {"result": regions, "score": 0.5, "model_version": "m"}
    assert LabelInterface(FRAMES_XML).validate_prediction(prediction, return_errors=True) == []


def test_ids_are_one_for_each_object_frame_and_control_and_stay_the_same():
    tracks = [moving_track(FRAMES_INFO, range(6), object_id=name) for name in ("a", "b")]
    ids = [r["id"] for t in tracks for c in (BRUSH, BITMASK) for r in frame_regions(t, c)]
    assert len(set(ids)) == len(ids) == 24
    assert ids == [r["id"] for t in tracks for c in (BRUSH, BITMASK) for r in frame_regions(t, c)]
    # Pinned: a later version must still replace what this one has sent.
    assert ids[0] == "Lm5XvANl1E"


def test_frames_can_be_limited_and_empty_masks_are_left_out():
    track = moving_track(FRAMES_INFO, range(6))
    masks = {**track.masks, 2: encode_mask(np.zeros((48, 64), bool))}
    track = Track("t", ("Car",), masks)
    assert [r["item_index"] for r in frame_regions(track, frame_indices=range(1, 4))] == [1, 3]


def test_what_is_sent_is_no_prompt_when_it_comes_back():
    info = constant_rate_info(6)
    track = moving_track(info, range(6), object_id="a")
    controls = (BRUSH, BITMASK, RECTANGLE, POLYGON, VECTOR)
    regions = [r for c in controls for r in frame_regions(track, c)]
    assert frame_requests(regions, config=FRAMES_CONFIG, info=info) == ()
    regions[0]["origin"] = "prediction-changed"
    (request,) = frame_requests(regions, config=FRAMES_CONFIG, info=info)
    assert request.object_id == "a" and [p.frame_index for p in request.prompts] == [0]


@pytest.mark.parametrize(
    ("track", "control", "message"),
    [
        (Track("t", ("Cat",), {}), BRUSH, "label 'Cat' is not in the label config"),
        (Track("t", (), {}), BRUSH, "has no label"),
        (Track(("t", 1), ("Car",), {}), BRUSH, "must be a string or an integer"),
        (moving_track(INFO, [6]), BRUSH, r"frame index 6: must be in \[0, 6\)"),
        (Track("t", ("Car",), {0: MaskRLE(4, 4, "`0")}), BRUSH, "mask has size 4 x 4"),
        (Track("t", ("Car",), {}), KEY_POINT, "is a KeyPointLabels, must be one of"),
    ],
)
def test_tracks_that_make_no_frame_regions_are_refused(track, control, message):
    with pytest.raises(ValueError, match=message):
        frame_regions(track, control)


def test_the_logistic_function_is_the_score():
    track = Track("t", ("Car",), {0: encode_mask(blob(48, 64))}, {0: 2.0})
    assert frame_regions(track)[0]["score"] == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
