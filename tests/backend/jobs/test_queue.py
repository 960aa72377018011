"""Jobs begin by priority and place, end for all who wait, and are never lost."""

import contextlib
import logging
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.errors import (
    HostDown,
    MediaUnreachable,
    ServiceError,
    StorageFull,
    StorageUnavailable,
    TooManyJobs,
    UnusableTask,
)
from backend.jobs.distributed.failures import failure_of
from backend.jobs.distributed.queue import DistributedQueue
from backend.jobs.distributed.worker import DistributedWorker
from backend.jobs.handles import Outcome
from backend.jobs.limits import QueueLimits
from backend.jobs.queue import JobQueue
from backend.jobs.types import JobKind, JobState
from backend.scheduler import Priority
from tests.backend.calls import wait_until
from tests.backend.jobs.conftest import spec
from tests.backend.quick_model import SECONDS

INTERACTIVE, WEBHOOK, BATCH = Priority.INTERACTIVE, Priority.WEBHOOK, Priority.BATCH


@contextlib.contextmanager
def filled(store):
    """A disk that takes nothing more."""
    real = store.transaction

    @contextlib.contextmanager
    def full():
        with real() as db:
            before = db.total_changes
            yield db
            if db.total_changes > before:
                raise StorageFull("the disk is full")

    store.transaction = full
    yield
    store.transaction = real


class Works:
    """Makes works that wait until the test lets them end; notes the order of beginning."""

    def __init__(self):
        self.began, self.gates, self.end_alone = [], {}, False
        self.error = None

    def gate(self, key):
        return self.gates.setdefault(key, threading.Event())

    def __call__(self, job):
        works = self

        class Work:
            steps = 0

            def run(self, handle):
                works.began.append(job.key)
                while not (works.end_alone or works.gate(job.key).wait(0.01)):
                    if handle.is_cancelled():
                        return Outcome()
                if works.error:
                    raise works.error
                self.steps = 1
                handle.report(1, 1)
                return Outcome("result", {"result": [], "score": 0, "model_version": "v"})

        return Work()


@pytest.fixture
def works():
    return Works()


class Embedded(JobQueue):
    """The one, with what tests look at."""

    def is_idle(self):
        return set(self._taken.values()) == {0} and not self._handles

    def runs_nothing(self):
        return set(self._taken.values()) == {0}


class WebAndWorker(DistributedQueue):
    """The other: a web process and a worker, both in this one."""

    def __init__(
        self, store, makers, *, limits, posts_unanswered=False, **options
    ):
        super().__init__(
            store, limits=limits,
            posts_unanswered=posts_unanswered, view=lambda answer, result: answer,
        )
        self.worker = DistributedWorker(
            store, makers, snapshot=lambda work, is_final: {"steps": work.steps},
            hold_seconds=60, **options,
        )
        super().start()

    def start(self):
        if not self.worker._is_running:
            self.worker.start()

    def stop(self):
        if not self._is_stopping.is_set():
            self.worker.stop()
            super().stop()

    def is_idle(self):
        return set(self.worker._taken.values()) == {0} and not self.worker._handles

    def runs_nothing(self):
        return set(self.worker._taken.values()) == {0}


@pytest.fixture
def make_queue(engine, open_store, works):
    queues = []

    def make(store=None, **options):
        options = {
            "interactive_places": 2, "background_places": 1,
            "limits": QueueLimits(per_project=100, in_all=100),
        } | options
        makers = {JobKind.TRACK: works, JobKind.FINETUNE: works}
        of_engine = WebAndWorker if engine == "redis" else Embedded
        queues.append(of_engine(store or open_store(), makers, **options))
        return queues[-1]

    yield make
    for queue in queues:
        queue.stop()
    works.end_alone = True
    wait_until(lambda: all(queue.runs_nothing() for queue in queues))


@pytest.fixture
def queue(make_queue):
    queue = make_queue()
    queue.recover()
    queue.start()
    return queue


def _as_told(error, said):
    """Status, name and detail of the answer to those who wait."""
    failure = failure_of(error) or failure_of(ServiceError(""))
    return failure, said or str(error)


def states(queue):
    return {job.key: job.state for job in reversed(queue.store.list())}  # the newest counts


