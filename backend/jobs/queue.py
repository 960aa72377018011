"""The embedded queue: jobs of one process, run in threads, kept in a `JobStore`."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Protocol

from backend.errors import ServiceError, TooManyJobs
from backend.jobs.store import JobStore, Waiting
from backend.jobs.types import Job, JobKind, JobSpec, JobState
from backend.scheduler import Priority

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 0.5
"""Progress goes to the store no more often than this."""


@dataclass(frozen=True)
class Outcome:
    """What a finished job leaves."""

    result_key: str | None = None
    prediction: Mapping[str, Any] | None = None
    """For Label Studio, if the job posts one."""


class Work(Protocol):
    """The running side of a job; others may look at it meanwhile."""

    def run(self, handle: JobHandle) -> Outcome: ...


class JobHandle:
    """An unfinished job of this process, for those who wait for it."""

    def __init__(self, job_id: str, priority: Priority, store: JobStore) -> None:
        self.job_id = job_id
        self.priority = priority
        """May change while it runs."""
        self.work: Work | None = None
        """Once it has begun."""
        self.error: BaseException | None = None
        """What it failed with, once it has ended."""
        self.has_ended = False
        self._store = store
        self._cancelled = threading.Event()
        self._changed = threading.Condition()
        self._last_report = 0.0
        self._waiting_count = 0

    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the work to stop."""
        self._cancelled.set()

    def report(self, done: int, total: int) -> None:
        """Steps done and in all: to those who wait, and to the store now and then."""
        with self._changed:
            self._changed.notify_all()
        now = time.monotonic()
        if now - self._last_report >= _PROGRESS_SECONDS or done == total:
            self._last_report = now
            self._store.set_progress(self.job_id, done, total)

    def begin(self, work: Work) -> None:
        with self._changed:
            self.work = work
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self.has_ended = True
            self._changed.notify_all()

    def wait(
        self, timeout_seconds: float, is_enough: Callable[[Any], bool] = lambda work: False
    ) -> None:
        """Until it has ended, its work says `is_enough`, or time is up."""
        with self._changed:
            self._waiting_count += 1
            try:
                self._changed.wait_for(
                    lambda: self.has_ended or (self.work is not None and is_enough(self.work)),
                    timeout_seconds,
                )
            finally:
                self._waiting_count -= 1

    @property
    def is_awaited(self) -> bool:
        """Whether anyone waits for it now."""
        return self._waiting_count > 0


