"""The queue as a worker sees it: jobs are taken, run beside one another, and reported."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from typing import Any, Callable, Iterator, Mapping

from redis.exceptions import (
    ConnectionError as RedisConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError as RedisTimeoutError,
)
from rq.worker import BaseWorker, WorkerStatus

from backend.deadlines import Deadline
from backend.jobs.distributed.events import EventKind, EventListener
from backend.jobs.distributed.failures import failure_of
from backend.jobs.distributed.keeper import Keeper
from backend.jobs.distributed.published import Pace, Published
from backend.jobs.distributed.store import RedisJobStore
from backend.jobs.distributed.tickets import Line, shared_line, worker_line
from backend.jobs.handles import JobHandle, Outcome, Work
from backend.jobs.runner import INTERACTIVE, MAX_ATTEMPTS, JobRunner
from backend.jobs.types import Job, JobKind, JobState
from backend.scheduler import Priority

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
"""How often a worker looks for jobs by itself, should an event be lost."""
_PULSE_SECONDS = 1.0
_PUBLISH_SECONDS = 0.1
_RQ_TTL_SECONDS = 60

Snapshot = Callable[[Any, bool], Mapping[str, Any] | None]
"""(work, whether no more is wanted) -> its answer so far, as JSON; None without one."""


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The settings that two workers do not have alike."""
    return [name for name, value in ours.items() if theirs.get(name) != value]


class RunningHandle(JobHandle):
    """A job of this worker."""

    def __init__(self, job: Job, store: RedisJobStore, told: Callable[[], None]) -> None:
        super().__init__(job.id, job.priority, store)
        self.task_id = job.task_id
        self.pace = Pace()
        self.has_published_last = False
        self.publishing = threading.Lock()
        self._is_awaited = job.is_awaited
        self._told = told

    @property
    def is_awaited(self) -> bool:
        """Whether anyone waits for it, in whatever process."""
        return self._is_awaited

    def follow(self, fields: Mapping[str, Any]) -> None:
        """Take over what has become of it."""
        self.priority = Priority(fields["priority"])
        self._is_awaited = fields["is_awaited"]

    def report(self, done: int, total: int) -> None:
        with contextlib.suppress(RedisError):  # nothing depends on it
            super().report(done, total)

    def tell(self) -> None:
        super().tell()
        self._told()

    def cancel(self) -> None:
        super().cancel()
        self._told()


