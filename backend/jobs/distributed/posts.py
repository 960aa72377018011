"""Predictions under way, in Redis: one process at a time posts each."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from redis import Redis
from redis.client import Pipeline

from backend.jobs.distributed import keys
from backend.jobs.distributed.records import decoded, encoded, packed, post_of
from backend.jobs.types import Job, Post, PostState

POST_SECONDS = 90.0
"""A process that has not said within this what came of a prediction is taken for dead:
longer than a request to Label Studio may take."""


class RedisPosts:
    """The part of the store that predictions are in. Safe for many threads and processes."""

    _redis: Redis
    _clock: Callable[[], float]
    get: Callable[[str], Job | None]

    def add_post(self, job_id: str, prediction: Mapping[str, Any]) -> None:
        """Keep a prediction of an ended job, if there is none yet."""
        job = self.get(job_id)
        if job is None:
            return
        post_id = self._redis.incr(keys.POST_SEQUENCE)

        def change(pipe: Pipeline) -> None:
            has_one = pipe.exists(keys.post_of_job(job_id))
            pipe.multi()
            if not has_one:
                self._write_post(pipe, post_id, job, prediction)

        self._redis.transaction(change, keys.post_of_job(job_id))

    def _write_post(
        self, pipe: Pipeline, post_id: int, job: Job, prediction: Mapping[str, Any]
    ) -> None:
        if job.task_id is None:
            return
        now = self._clock()
        fields = {
            "id": post_id, "job_id": job.id, "task_id": job.task_id, "attempts": 0,
            "state": PostState.WAITING, "next_attempt_at": now, "error": None,
            "prediction_id": None, "request_id": job.request_id,
        }
        pipe.hset(keys.post(post_id), mapping=encoded(fields))
        pipe.set(keys.prediction(post_id), packed(prediction))
        pipe.set(keys.post_of_job(job.id), post_id)
        pipe.zadd(keys.POSTS_DUE, {_member(post_id): now})
        pipe.sadd(keys.posts_of_state(PostState.WAITING), post_id)

    def due_posts(self, limit: int = 20) -> list[Post]:
        """Predictions to post now, the longest due first."""
        due = self._redis.zrange(
            keys.POSTS_DUE, 0, self._clock(), byscore=True, offset=0, num=limit
        )
        posts = [self._post(int(member)) for member in due]
        return [post for post in posts if post is not None]

    def next_post_at(self) -> float | None:
        """When the next prediction is due, in seconds since the epoch."""
        first = self._redis.zrange(keys.POSTS_DUE, 0, 0, withscores=True)
        return first[0][1] if first else None

    def begin_post(self, post_id: int) -> bool:
        """Count an attempt before it is made, and keep other processes from it meanwhile.

        False when another has taken it.
        """
        name = keys.post(post_id)

        def change(pipe: Pipeline) -> bool:
            due_at = pipe.zscore(keys.POSTS_DUE, _member(post_id))
            now = self._clock()
            attempts = decoded(pipe.hgetall(name)).get("attempts")
            pipe.multi()
            if attempts is None or due_at is None or due_at > now:
                return False
            pipe.hset(name, mapping=encoded({"attempts": attempts + 1}))
            pipe.zadd(keys.POSTS_DUE, {_member(post_id): now + POST_SECONDS})
            return True

        return self._redis.transaction(change, name, value_from_callable=True)

    def set_posted(self, post_id: int, prediction_id: int | None) -> None:
        self._end(post_id, PostState.POSTED, {"prediction_id": prediction_id, "error": None})

    def set_refused(self, post_id: int, error: str) -> None:
        self._end(post_id, PostState.REFUSED, {"error": error})

    def _end(self, post_id: int, state: PostState, fields: Mapping[str, Any]) -> None:
        with self._redis.pipeline() as pipe:
            pipe.hset(keys.post(post_id), mapping=encoded({"state": state, **fields}))
            pipe.zrem(keys.POSTS_DUE, _member(post_id))
            pipe.smove(keys.posts_of_state(PostState.WAITING), keys.posts_of_state(state), post_id)
            pipe.execute()

    def retry_post(self, post_id: int, error: str, after_seconds: float) -> None:
        due_at = self._clock() + after_seconds
        with self._redis.pipeline() as pipe:
            fields = {"error": error, "next_attempt_at": due_at}
            pipe.hset(keys.post(post_id), mapping=encoded(fields))
            pipe.zadd(keys.POSTS_DUE, {_member(post_id): due_at}, xx=True)
            pipe.execute()

    def post_of_job(self, job_id: str) -> Post | None:
        post_id = self._redis.get(keys.post_of_job(job_id))
        return None if post_id is None else self._post(int(post_id))

    def post_state(self, job_id: str) -> PostState | None:
        """How far a job's prediction is; None without one."""
        post = self.posts_of_jobs([job_id]).get(job_id)
        return None if post is None else post.state

    def posts_of_jobs(self, job_ids: Sequence[str]) -> dict[str, Post]:
        """By job, for those that have one; the predictions themselves are left empty."""
        ids = self._redis.mget([keys.post_of_job(j) for j in job_ids]) if job_ids else []
        found = {job_id: int(i) for job_id, i in zip(job_ids, ids) if i is not None}
        with self._redis.pipeline(transaction=False) as pipe:
            for post_id in found.values():
                pipe.hgetall(keys.post(post_id))
            stored = pipe.execute() if found else []
        return {
            job_id: post_of(decoded(fields), None)
            for job_id, fields in zip(found, stored) if fields
        }

    def post_counts(self) -> dict[PostState, int]:
        return {state: self._redis.scard(keys.posts_of_state(state)) for state in PostState}

    def _post(self, post_id: int) -> Post | None:
        fields = decoded(self._redis.hgetall(keys.post(post_id)))
        return post_of(fields, self._redis.get(keys.prediction(post_id))) if fields else None

    def _delete_post(self, job_id: str) -> bool:
        """Forget a job's prediction, if there is one; False for one that is still to post."""
        post = self.posts_of_jobs([job_id]).get(job_id)
        if post is None:
            return True
        if post.state is PostState.WAITING:
            return False
        with self._redis.pipeline() as pipe:
            pipe.delete(keys.post(post.id), keys.prediction(post.id), keys.post_of_job(job_id))
            pipe.srem(keys.posts_of_state(post.state), post.id)
            pipe.execute()
        return True


def _member(post_id: int) -> str:
    """Redis sorts members with equal scores as texts."""
    return f"{post_id:016d}"
