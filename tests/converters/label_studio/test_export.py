import copy
import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk._extensions.label_studio_tools.postprocessing.video import (
    extract_key_frames,
)
from label_studio_sdk.converter import Converter

from converters import bitmask_png, brush_rle
from converters.label_studio.config import parse_label_config
from converters.label_studio.export import (
    ExportedVideo,
    ExportOptions,
    SkippedTask,
    export_task,
    load_export,
    read_export,
    read_tasks,
)
from converters.label_studio.keyframes import editor_box, editor_boxes
from converters.label_studio.regions import track_to_frame_regions, track_to_video_region
from converters.label_studio.results import video_requests
from converters.label_studio.video_clock import noted_clock
from converters.masks import decode_mask, encode_mask, mask_box
from converters.types import AnnotatedVideo, Box, Track, VideoInfo
from tests.converters.cases import (
    ADVERSARIAL_MASKS,
    DATA,
    annotated_video,
    blob,
    constant_rate_info,
    moving_track,
    payload,
)
from tests.converters.label_studio.test_regions import VARIABLE, edit
from tests.converters.label_studio.test_results import FRAMES_CONFIG, FRAMES_XML

VIDEO_XML = (DATA / "configs/config_video_rectangle.xml").read_text()
VIDEO_CONFIG = parse_label_config(VIDEO_XML)
INFO = constant_rate_info(40)
SIZE = (INFO.height, INFO.width)
VIDEO = "/data/upload/1/ef9e5fd2-n25.mp4"
FRAME_URLS = [f"/data/local-files/?d=clip/f{i}.jpg" for i in range(6)]


def as_region(track, *, info=INFO, framerate=25.0, **options):
    return track_to_video_region(
        track, control=VIDEO_CONFIG.video_rectangles[0], info=info, framerate=framerate, **options
    )


def video_task(*regions, **fields):
    task = {"id": 7, "data": {"video": VIDEO}, "annotations": [{"id": 3, "result": list(regions)}]}
    return json.loads(json.dumps({**task, **fields}))


def frames_task(*regions, **fields):
    return video_task(*regions, data={"frames": FRAME_URLS}, **fields)


def exported(task, *, config=VIDEO_CONFIG, info=INFO, **options):
    infos = None if info is None else lambda _: info
    (item,) = export_task(
        task, ExportOptions(label_config=config, video_infos=infos, **options)
    )
    return item


def masks_of(item, number=0):
    return item.video.tracks[number].masks


def columns(mask):
    return np.flatnonzero(decode_mask(mask).any(axis=0)).tolist()


# --- what comes back ---------------------------------------------------------


@pytest.mark.parametrize("keyframes", ["thin", "all"])
@pytest.mark.parametrize(
    ("info", "framerate"),
    [
        (INFO, 25.0),
        (INFO, 60.0),
        (INFO, 5.0),
        (constant_rate_info(40, fps=30000 / 1001), 30.0),
        (VARIABLE, 25.0),
    ],
)
def test_tracks_come_back_from_video_regions_whole(info, framerate, keyframes):
    tracks = [
        moving_track(info, [*range(2, 18), *range(22, 40)], object_id="a"),
        moving_track(info, range(40), object_id="b", labels=("Dog",)),
    ]
    config = parse_label_config(VIDEO_XML.replace('"25"', f'"{framerate}"'))
    regions = [as_region(t, info=info, framerate=framerate, keyframes=keyframes) for t in tracks]

    item = exported(video_task(*regions), info=info, config=config)

    assert (item.stale, item.hidden, item.dropped) == ({}, {}, ())
    assert item.video.info is info and item.video.file_names == ()
    for track, back in zip(tracks, item.video.tracks, strict=True):
        assert (back.object_id, back.labels, back.masks) == (
            track.object_id, track.labels, track.masks,
        )  # fmt: skip
        assert back.scores == pytest.approx(track.scores, rel=1e-2)


rectangles = st.tuples(
    st.integers(0, 47), st.integers(0, 63), st.integers(1, 40), st.integers(1, 40)
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 39), rectangles, min_size=1, max_size=40),
    st.sampled_from(["thin", "all"]),
)
def test_any_track_comes_back_whole(boxes, keyframes):
    masks = {}
    for index, (top, left, down, across) in sorted(boxes.items()):
        mask = np.zeros(SIZE, bool)
        mask[top : top + down : 2, left : left + across] = True
        masks[index] = encode_mask(mask)
    item = exported(video_task(as_region(Track("a", ("Car",), masks), keyframes=keyframes)))
    assert masks_of(item) == masks and item.stale == {} and item.hidden == {}


def as_the_editor_stores(region, *, frames_count_off_by=0):
    """What accepting and submitting does to a region (as observed on the real server)."""
    kept = ("id", "from_name", "to_name", "type", "origin", "meta", "score", "value")
    stored = {name: region[name] for name in kept if name in region}
    value = json.loads(json.dumps(region["value"]))
    value["framesCount"] += frames_count_off_by
    value["duration"] += 0.004  # the browser's, of the longest stream
    for number, keyframe in enumerate(value["sequence"]):
        keyframe["time"] = keyframe["frame"] / 25
        for name in ("x", "y", "width", "height"):
            keyframe[name] += (-1) ** number * 2e-14  # through the canvas' pixels and back
        value["sequence"][number] = dict(sorted(keyframe.items()))
    return {**stored, "value": value}


@pytest.mark.parametrize("off_by", [-1, 0, 1])
@pytest.mark.parametrize("keyframes", ["thin", "all"])
def test_tracks_come_back_whole_from_what_the_editor_stored(keyframes, off_by):
    track = moving_track(INFO, [*range(2, 18), *range(22, 40)])
    region = as_the_editor_stores(as_region(track, keyframes=keyframes), frames_count_off_by=off_by)
    for info in (INFO, None):
        for config in (VIDEO_CONFIG, None):
            item = exported(video_task(region), info=info, config=config)
            assert masks_of(item) == track.masks
            assert (item.stale, item.hidden, item.dropped) == ({}, {}, ())