def test_background_jobs_begin_by_priority_and_projects_in_turn(make_queue, works, clock):
    queue = make_queue()
    for key, priority, project in (
        ("a1", BATCH, 1), ("a2", BATCH, 1), ("a3", BATCH, 1), ("b1", BATCH, 2), ("w", WEBHOOK, 1),
    ):
        clock.now += 1
        queue.submit(spec(key, priority, project_id=project))
    assert works.began == []  # not before it is started
    works.end_alone = True
    queue.start()
    wait_until(lambda: set(states(queue).values()) == {JobState.DONE})
    assert works.began == ["w", "b1", "a1", "a2", "a3"]


def test_people_do_not_wait_for_background_places(queue, works):
    queue.submit(spec("background"))
    handle = queue.submit(spec("person", INTERACTIVE), is_awaited=True)
    works.gate("person").set()
    handle.wait(SECONDS)
    assert handle.has_ended and queue.store.get(handle.job_id).done == 1
    assert states(queue)["background"] is JobState.RUNNING


def test_those_who_wait_for_one_job_get_one_work(queue, works):
    handles = [queue.submit(spec("k", INTERACTIVE), is_awaited=True) for _ in range(3)]
    assert len({handle.job_id for handle in handles}) == 1
    works.gate("k").set()
    for handle in handles:
        handle.wait(SECONDS)
        assert not queue.leave(handle, INTERACTIVE, goes_on_with=WEBHOOK, posts_prediction=True)
    assert works.began == ["k"]
    assert queue.store.post_of_job(handles[0].job_id) is None


def test_a_job_is_worth_what_those_who_are_left_want(queue):
    person = queue.submit(spec("k", INTERACTIVE), is_awaited=True)
    other = queue.submit(spec("k", INTERACTIVE), is_awaited=True)
    batch = queue.submit(spec("k", BATCH), is_awaited=True)
    job_id = person.job_id
    assert queue.leave(batch, BATCH, goes_on_with=BATCH, posts_prediction=False)
    assert queue.store.get(job_id).priority is INTERACTIVE
    queue.leave(person, INTERACTIVE, goes_on_with=WEBHOOK, posts_prediction=True)
    job = queue.store.get(job_id)
    assert job.priority is INTERACTIVE and job.is_awaited
    queue.leave(other, INTERACTIVE, goes_on_with=WEBHOOK, posts_prediction=False)
    job = queue.store.get(job_id)
    assert job.priority is WEBHOOK and job.posts_prediction and not job.is_awaited


def test_a_place_is_given_back_when_nobody_waits(queue, works):
    for key in ("a", "b", "c"):  # two places for people
        handle = queue.submit(spec(key, INTERACTIVE), is_awaited=True)
        wait_until(lambda: states(queue)[key] is JobState.RUNNING)
        queue.leave(handle, INTERACTIVE, goes_on_with=WEBHOOK, posts_prediction=True)
    for key in ("a", "b", "c"):
        works.gate(key).set()
    wait_until(lambda: set(states(queue).values()) == {JobState.DONE})
    assert works.began == ["a", "b", "c"]
    wait_until(queue.is_idle)


def test_with_too_many_in_the_background_one_is_put_back_and_ends_later(queue, works):
    keys = [f"k{number}" for number in range(5)]
    for key in keys:
        handle = queue.submit(spec(key, INTERACTIVE), is_awaited=True)
        wait_until(lambda: key in works.began)
        queue.leave(handle, INTERACTIVE, goes_on_with=WEBHOOK, posts_prediction=True)
    wait_until(lambda: list(states(queue).values()).count(JobState.QUEUED) == 2)
    works.end_alone = True
    wait_until(lambda: set(states(queue).values()) == {JobState.DONE})
    assert sorted(works.began) == sorted([*keys, "k3", "k4"])
    assert {job.attempts for job in queue.store.list()} == {1}
    wait_until(queue.is_idle)


