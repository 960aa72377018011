"""What the service runs on: one process over SQLite, or many over Redis."""

from __future__ import annotations

import contextlib
import enum
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

from backend.answers import as_published, view_of
from backend.clock import SteadyClock
from backend.errors import NotHere
from backend.jobs.blobs import Blobs, FolderBlobs
from backend.jobs.handles import Work
from backend.jobs.interface import Queue, Store
from backend.jobs.limits import QueueLimits
from backend.jobs.queue import JobQueue
from backend.jobs.store import JobStore
from backend.jobs.types import Job, JobKind
from backend.model import LoadedModel, ModelService
from backend.model_choice import ModelChoice
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.remote_model import RemoteModel

_NO_SESSIONS = (
    "interactive sessions need the model in the process that is asked: they are not served "
    "while SAM2_QUEUE is set. Run a second `sam2-label-studio serve` without SAM2_QUEUE for them"
)


class Role(enum.StrEnum):
    """What a process does of the service."""

    ALONE = "alone"
    """Everything: no SAM2_QUEUE is set."""
    WEB = "web"
    """Answers, without a model."""
    WORKER = "worker"
    """Runs jobs, with a model; nobody asks it."""


_PATIENCE_SECONDS = {Role.WEB: 5.0, Role.WORKER: 300.0}
"""How long a process waits for a Redis that is down: people are told, work is kept."""


def open_store(settings: Settings, role: Role) -> tuple[Store, Callable[[], float]]:
    """The store, and the clock that its times are of.

    Raises OSError, sqlite3.Error or ValueError when it cannot be opened.
    """
    if role is Role.ALONE:
        clock = SteadyClock()
        return JobStore(settings.data_folder / "jobs.sqlite3", clock=clock), clock
    _check_installed()
    from backend.jobs.distributed.connection import connect
    from backend.jobs.distributed.storage import open_storage
    from backend.jobs.distributed.store import RedisJobStore

    store = RedisJobStore(
        connect(settings.queue, patience_seconds=_PATIENCE_SECONDS[role]),
        storage=None if settings.storage is None else open_storage(settings.storage),
    )
    return store, store.clock


def open_blobs(settings: Settings, store: Any, role: Role) -> Blobs:
    """For what running jobs leave; `store` is that of `open_store` for the same role."""
    if role is Role.ALONE:
        return FolderBlobs(settings.data_folder / "unfinished")
    return store.blobs


def open_choice(settings: Settings, role: Role) -> ModelChoice:
    """Which model serves; with Redis and a storage the same for all processes."""
    if role is Role.ALONE or settings.storage is None:
        return ModelChoice(settings)
    from backend.jobs.distributed.models import SharedModels
    from backend.jobs.distributed.storage import open_storage

    storage = open_storage(settings.storage)
    return ModelChoice(settings, SharedModels(storage, needs_weights=role is Role.WORKER))


def open_model(
    settings: Settings, role: Role, load: Callable[[Settings], LoadedModel]
) -> ModelService | RemoteModel:
    """The process's own, or where it has none the workers'."""
    if role is not Role.WEB:
        return ModelService(settings, load)
    _check_installed()
    from backend.remote_model import RemoteModel

    return RemoteModel(settings)


def open_queue(
    store: Any,
    role: Role,
    makers: Mapping[JobKind, Callable[[Job], Work]],
    settings: Settings,
    *,
    posts_unanswered: bool,
) -> Queue:
    """Over a store of `open_store` for the same role."""
    places = {"interactive_places": settings.max_waiting_requests}
    limits = {
        "limits": QueueLimits(
            per_project=settings.max_queued_per_project, in_all=settings.max_queued
        ),
        "posts_unanswered": posts_unanswered,
    }
    if role is Role.ALONE:
        return JobQueue(store, makers, **places, **limits)
    if role is Role.WEB:
        from backend.jobs.distributed.queue import DistributedQueue

        return DistributedQueue(store, view=view_of, **limits)
    from backend.jobs.distributed.worker import DistributedWorker

    return DistributedWorker(
        store, makers, snapshot=_snapshot, hold_seconds=settings.kept_state_seconds,
        settings=settings.tracking_settings, **places,
    )


def _snapshot(work: Any, is_final: bool) -> dict[str, Any] | None:
    """A fine-tuning has no answer so far."""
    return as_published(work, is_final) if hasattr(work, "answer") else None


def _check_installed() -> None:
    """What talks to Redis is an extra. Raises ValueError without it."""
    try:
        import fsspec  # noqa: F401
        import redis  # noqa: F401
        import rq  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            f"SAM2_QUEUE needs {error.name}: pip install 'sam2-label-studio[redis]'"
        ) from None


class RefusedSessions:
    """In place of a `SessionManager` where there is no model."""

    open_count = propagating_count = 0

    def start(self) -> None: ...

    def stop(self) -> None: ...

    @contextlib.contextmanager
    def created(self, *_: Any, **__: Any) -> Iterator[Any]:
        """Raises NotHere."""
        raise NotHere(_NO_SESSIONS)
        yield

    @contextlib.contextmanager
    def using(self, session_id: str) -> Iterator[Any]:
        """Raises NotHere."""
        raise NotHere(_NO_SESSIONS)
        yield

    def delete(self, session_id: str) -> None:
        """Raises NotHere."""
        raise NotHere(_NO_SESSIONS)

    def close(self, session_id: str) -> bool:
        return False