def test_without_the_video_frames_are_the_editors():
    track = moving_track(INFO, [*range(3, 18), *range(22, 40)])
    for config in (VIDEO_CONFIG, None):
        item = exported(video_task(as_region(track)), info=None, config=config)
        assert masks_of(item) == track.masks
        assert item.video.info == INFO


def config_of(framerate):
    return parse_label_config(VIDEO_XML.replace('"25"', f'"{framerate:g}"'))


@pytest.mark.parametrize(
    ("frames", "keyframes"),
    [(range(40), "thin"), (range(13, 38), "thin"), (range(40), "all")],
    ids=["thin", "some, thin", "all"],
)
@pytest.mark.parametrize("framerate", [10.0, 24.0, 25.0, 30.0])
@pytest.mark.parametrize("fps", [5.0, 24000 / 1001, 25.0, 30000 / 1001, 30.0, 60.0])
def test_without_the_video_its_frame_rate_is_found_by_where_masks_lie(
    fps, framerate, frames, keyframes
):
    info = constant_rate_info(40, fps=fps)
    track = moving_track(info, frames, speed=0.01)
    region = as_region(track, info=info, framerate=framerate, keyframes=keyframes)
    item = exported(video_task(region), info=None, config=config_of(framerate))
    assert masks_of(item) == track.masks and not item.stale


@pytest.mark.parametrize("framerate", [10.0, 24.0, 50.0])
@pytest.mark.parametrize("info", [constant_rate_info(40, fps=17.3), VARIABLE], ids=["even", "not"])
def test_without_the_video_its_clock_is_that_which_the_regions_tell(info, framerate):
    track = moving_track(info, [*range(3, 20), *range(24, 40)])
    region = as_region(track, info=info, framerate=framerate)
    region["meta"] = {"text": "a person's", "sam2": noted_clock(info)}
    item = exported(video_task(region), info=None, config=config_of(framerate))
    assert masks_of(item) == track.masks
    assert item.video.info.frame_count == 40
    assert item.video.info.frame_times_seconds == pytest.approx(info.frame_times_seconds, abs=6e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"frames": 10**9}, {"frames": True}, {"frames": 39}, {"fps": "25"}, {"duration": -1},
        {"duration": float("inf")}, {"times": []}, {"times": [[0, 0.0]]}, {"times": [[1, 0], [39, 1]]},
        {"times": [[0, 1.0], [39, 0.0]]}, {"times": [[0, None], [39, 1]]}, {"times": {"0": 1}},
        {"times": [[0, 0.0]] * 50_000},
    ],
)  # fmt: skip
def test_a_clock_that_no_video_has_is_not_believed(change):
    track = moving_track(INFO, range(40))
    region = as_region(track)
    noted = noted_clock(INFO)
    region["meta"] = {"sam2": {"video": noted["video"] | change}}
    item = exported(video_task(region), info=None)
    assert masks_of(item) == track.masks and item.video.info == INFO


def test_without_the_video_a_rate_that_cannot_be_found_is_told_with_what_to_do():
    region = as_region(moving_track(VARIABLE, range(40)), info=VARIABLE, framerate=10.0)
    with pytest.raises(ValueError, match="--with-media or --media-root"):
        exported(video_task(region), info=None, config=config_of(10.0))


@pytest.mark.parametrize("kind", [0, 1, 4, 5], ids=["brush", "bitmask", "polygon", "vector"])
def test_tracks_come_back_from_frame_regions_whole(kind):
    info = constant_rate_info(6)
    tracks = [moving_track(info, [0, 2, 3], object_id="a"), moving_track(info, [3, 5], object_id=2)]
    control = FRAMES_CONFIG.image_controls[kind]
    regions = [
        region
        for track in tracks
        for region in track_to_frame_regions(
            track, control=control, info=info, polygon_tolerance_pixels=0
        )
    ]
    for config in (FRAMES_CONFIG, None):
        item = exported(frames_task(*regions), config=config, info=None)
        for track, back in zip(tracks, item.video.tracks, strict=True):
            assert (back.object_id, back.masks) == (track.object_id, track.masks)
            assert back.scores == pytest.approx(track.scores, rel=1e-2)
        assert (item.video.info.frame_count, item.video.info.fps) == (6, 0.0)
        assert item.media == tuple(FRAME_URLS)
        assert item.video.file_names[1] == "7-clip/f1.jpg"


@pytest.mark.parametrize(
    "mask", [m for m in ADVERSARIAL_MASKS.values() if m.any() and m.size < 10**6]
)
@pytest.mark.parametrize("kind", [0, 1, 4, 5], ids=["brush", "bitmask", "polygon", "vector"])
def test_every_mask_survives_region_and_export(mask, kind):
    info = constant_rate_info(6, width=mask.shape[1], height=mask.shape[0])
    track = Track("a", ("Car",), {4: encode_mask(mask)})
    control = FRAMES_CONFIG.image_controls[kind]
    regions = track_to_frame_regions(
        track, control=control, info=info, polygon_tolerance_pixels=0
    )
    assert masks_of(exported(frames_task(*regions), config=FRAMES_CONFIG, info=None)) == track.masks


@pytest.mark.parametrize("mask", [m for m in ADVERSARIAL_MASKS.values() if m.any()])
def test_every_mask_survives_a_video_region_and_export(mask):
    info = constant_rate_info(3, width=mask.shape[1], height=mask.shape[0])
    track = Track("a", ("Car",), {1: encode_mask(mask)})
    assert masks_of(exported(video_task(as_region(track, info=info)), info=info)) == track.masks


