"""Jobs, results and predictions under way in one Redis, for any number of processes."""

from __future__ import annotations

from typing import Any, Callable

from redis import Redis

from backend.jobs.blobs import Blobs
from backend.jobs.distributed.blobs import RedisBlobs
from backend.jobs.distributed.connection import server_clock
from backend.jobs.distributed.guarded import GuardedBlobs
from backend.jobs.distributed.jobs import RedisJobs
from backend.jobs.distributed.posts import RedisPosts
from backend.jobs.distributed.results import RedisResults


class RedisJobStore(RedisPosts, RedisResults, RedisJobs):
    """Safe for many threads and processes; every method is one transaction."""

    def __init__(
        self,
        redis: Redis,
        *,
        storage: Blobs | None = None,
        clock: Callable[[], float] | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            redis: used by this store alone, which closes it.
            storage: of the results' bodies; None: Redis.
            clock: seconds since the epoch; None: Redis's own, the same for all machines.
            options: more of `RedisJobs`'.
        """
        self.clock = clock or server_clock(redis)
        super().__init__(redis, clock=self.clock, **options)
        self.redis = redis
        self._storage = None if storage is None else GuardedBlobs(storage)

    @property
    def blobs(self) -> Blobs:
        """For what running jobs leave: where the results' bodies are."""
        return RedisBlobs(self.redis) if self._storage is None else self._storage

    def close(self) -> None:
        self.redis.close()
