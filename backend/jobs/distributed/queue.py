"""The queue as a web process sees it: jobs are submitted and waited for, others run them."""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections import defaultdict
from typing import Any, Callable, Iterator, Mapping

from redis.exceptions import RedisError

from backend.errors import StorageUnavailable, Stopping
from backend.jobs.distributed.events import EventKind, EventListener
from backend.jobs.distributed.failures import error_of
from backend.jobs.distributed.keeper import Keeper
from backend.jobs.distributed.published import Published
from backend.jobs.distributed.store import RedisJobStore
from backend.jobs.limits import QueueLimits, check_room
from backend.jobs.runner import MAX_ATTEMPTS
from backend.jobs.types import Job, JobSpec, JobState, StoredResult
from backend.log_context import working_for
from backend.scheduler import Priority

logger = logging.getLogger(__name__)

_PULSE_SECONDS = 1.0
"""How often those who wait look by themselves, should an event be lost."""
_LAST_ANSWER_SECONDS = 3.0
"""How long one who cancels a job waits for what it had found."""

View = Callable[[Mapping[str, Any] | None, StoredResult | None], Any]
"""What a worker published last, or the result of a job that is done -> its `work`."""


class WaitingHandle:
    """A job of some worker, for those of this process who wait for it."""

    def __init__(
        self, job: Job, queue: DistributedQueue, view: View, *, failures: int | None = None
    ) -> None:
        """`failures`: how often it has failed before; None: as many times as by now."""
        self.job_id = job.id
        self._queue = queue
        self._store = store = queue.store
        self._view = view
        self._published = Published(store.redis)
        self._changed = threading.Condition()
        self._fields: Mapping[str, Any] = {}
        self._failures = store.failures(job.id) if failures is None else failures
        self._work: Any = None
        self._storage_error: StorageUnavailable | None = None
        self._is_given_up = False
        self.watchers = 0
        """How many wait for it, so that it is refreshed by events."""
        self.refresh()

    @property
    def work(self) -> Any:
        """What the job has found so far; None before it has begun."""
        if not self.watchers:
            self.refresh()
        return self._work

    @property
    def state(self) -> JobState:
        return JobState(self._fields.get("state", JobState.CANCELLED))

    @property
    def has_ended(self) -> bool:
        has_error = self._storage_error is not None or self._waits_for_retry
        return self._is_given_up or self.state.has_ended or has_error

    @property
    def _waits_for_retry(self) -> bool:
        return self.state is JobState.QUEUED and self._fields["failures"] > self._failures

    @property
    def retry_after_seconds(self) -> float | None:
        """It has failed with `error`, and is tried again; None otherwise."""
        return 0.0 if self._waits_for_retry else None

    @property
    def error(self) -> BaseException | None:
        """What it failed with, once it has ended."""
        if self._storage_error is not None:
            return self._storage_error  # the job is done, what it found is not to be had
        detail = self._fields.get("error")
        has_failed = self.state is JobState.FAILED or self._waits_for_retry
        return error_of(self._fields.get("failure"), detail) if has_failed else None

    def wait(
        self, timeout_seconds: float, is_enough: Callable[[Any], bool] = lambda work: False
    ) -> None:
        """Until it has ended, its work says `is_enough`, or time is up."""
        with self._queue.watching(self), self._changed:
            self._changed.wait_for(
                lambda: self.has_ended or (self.work is not None and is_enough(self.work)),
                timeout_seconds,
            )

    def refresh(self) -> None:
        """Look at the job again."""
        fields = self._store.fields(self.job_id)
        work, error = None, None
        try:
            work = self._work_of(fields)
        except StorageUnavailable as caught:
            error = caught
        with self._changed:
            self._fields, self._work, self._storage_error = fields, work, error
            self._changed.notify_all()

    def _work_of(self, fields: Mapping[str, Any]) -> Any:
        state = JobState(fields.get("state", JobState.CANCELLED))
        key = fields.get("result_key")
        result = None if key is None else self._store.result(key)
        if result is not None:
            return self._view(None, result)
        answer, _ = self._published.load(self.job_id)
        if answer is None and state is JobState.QUEUED:
            return None
        return self._view(answer, None)

    def give_up(self) -> None:
        """The process stops: nobody waits any more."""
        with self._changed:
            self._is_given_up = True
            self._changed.notify_all()

    def wait_for_last(self, timeout_seconds: float) -> None:
        """Until its worker has said what it had found when it was cancelled."""
        with self._queue.watching(self), self._changed:
            self._changed.wait_for(
                lambda: self._is_given_up or self._published.load(self.job_id)[1], timeout_seconds
            )


