"""Label Studio down, failing or refusing: each prediction arrives once, or says why not."""

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor

from tests.backend.calls import saved
from tests.backend.http_server import Reply
from tests.backend.label_studio_site import KEY, serving_label_studio, status
from tests.backend.real_server import ask
from tests.faults.conftest import prompt


def test_down_for_long_and_up_again(server, make_server, studio):
    with serving_label_studio() as first:
        port = first.site.port
        server.environment["LABEL_STUDIO_URL"] = first.url
        server.start()
        ask(f"{server.url}/webhook", saved(prompt(), task_id=1))
        server.wait_until_posted()
    for task_id in (2, 3):  # nobody listens there now
        ask(f"{server.url}/webhook", saved(prompt(), task_id=task_id))

    def both_were_tried() -> bool:
        ((count, least, most),) = server.rows(
            "SELECT COUNT(*), MIN(attempts), MAX(attempts) FROM posts WHERE task_id > 1"
        )
        return count == 2 and (least >= 3 or most >= 4)

    server.wait_until(both_were_tried)
    assert server.states() == [("done", "posted")] + [("done", "waiting")] * 2
    shown = ask(f"{server.url}/api/jobs?task=2")["jobs"][0]["prediction"]
    assert shown["state"] == "waiting" and "cannot be reached" in shown["error"] or not shown["error"]
    assert ask(f"{server.url}/health")["status"] == "UP"
    with serving_label_studio(port) as again:
        server.wait_until_posted(3)
        assert sorted(prediction["task"] for prediction in again.predictions) == [2, 3]
    assert [prediction["task"] for prediction in first.predictions] == [1]


def test_every_refusal_that_may_pass(server, studio):
    """500, 502, a token that has run out, and too many requests, in this order."""
    arrivals = []

    def noted(fail):
        def answer(asked, body):
            arrivals.append(time.monotonic())
            return fail(asked, body)

        return answer

    in_two_seconds = {"Date": "Sun, 01 Nov 2026 00:00:00 GMT"}
    studio.failures = [
        noted(fail)
        for fail in (
            status(500), status(502), status(401), status(429, Retry_After="2"),
            status(429, **in_two_seconds, Retry_After="Sun, 01 Nov 2026 00:00:02 GMT"),
            lambda *_: None,
        )
    ]
    server.start()
    ask(f"{server.url}/webhook", saved(prompt()))
    server.wait_until_posted()
    assert studio.attempts == 6 and len(studio.predictions) == 1
    assert arrivals[4] - arrivals[3] >= 2 and arrivals[5] - arrivals[4] >= 2


def test_content_that_is_refused_is_said_and_not_sent_again(server, studio):
    studio.failures = [status(400)]
    server.start()
    job_id = ask(f"{server.url}/webhook", saved(prompt()))["job"]
    server.wait_until(lambda: server.states() == [("done", "refused")])
    shown = ask(f"{server.url}/api/jobs/{job_id}")["prediction"]
    assert "answer 400" in shown["error"] and studio.attempts == 1


def test_an_access_token_that_runs_out_early_is_renewed(server, studio):
    """A personal access token buys tokens; the one in use is revoked meanwhile."""
    good = []

    def refresh(asked):
        assert json.loads(asked.body) == {"refresh": _token("personal")}
        good[:] = [_token(f"access {len(studio.site.asked)}")]
        body = json.dumps({"access": good[0]}).encode()
        return Reply(body, headers={"Content-Type": "application/json"})

    def check(asked, _):
        is_good = asked.headers.get("Authorization") == f"Bearer {good[0]}"
        return None if is_good else status(401)(asked, _)

    studio.site.replies["/api/token/refresh"] = refresh
    studio.site.replies["/api/token/refresh/"] = refresh
    studio.failures = [check] * 20
    server.environment["LABEL_STUDIO_API_KEY"] = _token("personal")
    server.start()
    ask(f"{server.url}/webhook", saved(prompt(), task_id=1))
    server.wait_until_posted(1)
    good[:] = ["none"]
    ask(f"{server.url}/webhook", saved(prompt(), task_id=2))
    server.wait_until_posted(2)
    assert sorted(prediction["task"] for prediction in studio.predictions) == [1, 2]
    assert good[0] not in server.log() and KEY not in server.log()


def _token(name):
    """A JSON web token that is good for very long."""
    parts = [{"alg": "none"}, {"exp": 4102444800, "name": name}]
    packed = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts]
    return ".".join([*packed, "c2lnbmVk"])


def test_one_webhook_at_many_times_is_one_job_and_one_prediction(server, studio):
    """At the same time, while it is tracked, after a kill, and once it is posted."""
    server.set("gate")
    server.start()

    def send(action="ANNOTATION_CREATED"):
        return ask(f"{server.url}/webhook", saved(prompt(), action=action))["job"]

    with ThreadPoolExecutor(8) as pool:
        jobs = {job for job in pool.map(lambda _: send(), range(8))}
    server.wait_at_the_gate()
    jobs.add(send("ANNOTATION_UPDATED"))
    server.kill()
    server.unset("gate")
    server.start()
    jobs.add(send())
    server.wait_until_posted()
    jobs.add(send())
    assert len(jobs) == 1
    assert server.states() == [("done", "posted")] and len(studio.predictions) == 1


def test_one_id_goes_from_the_request_to_the_posted_prediction(make_server, studio):
    server = make_server(SAM2_LOG_FORMAT="json")
    server.start()
    request_id = "label-studio:0001"
    job_id = ask(
        f"{server.url}/webhook", saved(prompt()), {"X-Request-ID": request_id}
    )["job"]
    server.wait_until_posted()
    assert ask(f"{server.url}/api/jobs/{job_id}")["request_id"] == request_id
    (posted,) = [asked for asked in studio.site.asked if asked.method == "POST"]
    headers = {name.lower(): value for name, value in posted.headers.items()}
    assert headers["x-request-id"] == request_id
    lines = [json.loads(line) for line in server.log().splitlines()]
    ours = [line for line in lines if line.get("request_id") == request_id]
    messages = " | ".join(line["message"] for line in ours)
    for part in ("POST /webhook: 200", f"job {job_id}: track of task 1 queued", "posted"):
        assert part in messages
    assert {line["task"] for line in ours if "posted" in line["message"]} == {1}
