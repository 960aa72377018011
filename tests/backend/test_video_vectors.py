"""VideoVector(Labels) over /predict: a person's outlines are tracked and stay as drawn."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest

from converters.label_studio.video_vector import read_video_vector
from converters.masks import decode_mask
from sam2_model.video import open_frame_source
from tests.backend.calls import (
    box,
    call,
    draft,
    jobs_of,
    predict,
    result_of,
    saved,
    task,
    text,
    wait_for_jobs,
)
from tests.backend.conftest import FRAME_COUNT
from tests.backend.quick_model import Hold
from tests.backend.test_enterprise import disc

CONFIG = (
    '<View><Video name="video" value="$video" framerate="25"/>'
    '<VideoVectorLabels name="vector" toName="video"><Label value="Car"/></VideoVectorLabels>'
    '<TextArea name="sam2" toName="video"/></View>'
)
WITH_BOXES = CONFIG.replace(
    "</View>",
    '<Labels name="labels" toName="video"><Label value="Car"/></Labels>'
    '<VideoRectangle name="box" toName="video"/></View>',
)
AROUND_THE_DISC = [(22, 21), (47, 21), (47, 54), (22, 54)]


def outline(frame=1, corners=AROUND_THE_DISC, **more):
    vertices = [{"id": f"p{i}", "x": x, "y": y} for i, (x, y) in enumerate(corners)]
    return {"frame": frame, "time": frame / 25, "enabled": True, "closed": True,
            "vertices": vertices, **more}


def vector(region_id="v", *outlines, **more):
    return {
        "id": region_id, "from_name": "vector", "to_name": "video", "type": "videovectorlabels",
        "origin": "manual",
        "value": {"labels": ["Car"], "framesCount": 8, "duration": 0.32,
                  "sequence": list(outlines) or [outline()]},
        **more,
    }


def ask(client, *results, config=CONFIG, **of_task):
    return result_of(client, call(task(**of_task), *results, config=config))


def shown(region):
    """Frames with an outline."""
    return [k["frame"] for k in region["value"]["sequence"] if k["vertices"]]


def test_an_outline_is_tracked_by_the_real_model(client, media_root):
    drawn = vector()
    (region,) = ask(client, drawn)
    assert (region["id"], region["type"]) == ("v", "videovectorlabels")
    assert region["value"]["labels"] == ["Car"]
    assert region["value"]["sequence"][0]["vertices"] == drawn["value"]["sequence"][0]["vertices"]
    with open_frame_source(media_root / "n25.mp4") as source:
        masks, _ = read_video_vector(region, source.info, 25)
    assert list(masks) == list(range(FRAME_COUNT))
    found, truth = decode_mask(masks[7]), disc(7)
    assert (found & truth).sum() / (found | truth).sum() > 0.6


def test_an_answered_outline_comes_back_as_it_was_and_a_moved_vertex_is_tracked(
    make_quick_client, quick
):
    client = make_quick_client()
    first = ask(client, vector("a"), vector("b"))
    assert ask(client, *first) == first and len(jobs_of(client)) == 1
    moved = copy.deepcopy(first[0])
    moved["value"]["sequence"][4]["vertices"][0]["x"] += 4
    again = {r["id"]: r for r in ask(client, moved, first[1])}
    assert again["b"] == first[1] and quick.runs[-1] == ("a",)
    kept = again["a"]["value"]["sequence"]
    assert kept[4]["vertices"] == moved["value"]["sequence"][4]["vertices"]
    assert kept[0]["vertices"] == outline()["vertices"]


def test_a_curved_vertex_asks_anew(make_quick_client, quick):
    client = make_quick_client()
    (first,) = ask(client, vector())
    curved = copy.deepcopy(first)
    curved["value"]["sequence"][0]["vertices"][1] |= {
        "isBezier": True, "controlPoint1": {"x": 40, "y": 5}, "controlPoint2": {"x": 60, "y": 30},
    }
    ask(client, curved)
    assert len(quick.runs) == 2


def test_the_text_area_and_the_webhook_track_vectors_too(make_quick_client, studio):
    client = make_quick_client()
    the_task = task(drafts=[draft(vector("v", outline(4)))])
    (region,) = result_of(client, call(the_task, text("back"), config=CONFIG))
    assert shown(region) == [1, 2, 3, 4]
    body = saved(vector("w"), task_id=2, config=CONFIG)
    assert client.post("/webhook", json=body).json["status"] == "queued"
    wait_for_jobs(client)
    again = saved(region, config=CONFIG)
    assert client.post("/webhook", json=again).json["status"] == "ignored"


def test_an_outline_that_tracking_has_not_reached_stays_as_drawn(make_quick_client, quick):
    client = make_quick_client()
    hold = quick.before_frame = Hold(3)
    late = outline(7, [(10, 10), (30, 10), (30, 30)])
    drafted = task(drafts=[draft(vector("v", outline(), late))])
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(
            result_of, client.application.test_client(), call(drafted, text("track"), config=CONFIG)
        )
        hold.wait()
        (region,) = result_of(client, call(drafted, text("stop"), config=CONFIG))
        hold.release()
        first.result()
    assert shown(region) == [1, 2, 3, 7]
    last = region["value"]["sequence"][-1]
    assert last["vertices"] == late["vertices"] and last["enabled"] is False
    (whole,) = ask(client, vector("v", outline(), late))
    assert shown(whole) == list(range(1, FRAME_COUNT + 1))


def test_boxes_and_outlines_of_one_video_are_answered_together(make_quick_client):
    client = make_quick_client()
    answer = ask(client, vector("v"), box("b"), config=WITH_BOXES)
    assert {(r["id"], r["type"]) for r in answer} == {
        ("v", "videovectorlabels"), ("b", "videorectangle"),
    }
    assert ask(client, *answer, config=WITH_BOXES) == answer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": [{"x": 1, "y": 2}]}, "three or more"),
        ({"vertices": [{"x": "a", "y": 1}] * 3}, "vertices"),
        ({"frame": 0}, "must be an integer"),
    ],
)
def test_a_malformed_vector_is_refused_by_name(make_quick_client, change, message):
    client = make_quick_client()
    bad = vector("bad", outline(2) | change)
    answer = client.post("/predict", json=call(task(), bad, config=CONFIG))
    assert 400 <= answer.status_code < 500
    assert "'bad'" in answer.json["detail"] and message in answer.json["detail"]


def test_a_vector_without_a_person_s_outline_asks_for_nothing(make_quick_client, quick):
    client = make_quick_client()
    empty = vector("v", outline() | {"vertices": [], "enabled": False})
    assert ask(client, empty) == []
    assert predict(client, call(task(), config=CONFIG))[0]["result"] == []
    assert quick.runs == []
