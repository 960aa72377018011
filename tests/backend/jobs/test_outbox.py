"""Predictions reach a real HTTP server once, whatever it answers on the way."""

import base64
import json

import pytest

from backend.jobs.outbox import Outbox
from backend.jobs.types import JobState, PostState
from backend.label_studio_client import LabelStudioClient
from tests.backend.http_server import Reply
from tests.backend.jobs.conftest import spec
from tests.backend.label_studio_site import KEY, serving_label_studio, status
from tests.backend.quick_model import SECONDS

REGION = {
    "id": "a", "from_name": "box", "to_name": "video", "type": "videorectangle",
    "value": {
        "labels": ["Car"],
        "sequence": [{
            "frame": 1, "x": 1.5, "y": 2, "width": 3, "height": 4, "rotation": 0,
            "enabled": True, "time": 0.04,
        }],
    },
}
PREDICTION = {"result": [REGION], "score": 0.5, "model_version": "sam2:demo"}

def _token(name):
    """A JSON web token that is good for very long."""
    parts = [{"alg": "none"}, {"exp": 4102444800, "name": name}]
    packed = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts]
    return ".".join([*packed, "c2lnbmVk"])


JWT = _token("refresh")


@pytest.fixture
def studio():
    with serving_label_studio() as site:
        yield site


@pytest.fixture
def outbox(store, studio, clock):
    client = LabelStudioClient(studio.url, KEY)
    return Outbox(store, lambda: client, clock=clock)


@pytest.fixture
def add(store):
    def add(task_id=1, prediction=PREDICTION):
        job, _ = store.add(spec(f"task {task_id}", task_id=task_id, posts_prediction=True))
        store.finish(job.id, JobState.DONE, prediction=prediction)
        return lambda: store.post_of_job(job.id)

    return add


def post_at_next(outbox, store, clock):
    """Let the time come for the next attempt."""
    clock.now = max(clock.now, store.next_post_at() or 0, outbox._paused_until)
    outbox.post_due()


def test_what_is_due_is_posted_with_all_that_belongs_to_it(outbox, add, studio):
    posts = [add(number) for number in range(30)]
    outbox.post_due()
    assert [post().state for post in posts] == [PostState.POSTED] * 30
    assert [prediction["task"] for prediction in studio.predictions] == list(range(30))
    assert posts[4]().prediction_id == 5
    first = studio.predictions[0]
    assert {name: first[name] for name in PREDICTION} == PREDICTION


def test_a_server_error_is_tried_again(outbox, add, studio, store, clock):
    studio.failures = [status(500), status(502)]
    post = add()
    outbox.post_due()
    assert post().state is PostState.WAITING and "500" in post().error
    outbox.post_due()  # too early
    assert studio.attempts == 1
    post_at_next(outbox, store, clock)
    post_at_next(outbox, store, clock)
    assert (post().state, post().error, post().attempts) == (PostState.POSTED, None, 3)
    assert len(studio.predictions) == 1


def test_what_came_another_way_meanwhile_is_not_posted_as_well(outbox, add, studio, store, clock):
    studio.failures = [status(500)]
    post = add()
    assert not outbox.gives_way(post().job_id)  # due at this moment
    outbox.post_due()
    assert outbox.gives_way(post().job_id)
    clock.now += 100
    outbox.post_due()
    assert studio.attempts == 1  # Label Studio may still be storing the other one
    arrived = studio.store({**PREDICTION, "task": 1})
    post_at_next(outbox, store, clock)
    assert (post().state, post().prediction_id) == (PostState.POSTED, arrived["id"])
    assert studio.attempts == 1 and outbox.gives_way(post().job_id)


def test_the_delay_grows_and_has_an_end(outbox, add, studio, store, clock):
    studio.failures = [status(500)] * 30
    add()
    delays = []
    for _ in range(30):
        post_at_next(outbox, store, clock)
        delays.append(store.next_post_at() - clock.now)
    assert delays[:4] == [5, 10, 20, 40]
    assert max(delays) == delays[-1] == 3600


def test_a_server_that_asks_for_time_gets_it_for_all(outbox, add, studio, store, clock):
    studio.failures = [status(429, Retry_After="120")]
    first, second = add(1), add(2)
    begin = clock.now
    outbox.post_due()
    assert studio.attempts == 1 and second().attempts == 0
    clock.now = begin + 119
    outbox.post_due()
    assert studio.attempts == 1
    clock.now = begin + 120
    outbox.post_due()
    assert first().state is second().state is PostState.POSTED


def test_a_server_that_is_down_is_asked_once_a_round_and_nothing_is_lost(store, add, clock):
    with serving_label_studio() as site:
        url = site.url
    client = LabelStudioClient(url, KEY)
    outbox = Outbox(store, lambda: client, clock=clock)
    posts = [add(number) for number in range(5)]
    outbox.post_due()
    assert sorted(post().attempts for post in posts) == [0, 0, 0, 0, 1]
    assert {post().state for post in posts} == {PostState.WAITING}
    assert "cannot be reached" in posts[0]().error


