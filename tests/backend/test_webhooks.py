"""Saved annotations: what is tracked, what is not, and that nothing runs in a circle."""

import json
import threading

import numpy as np
import pytest

from backend.jobs.types import JobState, PostState
from converters import brush_rle
from tests.backend.calls import (
    FRAMES,
    FRAMES_CONFIG,
    box,
    call,
    jobs_of,
    keyframe,
    rectangle,
    result_of,
    saved,
    service_of,
    task,
    wait_for_jobs,
    wait_until,
)
from tests.backend.conftest import payload
from tests.backend.http_server import Reply
from tests.backend.quick_model import SECONDS, Hold


@pytest.fixture
def client(make_quick_client):
    return make_quick_client()


def send(client, *results, **more):
    answer = client.post("/webhook", json=saved(*results, **more))
    assert answer.status_code == 200, answer.json
    return answer.json


def wait_until_posted(client, studio, count=1):
    for _ in range(count):
        assert studio.arrived.acquire(timeout=SECONDS)
    wait_for_jobs(client)
    wait_until(lambda: service_of(client).store.post_counts()[PostState.WAITING] == 0)


def brush(region_id="stroke", item_index=0, **more):
    mask = np.zeros((240, 320), bool)
    mask[50:90, 60:120] = True
    return {
        "id": region_id, "from_name": "brush", "to_name": "img", "type": "brushlabels",
        "item_index": item_index, "original_width": 320, "original_height": 240,
        "image_rotation": 0, "origin": "manual",
        "value": {"format": "rle", "rle": brush_rle.encode(mask), "brushlabels": ["Car"]}, **more,
    }


def test_a_submitted_box_is_tracked_and_posted(client, studio):
    assert send(client, box())["status"] == "queued"
    wait_until_posted(client, studio)
    (prediction,) = studio.predictions
    assert prediction["task"] == 1 and prediction["result"][0]["id"] == "a"


@pytest.mark.parametrize("has_ended", [True, False])
def test_the_same_webhook_twice_is_one_job_and_one_prediction(client, studio, quick, has_ended):
    hold = quick.before_frame = Hold(2)
    first = send(client, box())
    hold.wait()
    if has_ended:
        hold.release()
        wait_until_posted(client, studio)
    again = send(client, box(), action="ANNOTATION_UPDATED")
    hold.release()
    assert again["job"] == first["job"]
    if not has_ended:
        wait_until_posted(client, studio)
    assert len(jobs_of(client)) == len(quick.runs) == len(studio.predictions) == 1


def test_an_accepted_prediction_that_is_submitted_begins_nothing(client, studio):
    send(client, box())
    wait_until_posted(client, studio)
    accepted = json.loads(json.dumps(studio.predictions[0]["result"]))
    for action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED"):
        assert send(client, *accepted, action=action)["status"] == "ignored"
    assert len(jobs_of(client)) == 1


def test_a_moved_keyframe_in_an_accepted_prediction_is_tracked(client, studio):
    send(client, box())
    wait_until_posted(client, studio)
    (accepted,) = json.loads(json.dumps(studio.predictions[0]["result"]))
    accepted["value"]["sequence"][-1].update(x=55, y=30)  # with the mask that was there
    assert send(client, accepted, action="ANNOTATION_UPDATED")["status"] == "queued"
    wait_until_posted(client, studio)
    newest = studio.predictions[-1]["result"][0]
    assert 55 in [item["x"] for item in newest["value"]["sequence"]]
    assert send(client, newest)["status"] == "ignored"


def test_submit_while_the_background_tracks_the_same_boxes_joins_it(
    make_quick_client, studio, quick
):
    hold = quick.before_frame = Hold(3)
    client = make_quick_client(answer_seconds=4)
    (partial,) = result_of(client, call(task(), box()))
    answer = send(client, partial)
    assert answer["job"] == jobs_of(client)[0].id
    hold.release()
    wait_until_posted(client, studio)
    assert send(client, partial, action="ANNOTATION_UPDATED")["job"] == answer["job"]
    assert len(jobs_of(client)) == len(studio.predictions) == 1


def test_what_is_saved_while_an_older_box_is_tracked_replaces_it(client, studio, quick):
    hold = quick.before_frame = Hold(2)
    send(client, box("a", keyframe(1)))
    hold.wait()
    send(client, box("a", keyframe(1, x=40)), action="ANNOTATION_UPDATED")
    hold.release()
    wait_until_posted(client, studio)
    assert [job.state for job in jobs_of(client)] == [JobState.DONE, JobState.CANCELLED]
    (prediction,) = studio.predictions
    assert prediction["result"][0]["value"]["sequence"][0]["x"] == 40


def test_a_persons_brush_strokes_on_frames_are_tracked(client, studio):
    answer = send(client, brush(), brush("second", 3), data={"frames": FRAMES},
                  config=FRAMES_CONFIG)
    assert answer["status"] == "queued"
    wait_until_posted(client, studio)
    regions = studio.predictions[0]["result"]
    assert {region["item_index"] for region in regions} == set(range(6))
    assert {region["meta"]["track"] for region in regions} == {"stroke", "second"}
    # Accepted as they are, they ask for nothing.
    untouched = send(client, *regions, data={"frames": FRAMES}, config=FRAMES_CONFIG)
    assert untouched["status"] == "ignored"
    # One that a person has corrected does.
    corrected = {**regions[0], "origin": "prediction-changed"}
    again = send(client, corrected, *regions[1:], data={"frames": FRAMES}, config=FRAMES_CONFIG)
    assert again["status"] == "queued"


