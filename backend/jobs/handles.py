"""A job that runs or is waited for: what its worker and its waiters hold of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Protocol

from backend.errors import StorageUnavailable
from backend.scheduler import Priority

_PROGRESS_SECONDS = 0.5
"""Progress goes to the store no more often than this."""


class ProgressStore(Protocol):
    """What of a store a handle needs."""

    def set_progress(self, job_id: str, done: int, total: int) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What a finished job leaves."""

    result_key: str | None = None
    prediction: Mapping[str, Any] | None = None
    """For Label Studio, if the job posts one."""
    left_out: Mapping[str, Any] | None = None
    """What of the request was malformed, for the job's record."""


class Work(Protocol):
    """The running side of a job; others may look at it meanwhile."""

    def run(self, handle: JobHandle) -> Outcome: ...


class JobHandle:
    """An unfinished job of this process, for those who wait for it."""

    def __init__(self, job_id: str, priority: Priority, store: ProgressStore) -> None:
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
        self.is_stopped = False
        """Whether its process ends, and no person has cancelled the job."""
        self.retry_after_seconds: float | None = None
        """It has failed with `error`, and is tried again after so long."""
        self._unawaited_priority: Priority | None = None
        self._awaited: Counter[Priority] = Counter()
        self._store = store
        self._cancelled = threading.Event()
        self._changed = threading.Condition()
        self.progress: tuple[int, int] | None = None
        """Steps done and in all, as it was told last; the store learns it later."""
        self._last_report = 0.0

    # The next three are called under the queue's lock.

    def want(self, priority: Priority, *, is_awaited: bool) -> None:
        """Someone wants its result, and waits for it or not."""
        if is_awaited:
            self._awaited[priority] += 1
        else:
            self._unawaited_priority = more_urgent(self._unawaited_priority, priority)
        self.priority = min(self.priority, priority)

    def leave(self, priority: Priority, *, goes_on_with: Priority) -> None:
        """One who waited with a priority waits no more."""
        self._awaited[priority] -= 1
        self._unawaited_priority = more_urgent(self._unawaited_priority, goes_on_with)
        left = [item for item, count in self._awaited.items() if count > 0]
        self.priority = min([self._unawaited_priority, *left])

    @property
    def is_awaited(self) -> bool:
        """Whether anyone waits for it now."""
        return any(count > 0 for count in self._awaited.values())

    @property
    def is_left(self) -> bool:
        """Whether it is to stop, for another attempt to go on with."""
        return self.is_put_back or self.is_stopped

    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the work to stop."""
        self._cancelled.set()

    def report(self, done: int, total: int) -> None:
        """Steps done and in all: to those who wait, and to the store now and then."""
        self.progress = done, total
        self.tell()
        now = time.monotonic()
        if now - self._last_report >= _PROGRESS_SECONDS:
            self._last_report = now
            with contextlib.suppress(StorageUnavailable):  # nothing depends on it
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


def more_urgent(first: Priority | None, second: Priority) -> Priority:
    return second if first is None else min(first, second)
