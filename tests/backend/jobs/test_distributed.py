"""Of the engine over Redis: what leases, tickets and shared storage do."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.jobs.distributed import keys
from backend.jobs.distributed.connection import connect, server_clock
from backend.jobs.distributed.keeper import Keeper
from backend.jobs.distributed.storage import open_storage
from backend.jobs.distributed.store import RedisJobStore
from backend.jobs.distributed.tickets import line_for, shared_line, worker_line
from backend.jobs.types import JobKind, JobState
from backend.scheduler import Priority
from tests.backend.clock import Clock
from tests.backend.jobs.conftest import spec
from tests.backend.jobs.test_store import PREDICTION, result, save

INTERACTIVE, WEBHOOK, BATCH = Priority.INTERACTIVE, Priority.WEBHOOK, Priority.BATCH


@pytest.fixture
def engine():
    return "redis"


@pytest.fixture
def other(open_store):
    """The same Redis, as another process has it."""
    return open_store()


def take(store, line):
    """As a worker does."""
    job_id = store.tickets.take(line)
    return None if job_id is None else store.begin(job_id, line)


# --- processes that die ------------------------------------------------------


def test_a_job_whose_worker_is_not_heard_of_is_begun_by_another(store, other, clock):
    line = line_for(JobKind.TRACK, BATCH, 1)
    store.add(spec("k"))
    first = take(store, line)
    clock.now += store.lease_seconds - 1
    assert store.renew([first.id])[first.id]["state"] == JobState.RUNNING
    clock.now += store.lease_seconds - 1
    other.requeue_lost(3)
    assert take(other, line) is None  # it was heard of
    clock.now += 2
    other.requeue_lost(3)
    second = take(other, line)
    assert (second.id, second.attempts) == (first.id, 2)
    # The first, if it lives after all, finds out, and can undo nothing.
    assert not store.is_ours(store.renew([first.id])[first.id])
    store.put_back(first.id)
    store.retry(first.id, "late", 5)
    assert other.get(first.id).state is JobState.RUNNING
    assert other.finish(first.id, JobState.DONE) is not None
    assert store.finish(first.id, JobState.DONE) is None


def test_a_job_that_workers_die_of_fails_in_the_end(store, clock):
    line = line_for(JobKind.TRACK, BATCH, 1)
    store.add(spec("k"))
    for _ in range(3):
        assert take(store, line) is not None
        clock.now += store.lease_seconds
        failed = store.requeue_lost(3)
    assert take(store, line) is None
    assert [job.state for job in failed] == [JobState.FAILED] and "3 times" in failed[0].error
    assert store.counts()[JobState.FAILED] == 1


def test_a_stall_of_redis_makes_nobody_dead(store, other, clock, monkeypatch):
    """Nobody can renew a lease while it does not answer; its uptime says nothing of that."""
    keeper = Keeper(other, max_attempts=1)
    now = Clock(1000.0)
    monkeypatch.setattr("backend.jobs.distributed.keeper.time.monotonic", now)
    monkeypatch.setattr(keeper, "_has_just_begun", lambda: False)
    store.add(spec("k"))
    job = take(store, line_for(JobKind.TRACK, BATCH, 1))

    def pass_by(seconds):
        clock.now += seconds
        now.now += seconds
        keeper.look()

    pass_by(1)
    for _ in range(3):
        pass_by(store.lease_seconds + 1)  # in the midst of this look it answers again
        assert store.is_ours(store.renew([job.id])[job.id])
        for _ in range(3):
            pass_by(store.lease_seconds / 4)
            store.renew([job.id])
    assert store.get(job.id).state is JobState.RUNNING
    # One that does not come back is taken up all the same.
    for _ in range(12):
        pass_by(store.lease_seconds / 4)
    assert store.get(job.id).state is JobState.FAILED


def test_windows_take_none_of_their_projects_room(store):
    for number in range(3):
        store.add(spec(f"w{number}", kind=JobKind.WINDOW))
    assert store.count_queued(1) == 0 and store.counts()[JobState.QUEUED] == 3


@pytest.mark.parametrize("is_done", [True, False])
def test_an_answer_whose_waiter_died_is_posted(store, clock, is_done):
    job, _ = store.add(spec("k", INTERACTIVE), waiter="w", posts_if_lost=True)
    store.begin(job.id)
    if is_done:
        save(store, result("r"))
        store.finish(job.id, JobState.DONE, result_key="r", prediction=PREDICTION)
        assert store.post_of_job(job.id) is None  # someone waits for it
    clock.now += store.lease_seconds
    store.renew([job.id])
    Keeper(store, max_attempts=3)._release_lost_waiters()
    if not is_done:
        known = store.get(job.id)
        assert (known.priority, known.is_awaited) == (WEBHOOK, False)
        store.finish(job.id, JobState.DONE, result_key="r", prediction=PREDICTION)
    assert store.post_of_job(job.id).state == "waiting"
    assert list(store.lost_waiters()) == []


def test_one_who_has_left_or_says_that_he_waits_is_not_lost(store, clock):
    left, _ = store.add(spec("left", INTERACTIVE), waiter="l", posts_if_lost=True)
    stays, _ = store.add(spec("stays", INTERACTIVE), waiter="s", posts_if_lost=True)
    assert store.drop_waiter(left.id, "l", goes_on_with=BATCH, posts_prediction=False)
    clock.now += store.lease_seconds - 1
    store.renew_waiters({"s": stays.id})
    clock.now += 2
    assert list(store.lost_waiters()) == []


def test_a_ticket_that_a_worker_took_and_did_not_begin_is_given_again(store, monkeypatch):
    line = line_for(JobKind.TRACK, BATCH, 1)
    job, _ = store.add(spec("k"))
    assert store.tickets.take(line) == job.id  # and is killed
    assert store.tickets.take(line) is None
    store.queue_untaken()  # seen for the first time
    assert store.tickets.take(line) is None
    monkeypatch.setattr(store, "lease_seconds", -60.0)
    store.queue_untaken()
    assert take(store, line).id == job.id
    assert list(store.tickets.between()) == []


# --- tickets -----------------------------------------------------------------


def test_a_persons_job_waits_for_the_worker_with_the_video_then_for_any(store, clock):
    store.renew_worker("one")
    store.hold_task(1, "one", 60)
    job, _ = store.add(spec("k", INTERACTIVE))
    assert take(store, shared_line()) is None
    clock.now += 1.5
    store.queue_due()
    assert store.tickets.take(worker_line("one")) is None
    assert take(store, shared_line()).id == job.id


def test_a_worker_that_is_gone_is_not_waited_for(store, clock):
    store.hold_task(1, "one", 60)
    store.renew_worker("one")
    clock.now += store.lease_seconds
    job, _ = store.add(spec("k", INTERACTIVE))
    assert take(store, shared_line()).id == job.id
    assert store.live_workers() == []


def test_a_job_is_in_the_queue_of_its_priority_now(store):
    job, _ = store.add(spec("k", BATCH))
    store.add(spec("k", INTERACTIVE), waiter="w")
    assert store.tickets.take(line_for(JobKind.TRACK, BATCH, 1)) is None
    store.drop_waiter(job.id, "w", goes_on_with=WEBHOOK, posts_prediction=True)
    assert store.tickets.take(shared_line()) is None
    assert take(store, line_for(JobKind.TRACK, WEBHOOK, 1)).id == job.id


def test_a_cancelled_job_leaves_nothing_in_the_queues(store):
    job, _ = store.add(spec("k"))
    store.finish(job.id, JobState.CANCELLED)
    assert store.tickets.lines() == []
    kept = {key.decode() for key in store.redis.keys("*")}
    assert not any(job.id in key for key in kept - {keys.job(job.id), keys.request(job.id)})


def test_equal_jobs_of_many_processes_are_one(open_store):
    stores = [open_store() for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda n: stores[n % 4].add(spec(f"k{n % 5}")), range(80)))
    assert len({job.id for job, _ in added}) == 5
    assert sum(is_new for _, is_new in added) == 5
    assert stores[0].counts()[JobState.QUEUED] == stores[0].count_queued(1) == 5


def test_one_process_at_a_time_posts_a_prediction(store, other, clock):
    job, _ = store.add(spec("k", posts_prediction=True))
    store.finish(job.id, JobState.DONE, prediction=PREDICTION)
    (post,), (same,) = store.due_posts(), other.due_posts()
    assert store.begin_post(post.id) and not other.begin_post(same.id)
    assert other.due_posts() == []
    clock.now += 1000  # the first is dead
    assert other.begin_post(post.id) and other.post_of_job(job.id).attempts == 2


# --- results -----------------------------------------------------------------


@pytest.mark.parametrize("url", ["{folder}/results", "file://{folder}/a/b", "memory://results"])
def test_results_lie_where_the_storage_is(redis_server, clock, tmp_path, url):
    storage = open_storage(url.format(folder=tmp_path))
    with redis_server.client() as redis:
        redis.flushall()
    store = RedisJobStore(
        connect(redis_server.url, patience_seconds=5), storage=storage, clock=clock
    )
    for name in "abc":
        clock.now += 1
        save(store, result(name, 10_000))
    clock.now += 1
    assert store.result("a").regions == result("a", 10_000).regions
    assert not store.redis.exists(keys.result_body("a"))
    clock.now += 1
    save(store, result("d", 10_000), max_bytes=store.result_bytes() * 2 // 3 + 100)
    assert [name for name in "abcd" if store.result(name)] == ["a", "d"]
    storage.delete("results/a/a")  # by someone else
    assert store.result("a") is None
    store.close()


def test_a_storage_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="storage='nonsense://x'"):
        open_storage("nonsense://x")


# --- the clock ---------------------------------------------------------------


def test_times_are_those_of_redis(redis_server):
    with connect(redis_server.url, patience_seconds=5) as redis:
        seconds, _ = redis.time()
        assert abs(server_clock(redis)() - seconds) < 60


def test_a_record_is_plain_json(store):
    job, _ = store.add(spec("k", request={"text": "half \ud800", "big": 10**30}))
    stored = store.redis.hgetall(keys.job(job.id))
    assert {name.decode(): json.loads(value) for name, value in stored.items()}["key"] == "k"