class JobQueue:
    """Runs jobs by priority, each kind of waiting person in a lane of its own.

    A person's job begins at once; of those in the background a few at a time,
    projects in turn, so that one with ten thousand tasks does not starve another.
    """

    def __init__(
        self,
        store: JobStore,
        makers: Mapping[JobKind, Callable[[Job], Work]],
        *,
        interactive_places: int,
        max_queued_per_project: int,
        background_places: int = 2,
        max_attempts: int = 3,
    ) -> None:
        """
        Args:
            makers: make the work of a job from its request; may raise as `Work.run`.
            background_places: two, so that one downloads while the other tracks.
            max_attempts: how often a job is begun that the service did not survive.
        """
        self.store = store
        self._makers = makers
        self._places = {
            "interactive": interactive_places,
            "background": background_places,
            "training": 1,
        }
        self._taken = dict.fromkeys(self._places, 0)
        self._max_queued_per_project = max_queued_per_project
        self._max_attempts = max_attempts
        self._lock = threading.RLock()
        self._handles: dict[str, JobHandle] = {}
        self._last_served: dict[int | None, int] = {}
        self._served_count = 0
        self._is_stopping = False
        self.on_finished: Callable[[Job], None] = lambda job: None
        """Called with each job that has ended."""

    def start(self) -> None:
        """Take up what an earlier process left unfinished."""
        count = self.store.requeue_interrupted(self._max_attempts)
        if count:
            logger.warning("%d jobs were interrupted and begin again", count)
        self._dispatch()

    def stop(self) -> None:
        """Begin no more jobs, and ask the running ones to stop; they begin again next time."""
        with self._lock:
            self._is_stopping = True
            handles = list(self._handles.values())
        for handle in handles:
            handle.cancel()

    def submit(self, spec: JobSpec) -> JobHandle:
        """Queue a job, or join the unfinished one that does the same.

        Raises TooManyJobs when its project has too many waiting already.
        """
        if spec.priority is not Priority.INTERACTIVE:
            self._check_room(spec)
        with self._lock:
            job, is_new = self.store.add(spec)
            handle = self._handles.setdefault(
                job.id, JobHandle(job.id, job.priority, self.store)
            )
            handle.priority = min(handle.priority, spec.priority)
        if is_new:
            logger.info(
                "job %s: %s of task %s queued, %s",
                job.id, job.kind, job.task_id, job.priority.name.lower(),
            )
        self._dispatch()
        return handle

    def _check_room(self, spec: JobSpec) -> None:
        waiting = self.store.count_queued(spec.project_id)
        if waiting >= self._max_queued_per_project:
            raise TooManyJobs(
                f"project {spec.project_id} has {waiting} jobs waiting, may have "
                f"{self._max_queued_per_project}: ask again later"
            )

    def handle(self, job_id: str) -> JobHandle | None:
        """That of an unfinished job."""
        with self._lock:
            return self._handles.get(job_id)

    def send_to_background(
        self, job_id: str, *, priority: Priority, posts_prediction: bool
    ) -> None:
        """One who asked for it waits no more; its result is posted, if it is to be."""
        handle = self.handle(job_id)
        if handle is not None and handle.is_awaited:
            priority = handle.priority  # someone else's job as well
        self.store.set_background(job_id, priority=priority, posts_prediction=posts_prediction)
        if handle is not None:
            handle.priority = priority

    def cancel(self, job_id: str) -> bool:
        """End a job without a result; False when it has ended already."""
        job = self.store.finish(job_id, JobState.CANCELLED)
        if job is None:
            return False
        logger.info("job %s cancelled", job_id)
        with self._lock:
            handle = self._handles.get(job_id)
            if handle is not None and handle.work is None:
                del self._handles[job_id]  # it will never begin
                handle.end()
        if handle is not None:
            handle.cancel()
        self.on_finished(job)
        return True

    # --- running -------------------------------------------------------------

    def _dispatch(self) -> None:
        """Begin what there is room for."""
        with self._lock:
            while not self._is_stopping and (waiting := self._next()) is not None:
                self._begin(waiting)

    def _next(self) -> Waiting | None:
        """Of the most urgent jobs with a place free, that of the project served longest ago."""
        waiting = [
            job for job in self.store.first_waiting()
            if self._taken[_lane(job)] < self._places[_lane(job)]
        ]
        return min(
            waiting,
            key=lambda job: (
                job.priority, self._last_served.get(job.project_id, 0), job.created_at
            ),
            default=None,
        )

    def _begin(self, waiting: Waiting) -> None:
        job = self.store.begin(waiting.id)
        if job is None:
            return
        lane = _lane(waiting)
        self._taken[lane] += 1
        self._served_count += 1
        self._last_served[job.project_id] = self._served_count
        handle = self._handles.setdefault(job.id, JobHandle(job.id, job.priority, self.store))
        threading.Thread(
            target=self._run, args=(job, handle, lane), name=f"job-{job.id[:8]}", daemon=True
        ).start()

    def _run(self, job: Job, handle: JobHandle, lane: str) -> None:
        ended = None
        try:
            ended = self._run_to_the_end(job, handle)
        finally:
            with self._lock:
                self._handles.pop(job.id, None)
                self._taken[lane] -= 1
            handle.end()
            self._dispatch()
        if ended is not None:
            self.on_finished(ended)

    def _run_to_the_end(self, job: Job, handle: JobHandle) -> Job | None:
        """The ended job; None when a person cancelled it, or the service stops."""
        try:
            handle.begin(self._makers[job.kind](job))
            outcome = handle.work.run(handle)
            if handle.is_cancelled():
                return None
            return self.store.finish(
                job.id, JobState.DONE,
                result_key=outcome.result_key, prediction=outcome.prediction,
            )
        except (ServiceError, ValueError) as error:  # what people can mend: no traceback
            logger.warning("job %s of task %s failed: %s", job.id, job.task_id, error)
            handle.error = error
            return self.store.finish(job.id, JobState.FAILED, error=str(error))
        except Exception as error:  # the boundary of the job
            logger.exception("job %s of task %s failed", job.id, job.task_id)
            handle.error = error
            detail = f"{type(error).__name__}; the server's log has the traceback"
            return self.store.finish(job.id, JobState.FAILED, error=detail)


def _lane(job: Waiting) -> str:
    if job.kind is JobKind.FINETUNE:
        return "training"
    return "interactive" if job.priority is Priority.INTERACTIVE else "background"
