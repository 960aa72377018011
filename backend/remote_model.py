"""The workers' model, as a web process sees it: there or not."""

from __future__ import annotations

import time
from typing import Callable

from redis.exceptions import RedisError

from backend.deadlines import Deadline
from backend.errors import NotReady
from backend.jobs.distributed.connection import connect
from backend.jobs.distributed.store import RedisJobStore
from backend.model import ModelState
from backend.scheduler import DeviceScheduler
from backend.settings import Settings

_LOOK_SECONDS = 0.5
_NO_WORKER = (
    "no worker is running: start `sam2-label-studio worker` with the same SAM2_QUEUE"
)


class RemoteModel:
    """Stands in for a `ModelService`; loads nothing, and asks nothing of PyTorch."""

    open_count = 0

    def __init__(self, settings: Settings) -> None:
        # Impatient, with a connection of its own: /health is to answer at once.
        redis = connect(settings.queue, patience_seconds=None)
        self._store = RedisJobStore(redis)
        self._looked_at, self._state = -_LOOK_SECONDS, ModelState.LOADING
        self.scheduler = DeviceScheduler()
        self.failure: str | None = None
        """Why there is none now; None otherwise."""

    @property
    def state(self) -> ModelState:
        """READY while there is a worker, else LOADING: one may come."""
        if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            try:
                has_worker = bool(self._store.live_workers())
                self.failure = None if has_worker else _NO_WORKER
            except RedisError as error:
                has_worker = False
                self.failure = f"Redis cannot be reached: {type(error).__name__}"
            self._state = ModelState.READY if has_worker else ModelState.LOADING
            self._looked_at = time.monotonic()
        return self._state

    def start(self, when_ready: Callable[[], None] = lambda: None) -> None:
        when_ready()

    def wait(self, deadline: Deadline | None = None) -> None:
        """Until there is a worker. Raises NotReady when none comes in time."""
        while self.state is not ModelState.READY:
            if deadline is None or deadline.has_passed():
                raise NotReady(self.failure or _NO_WORKER)
            time.sleep(min(_LOOK_SECONDS, deadline.remaining_seconds))

    def close_old(self) -> None:
        """Nothing: the videos are open in the workers."""

    def close(self) -> None:
        self._store.close()
