"""`/api/jobs`, asked as scripts and the page ask it: the real model, real media."""

from __future__ import annotations

import io
import json
import threading

import pytest
from PIL import Image

from backend.app import create_app
from backend.jobs.types import JobState, PostState
from backend.settings import Settings
from converters.tracks_json import load_tracks
from tests.backend.conftest import FRAME_COUNT, SIZE, payload
from tests.backend.http_server import Reply

VIDEO_CALL = "predict_interactive_videorectangle"
CLICKS_CALL = "predict_interactive_image_valuelist_keypoints_pos_neg_two_frames"


def order(name=VIDEO_CALL, **fields):
    """A body of POST /api/jobs that asks what a captured call asks."""
    call = payload(name)
    return {
        "task": call["tasks"][0],
        "label_config": call["label_config"],
        "results": call["params"]["context"]["result"],
    } | fields


def ended(client, job_id):
    """The job, once it has ended."""
    handle = client.application.extensions["sam2"].jobs.handle(job_id)
    if handle is not None:
        handle.wait(60)
    shown = client.get(f"/api/jobs/{job_id}").json
    assert shown["state"] not in ("queued", "running"), shown
    return shown


def submitted(client, name=VIDEO_CALL, **fields):
    answer = client.post("/api/jobs", json=order(name, **fields))
    assert answer.status_code == 202, answer.json
    return answer.json["id"]


@pytest.fixture(scope="module")
def finished(model, media_root, tmp_path_factory):
    """A client and the id of its finished job on the video, for all that only look at it."""
    folder = tmp_path_factory.mktemp("finished")
    app = create_app(
        Settings(media_roots=(media_root,), data_folder=folder, device="cpu", dtype="float32"),
        load=lambda _: model,
    )
    client = app.test_client()
    task = order()["task"] | {"data": {"video": str(media_root / "n25.mp4")}}
    job_id = submitted(client, task=task)
    assert ended(client, job_id)["state"] == "done"
    yield client, job_id
    app.extensions["sam2"].stop()


@pytest.fixture
def held_client(make_client, model):
    """A client whose model tracks nothing until `client.go_on` is set."""
    go_on = threading.Event()

    def held(*arguments, **options):
        go_on.wait(60)
        yield from model.track(*arguments, **options)

    client = make_client(track=held)
    client.go_on = go_on
    yield client
    go_on.set()


# --- asking for work ---------------------------------------------------------


def test_an_order_is_answered_with_its_job(held_client):
    answer = held_client.post("/api/jobs", json=order())
    assert answer.status_code == 202
    job = answer.json
    assert answer.headers["Location"] == f"/api/jobs/{job['id']}"
    assert (job["kind"], job["task"]) == ("track", order()["task"]["id"])
    assert job["posts_prediction"] is False and job["prediction"] is None


def test_a_finished_job_tells_how_far_it_came_and_when(finished):
    client, job_id = finished
    job = client.get(f"/api/jobs/{job_id}").json
    assert job["state"] == "done" and job["has_result"] and job["attempts"] == 1
    assert job["progress"] == {"done": FRAME_COUNT, "total": FRAME_COUNT}
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]


def test_equal_orders_are_one_job(held_client):
    assert submitted(held_client) == submitted(held_client)


def test_a_command_says_how_far(client):
    job_id = submitted(client, command="track 3")
    assert ended(client, job_id)["progress"]["total"] == 4


def test_a_task_of_label_studio_goes_by_its_number(held_client, label_studio):
    call = payload("webhook_annotation_created")
    lists = {
        "/api/projects/": {"results": [call["project"] | {"id": 1}], "count": 1, "next": None},
        "/api/tasks/": {"tasks": [call["task"] | {"id": 7}], "total": 1},
        "/api/tasks/7/drafts": [],
        "/api/tasks/7/annotations/": [call["annotation"]],
    }
    label_studio.otherwise = lambda asked: json_reply(lists[asked.path.partition("?")[0]])
    answer = held_client.post("/api/jobs", json={"task_id": 7})
    assert answer.status_code == 202, answer.json
    assert (answer.json["task"], answer.json["project"]) == (7, 1)
    # Opening the task would make Label Studio ask us for a prediction first.
    assert "/api/tasks/7/" not in [asked.path for asked in label_studio.asked]


def json_reply(value, status=200):
    return Reply(
        json.dumps(value).encode(), status=status, headers={"Content-Type": "application/json"}
    )


