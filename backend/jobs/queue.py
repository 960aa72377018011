"""The embedded queue: jobs of one process, run in threads, kept in a `JobStore`."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping, Protocol, Sequence

from backend.deadlines import Deadline
from backend.errors import ServiceError, Stopping, StorageFull, TooManyJobs
from backend.jobs.store import JobStore, Waiting
from backend.jobs.types import Job, JobKind, JobSpec, JobState
from backend.log_context import working_for
from backend.scheduler import Priority

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 0.5
"""Progress goes to the store no more often than this."""
_END_SECONDS = 10.0
"""Between a job's end in the store and its thread's."""

_RETRY_SECONDS = (60.0, 240.0, 900.0, 2100.0)
"""Between the attempts of a job in the background: the last one within the hour."""
_FULL_SECONDS = 5.0
"""How often it is tried again to note what a full disk did not take."""

_INTERACTIVE, _BACKGROUND, _TRAINING = "interactive", "background", "training"


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
        """The most urgent that anyone wants it with; may change while it runs."""
        self.work: Work | None = None
        """Once it has begun."""
        self.error: BaseException | None = None
        """What it failed with, once it has ended."""
        self.has_ended = False
        self.lane: str | None = None
        """Where it takes a place; None while it is queued."""
        self.is_put_back = False
        """Whether it gives its place to others and is to begin again later."""
        self.retry_after_seconds: float | None = None
        """It has failed with `error`, and is tried again after so long."""
        self._unawaited_priority: Priority | None = None
        self._awaited: Counter[Priority] = Counter()
        self._store = store
        self._cancelled = threading.Event()
        self._changed = threading.Condition()
        self._last_report = 0.0

    # The next three are called under the queue's lock.

    def want(self, priority: Priority, *, is_awaited: bool) -> None:
        """Someone wants its result, and waits for it or not."""
        if is_awaited:
            self._awaited[priority] += 1
        else:
            self._unawaited_priority = _more_urgent(self._unawaited_priority, priority)
        self.priority = min(self.priority, priority)

    def leave(self, priority: Priority, *, goes_on_with: Priority) -> None:
        """One who waited with a priority waits no more."""
        self._awaited[priority] -= 1
        self._unawaited_priority = _more_urgent(self._unawaited_priority, goes_on_with)
        left = [item for item, count in self._awaited.items() if count > 0]
        self.priority = min([self._unawaited_priority, *left])

    @property
    def is_awaited(self) -> bool:
        """Whether anyone waits for it now."""
        return any(count > 0 for count in self._awaited.values())

    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the work to stop."""
        self._cancelled.set()

    def report(self, done: int, total: int) -> None:
        """Steps done and in all: to those who wait, and to the store now and then."""
        self.tell()
        now = time.monotonic()
        if now - self._last_report >= _PROGRESS_SECONDS or done == total:
            self._last_report = now
            with contextlib.suppress(StorageFull):  # nothing depends on it
                self._store.set_progress(self.job_id, done, total)

    def begin(self, work: Work) -> None:
        with self._changed:
            self.work = work
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self.has_ended = True
            self._changed.notify_all()

    def tell(self) -> None:
        """Let those who wait look at the work again."""
        with self._changed:
            self._changed.notify_all()

    def wait(
        self, timeout_seconds: float, is_enough: Callable[[Any], bool] = lambda work: False
    ) -> None:
        """Until it has ended, its work says `is_enough`, or time is up."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.has_ended or (self.work is not None and is_enough(self.work)),
                timeout_seconds,
            )


def _more_urgent(first: Priority | None, second: Priority) -> Priority:
    return second if first is None else min(first, second)


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
        posts_unanswered: bool = False,
        background_places: int = 2,
        max_attempts: int = 3,
        retry_seconds: Sequence[float] = _RETRY_SECONDS,
    ) -> None:
        """
        Args:
            makers: make the work of a job from its request; may raise as `Work.run`.
            posts_unanswered: whether results are posted that people waited for in vain
                as the service was stopped.
            background_places: two, so that one downloads while the other tracks.
            max_attempts: how often a job is begun that the service did not survive.
            retry_seconds: how long a tracking job in the background waits after each
                error that may pass (`ServiceError.is_retryable`); then it has failed.
        """
        self.store = store
        self._makers = makers
        self._places = {
            _INTERACTIVE: interactive_places,
            _BACKGROUND: background_places,
            _TRAINING: 1,
        }
        self._taken = dict.fromkeys(self._places, 0)
        self._max_queued_per_project = max_queued_per_project
        self._max_attempts = max_attempts
        self.retry_seconds = retry_seconds
        self._timer: threading.Timer | None = None
        self._posts_unanswered = posts_unanswered
        self._lock = threading.RLock()
        self._handles: dict[str, JobHandle] = {}
        self._last_served: dict[int | None, int] = {}
        self._served_count = 0
        self._is_running = False
        self._is_stopping = False
        self._unnoted: set[str] = set()
        """Jobs that run no more, which the store could not be told."""
        self.on_finished: Callable[[Job], None] = lambda job: None
        """Called with each job that has ended."""
        self.on_failed: Callable[[Job, Exception], None] = lambda job, error: None
        """Called with each failure, also of a job that is tried again."""

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
        if spec.priority is not Priority.INTERACTIVE:
            self._check_room(spec)
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
        self._dispatch()
        return goes_on

    def _give_place_back(self, handle: JobHandle) -> None:
        """People's places are for those who wait.

        A job in the background keeps running beside the others there; when they are
        as many as can be, it is put back: what it had found has been answered.
        """
        if handle.lane != _INTERACTIVE:
            return
        if self._taken[_BACKGROUND] < self._places[_BACKGROUND] + self._places[_INTERACTIVE]:
            self._taken[_INTERACTIVE] -= 1
            self._taken[_BACKGROUND] += 1
            handle.lane = _BACKGROUND
        else:
            handle.is_put_back = True
            handle.cancel()

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
            if not self._is_running:
                return
            try:
                self._note_the_unnoted()
                while (waiting := self._next()) is not None:
                    self._begin(waiting)
                self._look_again(self.store.seconds_to_retry())
            except StorageFull as error:
                logger.error("no job can begin: %s", error)
                self._look_again(_FULL_SECONDS)

    def _note_the_unnoted(self) -> None:
        """They begin again; what they had found is done at once if it could be kept."""
        for job_id in list(self._unnoted):
            self.store.put_back(job_id)
            self._unnoted.discard(job_id)

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
        self._served_count += 1
        self._last_served[job.project_id] = self._served_count
        handle = self._handles.get(job.id) or self._new_handle(job, is_wanted=True)
        handle.lane = _lane(waiting)
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
        """A full disk is no reason to forget a job."""
        try:
            yield
        except StorageFull as error:
            logger.error("job %s begins again, its end cannot be kept: %s", job.id, error)
            with self._lock:
                self._unnoted.add(job.id)

    def _give_up_place(self, job: Job, handle: JobHandle) -> None:
        with self._lock:
            if self._handles.get(job.id) is handle:
                del self._handles[job.id]
            self._taken[handle.lane] -= 1
            if handle.retry_after_seconds is not None:
                self.store.retry(job.id, str(handle.error), handle.retry_after_seconds)
            elif handle.is_put_back and self._is_running:
                self.store.put_back(job.id)

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
            self.on_failed(job, error)
            handle.retry_after_seconds = self._retry_after_seconds(job, handle, error)
            if handle.retry_after_seconds is not None:
                return None
            return self.store.finish(job.id, JobState.FAILED, error=str(error))
        except Exception as error:  # the boundary of the job
            logger.exception("job %s of task %s failed", job.id, job.task_id)
            handle.error = error
            self.on_failed(job, error)
            detail = f"{type(error).__name__}; the server's log has the traceback"
            return self.store.finish(job.id, JobState.FAILED, error=detail)

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


def _lane(job: Waiting) -> str:
    if job.kind is JobKind.FINETUNE:
        return _TRAINING
    return _INTERACTIVE if job.priority is Priority.INTERACTIVE else _BACKGROUND