@pytest.mark.parametrize(
    ("error", "said", "level"),
    [
        (UnusableTask("the video is too long"), "the video is too long", logging.WARNING),
        (ValueError("x must be 1"), "x must be 1", logging.WARNING),
        (KeyError("secret detail"), "KeyError; the server's log has the traceback", logging.ERROR),
    ],
)
def test_a_failed_job_says_why_and_leaves_its_place(queue, works, caplog, error, said, level):
    works.end_alone, works.error = True, error
    handle = queue.submit(spec("k", INTERACTIVE), is_awaited=True)
    handle.wait(SECONDS)
    assert handle.error is error or _as_told(handle.error, "") == _as_told(error, said)
    (job,) = queue.store.list()
    assert (job.state, job.error) == (JobState.FAILED, said)
    assert max(record.levelno for record in caplog.records) == level
    works.error = None
    second = queue.submit(spec("k", INTERACTIVE), is_awaited=True)
    second.wait(SECONDS)
    assert second is not handle and states(queue)["k"] is JobState.DONE


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_cancelled_job_ends_for_those_who_wait(make_queue, works, has_begun):
    queue, ended = make_queue(), []
    queue.on_finished = ended.append
    if has_begun:
        queue.start()
    handle = queue.submit(spec("k", BATCH), is_awaited=True)
    if has_begun:
        wait_until(lambda: works.began == ["k"])
    assert queue.cancel(handle.job_id)
    handle.wait(SECONDS)
    assert handle.has_ended and handle.error is None
    assert states(queue)["k"] is JobState.CANCELLED
    assert not queue.cancel(handle.job_id)
    wait_until(lambda: ended)
    assert [job.state for job in ended] == [JobState.CANCELLED]
    again = queue.submit(spec("k", BATCH))
    assert again.job_id != handle.job_id


def test_a_job_that_ends_as_its_last_waiter_leaves_is_answered_or_posted(queue, works):
    """Never neither: the one who left either learns that it has ended, or it is posted."""
    works.end_alone = True
    for number in range(60):
        handle = queue.submit(spec(f"k{number}", INTERACTIVE), is_awaited=True)
        handle.wait(0.0005 * (number % 10))
        goes_on = queue.leave(handle, INTERACTIVE, goes_on_with=WEBHOOK, posts_prediction=True)
        if goes_on:
            wait_until(lambda: queue.store.get(handle.job_id).state is JobState.DONE)
            assert queue.store.post_of_job(handle.job_id) is not None
        else:
            assert handle.has_ended and queue.store.post_of_job(handle.job_id) is None


def test_too_many_waiting_jobs_of_one_project_are_refused_but_no_persons(make_queue):
    queue = make_queue(limits=QueueLimits(per_project=2, in_all=100))
    for key in "ab":
        queue.submit(spec(key))
    with pytest.raises(TooManyJobs, match="project 1 has 2 jobs waiting, may have 2"):
        queue.submit(spec("c"))
    queue.submit(spec("d", project_id=2))
    queue.submit(spec("e", INTERACTIVE))


def test_too_many_waiting_jobs_of_any_projects_are_refused_batches_first(make_queue):
    queue = make_queue(limits=QueueLimits(per_project=100, in_all=4))
    for number in range(2):
        queue.submit(spec(f"batch {number}", BATCH, project_id=number))
    with pytest.raises(TooManyJobs, match="2 jobs of all projects wait, 2 may"):
        queue.submit(spec("batch", BATCH, project_id=9))
    for number in range(2):
        queue.submit(spec(f"saved {number}", WEBHOOK, project_id=10 + number))
    with pytest.raises(TooManyJobs, match=r"4 jobs .*, 4 may \(SAM2_MAX_QUEUED\)"):
        queue.submit(spec("saved", WEBHOOK, project_id=20))
    queue.submit(spec("person", INTERACTIVE, project_id=30))


def test_a_stopped_queue_begins_again_where_it_was(make_queue, works, store):
    queue = make_queue(store)
    queue.start()
    running = queue.submit(spec("running"))
    waiting = queue.submit(spec("waiting"), is_awaited=True)
    wait_until(lambda: works.began == ["running"])
    queue.stop()
    for handle in (running, waiting):
        handle.wait(SECONDS)
        assert handle.has_ended
    assert set(states(queue).values()) == {JobState.QUEUED}
    works.end_alone = True
    again = make_queue(store, posts_unanswered=True)
    again.recover()
    again.start()
    wait_until(lambda: set(states(again).values()) == {JobState.DONE})
    assert {job.attempts for job in store.list()} == {1}