def test_a_task_that_label_studio_does_not_have_is_said(client, label_studio):
    nothing = {"results": [], "count": 0, "next": None}
    label_studio.otherwise = lambda asked: json_reply(nothing)
    answer = client.post("/api/jobs", json={"task_id": 8})
    assert answer.status_code == 404 and "task 8" in answer.json["detail"]
    assert "secret-key" not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"task": None}, 400, "task None must be a JSON object"),
        ({"task_id": 3}, 400, "either task (with label_config) or task_id"),
        ({"label_config": 3}, 400, "label_config 3"),
        ({"label_config": "<View/>"}, 422, "cannot be served"),
        ({"results": {}}, 400, "results {}"),
        ({"results": [1]}, 400, "results [1]"),
        ({"results": []}, 422, "nothing to track"),
        ({"command": "dance"}, 400, "'dance' is not understood"),
        ({"command": "stop"}, 400, "command 'stop'"),
        ({"command": 5}, 400, "command 5"),
        ({"post_prediction": "yes"}, 400, "post_prediction 'yes'"),
        ({"task": {"data": {}}, "post_prediction": True}, 400, "needs task.id"),
        ({"task": {"data": 3}}, 400, "data must be an object"),
    ],
)
def test_a_bad_order_names_the_value_and_the_rule(client, change, status, message):
    answer = client.post("/api/jobs", json=order() | change)
    assert (answer.status_code, set(answer.json)) == (status, {"error", "detail", "request_id"})
    assert message in answer.json["detail"]
    assert client.get("/api/jobs").json["jobs"] == []


@pytest.mark.parametrize("body", ["", "[]", "{", "[" * 100_000, "null", "{}"])
def test_a_body_that_is_no_order_is_a_bad_one(client, body):
    answer = client.post("/api/jobs", data=body, content_type="application/json")
    assert answer.status_code == 400


@pytest.mark.parametrize("task_id", [0, -1, True, "7", 1.5, None])
def test_a_task_number_must_be_one(client, task_id):
    answer = client.post("/api/jobs", json={"task_id": task_id})
    assert answer.status_code == 400 and "task_id" in answer.json["detail"]


def test_posting_needs_a_label_studio(make_client):
    client = make_client(label_studio_url=None, label_studio_api_key=None)
    answer = client.post("/api/jobs", json=order(post_prediction=True))
    assert answer.status_code == 400 and "LABEL_STUDIO_URL" in answer.json["detail"]


def test_a_job_that_fails_says_why(client):
    task = {"id": 1, "data": {"video": "/data/upload/gone.mp4?signature=signed-key"}}
    job = ended(client, submitted(client, task=task))
    assert job["state"] == "failed" and "gone.mp4" in job["error"]
    assert "signed-key" not in json.dumps(job)
    answer = client.get(f"/api/jobs/{job['id']}/result")
    assert answer.status_code == 404 and "failed" in answer.json["detail"]


def test_a_refused_prediction_is_shown_with_the_reason(client, label_studio):
    refusal = {"validation_errors": {"result": ["Unknown label Dog"]}}
    label_studio.replies["/api/predictions/"] = json_reply(refusal, 400)
    service = client.application.extensions["sam2"]
    told = threading.Event()
    refused, service.store.set_refused = service.store.set_refused, lambda *a: (
        refused(*a), told.set()
    )
    job_id = submitted(client, post_prediction=True)
    ended(client, job_id)
    assert told.wait(60)
    prediction = client.get(f"/api/jobs/{job_id}").json["prediction"]
    assert prediction["state"] == PostState.REFUSED and prediction["attempts"] == 1
    assert "Unknown label Dog" in prediction["error"]
    (listed,) = client.get("/api/jobs").json["jobs"]
    assert listed["prediction"] == prediction


# --- looking -----------------------------------------------------------------


def test_the_list_is_filtered_and_paged(held_client):
    ids = [
        submitted(held_client, task={"id": n, "project": n % 2, "data": order()["task"]["data"]})
        for n in range(1, 6)
    ]
    listed = held_client.get("/api/jobs").json
    assert [job["id"] for job in listed["jobs"]] == ids[::-1]
    assert listed["next_offset"] is None
    assert sum(listed["counts"].values()) == 5

    first = held_client.get("/api/jobs?limit=2").json
    second = held_client.get(f"/api/jobs?limit=2&offset={first['next_offset']}").json
    assert [job["id"] for job in (*first["jobs"], *second["jobs"])] == ids[:0:-1]

    def ids_of(query):
        return [job["id"] for job in held_client.get(f"/api/jobs?{query}").json["jobs"]]

    assert ids_of("task=3") == [ids[2]]
    assert ids_of("project=0") == [ids[3], ids[1]]
    assert ids_of("state=done") == []
    assert ids_of("state=queued,running") == ids_of("state=queued&state=running") == ids[::-1]


@pytest.mark.parametrize(
    "query",
    ["state=x", "limit=0", "limit=501", "limit=x", "offset=-1", "project=a", "task=1e3",
     "task=99999999999999999999", "offset=9223372036854775808"],
)  # fmt: skip
def test_a_filter_that_is_none_is_named(client, query):
    answer = client.get(f"/api/jobs?{query}")
    assert answer.status_code == 400 and query.partition("=")[0] in answer.json["detail"]