def test_a_real_export_of_brush_strokes():
    (item,) = read_export(
        DATA / "export_image_valuelist_brush.json",
        ExportOptions(
            label_config=parse_label_config(
                (DATA / "configs/config_c_image_valuelist_brush.xml").read_text()
            )
        ),
    )
    assert (item.video.name, item.source, item.task_id) == ("10-sub", "annotations 11", 10)
    assert len(item.video.tracks) == 12
    raw = payload("export_image_valuelist_brush")[0]["annotations"][0]["result"]
    for track, region in zip(item.video.tracks, raw, strict=True):
        ((index, mask),) = track.masks.items()
        assert (track.object_id, index) == (region["id"], region["item_index"])
        np.testing.assert_array_equal(
            decode_mask(mask), brush_rle.decode(region["value"]["rle"], (240, 320))
        )


def test_what_the_real_server_exports_of_our_tasks_is_what_we_gave_it():
    """Captured from Label Studio 1.23.2: imported by `to_tasks`, accepted, exported."""
    info = constant_rate_info(10)
    given = [
        moving_track(info, [0, 1, 2, 6, 7], object_id="a"),
        moving_track(info, [4], object_id="b", labels=("Dog",)),
    ]
    both = (DATA / "configs/config_e_video_plus_image.xml").read_text()
    for name, config in (
        ("export_video_and_frames_from_server", both),
        ("export_video_and_frames_from_server", None),
        ("export_min_video_from_server", VIDEO_XML),
        ("export_min_video_from_server", None),
    ):
        videos = list(load_export(DATA / f"{name}.json", label_config=config))
        assert len(videos) == (2 if "frames" in name else 1)
        for video in videos:
            assert [t.labels for t in video.tracks] == [("Car",), ("Dog",)]
            assert [t.masks for t in video.tracks] == [t.masks for t in given]


def test_a_brush_on_a_video_is_named_as_left_out():
    config = parse_label_config((DATA / "configs/config_a2_video_rect_brush.xml").read_text())
    (item,) = read_export(
        DATA / "export_video_brush_unsupported.json",
        ExportOptions(label_config=config, video_infos=lambda _: constant_rate_info(100)),
    )
    assert [r.region_id for r in item.dropped] == ["b1"]
    assert "BrushLabels on a <Video>" in item.dropped[0].reason
    assert list(masks_of(item)) == list(range(4, 100))


# --- stale masks -------------------------------------------------------------


def tracked():
    """A tracked region with key frames 1, 11, …: masks of the others ride along."""
    still = encode_mask(blob(*SIZE, size=(0.5, 0.3)))
    track = Track("a", ("Car",), {i: still for i in range(30)})
    region = json.loads(json.dumps(as_region(track, keyframes="all")))
    sequence = region["value"]["sequence"]
    kept = [k for k in sequence if k["frame"] in (1, 11, 21, 30)]
    for keyframe in kept[:-1]:
        first = keyframe["frame"]
        stop = next(k["frame"] for k in kept if k["frame"] > first)
        stored = {name: keyframe["mask"][name] for name in ("size", "counts")}
        keyframe["masks"] = {str(i): stored for i in range(first, stop - 1)}
    region["value"]["sequence"] = kept
    return track, region


def test_the_fixture_is_fresh():
    track, region = tracked()
    item = exported(video_task(region))
    assert masks_of(item) == track.masks and item.stale == {}


def moved_key_frame(region):
    return edit(region, 11, x=40.0)


def added_key_frame(region):
    return edit(region, 16, x=40.0)


def turned_key_frame(region):
    return edit(region, 11, rotation=30)


def deleted_key_frame(region):
    region = copy.deepcopy(region)
    del region["value"]["sequence"][1]
    return region


def moved_first(region):
    return edit(region, 1, x=40.0)


def moved_last(region):
    return edit(region, 30, x=40.0)


def plain_new_key_frame(region):
    """One that inherits nothing, as from the editor's button."""
    region = copy.deepcopy(region)
    new = {"frame": 16, "time": 16 / 25, "enabled": True, "rotation": 0}
    new |= {"x": 1, "y": 1, "width": 9, "height": 9}
    region["value"]["sequence"].insert(2, new)
    return region


EDITS = [
    # From the key frame before to the one after, both exclusive.
    (moved_key_frame, range(1, 20)),
    (turned_key_frame, range(1, 20)),
    (added_key_frame, range(11, 20)),
    (plain_new_key_frame, range(11, 20)),
    (moved_first, range(0, 10)),
    (moved_last, range(21, 30)),
    # Deleted: its own mask and those that rode on it are gone, no more.
    (deleted_key_frame, range(10, 20)),
]


@pytest.mark.parametrize(("change", "stale"), EDITS)
def test_frames_around_an_edit_are_stale_and_listed(change, stale):
    track, region = tracked()
    item = exported(video_task(change(region)), stale="leave-out")
    assert item.stale == {"a": tuple(stale)}
    assert masks_of(item) == {i: m for i, m in track.masks.items() if i not in stale}


@pytest.mark.parametrize(("change", "stale"), EDITS)
def test_without_the_video_the_same_frames_are_stale(change, stale):
    track, region = tracked()
    task = video_task(change(region))
    for config in (VIDEO_CONFIG, None):
        item = exported(task, config=config, info=None, stale="leave-out")
        assert item.stale == {"a": tuple(stale)} and item.video.info.fps == 25
        assert masks_of(item) == {i: m for i, m in track.masks.items() if i not in stale}