class DistributedQueue:
    """Submits jobs to workers. Any thread may call."""

    def __init__(
        self,
        store: RedisJobStore,
        *,
        limits: QueueLimits,
        view: View,
        posts_unanswered: bool = False,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> None:
        """
        Args:
            posts_unanswered: whether results are posted that people waited for in vain
                as this process died.
        """
        self.store = store
        self._limits = limits
        self._view = view
        self._posts_unanswered = posts_unanswered
        self._lock = threading.Lock()
        self._watched: dict[str, set[WaitingHandle]] = defaultdict(set)
        self._waiters: dict[str, str] = {}
        """Those of this process who wait, by a name of their own, and the job."""
        self._tokens: dict[tuple[str, Priority], list[str]] = defaultdict(list)
        self._listener = EventListener(store.redis, self._heard)
        self._keeper = Keeper(store, max_attempts=max_attempts)
        self._is_stopping = threading.Event()
        self._pulse_thread = threading.Thread(target=self._pulse, name="job-waiters", daemon=True)
        self.on_finished: Callable[[Job], None] = lambda job: None
        self.on_failed: Callable[[Job, Exception], None] = lambda job, error: None

    def recover(self) -> None:
        """Nothing: what killed processes left is taken up all the time."""

    def start(self) -> None:
        self._listener.start()
        self._keeper.start()
        self._pulse_thread.start()

    def stop(self, wait_seconds: float = 0.0) -> None:
        """Wait for no job any more; they go on in their workers, and are posted."""
        self._is_stopping.set()
        for handle in self._all_watched():
            handle.give_up()
        for thread in (self._listener, self._keeper):
            thread.stop()
        self._pulse_thread.join()

    # --- asking --------------------------------------------------------------

    def submit(self, spec: JobSpec, *, is_awaited: bool = False) -> WaitingHandle:
        """As `Queue.submit`."""
        if is_awaited and self._is_stopping.is_set():
            raise Stopping("the service is being stopped: ask again in a moment")
        check_room(self.store, spec.project_id, spec.priority, self._limits)
        waiter = uuid.uuid4().hex if is_awaited else None
        job, is_new = self.store.add(spec, waiter=waiter, posts_if_lost=self._posts_unanswered)
        with working_for(job=job.id, task=job.task_id, project=job.project_id):
            if is_new:
                logger.info(
                    "job %s: %s of task %s queued, %s",
                    job.id, job.kind, job.task_id, job.priority.name.lower(),
                )
            else:
                logger.info("job %s is taken, as it does the same [%s]", job.id, job.request_id)
        if waiter is not None:
            with self._lock:
                self._waiters[waiter] = job.id
                self._tokens[job.id, spec.priority].append(waiter)
        return WaitingHandle(job, self, self._view, failures=0 if is_new else None)

    def leave(
        self,
        handle: WaitingHandle,
        priority: Priority,
        *,
        goes_on_with: Priority,
        posts_prediction: bool,
    ) -> bool:
        """As `Queue.leave`."""
        with self._lock:
            waiter = self._tokens[handle.job_id, priority].pop()
            if not self._tokens[handle.job_id, priority]:
                del self._tokens[handle.job_id, priority]
            del self._waiters[waiter]
        goes_on = self.store.drop_waiter(
            handle.job_id, waiter, goes_on_with=goes_on_with, posts_prediction=posts_prediction
        )
        handle.refresh()
        return goes_on

    def handle(self, job_id: str) -> WaitingHandle | None:
        """That of an unfinished job."""
        job = self.store.get(job_id)
        if job is None or job.state.has_ended:
            return None
        return WaitingHandle(job, self, self._view)

    def cancel(self, job_id: str) -> bool:
        """As `Queue.cancel`; a job that runs says what it had found first."""
        before = self.handle(job_id)
        if before is None:
            return False
        if self.store.finish(job_id, JobState.CANCELLED) is None:
            return False
        logger.info("job %s cancelled", job_id)
        if before.state is JobState.RUNNING:
            before.wait_for_last(_LAST_ANSWER_SECONDS)
        return True

    def settings_changed(self, settings: Mapping[str, Any]) -> None:
        """Nothing: workers tell theirs."""

    # --- looking again -------------------------------------------------------

    @contextlib.contextmanager
    def watching(self, handle: WaitingHandle) -> Iterator[None]:
        """The handle learns what becomes of its job."""
        with self._lock:
            self._watched[handle.job_id].add(handle)
            handle.watchers += 1
        try:
            handle.refresh()
            if self._is_stopping.is_set():
                handle.give_up()
            yield
        finally:
            with self._lock:
                handle.watchers -= 1
                if not handle.watchers:
                    self._watched[handle.job_id].discard(handle)
                if not self._watched[handle.job_id]:
                    del self._watched[handle.job_id]

    def _all_watched(self) -> list[WaitingHandle]:
        with self._lock:
            return [handle for handles in self._watched.values() for handle in handles]

    def _heard(self, kind: EventKind, job_id: str) -> None:
        with self._lock:
            handles = list(self._watched.get(job_id, ()))
        for handle in handles:
            handle.refresh()
        if kind is EventKind.ENDED and (job := self.store.get(job_id)) is not None:
            self.on_finished(job)

    def _pulse(self) -> None:
        while not self._is_stopping.wait(_PULSE_SECONDS):
            try:
                with self._lock:
                    waiters = dict(self._waiters)
                self.store.renew_waiters(waiters)
                for handle in self._all_watched():
                    handle.refresh()
            except RedisError as error:
                logger.warning("jobs cannot be waited for, trying again: %s", error)
            except Exception:  # the boundary of the thread: it has to live on
                logger.exception("jobs cannot be waited for")