def test_the_list_holds_no_task_data(finished):
    client, _ = finished
    assert "n25.mp4" not in client.get("/api/jobs").get_data(as_text=True)


def test_a_cancelled_job_ends_without_a_result(held_client):
    job_id = submitted(held_client)
    answer = held_client.delete(
        f"/api/jobs/{job_id}", headers={"X-Requested-With": "fetch"}
    )
    assert answer.status_code == 200 and answer.json["state"] == "cancelled"
    held_client.go_on.set()
    assert ended(held_client, job_id)["state"] == "cancelled"
    again = held_client.post(f"/api/jobs/{job_id}/cancel", json={})
    assert again.status_code == 409 and "cancelled" in again.json["detail"]
    assert held_client.get(f"/api/jobs/{job_id}/preview.png").status_code == 404


@pytest.mark.parametrize("part", ["result", "scores", "preview.png"])
def test_what_an_unfinished_job_found_is_not_there_yet(held_client, part):
    answer = held_client.get(f"/api/jobs/{submitted(held_client)}/{part}")
    assert answer.status_code == 409 and "is there when it is done" in answer.json["detail"]


@pytest.mark.parametrize("path", ["", "/result", "/scores", "/preview.png"])
def test_a_job_that_is_not_there_is_said(client, path):
    answer = client.get(f"/api/jobs/nobody{path}")
    assert answer.status_code == 404 and "'nobody'" in answer.json["detail"]


# --- what was found ----------------------------------------------------------


def test_the_result_is_what_a_prediction_would_hold(finished):
    client, job_id = finished
    answer = client.get(f"/api/jobs/{job_id}/result").json
    drawn = order()["results"][0]
    assert [region["id"] for region in answer["result"]] == [drawn["id"]]
    assert answer["model_version"] == "sam2:demo" and 0 < answer["score"] <= 1


def test_the_result_is_given_as_tracks(finished, tmp_path):
    client, job_id = finished
    answer = client.get(f"/api/jobs/{job_id}/result?format=tracks")
    assert "attachment" in answer.headers["Content-Disposition"]
    path = tmp_path / "tracks.json"
    path.write_bytes(answer.data)
    (video,) = load_tracks(path)
    (track,) = video.tracks
    assert (video.info.width, video.info.height) == SIZE
    assert track.labels == ("Dog",) and list(track.masks) == list(range(FRAME_COUNT))
    assert client.get(f"/api/jobs/{job_id}/result?format=mp3").status_code == 400


def test_scores_have_a_value_for_each_frame(finished):
    client, job_id = finished
    (entry,) = client.get(f"/api/jobs/{job_id}/scores").json["objects"]
    assert entry["labels"] == ["Dog"] and entry["frames"] == list(range(FRAME_COUNT))
    assert len(entry["probabilities"]) == len(entry["areas"]) == FRAME_COUNT
    assert all(0 <= p <= 1 for p in entry["probabilities"] if p is not None)
    assert all(area > 0 for area in entry["areas"])
    assert entry["colour"].startswith("#") and len(entry["colour"]) == 7


def test_the_preview_shows_the_masks_on_a_video(finished):
    check_preview(*finished)


def test_the_preview_shows_the_masks_on_images(client):
    job_id = submitted(client, name=CLICKS_CALL)
    assert ended(client, job_id)["state"] == "done"
    check_preview(client, job_id)


def check_preview(client, job_id):
    answer = client.get(f"/api/jobs/{job_id}/preview.png")
    assert answer.status_code == 200, answer.json
    assert answer.content_type == "image/png"
    picture = Image.open(io.BytesIO(answer.data))
    assert picture.width > 400 and len(picture.getcolors(2**20)) > 100
    again = client.get(f"/api/jobs/{job_id}/preview.png")
    assert again.data == answer.data


def test_results_that_had_to_go_are_said(make_client):
    client = make_client(max_result_bytes=1)
    first = submitted(client)
    ended(client, first)
    ended(client, submitted(client, command="track 2"))
    answer = client.get(f"/api/jobs/{first}/result")
    assert answer.status_code == 404 and "SAM2_MAX_RESULT_MIB" in answer.json["detail"]


def test_no_odd_value_of_an_order_is_a_server_error(make_client):
    def finds_nothing(*_, **__):
        yield from ()

    client = make_client(track=finds_nothing)
    for field in ("task", "label_config", "results", "command", "post_prediction", "task_id"):
        for odd in (None, [], {}, "x", -1, 1e308, [["x"]], [{"type": "videorectangle"}]):
            answer = client.post("/api/jobs", json=order() | {field: odd})
            assert answer.status_code < 500, (field, odd, answer.json)
    states = {job["state"] for job in client.get("/api/jobs").json["jobs"]}
    assert states <= {str(state) for state in JobState}