@pytest.mark.parametrize("change", [lambda region: region, *(change for change, _ in EDITS)])
def test_an_export_with_interpolated_key_frames_is_the_same(change):
    _, region = tracked()
    plain = change(region)
    (interpolated,) = extract_key_frames([copy.deepcopy(plain)])
    assert len(interpolated["value"]["sequence"]) >= 28
    for info in (INFO, None):
        expected = exported(video_task(plain), info=info)
        item = exported(video_task(interpolated), info=info)
        assert item.stale == expected.stale and item.hidden == expected.hidden
        if change is not turned_key_frame:  # which the SDK turns in its own way
            assert masks_of(item) == masks_of(expected)
    requests = video_requests([interpolated], config=VIDEO_CONFIG, info=INFO, framerate=25.0)
    expected = video_requests([plain], config=VIDEO_CONFIG, info=INFO, framerate=25.0)
    assert [p.frame_index for p in requests[0].prompts] == [
        p.frame_index for p in expected[0].prompts
    ]


def test_an_interpolated_key_frame_that_a_person_moved_counts():
    _, region = tracked()
    (interpolated,) = extract_key_frames([copy.deepcopy(region)])
    moved = next(k for k in interpolated["value"]["sequence"] if k["frame"] == 16)
    moved["x"] = 40.0
    assert exported(video_task(interpolated)).stale == {"a": tuple(range(11, 20))}


@pytest.mark.parametrize(("change", "stale"), EDITS)
def test_stale_frames_can_hold_the_editors_box(change, stale):
    track, region = tracked()
    edited = change(region)
    item = exported(video_task(edited), stale="rectangle")
    assert item.stale == {"a": tuple(stale)}
    for index, mask in masks_of(item).items():
        if index not in stale:
            assert mask == track.masks[index]
            continue
        box = editor_box(edited["value"]["sequence"], index + 1)
        if box.rotation_degrees == 0:
            pixels, filled = box.to_pixels(SIZE), mask_box(mask)
            for side in ("x_min", "y_min", "x_max", "y_max"):
                inside = min(max(getattr(pixels, side), 0), SIZE[side[0] == "x"])
                assert abs(getattr(filled, side) - inside) <= 0.5
            assert decode_mask(mask).sum() == filled.area


@pytest.mark.parametrize(("change", "stale"), EDITS)
def test_stale_frames_can_be_tracked_again(change, stale):
    track, region = tracked()
    requests = []

    def resegment(request):
        requests.append(request)
        found = {i: np.zeros(SIZE, bool) for i in request.frame_indices}
        found[request.frame_indices[0]][:3, :5] = True
        return found

    item = exported(video_task(change(region)), stale="resegment", resegment=resegment)

    (request,) = requests
    assert (request.media, request.info, request.object_id) == (VIDEO, INFO, "a")
    assert request.frame_indices == tuple(stale) == item.stale["a"]
    assert request.masks == {i: m for i, m in track.masks.items() if i not in stale}
    drawn = [p.frame_index for p in request.prompts]
    assert drawn == ([] if change is deleted_key_frame else drawn) and set(drawn) <= set(stale)
    assert all(isinstance(p.box, Box) for p in request.prompts)
    # Empty masks are not there.
    filled = set(masks_of(item)) & set(stale)
    assert filled == {stale[0]} and columns(masks_of(item)[stale[0]]) == [0, 1, 2, 3, 4]


def test_a_turned_box_is_filled_as_it_is_shown():
    _, region = tracked()
    edited = edit(region, 30, rotation=45)
    filled = masks_of(exported(video_task(edited)))[29]
    shown = editor_box(edited["value"]["sequence"], 30)
    upright = shown.width_percent * shown.height_percent / 10_000 * 48 * 64
    assert decode_mask(filled).sum() == pytest.approx(upright, rel=0.3)
    assert decode_mask(filled).sum() < mask_box(filled).area * 0.8


def test_a_persons_key_frame_that_was_answered_is_not_stale():
    track, region = tracked()
    answered = json.loads(json.dumps(as_region(track, source_region=added_key_frame(region))))
    item = exported(video_task(answered))
    assert masks_of(item) == track.masks and item.stale == {}


def test_a_region_that_was_never_tracked_is_stale_from_end_to_end():
    sequence = [{"frame": 3, "x": 0, "y": 0, "width": 50, "height": 50, "enabled": True}]
    region = {
        "id": "drawn", "from_name": "box", "to_name": "video", "type": "videorectangle",
        "value": {"framesCount": 40, "duration": 1.6, "sequence": sequence, "labels": ["Car"]},
    }  # fmt: skip
    item = exported(video_task(region))
    assert item.stale == {"drawn": tuple(range(2, 40))}
    assert columns(masks_of(item)[39]) == list(range(32))
    nothing = exported(video_task(region), stale="leave-out")
    assert nothing.video.tracks[0].masks == {} and nothing.stale == item.stale


def test_what_a_person_hid_is_left_out_and_listed():
    track, region = tracked()
    region["value"]["sequence"][1]["enabled"] = False  # frame 11: hidden from 12 to 20
    item = exported(video_task(region))
    assert item.hidden == {"a": tuple(range(11, 20))} and item.stale == {}
    assert masks_of(item) == {i: m for i, m in track.masks.items() if i not in range(11, 20)}


def test_what_a_person_showed_beyond_the_track_is_stale():
    track, region = tracked()
    region["value"]["sequence"][-1]["enabled"] = True
    assert exported(video_task(region)).stale == {"a": tuple(range(30, 40))}


def test_frames_that_are_never_shown_go_with_their_neighbours():
    config = parse_label_config(VIDEO_XML.replace('"25"', '"5"'))  # every fifth frame
    track = moving_track(INFO, range(40))
    region = json.loads(json.dumps(as_region(track, framerate=5.0, keyframes="all")))
    moved = edit(region, 3, x=1.0)  # frame index 10
    item = exported(video_task(moved), config=config, stale="leave-out")
    assert item.stale == {"a" if "a" in item.stale else "car": (10,)}
    assert sorted(masks_of(item)) == [*range(0, 6), *range(15, 40)]
    region["value"]["sequence"][2]["enabled"] = False
    del region["value"]["sequence"][3:]
    hidden = exported(video_task(region), config=config)
    assert max(masks_of(hidden)) <= 14