@pytest.mark.parametrize("engine", ["sqlite"])
def test_ten_thousand_tasks_of_one_project_do_not_starve_another(
    make_queue, open_store, works, clock
):
    store = open_store()
    for number in range(10_000):
        clock.now += 1
        store.add(spec(f"many {number}", BATCH, task_id=number, project_id=1))
    queue = make_queue(store, limits=QueueLimits(per_project=10_000, in_all=100_000))
    queue.start()
    wait_until(lambda: len(works.began) == 1)
    for key in ("few 1", "few 2"):
        clock.now += 1
        queue.submit(spec(key, BATCH, project_id=2))
    queue.submit(spec("soon", WEBHOOK, project_id=1))
    with pytest.raises(TooManyJobs, match="project 1 has 10000 jobs waiting"):
        queue.submit(spec("more", BATCH, project_id=1))
    for count in range(1, 6):
        wait_until(lambda count=count: len(works.began) == count)
        works.gate(works.began[-1]).set()
    wait_until(lambda: len(works.began) == 6)
    order = [key.split()[0] for key in works.began]
    assert order == ["many", "soon", "few", "many", "few", "many"]


@pytest.mark.parametrize("engine", ["sqlite"])  # of the other: test_distributed.py
@pytest.mark.parametrize("priority", [INTERACTIVE, WEBHOOK])
def test_jobs_go_on_by_themselves_after_the_disk_was_full(
    queue, works, monkeypatch, priority
):
    monkeypatch.setattr("backend.jobs.queue._STORAGE_SECONDS", 0.01)
    waiting = spec("next", priority, request={"large": "x" * 1000})
    handle = queue.submit(spec("k", priority), is_awaited=priority is INTERACTIVE)
    wait_until(lambda: works.began == ["k"])
    with filled(queue.store):
        works.end_alone = True
        handle.wait(SECONDS)
        assert handle.has_ended and isinstance(handle.error, StorageFull)
        wait_until(queue.runs_nothing)
        with pytest.raises(StorageFull, match="full"):
            queue.submit(waiting)
    wait_until(lambda: states(queue)["k"] is JobState.DONE)
    queue.submit(waiting)
    wait_until(lambda: states(queue)["next"] is JobState.DONE)


