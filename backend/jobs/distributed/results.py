"""Results in Redis; their bodies there too, or in a storage."""

from __future__ import annotations

import json
from typing import Any, Callable

from redis import Redis

from backend.errors import ResultNotKept, StorageUnavailable
from backend.jobs.distributed import keys
from backend.jobs.distributed.guarded import GuardedBlobs
from backend.jobs.distributed.records import packed, unpacked
from backend.jobs.types import StoredResult

_MAX_REQUESTS_OF_RESULT = 100
"""Data with signed URLs makes a new request of an old one every hour."""


class RedisResults:
    """The part of the store that results are in. Safe for many threads and processes."""

    _redis: Redis
    _clock: Callable[[], float]
    _storage: GuardedBlobs | None

    def save_result(
        self, result: StoredResult, *, request_key: str, media_stamp: str, max_bytes: int
    ) -> None:
        """Keep a result; the longest unused go when all have more than `max_bytes`.

        Args:
            request_key: of the request that it answers.
            media_stamp: what its media files looked like (`result_of_request`).

        Raises ResultNotKept when the storage does not take it.
        """
        body = packed(result.as_json())
        self._save_body(result.key, body)
        now = self._clock()
        known = {"created_at": now, "media": json.dumps(list(result.media))}
        with self._redis.pipeline() as pipe:
            pipe.hset(keys.result(result.key), mapping=known)
            pipe.zadd(keys.RESULTS_BY_USE, {result.key: now})
            pipe.hset(keys.RESULT_SIZES, result.key, len(body) + len(media_stamp))
            for reference in result.media:
                pipe.zadd(keys.results_of_media(reference), {result.key: now})
            self._link(pipe, request_key, result.key, media_stamp, now)
            pipe.execute()
        self._drop_old_requests(result.key)
        self._drop_unused(max_bytes)

    def _save_body(self, key: str, body: bytes) -> None:
        if self._storage is None:
            self._redis.set(keys.result_body(key), body)
            return
        try:
            self._storage.save(_name(key), body)
        except StorageUnavailable as error:
            raise ResultNotKept(f"what was found is not kept: {error}") from error

    def check_can_keep(self) -> None:
        """Raises StorageUnavailable when the storage that bodies lie in does not answer."""
        if self._storage is not None:
            self._storage.check()

    def _drop_unused(self, max_bytes: int) -> None:
        total = self.result_bytes()
        unused = self._redis.zrange(keys.RESULTS_BY_USE, 0, -2) if total > max_bytes else []
        for member in unused:
            if total <= max_bytes:
                return
            key = member.decode()
            total -= int(self._redis.hget(keys.RESULT_SIZES, key) or 0)
            self._drop(key)

    def _drop(self, key: str) -> None:
        media = json.loads(self._redis.hget(keys.result(key), "media") or "[]")
        requests = self._redis.zrange(keys.requests_of_result(key), 0, -1)
        with self._redis.pipeline() as pipe:
            pipe.zrem(keys.RESULTS_BY_USE, key)
            pipe.hdel(keys.RESULT_SIZES, key)
            for reference in media:
                pipe.zrem(keys.results_of_media(reference), key)
            names = [keys.result(key), keys.result_body(key), keys.requests_of_result(key)]
            pipe.delete(*names, *requests)
            pipe.execute()
        if self._storage is not None:
            self._storage.delete(_name(key))

    def result(self, key: str) -> StoredResult | None:
        self._redis.zadd(keys.RESULTS_BY_USE, {key: self._clock()}, xx=True)
        created_at = self._redis.hget(keys.result(key), "created_at")
        if created_at is None:
            return None
        if self._storage is None:
            body = self._redis.get(keys.result_body(key))
        else:
            body = self._storage.load(_name(key))
        return None if body is None else StoredResult.from_json(
            key, float(created_at), unpacked(body)
        )

    def result_bytes(self) -> int:
        """What all kept results take."""
        return sum(int(size) for size in self._redis.hvals(keys.RESULT_SIZES))

    # --- what finds them -----------------------------------------------------

    def link_request(self, request_key: str, result_key: str, media_stamp: str) -> None:
        """Let another request find a result that answers it too."""
        with self._redis.pipeline() as pipe:
            self._link(pipe, request_key, result_key, media_stamp, self._clock())
            pipe.execute()
        self._drop_old_requests(result_key)

    @staticmethod
    def _link(
        pipe: Any, request_key: str, result_key: str, media_stamp: str, now: float
    ) -> None:
        name = keys.result_of_request(request_key)
        pipe.hset(name, mapping={"result": result_key, "stamp": media_stamp})
        pipe.zadd(keys.requests_of_result(result_key), {name: now})

    def _drop_old_requests(self, result_key: str) -> None:
        name = keys.requests_of_result(result_key)
        old = self._redis.zrange(name, 0, -_MAX_REQUESTS_OF_RESULT - 1)
        if old:
            self._redis.zrem(name, *old)
            self._redis.delete(*old)

    def result_of_request(
        self, request_key: str, is_current: Callable[[str], bool]
    ) -> StoredResult | None:
        """The result of an equal request, if its media has not changed since.

        Args:
            is_current: told the media stamp that was kept. Only the worker that kept it
                has these files, so elsewhere it is not known, and a worker looks again.
        """
        found = self._redis.hgetall(keys.result_of_request(request_key))
        if not found or not is_current(found[b"stamp"].decode()):
            return None
        return self.result(found[b"result"].decode())

    def newest_result_of_media(self, reference: str) -> StoredResult | None:
        """The newest result of a video, by its reference in task data."""
        newest = self._redis.zrange(keys.results_of_media(reference), 0, 0, desc=True)
        return self.result(newest[0].decode()) if newest else None


def _name(key: str) -> str:
    return f"results/{key[:2]}/{key}"