def test_the_log_says_what_is_stale(tmp_path, caplog):
    _, region = tracked()
    path = tmp_path / "export.json"
    path.write_text(json.dumps([video_task(moved_key_frame(region))]))
    with caplog.at_level(logging.WARNING):
        (video,) = load_export(path, label_config=VIDEO_XML, video_infos=lambda _: INFO)
    assert isinstance(video, AnnotatedVideo)
    assert "19 masks of 1 objects are missing or out of date" in caplog.text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.booleans(), st.integers(0, 90), st.integers(-180, 360)),
        max_size=8,
    )
)
def test_boxes_of_all_frames_are_those_of_each_frame(entries):
    sequence = [
        {"frame": f, "enabled": e, "x": x, "y": 0, "width": 5, "height": 5, "rotation": r}
        for f, e, x, r in entries
    ]
    expected = {f: editor_box(sequence, f) for f in range(1, 36)}
    assert editor_boxes(sequence, 35) == {f: b for f, b in expected.items() if b is not None}


# --- regions on images -------------------------------------------------------


def mark(kind, value, *, id, item_index=0, labels=("Car",), **fields):
    names = {"brushlabels": "brush", "rectanglelabels": "rect", "keypointlabels": "kp"}
    return {
        "id": id, "type": kind, "from_name": names[kind], "to_name": "img", "item_index": item_index,
        "original_width": 64, "original_height": 48, "image_rotation": 0,
        "value": {**value, kind: list(labels)}, **fields,
    }  # fmt: skip


def brush(mask, **fields):
    return mark("brushlabels", {"format": "rle", "rle": brush_rle.encode(mask)}, **fields)


def box(x, **fields):
    return mark("rectanglelabels", {"x": x, "y": 0, "width": 25, "height": 50}, **fields)


LEFT, RIGHT = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
LEFT[:, :4] = True
RIGHT[:, 60:] = True


def read_frames(*regions, **options):
    return exported(frames_task(*regions), config=FRAMES_CONFIG, info=None, **options)


def test_regions_that_share_our_track_are_one_object_and_others_are_their_own():
    item = read_frames(
        brush(LEFT, id="r1", meta={"track": "t"}),
        brush(RIGHT, id="r2", meta={"track": "t"}),
        brush(RIGHT, id="r3", item_index=2, meta={"track": "t"}, labels=("Dog",)),
        brush(LEFT, id="r4"),
        box(0, id="r5", item_index=1),
    )
    tracks = {t.object_id: t for t in item.video.tracks}
    assert list(tracks) == ["t", "r4", "r5"]
    assert tracks["t"].labels == ("Car", "Dog")
    assert tracks["t"].masks == {0: encode_mask(LEFT | RIGHT), 2: encode_mask(RIGHT)}
    assert columns(tracks["r5"].masks[1]) == list(range(16))


def test_a_rectangle_counts_only_where_its_object_has_no_mask():
    meta = {"track": "t"}
    item = read_frames(
        box(50, id="a", meta=meta), brush(LEFT, id="b", meta=meta),
        box(50, id="c", meta=meta, item_index=1),
    )  # fmt: skip
    assert masks_of(item)[0] == encode_mask(LEFT)
    assert columns(masks_of(item)[1]) == list(range(32, 48))


def test_key_points_and_empty_strokes_are_named_as_left_out():
    item = read_frames(
        mark("keypointlabels", {"x": 1, "y": 1}, id="k"),
        brush(np.zeros(SIZE, bool), id="e"),
        brush(LEFT, id="b"),
        {"type": "choices", "from_name": "c", "to_name": "img", "value": {"choices": ["x"]}},
        {"id": "l", "type": "ellipselabels", "to_name": "img", "value": {"x": 1, "y": 1}},
    )
    assert [(d.region_id, d.reason) for d in item.dropped] == [
        ("k", "a key point has no mask"),
        ("l", "regions of type 'ellipselabels' are not read"),
        ("e", "it has no pixel on frame 0"),
    ]
    assert [t.object_id for t in item.video.tracks] == ["b"]


def test_one_picture():
    config = parse_label_config(FRAMES_XML.replace('valueList="$frames"', 'value="$image"'))
    task = video_task(brush(LEFT, id="b"), data={"image": "https://example.com/pictures/cat.png"})
    for choice in (config, None):
        item = exported(task, config=choice, info=None)
        assert item.video.info.frame_count == 1 and masks_of(item) == {0: encode_mask(LEFT)}
        assert item.video.name == "7-cat" and item.video.file_names == ("7-cat/cat.png",)


def test_a_video_and_its_frames_in_one_task_are_two_videos():
    config = parse_label_config((DATA / "configs/config_e_video_plus_image.xml").read_text())
    task = video_task(
        as_region(moving_track(INFO, range(3))), brush(LEFT, id="b"),
        data={"video": VIDEO, "frames": FRAME_URLS},
    )  # fmt: skip
    items = export_task(task, ExportOptions(label_config=config))
    assert [i.video.name for i in items] == ["7-ef9e5fd2-n25-video", "7-clip-img"]
    assert [t.object_id for i in items for t in i.video.tracks] == ["car", "b"]


# --- which annotation, which source ------------------------------------------


def result_of(name):
    return [as_region(moving_track(INFO, range(2), object_id=name))]


