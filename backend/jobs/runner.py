"""Runs jobs in threads, each kind of waiting person in a lane of its own."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Any, Callable, Iterator, Mapping, Sequence

from backend.errors import ServiceError, StorageUnavailable
from backend.jobs.handles import JobHandle, Outcome, Work
from backend.jobs.interface import Store
from backend.jobs.types import Job, JobKind, JobState
from backend.log_context import working_for
from backend.scheduler import Priority

logger = logging.getLogger(__name__)

RETRY_SECONDS = (60.0, 240.0, 900.0, 2100.0)
"""Between the attempts of a job in the background: the last one within the hour."""
BACKGROUND_PLACES = 2
"""So that one downloads while the other tracks."""
MAX_ATTEMPTS = 3
"""How often a job is begun that its process did not survive."""

INTERACTIVE, BACKGROUND, TRAINING = "interactive", "background", "training"


def lane_of(kind: JobKind, priority: Priority) -> str:
    """Where a job takes a place."""
    if kind is JobKind.FINETUNE:
        return TRAINING
    return INTERACTIVE if priority is Priority.INTERACTIVE else BACKGROUND


class JobRunner:
    """The places of one process. Subclasses say which job is the next."""

    _store_errors: tuple[type[Exception], ...] = ()
    """What the store raises while it is away: no job has failed by that (`_not_lost`)."""

    def __init__(
        self,
        store: Store,
        makers: Mapping[JobKind, Callable[[Job], Work]],
        *,
        interactive_places: int,
        background_places: int = BACKGROUND_PLACES,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
    ) -> None:
        """
        Args:
            makers: make the work of a job from its request; may raise as `Work.run`.
            retry_seconds: how long a tracking job in the background waits after each
                error that may pass (`ServiceError.is_retryable`); then it has failed.
        """
        self.store = store
        self._makers = makers
        self._places = {
            INTERACTIVE: interactive_places,
            BACKGROUND: background_places,
            TRAINING: 1,
        }
        self._taken = dict.fromkeys(self._places, 0)
        self.retry_seconds = retry_seconds
        self._lock = threading.RLock()
        self._handles: dict[str, JobHandle] = {}
        self._last_served: dict[int | None, int] = {}
        self._served_count = 0
        self._is_running = False
        self._unnoted: set[str] = set()
        """Jobs that run no more, which the store could not be told."""
        self.on_finished: Callable[[Job], None] = lambda job: None
        """Called with each job that has ended."""
        self.on_failed: Callable[[Job, Exception], None] = lambda job, error: None
        """Called with each failure, also of a job that is tried again."""

    def handle(self, job_id: str) -> JobHandle | None:
        """That of an unfinished job."""
        with self._lock:
            return self._handles.get(job_id)

    def settings_changed(self, settings: Mapping[str, Any]) -> None:
        """Nothing: nobody else is to know."""

    # --- for subclasses ------------------------------------------------------

    def _handle_for(self, job: Job) -> JobHandle:
        """That of a job which begins. Under the lock."""
        raise NotImplementedError

    def _has_place(self, lane: str) -> bool:
        return self._taken[lane] < self._places[lane]

    def _turn_of(self, project_id: int | None) -> int:
        """The lower, the longer ago a project was served."""
        return self._last_served.get(project_id, 0)

    def _dispatch(self) -> None:
        """Begin what there is room for."""
        raise NotImplementedError

    def _give_place_back(self, handle: JobHandle) -> None:
        """People's places are for those who wait; nobody does any more. Under the lock.

        A job in the background keeps running beside the others there; when they are
        as many as can be, it is put back: what it had found has been answered.
        """
        if handle.lane != INTERACTIVE:
            return
        if self._taken[BACKGROUND] < self._places[BACKGROUND] + self._places[INTERACTIVE]:
            self._taken[INTERACTIVE] -= 1
            self._taken[BACKGROUND] += 1
            handle.lane = BACKGROUND
        else:
            handle.is_put_back = True
            handle.cancel()

    # --- running -------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        self._served_count += 1
        self._last_served[job.project_id] = self._served_count
        handle = self._handle_for(job)
        handle.lane = lane_of(job.kind, job.priority)
        self._taken[handle.lane] += 1
        threading.Thread(
            target=self._run, args=(job, handle), name=f"job-{job.id[:8]}", daemon=True
        ).start()

    def _run(self, job: Job, handle: JobHandle) -> None:
        with working_for(
            request_id=job.request_id, job=job.id, task=job.task_id, project=job.project_id
        ):
            ended = None
            try:
                with self._not_lost(job):
                    try:
                        ended = self._run_to_the_end(job, handle)
                    finally:
                        try:
                            self._give_up_place(job, handle)
                        finally:
                            handle.end()
            finally:
                self._dispatch()
            if ended is not None:
                self.on_finished(ended)

    @contextlib.contextmanager
    def _not_lost(self, job: Job) -> Iterator[None]:
        """A storage that fails is no reason to forget a job."""
        try:
            yield
        except StorageUnavailable as error:
            logger.error("job %s begins again, its end cannot be kept: %s", job.id, error)
            with self._lock:
                self._unnoted.add(job.id)

    def _note_the_unnoted(self) -> None:
        """They begin again; what they had found is done at once if it could be kept."""
        for job_id in list(self._unnoted):
            self.store.put_back(job_id)
            self._unnoted.discard(job_id)

    def _give_up_place(self, job: Job, handle: JobHandle) -> None:
        with self._lock:
            if self._handles.get(job.id) is handle:
                del self._handles[job.id]
            self._taken[handle.lane] -= 1
            if handle.retry_after_seconds is not None:
                self.store.retry(job.id, str(handle.error), handle.retry_after_seconds)
            elif handle.is_left:
                self.store.put_back(job.id)

    def _run_to_the_end(self, job: Job, handle: JobHandle) -> Job | None:
        """The ended job; None when a person cancelled it, or the service stops."""
        try:
            handle.begin(self._makers[job.kind](job))
            outcome = handle.work.run(handle)
            if handle.is_cancelled():
                return None
            return self._done(job, handle, outcome)
        except self._store_errors:
            raise
        except (ServiceError, ValueError) as error:  # what people can mend: no traceback
            logger.warning("job %s of task %s failed: %s", job.id, job.task_id, error)
            handle.error = error
            self.on_failed(job, error)
            handle.retry_after_seconds = self._retry_after_seconds(job, handle, error)
            if handle.retry_after_seconds is not None:
                return None
            return self._failed(job, handle, str(error))
        except Exception as error:  # the boundary of the job
            logger.exception("job %s of task %s failed", job.id, job.task_id)
            handle.error = error
            self.on_failed(job, error)
            detail = f"{type(error).__name__}; the server's log has the traceback"
            return self._failed(job, handle, detail)

    def _done(self, job: Job, handle: JobHandle, outcome: Outcome) -> Job | None:
        return self.store.finish(
            job.id, JobState.DONE, result_key=outcome.result_key, prediction=outcome.prediction,
            progress=handle.progress, left_out=outcome.left_out,
        )

    def _failed(self, job: Job, handle: JobHandle, detail: str) -> Job | None:
        return self.store.finish(
            job.id, JobState.FAILED, error=detail, progress=handle.progress
        )

    def _retry_after_seconds(
        self, job: Job, handle: JobHandle, error: Exception
    ) -> float | None:
        """None: it has failed for good. A person is told at once, and may ask again."""
        may_pass = isinstance(error, ServiceError) and error.is_retryable
        if not may_pass or job.kind is not JobKind.TRACK or handle.is_cancelled():
            return None
        if handle.priority is Priority.INTERACTIVE:
            return None
        failures = self.store.failures(job.id)
        return self.retry_seconds[failures] if failures < len(self.retry_seconds) else None
