"""Sessions opened with a task's regions: prompts and tracked frames are there from the start."""

import copy

import numpy as np
import pytest

from converters import brush_rle
from tests.backend.calls import keyframe, rectangle
from tests.backend.conftest import FRAME_COUNT
from tests.backend.label_studio_server import KEY, serving_label_studio
from tests.backend.test_enterprise import disc
from tests.backend.test_session_regions import BOXES, CONFIGS, moved, session_region
from tests.backend.test_sessions_api import VIDEO, change, create, iou, propagate

IMAGES = (
    '<View><Image name="img" valueList="$frames"/>'
    '<BrushLabels name="brush" toName="img"><Label value="Car"/></BrushLabels>'
    '<RectangleLabels name="rectangle" toName="img"><Label value="Car"/></RectangleLabels></View>'
)


def opened(client, results, config=BOXES, **body):
    session = create(
        client, **(body or {"data": {"video": VIDEO}, "label_config": config}), results=results
    )
    return session, client.get(session).json


def masks(client, session, object_id="a"):
    found = {}
    for index in range(client.get(session).json["video"]["frame_count"]):
        shown = client.get(f"{session}/frames/{index}/masks").json["objects"].get(object_id)
        if shown is not None:
            found[index] = shown["mask"]
    return found


def drawn(region_id="a", *keyframes):
    return {
        "id": region_id, "from_name": "box", "to_name": "video", "type": "videorectangle",
        "value": {"labels": ["Dog"], "sequence": list(keyframes) or [keyframe()]},
    }


def refusal(client, **body):
    answer = client.post("/api/sessions", json=body)
    assert client.application.extensions["sam2"].sessions.open_count == 0
    return answer.status_code, answer.json["detail"]


def test_a_person_s_keyframes_are_prompts(client):
    region = drawn("a", keyframe(1, x=22, y=21, width=25, height=33), keyframe(5, x=32, y=28))
    session, state = opened(client, [region])
    (item,) = state["objects"]
    assert (item["id"], item["labels"], sorted(item["prompts"])) == ("a", ["Dog"], ["0", "4"])
    assert item["prompts"]["0"]["box"] == pytest.approx([70.4, 50.4, 150.4, 129.6])
    assert state["can_undo"] is False and masks(client, session) == {}
    shown = client.get(f"{session}/objects/a/masks/0").json
    assert iou(shown["mask"], disc(0)) > 0.7


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_masks_that_tracking_left_are_known_frames(client, config):
    region = session_region(client, config)
    session, state = opened(client, [region], config)
    found = masks(client, session)
    assert list(found) == list(range(FRAME_COUNT)) and iou(found[7], disc(7)) > 0.7
    assert state["objects"][0]["prompts"] == {"0": {"mask": found[0]}}
    again = client.get(f"{session}/regions").json["result"]
    assert again[0]["value"]["sequence"] == region["value"]["sequence"]


def test_a_moved_keyframe_is_a_prompt_among_known_frames(client):
    region = moved(session_region(client, BOXES))
    session, state = opened(client, [region])
    last = region["value"]["sequence"][-1]["frame"] - 1
    assert list(state["objects"][0]["prompts"]) == ["0", str(last)]
    assert 0 in masks(client, session) and last not in masks(client, session)
    propagate(client, session, direction="backward", to_frame=last)
    assert last in masks(client, session)


def test_what_it_began_with_survives_a_restart(make_client):
    client = make_client()
    session, state = opened(client, [session_region(client, BOXES), drawn("b")])
    before = masks(client, session)
    client.application.extensions["sam2"].stop()
    again = make_client()
    restored = again.get(session).json
    assert restored["objects"] == state["objects"]
    assert masks(again, session) == before and len(before) == FRAME_COUNT