def note(id, updated="2026-01-01T00:00:00Z", **fields):
    return {"id": id, "updated_at": updated, "result": result_of(f"of {id}"), **fields}


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        # Ground truth before later ones.
        ([note(1, ground_truth=True), note(2, "2026-02-01T00:00:00Z")], "of 1"),
        # The one updated last, wherever it stands; the higher id at the same time.
        ([note(2, "2026-02-01T00:00:00Z"), note(1)], "of 2"),
        ([note(4), note(3)], "of 4"),
        # Cancelled ones never, ground truth or not.
        ([note(1), note(2, "2026-02-01T00:00:00Z", was_cancelled=True)], "of 1"),
        ([note(1), note(2, was_cancelled=True, ground_truth=True)], "of 1"),
    ],
)
def test_one_annotation_is_chosen(annotations, expected):
    item = exported(video_task(annotations=annotations))
    assert [t.object_id for t in item.video.tracks] == [expected]
    assert item.video.name == "7-ef9e5fd2-n25"


def test_all_annotations_can_be_read():
    task = video_task(annotations=[note(1), note(2, was_cancelled=True), note(5)])
    items = export_task(task, ExportOptions(label_config=VIDEO_CONFIG, annotations="all"))
    assert [i.video.name for i in items] == [
        "7-ef9e5fd2-n25-annotations-1", "7-ef9e5fd2-n25-annotations-5",
    ]  # fmt: skip
    assert [i.source for i in items] == ["annotations 1", "annotations 5"]


@pytest.mark.parametrize(
    ("fields", "sources", "expected"),
    [
        ({}, ("annotations",), "it has no annotations"),
        ({"annotations": [note(1, was_cancelled=True)]}, ("annotations",), "all annotations are"),
        ({"predictions": [16]}, ("annotations", "predictions"), "predictions are in the file by id"),
        ({"predictions": [note(1)]}, ("annotations",), "it has no annotations"),
        ({"predictions": [note(1)]}, ("annotations", "predictions"), ["of 1"]),
        ({"drafts": [note(2)], "predictions": [note(1)]}, ("drafts", "predictions"), ["of 2"]),
        # Their old name.
        ({"completions": [note(9)]}, ("annotations",), ["of 9"]),
        ({"annotations": []}, ("annotations",), "it has no annotations"),
    ],
)
def test_predictions_and_drafts_are_read_when_asked(fields, sources, expected):
    task = {"id": 7, "data": {"video": VIDEO}, **fields}
    item = exported(task, sources=sources)
    if isinstance(expected, str):
        assert isinstance(item, SkippedTask) and expected in item.reason and item.task_id == 7
    else:
        assert [t.object_id for t in item.video.tracks] == expected


def test_an_annotation_that_marks_nothing_is_a_video_without_objects():
    item = exported(video_task())
    assert isinstance(item, ExportedVideo) and item.video.tracks == ()
    skipped = exported(video_task(), info=None)
    assert isinstance(skipped, SkippedTask) and "pass video_infos" in skipped.reason


def test_a_real_task_of_the_api():
    task = payload("task_with_prediction_and_annotation_extra_keyframe_fields")
    info = constant_rate_info(100)
    for sources in (("annotations",), ("predictions",)):
        item = exported(task, info=info, sources=sources)
        (track,) = item.video.tracks
        assert (track.object_id, track.labels) == ("p2", ("Dog",))
        assert sorted(track.masks) == list(range(30)) and item.stale == {"p2": tuple(range(30))}


# --- files -------------------------------------------------------------------


def test_json_min_as_the_sdk_writes_it(tmp_path):
    track = moving_track(INFO, [*range(3, 18), *range(22, 40)])
    later = moving_track(INFO, range(5), labels=("Dog",))
    notes = [
        {"id": 2, "created_at": "2026-01-01", "updated_at": "2026-03-01", "result": [as_region(later)]},
        {"id": 1, "created_at": "2026-02-01", "updated_at": "2026-02-01", "result": [as_region(track)]},
    ]  # fmt: skip
    source = tmp_path / "source.json"
    source.write_text(json.dumps([video_task(annotations=notes), video_task(as_region(track), id=8)]))
    Converter(VIDEO_XML, project_dir=None).convert_to_json_min(str(source), str(tmp_path), is_dir=False)
    path = tmp_path / "result.json"

    for config in (VIDEO_XML, None):
        videos = list(load_export(path, label_config=config))
        assert [v.name for v in videos] == ["7-ef9e5fd2-n25", "8-ef9e5fd2-n25"]
        assert videos[0].tracks[0].masks == later.masks and videos[0].tracks[0].labels == ("Dog",)
        assert videos[1].tracks[0].masks == track.masks
    every = list(load_export(path, label_config=VIDEO_XML, annotations="all"))
    assert [v.name for v in every] == [
        "7-ef9e5fd2-n25-annotations-1", "7-ef9e5fd2-n25-annotations-2", "8-ef9e5fd2-n25-annotations-3",
    ]  # fmt: skip


def test_json_min_of_one_picture_and_of_frames():
    value = {
        "format": "rle", "rle": brush_rle.encode(LEFT), "brushlabels": ["Car"],
        "original_width": 64, "original_height": 48,
    }  # fmt: skip
    record = {"id": 7, "image": "a.png", "brush": [value], "annotation_id": 1, "annotator": 1}
    config = parse_label_config(FRAMES_XML.replace('valueList="$frames"', 'value="$image"'))
    assert masks_of(exported(record, config=config, info=None)) == {0: encode_mask(LEFT)}
    record["frames"] = FRAME_URLS
    with pytest.raises(ValueError, match="JSON_MIN does not say which frame"):
        exported(record, config=FRAMES_CONFIG, info=None)


def test_json_min_errors_name_the_place_in_the_record():
    region = as_region(moving_track(INFO, range(3)))
    region["value"]["sequence"][1]["x"] = None
    record = {"id": 7, "video": VIDEO, "box": [region["value"]], "annotation_id": 1}
    with pytest.raises(ValueError, match=r"^task\.box\[0\]\.sequence\[1\]\.x: x None, must be"):
        exported(record)


