"""A running job's answer so far, from its worker to those who wait for it."""

from __future__ import annotations

import time
from typing import Any, Mapping

from redis import Redis

from backend.jobs.distributed import keys
from backend.jobs.distributed.events import EventKind, publish
from backend.jobs.distributed.records import packed, unpacked

_KEPT_SECONDS = 86400


class Published:
    """The newest answer of each job. Safe for many threads and processes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def save(self, job_id: str, answer: Mapping[str, Any], *, is_final: bool) -> None:
        """
        Args:
            is_final: there will be no newer one.
        """
        body = packed({"answer": answer, "is_final": is_final})
        with self._redis.pipeline() as pipe:
            pipe.set(keys.published(job_id), body, ex=_KEPT_SECONDS)
            publish(pipe, EventKind.ANSWERED, job_id)
            pipe.execute()

    def load(self, job_id: str) -> tuple[dict[str, Any] | None, bool]:
        """The answer, None without one; whether it is final."""
        body = self._redis.get(keys.published(job_id))
        if body is None:
            return None, False
        found = unpacked(body)
        return found["answer"], found["is_final"]


class Pace:
    """When a job's next answer is due: seldom enough that making them costs little."""

    _COST = 20.0
    _AWAITED_SECONDS, _SECONDS = 0.3, 5.0

    def __init__(self) -> None:
        self._ended_at, self._took_seconds = 0.0, 0.0

    def is_due(self, *, is_awaited: bool) -> bool:
        least = self._AWAITED_SECONDS if is_awaited else self._SECONDS
        pause = max(least, self._COST * self._took_seconds)
        return time.monotonic() - self._ended_at >= pause

    def took(self, seconds: float) -> None:
        """One was made."""
        self._ended_at, self._took_seconds = time.monotonic(), seconds
