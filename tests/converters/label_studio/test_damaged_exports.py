"""Whatever is in an export: a ValueError that names the path, or videos; nothing else."""

import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters import bitmask_png, brush_rle
from converters.label_studio.config import parse_label_config
from converters.label_studio.export import ExportOptions, SkippedTask, export_task
from converters.label_studio.polygons import vertices_of
from converters.label_studio.regions import track_to_video_region
from converters.label_studio.results import frame_requests, video_requests
from converters.label_studio.video_vector import track_to_video_vector_region
from tests.converters.cases import constant_rate_info, moving_track
from tests.converters.label_studio.test_results import FRAMES_XML

XML = FRAMES_XML.replace(
    "</View>",
    '<Video name="video" value="$video" framerate="25"/>'
    '<Labels name="l" toName="video"><Label value="Car"/></Labels>'
    '<VideoRectangle name="box" toName="video"/><VideoVector name="vec" toName="video"/></View>',
)
CONFIG = parse_label_config(XML)
INFO = constant_rate_info(8)
SIZE = (48, 64)


def whole_task():
    mask = np.zeros(SIZE, bool)
    mask[10:20, 10:30] = True
    corners = [(10.0, 10.0), (50.0, 10.0), (50.0, 60.0)]
    values = {
        "brushlabels": ("brush", {"format": "rle", "rle": brush_rle.encode(mask)}),
        "bitmasklabels": ("bm", {"imageDataURL": bitmask_png.encode(mask)}),
        "polygonlabels": ("poly", {"points": [list(c) for c in corners], "closed": True}),
        "vectorlabels": ("vector", {"vertices": vertices_of(corners), "closed": True}),
        "rectanglelabels": ("rect", {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 5}),
        "keypointlabels": ("kp", {"x": 1, "y": 2, "width": 3}),
    }
    regions = [
        {
            "id": f"on {kind}", "type": kind, "from_name": name, "to_name": "img", "item_index": 1,
            "original_width": 64, "original_height": 48, "image_rotation": 0, "score": 0.5,
            "origin": "manual", "meta": {"track": "t"} if kind == "brushlabels" else {},
            "value": {**value, kind: ["Car"]},
        }
        for kind, (name, value) in values.items()
    ]  # fmt: skip
    rectangle = track_to_video_region(
        moving_track(INFO, [0, 1, 2, 3, 6, 7], object_id="r"),
        control=CONFIG.video_rectangles[0], info=INFO, framerate=25.0, min_iou=0.5,
    )  # fmt: skip
    vector = track_to_video_vector_region(
        moving_track(INFO, [2, 3], object_id="v"),
        control=CONFIG.video_vectors[0], info=INFO, framerate=25.0,
    )  # fmt: skip
    task = {
        "id": 1,
        "data": {"video": "clip.mp4", "frames": [f"f{i}.jpg" for i in range(8)]},
        "annotations": [{"id": 2, "result": [*regions, rectangle, vector]}],
        "predictions": [],
    }
    return json.loads(json.dumps(task))


TASK = whole_task()
JUNK = [
    None, True, False, 0, -1, 1, 1.5, 1e308, -1e308, float("nan"), float("inf"), 10**30, 10**400, "", "x",
    "0" * 5000, "²", [], {}, [None], [[]], [{}], {"": None}, ["Car"], {"x": {}}, b"x".decode(),
]  # fmt: skip


def places(value, path=()):
    """Every place in a document, keys of lists and objects in order."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items if isinstance(value, (dict, list)) else ():
        if isinstance(item, (dict, list)) and not (isinstance(item, list) and len(item) > 40):
            yield from places(item, (*path, key))
        else:
            yield (*path, key)


PLACES = [path for path in places(TASK) if path]


def changed(path, junk):
    task = copy.deepcopy(TASK)
    holder = task
    for key in path[:-1]:
        holder = holder[key]
    if junk is KeyError:
        del holder[path[-1]]
    else:
        holder[path[-1]] = junk
    return task


def test_the_undamaged_task_is_read():
    video, frames = (
        item for item in sorted(
            export_task(TASK, ExportOptions(label_config=CONFIG)), key=lambda i: -len(i.video.name)
        )
    )  # fmt: skip
    assert {t.object_id for v in (video, frames) for t in v.video.tracks} >= {"t", "r", "v"}


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(PLACES),
    st.sampled_from([*JUNK, KeyError]),
    st.booleans(),
    st.booleans(),
)
def test_a_damaged_task_gives_videos_or_a_value_error(path, junk, with_config, with_info):
    options = ExportOptions(
        label_config=CONFIG if with_config else None,
        video_infos=(lambda _: INFO) if with_info else None,
    )
    try:
        found = export_task(changed(path, junk), options, where="tasks[0]")
    except ValueError as error:
        assert str(error).startswith("tasks[0]")
        return
    for item in found:
        if not isinstance(item, SkippedTask):
            for track in item.video.tracks:
                assert all(0 <= index < item.video.info.frame_count for index in track.masks)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([p for p in PLACES if p[:3] == ("annotations", 0, "result") and len(p) > 3]),
    st.sampled_from([*JUNK, KeyError]),
)
def test_damaged_results_give_prompts_or_a_value_error(path, junk):
    results = changed(path, junk)["annotations"][0]["result"]
    for read in (
        lambda: video_requests(results, config=CONFIG, info=INFO, framerate=25.0),
        lambda: frame_requests(results, config=CONFIG, info=INFO),
    ):
        try:
            read()
        except ValueError:
            pass


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_a_task_that_is_none_is_refused(junk):
    with pytest.raises(ValueError, match="^task"):
        export_task(junk)