def test_a_file_is_read_a_task_at_a_time(tmp_path):
    """What lies behind the first task, broken or huge, is not looked at before it is asked for."""
    path = tmp_path / "export.json"
    task = json.dumps(video_task(as_region(moving_track(INFO, range(40)))))
    path.write_text(f"\ufeff [ {task}, {task}, {{broken" + " " * 100_000, encoding="utf-8")
    tasks = load_export(path, label_config=VIDEO_XML)
    assert next(tasks).tracks[0].object_id == "car"
    assert next(tasks).tracks[0].object_id == "car"
    with pytest.raises(ValueError, match=r"export\.json: tasks\[2\] is not valid JSON"):
        next(tasks)


def test_memory_does_not_grow_with_the_file(tmp_path):
    import tracemalloc

    path = tmp_path / "export.json"
    task = json.dumps(video_task(as_region(moving_track(INFO, range(40)))))
    with open(path, "w") as file:
        file.write("[" + ",".join([task] * 300) + "]")
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_tasks(path)) == 300
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 4


def test_one_task_alone_is_read_too(tmp_path):
    path = tmp_path / "task.json"
    path.write_text(json.dumps(video_task(as_region(moving_track(INFO, range(4))))))
    assert len(list(load_export(path))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a JSON array of tasks"),
        ("  hello", "must be a JSON array of tasks"),
        ('"x"', "must be a JSON array of tasks"),
        ("[nan]", r"tasks\[0\] is not valid JSON"),
        ("[NaN]", r"^tasks\[0\]: 'None' must be an object"),
        ('[{"data": {"a": 1}', r"tasks\[0\] is not valid JSON"),
        ("[7]", r"^tasks\[0\]: '7' must be an object"),
        ('[{"id": 1}]', r"^tasks\[0\]\.data: 'None' must be an object"),
        ('[{"data": {}, "annotations": 5}]', r"^tasks\[0\]\.annotations: '5' must be a list"),
        ('[{"data": {}, "annotations": [null]}]', r"annotations\[0\]: 'None' must be an object"),
        ('[{"data": {}, "annotations": [{"result": 1}]}]', r"\.result: '1' must be a list"),
        ('[{"data": {}, "annotations": [{"result": [1]}]}]', r"\.result\[0\]: '1' must be an obj"),
    ],
)
def test_files_that_are_no_export_are_refused(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        list(load_export(path))


# --- malformed values --------------------------------------------------------

PREFIX = r"^tasks\[1\]\.annotations\[0\]\.result\[0\]\."


def change_keyframe(**fields):
    def change(region):
        region["value"]["sequence"][1].update(fields)

    return change


def change_region(**fields):
    return lambda region: region.update(fields)


def change_value(**fields):
    return lambda region: region["value"].update(fields)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (change_keyframe(x=float("nan")), r"value\.sequence\[1\]\.x: x nan, must be a finite number"),
        (change_keyframe(height="5"), r"value\.sequence\[1\]\.height: height '5', must be a finite"),
        (change_keyframe(rotation=[]), r"value\.sequence\[1\]\.rotation: rotation \[\], must be"),
        (change_keyframe(frame=-4), r"value\.sequence\[1\]\.frame: -4 must be an integer from 1"),
        (change_keyframe(frame=1.5), r"value\.sequence\[1\]\.frame: 1\.5 must be an integer"),
        (change_keyframe(frame=10**18), r"value\.sequence\[1\]\.frame: 10+ must be an integer"),
        (change_keyframe(masks={"-1": {}}), r"value\.sequence\[1\]\.masks: entry '-1' must be"),
        (change_keyframe(masks={"7": {"size": [1, 2]}}), r"value\.sequence\[1\]\.masks\.7\.size: mask has"),
        (change_value(sequence=None), r"value\.sequence: must be a list"),
        (change_value(labels=["Cat"]), r"value\.labels: label 'Cat' is not in the label config"),
        (change_value(labels="Car"), r"value\.labels: 'Car' must be a list of strings"),
        (change_region(from_name="gone"), r"from_name: the label config has no VideoRectangle"),
        (change_region(to_name="gone"), r"to_name: 'gone' must be one of \['video'\]"),
        (change_region(id=None), r"id: None must be a string"),
        (change_region(value=7), r"value: must be an object"),
    ],
)
def test_errors_name_the_path_of_the_value(change, path):
    region = json.loads(json.dumps(as_region(moving_track(INFO, range(10)), keyframes="all")))
    change(region)
    options = ExportOptions(label_config=VIDEO_CONFIG, video_infos=lambda _: INFO)
    task = video_task()
    task["annotations"][0]["result"] = [region]
    with pytest.raises(ValueError, match=PREFIX + path):
        export_task(task, options, where="tasks[1]")


