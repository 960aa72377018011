"""The embedded queue: jobs of one process, run in threads, kept in a `JobStore`."""

from __future__ import annotations

import logging
import threading
from typing import Any, Callable, Mapping, Sequence

from backend.deadlines import Deadline
from backend.errors import Stopping, StorageUnavailable
from backend.jobs.handles import JobHandle, Work
from backend.jobs.limits import QueueLimits, check_room
from backend.jobs.runner import MAX_ATTEMPTS, JobRunner, lane_of
from backend.jobs.store import JobStore, Waiting
from backend.jobs.types import Job, JobKind, JobSpec, JobState
from backend.log_context import working_for
from backend.scheduler import Priority

logger = logging.getLogger(__name__)

_END_SECONDS = 10.0
"""Between a job's end in the store and its thread's."""
_STORAGE_SECONDS = 5.0
"""How often it is tried again to note what a full disk did not take."""


class JobQueue(JobRunner):
    """Runs jobs by priority, each kind of waiting person in a lane of its own.

    A person's job begins at once; of those in the background a few at a time,
    projects in turn, so that one with ten thousand tasks does not starve another.
    """

    store: JobStore

    def __init__(
        self,
        store: JobStore,
        makers: Mapping[JobKind, Callable[[Job], Work]],
        *,
        limits: QueueLimits,
        posts_unanswered: bool = False,
        max_attempts: int = MAX_ATTEMPTS,
        **places: Any,
    ) -> None:
        """
        Args:
            posts_unanswered: whether results are posted that people waited for in vain
                as the service was stopped.
            max_attempts: how often a job is begun that the service did not survive.
            places: more of `JobRunner`'s.
        """
        super().__init__(store, makers, **places)
        self._limits = limits
        self._max_attempts = max_attempts
        self._timer: threading.Timer | None = None
        self._posts_unanswered = posts_unanswered
        self._is_stopping = False

    def recover(self) -> None:
        """Queue again what an earlier process left unfinished; before anything is submitted."""
        count = self.store.requeue_interrupted(
            self._max_attempts, posts_predictions=self._posts_unanswered
        )
        if count:
            logger.warning("%d jobs were interrupted and begin again", count)

    def start(self) -> None:
        """Begin what is queued; until then jobs are only kept."""
        with self._lock:
            self._is_running = True
        self._dispatch()

    def stop(self, wait_seconds: float = 0.0) -> None:
        """Begin no more jobs, and ask the running ones to stop; they begin again next time.

        Whoever waits for one is answered with what there is, once it has stopped, and
        after `wait_seconds` in any case.
        """
        with self._lock:
            self._is_running, self._is_stopping = False, True
            if self._timer is not None:
                self._timer.cancel()
            handles = list(self._handles.values())
            for handle in handles:
                handle.is_stopped = True
                handle.cancel()
            # Not an attempt that the service did not survive.
            self.store.put_back()
        deadline = Deadline(wait_seconds)
        for handle in handles:
            if handle.lane is not None:
                handle.wait(deadline.remaining_seconds)
            handle.end()

    def submit(self, spec: JobSpec, *, is_awaited: bool = False) -> JobHandle:
        """Queue a job, or join the unfinished one that does the same.

        Args:
            is_awaited: the caller waits for it, and calls `leave` whatever comes of it.

        Raises TooManyJobs when its project has too many waiting already, Stopping when
        somebody would wait for what is not begun any more.
        """
        if is_awaited and self._is_stopping:
            raise Stopping("the service is being stopped: ask again in a moment")
        check_room(self.store, spec.project_id, spec.priority, self._limits)
        with self._lock:
            job, is_new = self.store.add(spec, is_awaited=is_awaited)
            handle = self._handles.get(job.id)
            if handle is None:
                handle = self._new_handle(job, is_wanted=not is_new)
                if job.state is JobState.RUNNING and self._is_running:
                    # Nobody runs it: the store failed when its end was to be kept.
                    self.store.put_back(job.id)
            handle.want(spec.priority, is_awaited=is_awaited)
        with working_for(job=job.id, task=job.task_id, project=job.project_id):
            if is_new:
                logger.info(
                    "job %s: %s of task %s queued, %s",
                    job.id, job.kind, job.task_id, job.priority.name.lower(),
                )
            else:
                logger.info("job %s is taken, as it does the same [%s]", job.id, job.request_id)
        self._dispatch()
        return handle

    def _new_handle(self, job: Job, *, is_wanted: bool) -> JobHandle:
        """`is_wanted`: whether someone who does not wait wanted it before."""
        handle = self._handles[job.id] = JobHandle(job.id, job.priority, self.store)
        if is_wanted:
            handle.want(max(job.priority, Priority.WEBHOOK), is_awaited=False)
        return handle

    def leave(
        self,
        handle: JobHandle,
        priority: Priority,
        *,
        goes_on_with: Priority,
        posts_prediction: bool,
    ) -> bool:
        """One who waited with a priority waits no more.

        Args:
            goes_on_with: what its result is worth to them now.
            posts_prediction: whether that is to be posted.

        Returns:
            Whether the job goes on; if not, all there is to come is there.
        """
        with self._lock:
            handle.leave(priority, goes_on_with=goes_on_with)
            is_awaited = handle.is_awaited
            goes_on = self.store.leave(
                handle.job_id, priority=handle.priority, is_awaited=is_awaited,
                posts_prediction=posts_prediction,
            )
            has_place = self._handles.get(handle.job_id) is handle
            if goes_on and not is_awaited and has_place:
                self._give_place_back(handle)
        if not goes_on and not handle.is_cancelled():
            handle.wait(_END_SECONDS)  # it is in the store, and told in a moment
        if goes_on:  # else its thread has begun the next one
            self._dispatch()
        return goes_on

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
        with self._lock:
            if not self._is_running:
                return
            try:
                self._note_the_unnoted()
                while (taken := self.store.take(self._next)).job is not None:
                    self._begin(taken.job)
                    if not taken.has_more:
                        break
                self._look_again(taken.seconds_to_retry)
            except StorageUnavailable as error:
                logger.error("no job can begin: %s", error)
                self._look_again(_STORAGE_SECONDS)

    def _look_again(self, seconds: float | None) -> None:
        """Dispatch after so long; None: when something happens."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is None:
            return
        self._timer = threading.Timer(seconds, self._dispatch)
        self._timer.name, self._timer.daemon = "job-retry", True
        self._timer.start()

    def _handle_for(self, job: Job) -> JobHandle:
        return self._handles.get(job.id) or self._new_handle(job, is_wanted=True)

    def _next(self, waiting: Sequence[Waiting]) -> Waiting | None:
        """Of the most urgent jobs with a place free, that of the project served longest ago."""
        return min(
            (job for job in waiting if self._has_place(lane_of(job.kind, job.priority))),
            key=lambda job: (
                job.priority, self._turn_of(job.project_id), job.created_at
            ),
            default=None,
        )
