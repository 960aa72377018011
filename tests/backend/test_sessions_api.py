"""/api/sessions over HTTP, with the real model."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from converters.label_studio.lifespan import region_to_track
from converters.masks import decode_mask
from converters.tracks_json import load_tracks
from converters.types import MaskRLE
from sam2_model.video import open_frame_source
from tests.backend.conftest import FRAME_COUNT, SIZE, picture
from tests.backend.test_enterprise import CONFIG, disc

SECONDS = 120
VIDEO = "/data/upload/1/ef9e5fd2-n25.mp4"
CLICK = {"points": [{"x": 110, "y": 90, "positive": True}]}
BOTH = """<View>
  <Labels name="labels" toName="video"><Label value="Dog"/></Labels>
  <Video name="video" value="$video" framerate="25"/>
  <VideoRectangle name="box" toName="video"/>
  <Image name="frames" valueList="$frames"/>
  <BrushLabels name="brush" toName="frames"><Label value="Dog"/></BrushLabels>
</View>"""


def create(client, **body):
    body = body or {"data": {"video": VIDEO}, "label_config": CONFIG}
    answer = client.post("/api/sessions", json=body)
    assert answer.status_code == 201, answer.get_data(as_text=True)
    assert answer.headers["Location"] == f"/api/sessions/{answer.json['id']}"
    return answer.headers["Location"]


@pytest.fixture
def session(client):
    return create(client)


def change(client, method, path, body=None, status=200):
    answer = client.open(path, method=method, json={} if body is None else body)
    assert answer.status_code == status, answer.get_data(as_text=True)
    return answer.json


def put(client, session, object_id="a", frame=0, body=CLICK, status=200):
    path = f"{session}/objects/{object_id}/prompts/{frame}"
    return change(client, "PUT", path, body, status)


def lines(client, path):
    answer = client.get(path)
    assert answer.status_code == 200 and answer.mimetype == "application/x-ndjson"
    return [json.loads(line) for line in answer.get_data(as_text=True).splitlines() if line]


def propagate(client, session, **body):
    started = change(client, "POST", f"{session}/propagate", body, 202)
    events = lines(client, f"{session}/events?until=done")
    assert events[-1]["type"] == "state" or events[0]["type"] == "state"
    return started, [event for event in events if event["type"] == "frame"]


def iou(mask, truth):
    found = decode_mask(MaskRLE(*mask["size"], mask["counts"]))
    return (found & truth).sum() / (found | truth).sum()


def test_the_stream_tells_how_far_tracking_is(client, session):
    put(client, session)
    change(client, "POST", f"{session}/propagate", status=202)
    events = lines(client, f"{session}/events?until=done")
    done = [e["propagation"]["done_frames"] for e in events if e["type"] == "state"]
    assert done == sorted(done) and done[-1] == FRAME_COUNT
    assert len(set(done)) > 2, "not only at its end"


def test_a_new_session_tells_the_video(client, session):
    state = client.get(session).json
    assert state["video"] == {
        "width": 320, "height": 240, "frame_count": FRAME_COUNT, "fps": 25.0,
        "start_seconds": 0.0,
        "duration_seconds": 0.32,
    }
    assert (state["objects"], state["propagation"], state["others_on_task"]) == ([], None, 0)


def test_a_local_video_is_opened_only_from_a_media_root(make_client, media_root):
    client = make_client(media_roots=(media_root,))
    create(client, video=str(media_root / "n25.mp4"))
    for outside in ("/etc/passwd", str(media_root / ".." / "x.mp4"), "file:///etc/passwd"):
        answer = client.post("/api/sessions", json={"video": outside})
        assert answer.status_code == 403, answer.json
    answer = client.post("/api/sessions", json={"video": "http://169.254.169.254/x.mp4"})
    assert answer.status_code == 403


def test_frames_are_the_exact_pictures_and_are_cached(client, session):
    answer = client.get(f"{session}/frames/5.jpg")
    assert answer.mimetype == "image/jpeg" and answer.headers["ETag"]
    with Image.open(io.BytesIO(answer.data)) as image:
        assert image.size == SIZE
        assert np.abs(np.asarray(image, float) - picture(5)).mean() < 12
    again = client.get(f"{session}/frames/5.jpg", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304 and not again.data
    small = client.get(f"{session}/frames/5.jpg?width=80")
    assert small.headers["ETag"] != answer.headers["ETag"]
    with Image.open(io.BytesIO(small.data)) as image:
        assert image.size == (80, 60)


def test_prompts_answer_with_the_mask_and_go_away_again(client, session):
    shown = put(client, session)
    assert iou(shown["mask"], disc(0)) > 0.8 and shown["score"] > 0
    state = client.get(session).json
    (item,) = state["objects"]
    assert item["prompts"] == {"0": CLICK} and state["can_undo"]
    assert client.get(f"{session}/objects/a/masks/0").json["mask"] == shown["mask"]
    assert client.get(f"{session}/frames/0/masks").json["objects"]["a"]["mask"] == shown["mask"]
    state = change(client, "DELETE", f"{session}/objects/a/prompts/0")
    assert state["objects"][0]["prompts"] == {}
    assert client.get(f"{session}/objects/a/masks/0").json["mask"] is None
    change(client, "DELETE", f"{session}/objects/a/prompts/0", status=404)
    state = change(client, "POST", f"{session}/undo")
    assert state["objects"][0]["prompts"] == {"0": CLICK}
    assert client.get(f"{session}/objects/a/masks/0").json["mask"] == shown["mask"]
    change(client, "POST", f"{session}/redo")
    change(client, "POST", f"{session}/redo", status=409)


def test_frames_stream_while_it_propagates_and_the_result_holds_the_same_masks(
    client, session, media_root, tmp_path
):
    change(client, "PUT", f"{session}/objects/a", {"labels": ["Dog"]})
    seen = put(client, session)
    started, frames = propagate(client, session)
    assert (started["state"], started["total_frames"]) == ("running", FRAME_COUNT)
    shown = {frame["frame_index"]: frame["objects"]["a"]["mask"] for frame in frames}
    assert sorted(shown) == list(range(FRAME_COUNT)) and shown[0] == seen["mask"]
    assert client.get(session).json["propagation"]["state"] == "done"

    answer = client.get(f"{session}/regions").json
    (region,) = answer["result"]
    assert answer["left_out"] == [] and region["value"]["labels"] == ["Dog"]
    assert (region["id"], region["type"]) == ("a", "videorectangle")
    with open_frame_source(media_root / "n25.mp4") as source:
        found = region_to_track(region, source.info, 25).masks
    assert {index: mask.counts for index, mask in found.items()} == {
        index: mask["counts"] for index, mask in shown.items()
    }
    path = tmp_path / "tracks.json"
    path.write_bytes(client.get(f"{session}/tracks.json").data)
    (video,) = load_tracks(path)
    (track,) = video.tracks
    assert {i: track.masks[i].counts for i in track.masks} == {
        index: mask["counts"] for index, mask in shown.items()
    }


def test_server_sent_events_go_on_from_the_last_one(client, session):
    put(client, session)
    propagate(client, session)
    headers = {"Accept": "text/event-stream"}
    text = client.get(f"{session}/events?until=done", headers=headers).get_data(as_text=True)
    numbers = [line[4:] for line in text.splitlines() if line.startswith("id: ")]
    assert len(numbers) == FRAME_COUNT and text.startswith("event: state\n")
    headers["Last-Event-ID"] = numbers[-2]
    text = client.get(f"{session}/events?until=done", headers=headers).get_data(as_text=True)
    assert text.count("event: frame") == 1


def test_a_session_can_be_stopped_resumed_and_asked_again_after_a_restart(make_client):
    client = make_client()
    session = create(client)
    put(client, session)
    change(client, "POST", f"{session}/propagate", {}, 202)
    change(client, "POST", f"{session}/propagate", {}, 409)
    assert change(client, "POST", f"{session}/stop") in ({"was_running": True}, {"was_running": False})
    lines(client, f"{session}/events?until=done")
    state = client.get(session).json
    if state["propagation"]["state"] == "stopped":
        change(client, "POST", f"{session}/resume", status=202)
        lines(client, f"{session}/events?until=done")
        state = client.get(session).json
    client.application.extensions["sam2"].stop()
    again = make_client()
    restored = again.get(session).json
    assert restored["objects"] == state["objects"]
    assert len(lines(again, f"{session}/events?until=done")) == FRAME_COUNT + 1
    change(again, "DELETE", session, status=204)
    assert again.get(session).status_code == 404


def test_frames_shown_as_images_get_brush_regions_beside_the_track(make_client, media_root):
    client = make_client(media_roots=(media_root,))
    folder = media_root / "all"
    folder.mkdir(exist_ok=True)
    for index in range(FRAME_COUNT):
        Image.fromarray(picture(index)).save(folder / f"f{index}.jpg")
    frames = [str(folder / f"f{index}.jpg") for index in range(FRAME_COUNT)]
    session = create(client, data={"video": VIDEO, "frames": frames}, label_config=BOTH)
    change(client, "PUT", f"{session}/objects/a", {"labels": ["Dog"]})
    change(client, "PUT", f"{session}/objects/none", {})
    put(client, session)
    propagate(client, session, to_frame=3)
    answer = client.get(f"{session}/regions").json
    kinds = [region["type"] for region in answer["result"]]
    assert kinds == ["videorectangle"] + ["brushlabels"] * 4
    part = client.get(f"{session}/regions?frames=1-2").json["result"]
    assert [region["item_index"] for region in part[1:]] == [1, 2]
    short = create(client, data={"video": VIDEO, "frames": frames[:2]}, label_config=BOTH)
    assert "must have 8 images" in client.get(f"{short}/regions").json["left_out"][0]["reason"]


def test_a_config_with_vectors_alone_gets_a_vector(client):
    config = """<View><Video name="video" value="$video" framerate="25"/>
      <VideoVectorLabels name="v" toName="video"><Label value="Dog"/></VideoVectorLabels></View>"""
    session = create(client, data={"video": VIDEO}, label_config=config)
    change(client, "PUT", f"{session}/objects/a", {"labels": ["Dog"]})
    put(client, session)
    (region,) = client.get(f"{session}/regions").json["result"]
    assert region["type"] == "videovectorlabels"


def test_a_task_is_looked_up_in_label_studio_only_with_a_key(make_client):
    client = make_client(label_studio_url=None, label_studio_api_key=None)
    answer = client.post("/api/sessions", json={"task_id": 1})
    assert answer.status_code == 422 and "LABEL_STUDIO_API_KEY" in answer.json["detail"]


# --- hostile input -----------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ([], 400, "must be a JSON object"),
        ({}, 400, "give one of task_id"),
        ({"task_id": 1, "video": "x"}, 400, "give one of task_id"),
        ({"task_id": -1}, 400, "task_id -1 must be a whole number >= 1"),
        ({"task_id": True}, 400, "task_id True must be"),
        ({"video": 5}, 400, "video 5 must be a path"),
        ({"data": {"video": VIDEO}}, 400, "label_config None must go with data"),
        ({"data": [], "label_config": CONFIG}, 400, "data must be an object"),
        ({"data": {}, "label_config": CONFIG}, 400, "has no field 'video'"),
        ({"data": {"video": [1]}, "label_config": CONFIG}, 422, "must be a path or a URL"),
        ({"data": {"video": VIDEO}, "label_config": "<View/>"}, 422, "config"),
        ({"data": {"video": VIDEO}, "label_config": CONFIG, "to_name": "x"}, 400, "to_name 'x'"),
        ({"video": VIDEO, "surprise": 1}, 400, "has 'surprise'"),
    ],
)
def test_a_session_that_cannot_be_opened_is_refused_by_name(client, body, status, message):
    answer = client.post("/api/sessions", json=body)
    assert answer.status_code == status and message in answer.json["detail"]
    assert client.application.extensions["sam2"].sessions.open_count == 0


def points(count=1, **value):
    return {"points": [{"x": 1, "y": 1, **value}] * count}


@pytest.mark.parametrize(
    ("frame", "body", "status", "message"),
    [
        (8, CLICK, 400, "frame_index 8 must be a whole number in [0, 8)"),
        (10**30, CLICK, 400, "must be a whole number in [0, 8)"),
        (0, points(x=float("nan")), 400, "NaN is no JSON number"),
        (0, points(y=float("inf")), 400, "Infinity is no JSON number"),
        (0, points(x=-1), 400, "points[0].x -1 must be"),
        (0, points(x="1"), 400, "points[0].x '1' must be"),
        (0, points(x=True), 400, "points[0].x True must be"),
        (0, points(positive=1), 400, "positive 1 must be true or false"),
        (0, points(z=1), 400, "points[0] has 'z'"),
        (0, points(201), 400, "points (201 points) must be a list of at most 200"),
        (0, {"points": {}}, 400, "must be a list"),
        (0, {"box": [0, 0, 1]}, 400, "must be four numbers"),
        (0, {"box": [5, 5, 5, 9]}, 400, "must have x_min < x_max"),
        (0, {"box": [400, 0, 500, 10]}, 400, "must have an area inside the frame"),
        (0, {"box": [0, 0, float("nan"), 1]}, 400, "NaN is no JSON number"),
        (0, {"box": [0, 0, 1e300, 1]}, 400, "must be four numbers"),
        (0, {"mask": {"size": [1, 1], "counts": "01"}}, 400, "mask"),
        (0, {"mask": {"size": [240, 320], "counts": "zz"}}, 400, "mask"),
        (0, {"mask": {"size": [240, 320], "counts": ["0"]}}, 400, "mask"),
        (0, {"mask": 5}, 400, "mask 5 must be a JSON object"),
        (0, {}, 400, "prompts need points, a box or a mask"),
    ],
)
def test_bad_prompts_are_refused_and_change_nothing(client, session, frame, body, status, message):
    answer = put(client, session, frame=frame, body=body, status=status)
    assert message in answer["detail"]
    assert client.get(session).json["objects"] == []


def test_objects_are_checked_and_limited(make_client):
    client = make_client(max_objects=2)
    session = create(client)
    for name in ("a", "b"):
        change(client, "PUT", f"{session}/objects/{name}", {"labels": ["Dog"]})
    answer = change(client, "PUT", f"{session}/objects/c", {}, 413)
    assert "has 2 objects, may have 2" in answer["detail"]
    for name, body, message in (
        ("a", {"labels": ["Wolf"]}, "label 'Wolf' must be one of ['Cat', 'Dog']"),
        ("a", {"labels": "Dog"}, "must be a list"),
        ("a", {"labels": [5]}, "labels[0] 5 must be"),
        ("a", {"labels": ["Dog"] * 21}, "at most 20"),
        ("x" * 201, {}, "must be 1 to 200 printable characters"),
    ):
        answer = change(client, "PUT", f"{session}/objects/{name}", body, 400)
        assert message in answer["detail"]
    change(client, "DELETE", f"{session}/objects/none", status=404)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "nothing is marked yet"),
        ({"direction": "up"}, "direction 'up' must be one of"),
        ({"start_frame": -1}, "start_frame -1 must be"),
        ({"frame_limit": 0}, "frame_limit 0 must be"),
        ({"to_frame": 1.5}, "to_frame 1.5 must be"),
        ({"speed": 1}, "has 'speed'"),
    ],
)
def test_a_bad_propagation_is_refused_by_name(client, session, body, message):
    answer = change(client, "POST", f"{session}/propagate", body, 400)
    assert message in answer["detail"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("frames/8.jpg", 400), ("frames/-1.jpg", 404), ("frames/0.jpg?width=0", 400),
        ("frames/0.jpg?width=a", 400), ("frames/8/masks", 400), ("events?since=-1", 400),
        ("regions?frames=3-1", 400), ("regions?frames=0-99", 400), ("objects/a/masks/0", 404),
    ],
)
def test_bad_questions_are_answered_with_json_errors(client, session, path, status):
    answer = client.get(f"{session}/{path}")
    assert answer.status_code == status and answer.json["error"]


def test_changes_must_be_said_to_be_json(client, session):
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        answer = client.post(f"{session}/undo", data="{}", content_type=kind)
        assert answer.status_code == 403 and "application/json" in answer.json["detail"]
    assert client.delete(session).status_code == 403
    # With a header that no form can send, the service's guard lets it pass.
    answer = client.post(
        f"{session}/undo", data="{}", content_type="text/plain",
        headers={"X-Requested-With": "fetch"},
    )
    assert answer.status_code == 415 and "application/json" in answer.json["detail"]
    answer = client.post(
        f"{session}/undo", data="[" * 100_000, content_type="application/json"
    )
    assert answer.status_code == 400
    answer = client.get(session)
    assert "Set-Cookie" not in answer.headers
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_body_over_the_limit_is_refused(make_client):
    client = make_client(max_request_bytes=2000)
    session = create(client)
    answer = put(client, session, body=points(200), status=413)
    assert answer["error"]


def test_limits_are_told_with_a_time_to_come_back(make_client):
    client = make_client(max_sessions=1, max_session_streams=1)
    session = create(client)
    session_id = session.rpartition("/")[2]
    with client.application.extensions["sam2"].sessions.using(session_id):
        answer = client.post("/api/sessions", json={"data": {"video": VIDEO}, "label_config": CONFIG})
        assert answer.status_code == 429 and answer.headers["Retry-After"] == "5"
    open_stream = client.get(f"{session}/events", buffered=False)
    next(iter(open_stream.response))
    answer = client.get(f"{session}/events")
    assert answer.status_code == 429 and answer.headers["Retry-After"] == "5"
    open_stream.close()
    assert lines(client, f"{session}/events?until=done")


def test_two_people_on_one_task_are_told_and_do_not_mix(client):
    body = {"data": {"video": VIDEO}, "label_config": CONFIG}
    one, two = create(client, **body), create(client, **body)
    put(client, one)
    assert client.get(two).json["objects"] == []
    sessions = client.application.extensions["sam2"].sessions
    with sessions.using(one.rpartition("/")[2]) as first, sessions.using(
        two.rpartition("/")[2]
    ) as second:
        assert first.content == second.content