def with_counts(counts, size=(48, 64)):
    def change(region):
        region["value"]["sequence"][0]["mask"].update(counts=counts, size=list(size))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # More pixels than there are, by a few characters.
        (with_counts("oooooo0"), r"mask\.counts: mask counts 'oooooo0' cover \d+ pixels"),
        (with_counts("ooooooooooooooo0"), r"mask\.counts: .* a number too large"),
        (with_counts(""), r"mask\.counts: .* one or more characters"),
        # A picture of 10^18 pixels.
        (with_counts("0", (10**9, 10**9)), r"mask\.size: 10+ x 10+ must be at most"),
        (with_counts("0", (0, 5)), r"mask\.size: 0 must be an integer >= 1"),
        (with_counts("0", ("a", 5)), r"mask\.size: 'a' must be an integer"),
        (change_value(framesCount=10**15), r"value\.framesCount: 10+ must be from 0 to"),
        (change_value(framesCount=9_000_000), r"speak of 9000000 frames, may be 1000000"),
    ],
)
def test_sizes_that_would_fill_the_memory_are_refused(change, message):
    region = json.loads(json.dumps(as_region(moving_track(INFO, range(3)))))
    change(region)
    with pytest.raises(ValueError, match=message):
        exported(video_task(region), info=None)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (brush(LEFT, id="b", item_index=6), r"item_index: 6 must be an integer in \[0, 6\)"),
        (brush(LEFT, id="b", item_index=-1), "item_index: -1"),
        (brush(LEFT, id="b", labels=["Cat"]), r"value\.brushlabels: label 'Cat' is not"),
        (brush(LEFT, id="b", image_rotation=90), "image_rotation: 90 must be 0"),
        (brush(LEFT, id="b", meta={"track": 1.5}), r"meta\.track: 1\.5 must be a string"),
        (mark("brushlabels", {"format": "rle", "rle": brush_rle.encode(LEFT)[:-3]}, id="b"),
         r"value\.rle: rle is truncated"),
        (mark("brushlabels", {"format": "rle", "rle": []}, id="b"), r"value\.rle: rle has 0 bytes"),
        (mark("brushlabels", {"format": "rle", "rle": [255] * 40}, id="b"), r"value\.rle: rle has"),
        (mark("brushlabels", {"rle": []}, id="b"), r"value\.format: None must be 'rle'"),
        (box(float("inf"), id="b"), r"value\.x: inf must be a finite"),
        (brush(LEFT, id="b", from_name="rect"), r"from_name: 'rect' is a RectangleLabels, but"),
    ],
)  # fmt: skip
def test_malformed_regions_on_images_are_named(region, message):
    task = frames_task()
    task["annotations"][0]["result"] = [brush(LEFT, id="first"), region]
    with pytest.raises(ValueError, match=r"^task\.annotations\[0\]\.result\[1\]\." + message):
        exported(task, config=FRAMES_CONFIG, info=None)


@pytest.mark.parametrize("known", [True, False])
def test_a_wrong_original_width_is_refused(known):
    wrong = brush(LEFT, id="b", original_width=65)
    info = constant_rate_info(1) if known else None
    with pytest.raises(ValueError, match=r"result\[1\]\.original_width: 65 must be 64"):
        exported(frames_task(brush(LEFT, id="a"), wrong), config=FRAMES_CONFIG, info=info)
    with pytest.raises(ValueError, match=r"result\[0\]\.(original_width: 65 must|value\.rle: rle holds)"):
        exported(frames_task(wrong), config=FRAMES_CONFIG, info=info)


def test_a_picture_that_claims_to_be_huge_is_refused():
    huge = brush(LEFT, id="b", original_width=10**9, original_height=10**9)
    with pytest.raises(ValueError, match=r"original_height: 10+ x 10+ must be at most"):
        exported(frames_task(huge), config=FRAMES_CONFIG, info=None)


def test_two_regions_of_one_id_are_refused():
    region = as_region(moving_track(INFO, range(3)))
    with pytest.raises(ValueError, match=r"result\[1\]\.id: 'car' is that of an earlier region"):
        exported(video_task(region, region))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stale": "guess"}, "stale='guess' must be one of"),
        ({"annotations": "some"}, "annotations='some' must be one of"),
        ({"sources": ("webhooks",)}, "sources=.* must hold one or more of"),
        ({"sources": "annotations"}, "sources='annotations' must hold"),
        ({"sources": ()}, r"sources=\(\) must hold"),
        ({"stale": "resegment"}, "must go together"),
        ({"resegment": lambda request: {}}, "must go together"),
    ],
)
def test_bad_options_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        load_export("nowhere.json", **options)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({39: np.ones(SIZE, bool)}, "frame index 39: was not asked for"),
        ({1: np.ones((4, 4), bool)}, "mask has size 4 x 4, must be"),
        ({1: np.ones(SIZE, np.uint8)}, "must be bool"),
    ],
)
def test_a_callback_that_gives_something_else_is_refused(found, message):
    _, region = tracked()
    with pytest.raises(ValueError, match=message):
        exported(
            video_task(moved_key_frame(region)), stale="resegment", resegment=lambda _: found
        )


@pytest.mark.parametrize(
    "data", [{"a": "x.mp4", "b": "y.mp4"}, {"a": "x", "b": "y"}, {}], ids=["two", "unclear", "none"]
)
def test_without_a_config_the_media_must_be_clear(data):
    task = video_task(as_region(moving_track(INFO, range(3))), data=data)
    with pytest.raises(ValueError, match=r"^task\.data: .* pass the label config"):
        exported(task, config=None)


def test_object_ids_labels_and_names_in_any_script():
    xml = VIDEO_XML.replace("Car", "Hund ü 犬")
    track = moving_track(INFO, range(3), object_id="ид", labels=("Hund ü 犬",))
    region = track_to_video_region(
        track, control=parse_label_config(xml).video_rectangles[0], info=INFO, framerate=25.0
    )
    task = video_task(region, data={"video": "/data/upload/1/видео 1.mp4"})
    item = exported(task, config=parse_label_config(xml))
    assert item.video.tracks[0].labels == ("Hund ü 犬",) and item.video.name == "7-видео_1"


def test_two_readings_are_the_same():
    _, region = tracked()
    task = video_task(moved_key_frame(region))
    first, second = exported(task).video, exported(task).video
    assert first == second
    assert annotated_video().name and isinstance(first.info, VideoInfo)


def test_bitmask_sizes_are_checked_by_the_header():
    url = bitmask_png.encode(np.ones((48, 65), bool))
    region = {
        "id": "b", "type": "bitmasklabels", "from_name": "bm", "to_name": "img", "item_index": 0,
        "original_width": 64, "original_height": 48,
        "value": {"imageDataURL": url, "bitmasklabels": ["Car"]},
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"value\.imageDataURL: bitmask has size 48 x 65"):
        exported(frames_task(region), config=FRAMES_CONFIG, info=None)