@pytest.mark.parametrize("code", [400, 404, 413])
def test_a_refusal_is_final_seen_and_holds_up_no_other(outbox, add, studio, store, code):
    studio.failures = [status(code)]
    refused, other = add(1), add(2)
    outbox.post_due()
    assert refused().state is PostState.REFUSED and f"answered {code}" in refused().error
    assert other().state is PostState.POSTED
    assert studio.attempts == 2 and store.next_post_at() is None
    assert store.post_counts()[PostState.REFUSED] == 1


def test_what_must_not_be_sent_is_refused_here(outbox, add, studio):
    post = add(1, {**PREDICTION, "score": 7})
    outbox.post_due()
    assert post().state is PostState.REFUSED and "score" in post().error
    assert studio.attempts == 0


def test_a_key_that_is_refused_may_be_good_later(outbox, add, studio, store, clock):
    studio.failures = [status(401)]
    post = add()
    outbox.post_due()
    assert post().state is PostState.WAITING and "LABEL_STUDIO_API_KEY" in post().error
    post_at_next(outbox, store, clock)
    assert post().state is PostState.POSTED


@pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")  # in the SDK
def test_an_access_token_that_has_run_out_is_renewed(store, add, studio, clock):
    tokens = iter(["first", "second"])

    def refresh(asked):
        assert json.loads(asked.body) == {"refresh": JWT}
        body = json.dumps({"access": _token(next(tokens))}).encode()
        return Reply(body, headers={"Content-Type": "application/json"})

    studio.site.replies["/api/token/refresh"] = studio.site.replies["/api/token/refresh/"] = refresh
    studio.failures = [status(401)]
    client = LabelStudioClient(studio.url, JWT)
    outbox = Outbox(store, lambda: client, clock=clock)
    post = add()
    outbox.post_due()
    post_at_next(outbox, store, clock)
    assert post().state is PostState.POSTED
    sent = [a.headers["Authorization"] for a in studio.site.asked if a.path.startswith("/api/pred")]
    assert sent[0] == f"Bearer {_token('first')}" and sent[-1] == f"Bearer {_token('second')}"


def test_what_arrived_without_an_answer_is_not_posted_twice(outbox, add, studio, store, clock):
    def answer_is_lost(asked, body):
        studio.store(body)
        return Reply(b"{", announced=1000)  # the connection breaks in the answer

    studio.failures = [answer_is_lost]
    post = add()
    outbox.post_due()
    assert post().state is PostState.WAITING and len(studio.predictions) == 1
    post_at_next(outbox, store, clock)
    assert (post().state, post().prediction_id) == (PostState.POSTED, 1)
    assert studio.attempts == 1 and len(studio.predictions) == 1


def test_a_kill_between_posting_and_noting_it_posts_nothing_twice(
    outbox, add, studio, store, clock
):
    post = add()
    store.begin_post(post().id)
    studio.store({"task": 1, **PREDICTION})
    post_at_next(outbox, store, clock)
    assert post().state is PostState.POSTED and studio.attempts == 0


@pytest.mark.parametrize(
    "other",
    [
        {"model_version": "sam2:large"}, {"result": None}, {"result": ["odd"]},
        {"result": [REGION | {"id": "b"}]}, {"result": []},
    ],
)
def test_another_prediction_of_the_task_is_not_taken_for_it(
    outbox, add, studio, store, clock, other
):
    post = add()
    store.begin_post(post().id)
    studio.store({"task": 1, **PREDICTION, **other})
    post_at_next(outbox, store, clock)
    assert post().state is PostState.POSTED and studio.attempts == 1


def test_one_that_fails_in_an_unforeseen_way_holds_up_no_other(outbox, add, caplog):
    odd, other = add(1, {"score": 0.5}), add(2)  # without `result`
    outbox.post_due()
    assert odd().state is PostState.WAITING and "KeyError" in odd().error
    assert other().state is PostState.POSTED
    assert "Traceback" in caplog.text


def test_the_key_is_in_no_log_and_no_record(outbox, add, studio, caplog):
    caplog.set_level("DEBUG")
    studio.failures = [lambda asked, body: Reply(
        json.dumps({"detail": f"bad {KEY}"}).encode(), 400, {"Content-Type": "application/json"}
    )]
    post = add()
    outbox.post_due()
    assert post().state is PostState.REFUSED
    assert KEY not in post().error and KEY not in caplog.text


def test_the_thread_posts_what_it_is_woken_for_and_outlives_a_broken_client(store, add, studio):
    clients = iter([ValueError("not set")])

    def client():
        error = next(clients, None)
        if error:
            raise error
        return LabelStudioClient(studio.url, KEY)

    outbox = Outbox(store, client, clock=store._clock)
    outbox.start()
    add()
    outbox.wake()
    while not studio.arrived.acquire(timeout=0.2):
        outbox.wake()
    outbox.stop()
    outbox._thread.join(SECONDS)
    assert not outbox._thread.is_alive()
