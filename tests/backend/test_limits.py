"""Over a limit: 429 with a time to come back, or 413; never a wait without an end."""

import threading

import pytest

from tests.backend.calls import batch, box, call, keyframe, saved, task, wait_for_jobs
from tests.backend.quick_model import SECONDS


@pytest.fixture
def gate(quick):
    """While it is shut, no job gets beyond its video."""
    event = threading.Event()
    quick.before_open = lambda files: event.wait(SECONDS)
    yield event
    event.set()


def order(number):
    return saved(box("a", keyframe(x=10 + number)), task_id=number)


def test_a_project_with_too_much_waiting_is_told_when_to_come_back(make_quick_client, gate):
    client = make_quick_client(max_queued_per_project=1)
    codes = [client.post("/webhook", json=order(number)).status_code for number in range(12)]
    assert codes == [200] * 12  # two run, ten wait, as webhooks may
    answer = client.post("/webhook", json=order(12))
    assert (answer.status_code, answer.json["error"]) == (429, "too many jobs")
    assert int(answer.headers["Retry-After"]) > 0
    assert "project 1 has 10 jobs waiting, may have 10" in answer.json["detail"]
    other = order(13)
    other["task"]["project"] = 2
    assert client.post("/webhook", json=other).status_code == 200  # another one is not full
    gate.set()
    assert len(wait_for_jobs(client)) == 13
    assert client.post("/webhook", json=order(12)).status_code == 200


def test_people_too_many_at_once_are_told_when_to_come_back(make_quick_client, gate):
    client = make_quick_client(max_waiting_requests=1)
    waiting = threading.Thread(
        target=client.application.test_client().post,
        args=("/predict",), kwargs={"json": call(task(1), box())},
    )
    waiting.start()
    try:
        places = client.application.view_functions["predict"].__self__._places
        while places._value:  # until it has the one place
            waiting.join(0.01)
        for body in (call(task(2), box()), batch(task(3, annotations=[{"id": 1, "result": [box()]}]))):
            answer = client.post("/predict", json=body)
            assert (answer.status_code, answer.json["error"]) == (429, "too many requests")
            assert int(answer.headers["Retry-After"]) > 0
        assert client.get("/health").status_code == 200
    finally:
        gate.set()
        waiting.join()


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"max_objects": 1}, "2 objects, may have 1 (SAM2_MAX_OBJECTS)"),
        ({"max_request_bytes": 100}, "exceeds"),
    ],
)
def test_what_is_too_large_for_good_has_no_time_to_come_back(make_quick_client, changes, detail):
    answer = make_quick_client(**changes).post("/predict", json=call(task(1), box("a"), box("b")))
    assert answer.status_code == 413 and detail in answer.json["detail"]
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize("path", ["/webhook", "/setup"])
def test_webhooks_and_configs_have_smaller_limits_of_their_own(make_client, path):
    client = make_client(max_webhook_bytes=1000)
    size = 1001 if path == "/webhook" else 8 * 2**20 + 1
    answer = client.post(path, data=b" " * size, content_type="application/json")
    assert answer.status_code == 413


@pytest.mark.parametrize("value", ["{},", '"",', "1,", "[],"])
def test_a_body_of_too_many_values_is_refused_before_it_is_read(client, value):
    body = "[" + value * 8_000_001
    answer = client.post("/predict", data=body, content_type="application/json")
    assert answer.status_code == 413 and "values" in answer.json["detail"]
