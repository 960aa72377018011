"""What jobs leave while they run, in Redis: for as long as somebody may go on with it."""

from __future__ import annotations

from redis import Redis

from backend.jobs.distributed import keys

_KEPT_SECONDS = 7 * 86400


class RedisBlobs:
    """As `Blobs`; what nobody deletes is gone after a week."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def save(self, name: str, body: bytes) -> None:
        self._redis.set(keys.blob(name), body, ex=_KEPT_SECONDS)

    def load(self, name: str) -> bytes | None:
        return self._redis.get(keys.blob(name))

    def delete(self, name: str) -> None:
        self._redis.delete(keys.blob(name))

    def delete_old(self, prefix: str, age_seconds: float) -> None:
        """Nothing: Redis does."""