@contextlib.contextmanager
def locked(path):
    """As a backup or a person with a shell holds the file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("engine", ["sqlite"])
@pytest.mark.parametrize("priority", [INTERACTIVE, WEBHOOK])
def test_jobs_go_on_by_themselves_after_another_process_held_the_database(
    queue, works, monkeypatch, priority
):
    monkeypatch.setattr("backend.jobs.queue._STORAGE_SECONDS", 0.01)
    with queue.store.transaction() as db:
        db.execute("PRAGMA busy_timeout = 50")
        path = db.execute("PRAGMA database_list").fetchone()["file"]
    handle = queue.submit(spec("k", priority), is_awaited=priority is INTERACTIVE)
    wait_until(lambda: works.began == ["k"])
    with locked(path):
        works.end_alone = True
        handle.wait(SECONDS)
        assert handle.has_ended and isinstance(handle.error, StorageUnavailable)
        assert handle.error.status == 503 and handle.error.retry_after_seconds
        wait_until(queue.runs_nothing)
        with pytest.raises(StorageUnavailable, match="does another program hold it"):
            queue.submit(spec("next", priority))
    wait_until(lambda: states(queue)["k"] is JobState.DONE)


def test_fine_tuning_has_a_place_of_its_own(queue, works):
    queue.submit(spec("track"))
    for key in ("tune 1", "tune 2"):
        queue.submit(spec(key, Priority.TRAINING, kind=JobKind.FINETUNE))
    wait_until(lambda: set(works.began) == {"track", "tune 1"})
    assert states(queue)["tune 2"] is JobState.QUEUED


def test_many_threads_submit_leave_and_cancel_without_a_loss(queue, works):
    works.end_alone = True

    def work(number):
        handle = queue.submit(spec(f"k{number % 7}", INTERACTIVE), is_awaited=True)
        handle.wait(0.002 * (number % 3))
        if number % 5 == 0:
            queue.cancel(handle.job_id)
        queue.leave(handle, INTERACTIVE, goes_on_with=BATCH, posts_prediction=False)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(120)))
    wait_until(lambda: all(job.state.has_ended for job in queue.store.list(limit=1000)))
    wait_until(queue.is_idle)


# --- errors that may pass ----------------------------------------------------


def waits_for_retry(queue, error="host is down"):
    def holds():
        (job,) = queue.store.list()
        is_queued = job.state is JobState.QUEUED and job.error == error
        return is_queued and queue.runs_nothing()

    wait_until(holds)


def test_an_error_that_may_pass_is_tried_again_later(queue, works, clock):
    works.end_alone, works.error = True, HostDown("host is down")
    handle = queue.submit(spec("k", posts_prediction=True))
    waits_for_retry(queue)
    queue.start()
    assert works.began == ["k"]  # not before its time
    works.error = None
    clock.now += 60.1
    queue.start()
    wait_until(lambda: states(queue)["k"] is JobState.DONE)
    job = queue.store.get(handle.job_id)
    assert works.began == ["k", "k"] and job.error is None
    assert queue.store.post_of_job(job.id) is not None


def test_after_the_last_attempt_it_has_failed(make_queue, works):
    works.end_alone, works.error = True, HostDown("host is down")
    queue = make_queue(retry_seconds=(0.0, 0.0))
    ended = []
    queue.on_finished = ended.append
    queue.start()
    queue.submit(spec("k"))
    wait_until(lambda: ended)
    assert (ended[0].state, ended[0].error) == (JobState.FAILED, "host is down")
    assert works.began == ["k"] * 3


def test_the_queue_wakes_by_itself_for_the_next_attempt(open_store, make_queue, works):
    store = open_store()
    store._clock = time.time
    queue = make_queue(store, retry_seconds=(0.05,))
    works.end_alone, works.error = True, HostDown("host is down")
    queue.start()
    queue.submit(spec("k"))
    wait_until(lambda: states(queue)["k"] is JobState.FAILED)
    assert works.began == ["k", "k"]


@pytest.mark.parametrize(
    ("error", "more"),
    [
        (UnusableTask("no"), {}), (MediaUnreachable("answered 403"), {}), (ValueError("no"), {}),
        (HostDown("down"), {"kind": JobKind.FINETUNE}),
        (HostDown("down"), {"priority": INTERACTIVE}),
    ],
)
def test_what_cannot_pass_or_what_a_person_is_told_fails_at_once(queue, works, error, more):
    works.end_alone, works.error = True, error
    queue.submit(spec("k", **more))
    wait_until(lambda: states(queue)["k"] is JobState.FAILED)
    assert works.began == ["k"]


def test_one_who_asks_again_does_not_wait_for_the_next_attempt(queue, works):
    works.end_alone, works.error = True, HostDown("host is down")
    first = queue.submit(spec("k"))
    waits_for_retry(queue)
    works.error = None
    again = queue.submit(spec("k", INTERACTIVE), is_awaited=True)
    again.wait(SECONDS)
    assert again.job_id == first.job_id and again.has_ended and again.error is None
    queue.leave(again, INTERACTIVE, goes_on_with=WEBHOOK, posts_prediction=False)


def test_a_waiting_attempt_survives_a_restart_and_can_be_cancelled(
    make_queue, works, clock, open_store
):
    works.end_alone, works.error = True, HostDown("host is down")
    first = make_queue()
    first.start()
    job_id = first.submit(spec("k")).job_id
    waits_for_retry(first)
    first.stop()
    second = make_queue(open_store())
    second.recover()
    second.start()
    assert works.began == ["k"] and second.store.get(job_id).error == "host is down"
    assert second.cancel(job_id)
    clock.now += 1e6
    second.start()
    assert works.began == ["k"] and states(second)["k"] is JobState.CANCELLED


def test_failures_do_not_count_as_attempts_that_the_service_did_not_survive(
    make_queue, works, clock, open_store
):
    works.end_alone, works.error = True, HostDown("host is down")
    queue = make_queue(max_attempts=1)
    queue.start()
    job_id = queue.submit(spec("k")).job_id
    waits_for_retry(queue)
    assert queue.store.get(job_id).attempts == 0


def test_a_batch_that_waited_for_a_job_gets_nothing_and_the_job_goes_on(queue, works):
    works.end_alone, works.error = True, HostDown("host is down")
    handle = queue.submit(spec("k"), is_awaited=True)
    handle.wait(SECONDS)
    assert handle.has_ended and handle.retry_after_seconds is not None
    assert queue.leave(handle, BATCH, goes_on_with=BATCH, posts_prediction=True)
    job = queue.store.get(handle.job_id)
    assert job.state is JobState.QUEUED and job.posts_prediction and not job.is_awaited