def test_marks_and_masks_on_images(make_client, media_root):
    client = make_client(media_roots=(media_root,))
    frames = [str(media_root / "sub" / f"f{index}.jpg") for index in range(6)]
    answer = {
        "id": "m", "from_name": "brush", "to_name": "img", "type": "brushlabels",
        "origin": "prediction", "item_index": 3, "meta": {"track": "t"}, "score": 0.9,
        "original_width": 320, "original_height": 240, "image_rotation": 0,
        "value": {"format": "rle", "rle": brush_rle.encode(disc(3)), "brushlabels": ["Car"]},
    }
    stroke = copy.deepcopy(answer) | {"id": "s", "origin": "manual", "item_index": 1, "meta": {}}
    session, state = opened(
        client, [rectangle(), answer, stroke], data={"frames": frames}, label_config=IMAGES
    )
    objects = {item["id"]: item for item in state["objects"]}
    assert list(objects["r"]["prompts"]["0"]) == ["box"]
    assert list(objects["s"]["prompts"]["1"]) == ["mask"]
    assert objects["t"]["prompts"] == {} and objects["t"]["labels"] == ["Car"]
    assert objects["t"]["scores"] == [[3, pytest.approx(np.log(9), abs=1e-3)]]
    assert iou(masks(client, session, "t")[3], disc(3)) == 1


# --- of a task ---------------------------------------------------------------


@pytest.fixture
def studio():
    with serving_label_studio() as server:
        data = {"video": "/data/local-files/?d=n25.mp4"}
        server.tasks[7] = {
            "id": 7, "project": server.add_project(BOXES), "data": data, "drafts": [],
            "annotations": [], "predictions": [],
        }
        yield server


@pytest.fixture
def task_client(make_client, studio):
    return make_client(label_studio_url=studio.url, label_studio_api_key=KEY)


def ids(client, **body):
    return [item["id"] for item in client.get(create(client, task_id=7, **body)).json["objects"]]


def test_a_task_begins_with_its_newest_work(task_client, studio):
    task = studio.tasks[7]
    assert ids(task_client) == []
    for number, region_id in ((1, "old"), (2, "predicted")):
        task["predictions"].append({"id": number, "result": [drawn(region_id)],
                                    "created_at": f"2026-11-0{number}T00:00:00Z"})
    assert ids(task_client) == ["predicted"]
    task["annotations"] = [
        {"id": 1, "result": [drawn("saved")], "updated_at": "2026-11-01T00:00:00Z"}
    ]
    assert ids(task_client) == ["saved"]
    task["drafts"] = [{"id": 2, "result": [drawn("draft")], "updated_at": "2026-11-02T00:00:00Z"}]
    assert ids(task_client) == ["draft"]
    assert ids(task_client, results=[]) == []
    assert ids(task_client, results=[drawn("mine")]) == ["mine"]


def test_a_task_whose_regions_cannot_be_read_says_how_to_begin_without(task_client, studio):
    bad = drawn("bad", keyframe(0))
    studio.tasks[7]["drafts"] = [{"id": 2, "result": [bad], "updated_at": "x"}]
    status, detail = refusal(task_client, task_id=7)
    assert status == 422 and "region 'bad'" in detail and '"results": []' in detail
    assert ids(task_client, results=[]) == []


# --- hostile input -----------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({}, "results {} must be a list"),
        ([5], "results[0] 5 must be a JSON object"),
        ([drawn("a", keyframe(0))], "region 'a'"),
        ([drawn("a"), drawn("a")], "more than one"),
        ([drawn("a") | {"from_name": "other"}], "'other'"),
        ([drawn("a") | {"value": {"labels": ["Wolf"], "sequence": [keyframe()]}}], "'Wolf'"),
        ([drawn("\n")], "printable"),
        ([drawn(str(n)) for n in range(3)], "there are 3 objects, may be 2"),
    ],
)
def test_bad_regions_are_refused_by_name_and_leave_no_session(make_client, results, message):
    client = make_client(max_objects=2)
    status, detail = refusal(
        client, data={"video": VIDEO}, label_config=BOXES, results=results
    )
    assert status == (413 if "may be" in message else 400) and message in detail


def test_a_video_alone_takes_no_regions(client):
    status, detail = refusal(client, video=VIDEO, results=[])
    assert status == 400 and "results go with" in detail


def test_regions_of_other_tags_and_types_are_passed_over(client):
    other = drawn("b") | {"to_name": "elsewhere"}
    remark = {"id": "t", "to_name": "video", "type": "textarea", "value": {"text": ["x"]}}
    session, state = opened(client, [other, remark])
    assert state["objects"] == []
    change(client, "DELETE", session, status=204)
