"""`/metrics`, read as Prometheus reads it."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.backend.calls import box, call, keyframe, result_of, task, wait_for_jobs, wait_until
from tests.backend.conftest import FRAME_COUNT, payload

VIDEO_CALL = "predict_interactive_videorectangle"


def scraped(client) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, values of its labels) -> value."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.get_data(as_text=True))
        for sample in family.samples
    }


@pytest.fixture
def quick_client(make_client):
    """Its model finds nothing on every frame, at once."""

    def nothing(*_, **__):
        yield from ()

    return make_client(track=nothing)


def test_requests_are_counted_by_route_and_status(quick_client):
    quick_client.get("/versions")
    quick_client.get("/api/jobs/nobody")
    quick_client.get("/api/jobs/another")
    quick_client.get("/nothing/" + "x" * 100)
    values = scraped(quick_client)
    assert values["sam2_requests_total", ("versions", "200")] == 1
    assert values["sam2_requests_total", ("jobs.show", "404")] == 2
    assert values["sam2_requests_total", ("unknown", "404")] == 1
    assert values["sam2_request_seconds_count", ("versions",)] == 1


def test_refused_passwords_are_counted(make_client):
    client = make_client(basic_auth_user="a", basic_auth_password="secret-word")
    assert client.get("/versions").status_code == 401
    answer = client.get("/metrics", auth=("a", "secret-word"))
    assert 'sam2_requests_total{endpoint="versions",status="401"} 1.0' in answer.text
    assert "secret" not in answer.text


def test_tracking_is_measured(client):
    assert client.post("/predict", json=payload(VIDEO_CALL)).status_code == 200
    # The answer is there before the job has ended, and that before it is counted.
    wait_until(lambda: ("sam2_project_jobs_ended_total", ("1", "done")) in scraped(client))
    values = scraped(client)
    assert values["sam2_frames_tracked_total", ("interactive",)] == FRAME_COUNT
    assert values["sam2_device_busy_seconds_total", ("interactive",)] > 0
    # A turn for the prompt, for each frame, and one that finds the end.
    assert values["sam2_device_wait_seconds_count", ("interactive",)] == FRAME_COUNT + 2
    assert values["sam2_answer_seconds_count", ("interactive",)] == 1
    assert values["sam2_project_device_seconds_total", ("1",)] > 0
    assert values["sam2_project_jobs_ended_total", ("1", "done")] == 1
    assert values["sam2_project_jobs_queued", ("1",)] == 0
    assert values["sam2_jobs", ("track", "done")] == 1
    assert values["sam2_jobs", ("track", "failed")] == 0
    assert values["sam2_model_state", ("ready",)] == 1
    assert values["sam2_model_state", ("loading",)] == 0
    assert values["sam2_cache_bytes", ("results",)] > 0
    assert values["sam2_cache_bytes", ("media",)] > 0
    assert values["sam2_predictions", ("waiting",)] == 0
    assert values["sam2_device_queue_length", ()] == 0


def test_failures_are_counted_by_what_and_why(quick_client):
    quick_client.post("/predict", json=[])
    quick_client.get("/api/jobs/none")
    body = payload(VIDEO_CALL)
    body["tasks"][0]["data"]["video"] = "/etc/passwd"
    assert quick_client.post("/predict", json=body).status_code == 403
    values = scraped(quick_client)
    assert values["sam2_failures_total", ("bad request", "request")] == 1
    assert values["sam2_failures_total", ("not found", "request")] == 1
    assert values["sam2_failures_total", ("media refused", "request")] == 1
    assert values["sam2_failures_total", ("media refused", "job")] == 1


def test_labels_do_not_grow_with_the_projects(make_quick_client, monkeypatch):
    monkeypatch.setattr("backend.metrics._MOST_PROJECTS", 2)
    client = make_quick_client()
    for project in range(1, 5):
        the_task = task(project) | {"project": project}
        assert result_of(client, call(the_task, box("a", keyframe(x=10 + project))))
    wait_for_jobs(client)
    names = {key[1][0] for key in scraped(client) if key[0] == "sam2_project_device_seconds_total"}
    assert names == {"1", "2", "others"}


def test_two_apps_do_not_share_what_they_count(make_client):
    first, second = make_client(), make_client()
    first.get("/versions")
    assert ("sam2_requests_total", ("versions", "200")) not in scraped(second)


def test_no_secret_and_no_value_of_a_request_is_shown(quick_client):
    quick_client.get("/api/jobs?task=424242")
    quick_client.get("/api/jobs/unheard-of")
    text = quick_client.get("/metrics").text
    for hidden in ("secret-key", "424242", "unheard-of"):
        assert hidden not in text
