"""What the service asks of a queue, whichever engine it runs on.

Two engines: `jobs.store` and `jobs.queue` (SQLite, one process), and
`jobs.distributed` (Redis, any number of processes).
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Protocol, Sequence

from backend.jobs.types import (
    Job,
    JobKind,
    JobSpec,
    JobState,
    Post,
    PostState,
    StoredResult,
)
from backend.scheduler import Priority


class Handle(Protocol):
    """An unfinished job, for those who wait for it."""

    job_id: str

    @property
    def work(self) -> Any:
        """Its running side (`service.AnswerSource`); None before it has begun."""
        ...

    @property
    def error(self) -> BaseException | None:
        """What it failed with, once it has ended."""
        ...

    @property
    def has_ended(self) -> bool: ...

    @property
    def retry_after_seconds(self) -> float | None:
        """It has failed with `error`, and is tried again after so long."""
        ...

    def wait(
        self, timeout_seconds: float, is_enough: Callable[[Any], bool] = lambda work: False
    ) -> None:
        """Until it has ended, its work says `is_enough`, or time is up."""
        ...


class Queue(Protocol):
    """Jobs as those who ask see them."""

    on_finished: Callable[[Job], None]
    """Called with each job that has ended."""
    on_failed: Callable[[Job, Exception], None]
    """Called with each failure, also of a job that is tried again."""

    def recover(self) -> None:
        """Take up what an earlier process left; before anything is submitted."""
        ...

    def start(self) -> None: ...

    def stop(self, wait_seconds: float = 0.0) -> None:
        """Begin no more jobs; whoever waits for one is answered, in that time."""
        ...

    def submit(self, spec: JobSpec, *, is_awaited: bool = False) -> Handle:
        """Queue a job, or join the unfinished one that does the same.

        Args:
            is_awaited: the caller waits for it, and calls `leave` whatever comes of it.

        Raises TooManyJobs when too many wait already, of its project or in all.
        """
        ...

    def leave(
        self,
        handle: Any,
        priority: Priority,
        *,
        goes_on_with: Priority,
        posts_prediction: bool,
    ) -> bool:
        """One who waited waits no more; whether the job goes on."""
        ...

    def handle(self, job_id: str) -> Handle | None:
        """That of an unfinished job."""
        ...

    def cancel(self, job_id: str) -> bool:
        """End a job without a result; False when it has ended already."""
        ...

    def settings_changed(self, settings: Mapping[str, Any]) -> None:
        """What answers depend on (`Settings.tracking_settings`) is another from now on."""
        ...


class Store(Protocol):
    """Jobs, results and predictions under way; every method is one transaction."""

    def close(self) -> None: ...

    # --- jobs ---

    def get(self, job_id: str) -> Job | None: ...

    def list(
        self,
        *,
        states: Sequence[JobState] = (),
        project_id: int | None = None,
        task_id: int | None = None,
        limit: int = 100,
        offset: int = 0,
        with_requests: bool = True,
    ) -> list[Job]: ...

    def count_queued(self, project_id: int | None) -> int: ...

    def counts(self) -> dict[JobState, int]: ...

    def counts_by_kind(self) -> dict[tuple[JobKind, JobState], int]: ...

    def add(self, spec: JobSpec, *, is_awaited: bool = False) -> tuple[Job, bool]: ...

    def begin(self, job_id: str) -> Job | None: ...

    def set_progress(self, job_id: str, done: int, total: int) -> None: ...

    def want_post(self, job_id: str) -> bool: ...

    def finish(
        self,
        job_id: str,
        state: JobState,
        *,
        error: str | None = None,
        result_key: str | None = None,
        prediction: Mapping[str, Any] | None = None,
        progress: tuple[int, int] | None = None,
        left_out: Mapping[str, Any] | None = None,
    ) -> Job | None: ...

    def put_back(self, job_id: str | None = None) -> None: ...

    def failures(self, job_id: str) -> int: ...

    def retry(self, job_id: str, error: str, after_seconds: float) -> None: ...

    def delete_old(self, age_seconds: float) -> int: ...

    # --- results ---

    def save_result(
        self, result: StoredResult, *, request_key: str, media_stamp: str, max_bytes: int
    ) -> None: ...

    def check_can_keep(self) -> None:
        """Before a job begins: raises StorageUnavailable when its result could not be kept."""
        ...

    def result(self, key: str) -> StoredResult | None: ...

    def link_request(self, request_key: str, result_key: str, media_stamp: str) -> None: ...

    def result_of_request(
        self, request_key: str, is_current: Callable[[str], bool]
    ) -> StoredResult | None: ...

    def newest_result_of_media(self, reference: str) -> StoredResult | None: ...

    def result_bytes(self) -> int: ...

    # --- predictions under way ---

    def add_post(self, job_id: str, prediction: Mapping[str, Any]) -> None: ...

    def due_posts(self, limit: int = 20) -> list[Post]: ...

    def next_post_at(self) -> float | None: ...

    def begin_post(self, post_id: int) -> bool:
        """Count an attempt before it is made: a kill in its midst is then seen.

        False when another process has taken it.
        """
        ...

    def set_posted(self, post_id: int, prediction_id: int | None) -> None: ...

    def set_refused(self, post_id: int, error: str) -> None: ...

    def retry_post(self, post_id: int, error: str, after_seconds: float) -> None: ...

    def post_of_job(self, job_id: str) -> Post | None: ...

    def post_state(self, job_id: str) -> PostState | None: ...

    def posts_of_jobs(self, job_ids: Sequence[str]) -> dict[str, Post]: ...

    def post_counts(self) -> dict[PostState, int]: ...