class DistributedWorker(JobRunner):
    """Runs jobs of all web processes; as many as there are places at once."""

    store: RedisJobStore
    _store_errors = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError)

    def __init__(
        self,
        store: RedisJobStore,
        makers: Mapping[JobKind, Callable[[Job], Work]],
        *,
        snapshot: Snapshot,
        hold_seconds: float,
        settings: Mapping[str, Any] | None = None,
        max_attempts: int = MAX_ATTEMPTS,
        name: str | None = None,
        **places: Any,
    ) -> None:
        """
        Args:
            hold_seconds: how long a task's video stays open here after a job on it, so
                that people's next jobs on it come here first.
            settings: what its answers depend on; it should be the same for all.
            places: more of `JobRunner`'s.
        """
        super().__init__(store, makers, **places)
        host = socket.gethostname()
        self.name = name or f"{host}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._snapshot = snapshot
        self._hold_seconds = hold_seconds
        self._settings = dict(settings or {})
        self._published = Published(store.redis)
        self._wake, self._told = threading.Event(), threading.Event()
        self._changed = threading.Event()
        self._is_stopping = threading.Event()
        self._life = threading.Lock()
        """Held while it begins or ends."""
        self._listener = EventListener(store.redis, self._heard)
        self._keeper = Keeper(store, max_attempts=max_attempts)
        self._threads = [
            threading.Thread(target=self._repeat, args=arguments, name=name, daemon=True)
            for name, *arguments in (
                ("job-dispatcher", self._wake, _LOOK_SECONDS, self._begin_all),
                ("job-pulse", self._changed, _PULSE_SECONDS, self._pulse),
                ("job-answers", self._told, _PUBLISH_SECONDS, self._publish_all),
            )
        ]
        self._registration: BaseWorker | None = None

    def recover(self) -> None:
        """Nothing: what killed processes left is taken up all the time."""

    def start(self) -> None:
        """Take jobs from now on; nothing when it was stopped before."""
        with self._life:
            if self._is_stopping.is_set():
                return
            self._register()
            self._listener.start()
            self._keeper.start()
            with self._lock:
                self._is_running = True
            for thread in self._threads:
                thread.start()

    def stop(self, wait_seconds: float = 0.0) -> None:
        """Begin no more jobs, and give the running ones to others, each once it has saved
        where it is.

        Waits for that until `wait_seconds` are over.
        """
        with self._life:  # not in the midst of `start`
            self._stop(wait_seconds)
            self._is_stopping.set()

    def _stop(self, wait_seconds: float) -> None:
        with self._lock:
            was_running, self._is_running = self._is_running, False
            handles = list(self._handles.values())
            for handle in handles:
                handle.is_stopped = True
                handle.cancel()
        if not was_running:
            return
        self.store.end_worker(self.name)
        deadline = Deadline(wait_seconds)
        for handle in handles:
            handle.wait(deadline.remaining_seconds)
        # Those that have not ended in time; no attempt that the worker did not survive.
        self.store.put_back()
        self._is_stopping.set()
        for event in (self._wake, self._changed, self._told):
            event.set()
        for thread in self._threads:
            thread.join()
        for part in (self._listener, self._keeper):
            part.stop()
        self._registration.register_death()

    def _register(self) -> None:
        """So that `rq info` and other processes know it."""
        lines = (shared_line(), worker_line(self.name))
        self._registration = BaseWorker(
            [line.name for line in lines], name=self.name, connection=self.store.redis,
            worker_ttl=_RQ_TTL_SECONDS,
        )
        self._registration.register_birth()
        self._registration.set_state(WorkerStatus.STARTED)
        self.store.renew_worker(self.name)
        self.store.describe_worker(self.name, self._settings)
        for name, theirs in self.store.worker_settings().items():
            for setting in differing(self._settings, theirs):
                logger.warning(
                    "worker %s has another %s (%r, here %r): equal requests get other answers",
                    name, setting, theirs.get(setting), self._settings[setting],
                )

    def settings_changed(self, settings: Mapping[str, Any]) -> None:
        """Others are told."""
        self._settings = dict(settings)
        self.store.describe_worker(self.name, self._settings)

    def _repeat(self, event: threading.Event, seconds: float, do: Callable[[], None]) -> None:
        """Do it at each event, and now and then without one."""
        while not self._is_stopping.is_set():
            try:
                do()
            except RedisError as error:
                logger.warning("%s: trying again: %s", threading.current_thread().name, error)
                self._is_stopping.wait(seconds)
            except Exception:  # the boundary of the thread: it has to live on
                logger.exception("%s failed", threading.current_thread().name)
                self._is_stopping.wait(seconds)
            event.wait(seconds)
            event.clear()

    def _heard(self, kind: EventKind, job_id: str) -> None:
        if kind is EventKind.QUEUED:
            self._wake.set()
        elif kind in (EventKind.CHANGED, EventKind.ENDED) and job_id in self._handles:
            self._changed.set()

    # --- taking --------------------------------------------------------------

    def _dispatch(self) -> None:
        self._wake.set()  # a thread of its own asks Redis

    def _begin_all(self) -> None:
        with self._lock:
            while self._is_running and (job := self._take()) is not None:
                self._begin(job)

    def _take(self) -> Job | None:
        """Begin the next job there is a place for; None without one."""
        self._note_the_unnoted()
        lines = [line for line in self.store.tickets.lines() if self._may_take(line)]
        lines.sort(
            key=lambda line: (line.priority, self._turn_of(line.project_id), line.name)
        )
        for line in lines:
            while (job_id := self.store.tickets.take(line)) is not None:
                job = self.store.begin(job_id, line)
                if job is not None:
                    return job
                self.store.tickets.done(self.store.redis, line, job_id)  # it has ended
        return None

    def _may_take(self, line: Line) -> bool:
        is_for_others = line.lane == INTERACTIVE and line not in (
            shared_line(), worker_line(self.name)
        )
        return self._has_place(line.lane) and not is_for_others

    def _handle_for(self, job: Job) -> RunningHandle:
        self._hold(job.task_id)
        handle = self._handles[job.id] = RunningHandle(job, self.store, self._told.set)
        return handle

    def _hold(self, task_id: int | None) -> None:
        if task_id is not None:
            self.store.hold_task(task_id, self.name, self._hold_seconds)

    # --- what becomes of them ------------------------------------------------

    def _pulse(self) -> None:
        """Say that the worker and its jobs live; learn who waits for them still."""
        if self._is_running:
            self.store.renew_worker(self.name)
        self._registration.heartbeat()
        with self._lock:
            handles = dict(self._handles)
        self._registration.set_state(WorkerStatus.BUSY if handles else WorkerStatus.IDLE)
        if not handles:
            return
        for job_id, fields in self.store.renew(list(handles)).items():
            self._follow(handles[job_id], fields)

    def _follow(self, handle: RunningHandle, fields: Mapping[str, Any]) -> None:
        with self._lock:
            if self._handles.get(handle.job_id) is not handle:
                return  # it has just ended
            if not self.store.is_ours(fields):
                # Another worker has it, or it has ended.
                handle.is_stopped = not JobState(fields.get("state", "cancelled")).has_ended
                handle.cancel()
                return
            handle.follow(fields)
            if not handle.is_awaited:
                self._give_place_back(handle)

    # --- answers -------------------------------------------------------------

    def _publish_all(self) -> None:
        with self._lock:
            handles = list(self._handles.values())
        for handle in handles:
            if handle.work is None or handle.is_stopped:
                continue
            if handle.is_cancelled():
                self._publish(handle, is_final=True)
            elif handle.pace.is_due(is_awaited=handle.is_awaited):
                self._publish(handle, is_final=False)

    def _publish(self, handle: RunningHandle, *, is_final: bool) -> None:
        """Once with `is_final`, and then no more."""
        with handle.publishing:
            if handle.has_published_last:
                return
            begin = time.monotonic()
            answer = self._snapshot(handle.work, is_final)
            if answer is not None:
                self._published.save(handle.job_id, answer, is_final=is_final)
            handle.has_published_last = is_final
            handle.pace.took(time.monotonic() - begin)

    @contextlib.contextmanager
    def _not_lost(self, job: Job) -> Iterator[None]:
        """Nobody renews its lease any more, so that it begins again, here or elsewhere."""
        try:
            yield
        except RedisError as error:
            logger.error("job %s begins again, its end cannot be kept: %s", job.id, error)
            if isinstance(error, self._store_errors):  # it goes on as soon as Redis does
                with self._lock:
                    self._unnoted.add(job.id)

    def _run(self, job: Job, handle: JobHandle) -> None:
        try:
            super()._run(job, handle)
        finally:
            self._hold(job.task_id)

    def _run_to_the_end(self, job: Job, handle: JobHandle) -> Job | None:
        ended = super()._run_to_the_end(job, handle)
        if handle.is_cancelled() and not handle.is_stopped and handle.work is not None:
            self._publish(handle, is_final=True)
        return ended

    def _done(self, job: Job, handle: JobHandle, outcome: Outcome) -> Job | None:
        if outcome.result_key is None:  # those who wait have nothing else to look at
            self._publish(handle, is_final=True)
        return super()._done(job, handle, outcome)

    def _failed(self, job: Job, handle: JobHandle, detail: str) -> Job | None:
        return self.store.finish(
            job.id, JobState.FAILED, error=detail, failure=failure_of(handle.error),
            progress=handle.progress,
        )