def test_a_rectangle_beside_accepted_masks_is_tracked_alone(client, studio, quick):
    send(client, brush(), data={"frames": FRAMES}, config=FRAMES_CONFIG)
    wait_until_posted(client, studio)
    accepted = studio.predictions[0]["result"]
    send(client, *accepted, rectangle("new"), data={"frames": FRAMES}, config=FRAMES_CONFIG)
    wait_until_posted(client, studio)
    assert quick.runs[-1] == ("new",)


def test_a_failed_job_is_tried_again_when_the_annotation_is_saved_again(client, studio):
    gone = {"video": "/data/local-files/?d=gone.mp4"}
    first = send(client, box(), data=gone)
    wait_for_jobs(client)
    again = send(client, box(), data=gone)
    assert again["job"] != first["job"]
    assert {job.state for job in wait_for_jobs(client)} == {JobState.FAILED}


@pytest.mark.parametrize(
    "name",
    [
        "webhook_tasks_created", "webhook_tasks_deleted", "webhook_annotations_deleted",
        "webhook_project_updated",
    ],
)
def test_other_events_track_nothing(client, name, quick):
    body = payload(name)
    answer = client.post("/webhook", json=body)
    assert (answer.status_code, answer.json["status"]) == (200, "ignored")
    assert answer.json["action"] == body["action"] and jobs_of(client) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": None}, "with an action"),
        ({"annotation": None}, "annotation None"),
        ({"project": [1]}, "project [1]"),
        ({"task": "x"}, "task 'x'"),
        ({"task": {"id": 1, "data": 3}}, "data must be an object"),
        ({"project": {"id": 1}}, "project.label_config must be a string"),
    ],
)
def test_a_body_that_is_no_webhook_is_told(client, change, message):
    answer = client.post("/webhook", json=saved(box()) | change)
    assert answer.status_code == 400 and message in answer.json["detail"]


@pytest.mark.parametrize("annotation", [{"result": None}, {"result": [], "was_cancelled": False},
                                        {"result": [box()], "was_cancelled": True},
                                        {"result": [3, None, "x"]}])
def test_annotations_without_marks_are_ignored(client, annotation):
    answer = client.post("/webhook", json=saved() | {"annotation": annotation})
    assert (answer.status_code, answer.json["status"]) == (200, "ignored")


def test_too_many_waiting_jobs_are_refused_with_a_reason(make_quick_client, quick):
    hold = quick.before_frame = Hold(1)
    client = make_quick_client(max_queued_per_project=1)
    for number in range(12):  # two run, ten wait: Label Studio does not repeat a webhook
        send(client, box("a", keyframe(1, x=number)), task_id=number)
        wait_until(lambda: number > 1 or len(quick.states) == number + 1)
    refused = client.post("/webhook", json=saved(box(), task_id=99))
    assert refused.status_code == 429
    assert "10 jobs waiting, may have 10" in refused.json["detail"]
    hold.release()


def test_media_that_cannot_be_had_now_is_tracked_once_it_can(client, studio, media_root):
    path, is_down = "/data/upload/1/late.mp4", threading.Event()
    is_down.set()
    video = Reply((media_root / "n25.mp4").read_bytes(), headers={"Content-Type": "video/mp4"})
    studio.site.replies[path] = lambda asked: Reply(status=503) if is_down.is_set() else video
    service_of(client).jobs.retry_seconds = (0.05,) * 10_000
    job_id = send(client, box(), data={"video": path})["job"]

    def waits():
        job = client.get(f"/api/jobs/{job_id}").json
        return job["state"] == "queued" and "answered 503" in (job["error"] or "")

    wait_until(waits)
    is_down.clear()
    wait_until_posted(client, studio)
    assert client.get(f"/api/jobs/{job_id}").json["state"] == "done"


# --- tasks that there are not ----------------------------------------------------


def of_project(project_id, task_id=1):
    body = saved(box("a", keyframe(1, x=task_id % 50)), task_id=task_id)
    body["task"]["project"] = body["project"]["id"] = project_id
    return body


def test_webhooks_for_invented_projects_and_tasks_fail_before_anything_is_opened(
    client, studio, quick
):
    studio.projects = {1: {1}}
    invented = [of_project(1000 + number, number) for number in range(20)] + [of_project(1, 77)]
    jobs = [client.post("/webhook", json=body).json["job"] for body in invented]
    send(client, box("real"))
    wait_until_posted(client, studio)
    told = [client.get(f"/api/jobs/{job}").json for job in jobs]
    assert {job["state"] for job in told} == {"failed"}
    assert told[3]["error"] == "project 1003: there is none of this id"
    assert told[-1]["error"] == "task 77: there is none of this id in project 1"
    assert len(quick.states) == len(studio.predictions) == 1


def test_the_answer_to_a_webhook_does_not_wait_for_label_studio(client, studio):
    may_answer = threading.Event()

    def project(asked):
        assert may_answer.wait(SECONDS)
        return Reply(b'{"id": 1}', headers={"Content-Type": "application/json"})

    studio.site.replies["/api/projects/1/"] = project
    job_id = send(client, box())["job"]
    assert client.get(f"/api/jobs/{job_id}").json["state"] in ("queued", "running")
    may_answer.set()
    wait_until_posted(client, studio)


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_label_studio_that_cannot_say_which_tasks_it_has_stops_no_job(client, studio, status):
    studio.site.replies["/api/projects/1/"] = Reply(status=status)
    for number in range(2):
        send(client, box("a", keyframe(1, x=number)), task_id=number + 1)
    wait_until_posted(client, studio, count=2)
    assert sum(asked.path == "/api/projects/1/" for asked in studio.site.asked) <= 2


def test_a_person_who_waits_is_answered_without_label_studio(client, studio):
    studio.projects = {}
    assert client.post("/predict", json=call(task(), box())).json["results"][0]["result"]
    assert not studio.site.asked
