"""Jobs in Redis: each step of one is a transaction that also moves its ticket."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Callable, Iterator, Mapping, Sequence

from redis import Redis
from redis.client import Pipeline
from rq.intermediate_queue import IntermediateQueue

from backend.jobs.distributed import keys
from backend.jobs.distributed.events import EventKind, publish
from backend.jobs.distributed.records import Fields, decoded, encoded, job_of, packed
from backend.jobs.distributed.tickets import Line, Tickets, line_for
from backend.jobs.handles import more_urgent
from backend.jobs.types import Job, JobKind, JobSpec, JobState
from backend.scheduler import Priority

LEASE_SECONDS = 20.0
"""A process that has not been heard of for so long is taken for dead."""
_PREFERENCE_SECONDS = 1.0
"""A person waits no longer for the worker that has the video open, then any takes it."""
_CHUNK = 500
_PUBLISHED_SECONDS = 600
"""How long the last answer of an ended job is kept for those who waited for it."""


class RedisJobs:
    """The part of the store that jobs are in. Safe for many threads and processes."""

    def __init__(
        self,
        redis: Redis,
        *,
        clock: Callable[[], float],
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._redis = redis
        self._clock = clock
        self.lease_seconds = lease_seconds
        self.tickets = Tickets(redis)
        self.owner = uuid.uuid4().hex
        """This process, as the jobs that it runs know it."""

    # --- adding and waiting --------------------------------------------------

    def add(
        self,
        spec: JobSpec,
        *,
        is_awaited: bool = False,
        waiter: str | None = None,
        posts_if_lost: bool = False,
    ) -> tuple[Job, bool]:
        """The unfinished job that does the same, made at least as urgent, or a new one.

        Args:
            is_awaited: someone waits for the answer.
            waiter: who, by a name of one's own (`renew_waiters`, `drop_waiter`).
            posts_if_lost: whether it is to be posted should that one die.

        Returns:
            The job, and whether it is new.
        """
        new_id = uuid.uuid4().hex
        key = keys.unfinished(spec.key)

        def change(pipe: Pipeline) -> tuple[Job, bool]:
            known = pipe.get(key)
            job_id = new_id if known is None else known.decode()
            before = None if known is None else self._watched(pipe, job_id)
            if before is None:
                fields, request = self._new_fields(pipe, job_id, spec), packed(spec.request)
            else:
                fields, request = dict(before), pipe.get(keys.request(job_id))
                fields["priority"] = min(fields["priority"], int(spec.priority))
                fields["posts_prediction"] |= spec.posts_prediction
            fields["is_awaited"] |= is_awaited or waiter is not None
            if waiter is None and not is_awaited:
                fields["unawaited"] = _lower(fields["unawaited"], spec.priority)
            worker = self._preferred_worker(pipe, fields)
            pipe.multi()
            if before is None:
                pipe.set(keys.request(job_id), request)
                pipe.set(key, job_id)
            if waiter is not None:
                self._add_waiter(pipe, job_id, waiter, spec.priority, posts_if_lost)
            # Whoever asks again need not wait for the next attempt.
            self._write(pipe, job_id, before, fields, worker=worker, is_due=True)
            return job_of(fields, request), before is None

        return self._transaction(change, key)

    def _new_fields(self, pipe: Pipeline, job_id: str, spec: JobSpec) -> Fields:
        return {
            "id": job_id, "kind": spec.kind, "state": JobState.QUEUED,
            "priority": int(spec.priority), "key": spec.key, "project_id": spec.project_id,
            "task_id": spec.task_id, "posts_prediction": spec.posts_prediction,
            "is_awaited": False, "done": 0, "total": 0, "attempts": 0, "error": None,
            "result_key": None, "request_id": spec.request_id, "created_at": self._clock(),
            "started_at": None, "finished_at": None, "sequence": pipe.incr(keys.SEQUENCE),
            "unawaited": None, "failures": 0, "failure": None, "owner": None, "line": None,
            "left_out": None,
        }

    def _preferred_worker(self, pipe: Pipeline, fields: Fields) -> str | None:
        """The one that has the task's video open, for a person's job."""
        is_persons = fields["priority"] == Priority.INTERACTIVE
        if not is_persons or fields["task_id"] is None:
            return None
        holder = pipe.get(keys.holder(fields["task_id"]))
        lives_until = None if holder is None else pipe.zscore(keys.WORKERS, holder)
        return holder.decode() if lives_until is not None and lives_until > self._clock() else None

    def hold_task(self, task_id: int, worker: str, seconds: float) -> None:
        """Let people's jobs on a task come to a worker first."""
        self._redis.set(keys.holder(task_id), worker, ex=max(1, int(seconds)))

    def renew_worker(self, name: str) -> None:
        """Say that a worker lives."""
        self._redis.zadd(keys.WORKERS, {name: self._clock() + self.lease_seconds})

    def describe_worker(self, name: str, settings: Mapping[str, Any]) -> None:
        """Say what a worker's answers depend on, for `worker_settings`."""
        self._redis.hset(keys.WORKER_SETTINGS, name, json.dumps(settings))

    def worker_settings(self) -> dict[str, dict[str, Any]]:
        """What live workers have said of themselves; those of the dead are forgotten."""
        live = set(self.live_workers())
        found = self._redis.hgetall(keys.WORKER_SETTINGS)
        if dead := [name for name in found if name.decode() not in live]:
            self._redis.hdel(keys.WORKER_SETTINGS, *dead)
        return {
            name.decode(): json.loads(body) for name, body in found.items() if name not in dead
        }

    def end_worker(self, name: str) -> None:
        """A worker takes no more jobs."""
        self._redis.zrem(keys.WORKERS, name)
        self._redis.hdel(keys.WORKER_SETTINGS, name)

    def live_workers(self) -> list[str]:
        """Those that were heard of lately; the others are forgotten."""
        self._redis.zremrangebyscore(keys.WORKERS, 0, self._clock())
        return [member.decode() for member in self._redis.zrange(keys.WORKERS, 0, -1)]

    def _add_waiter(
        self, pipe: Pipeline, job_id: str, waiter: str, priority: Priority, posts: bool
    ) -> None:
        pipe.hset(keys.waiters(job_id), waiter, json.dumps([int(priority), posts]))
        pipe.zadd(keys.WAITER_LEASES, {f"{job_id} {waiter}": self._clock() + self.lease_seconds})

    def renew_waiters(self, waiters: Mapping[str, str]) -> None:
        """Those that still wait here, each with its job."""
        until = self._clock() + self.lease_seconds
        members = {f"{job_id} {waiter}": until for waiter, job_id in waiters.items()}
        if members:
            self._redis.zadd(keys.WAITER_LEASES, members, xx=True)

    def drop_waiter(
        self, job_id: str, waiter: str, *, goes_on_with: Priority, posts_prediction: bool
    ) -> bool:
        """One who waited for it waits no more; whether it was still unfinished."""

        def change(pipe: Pipeline) -> bool:
            before = self._watched(pipe, job_id)
            others = pipe.hgetall(keys.waiters(job_id))
            others.pop(waiter.encode(), None)
            goes_on = before is not None and not JobState(before["state"]).has_ended
            pipe.multi()
            pipe.hdel(keys.waiters(job_id), waiter)
            pipe.zrem(keys.WAITER_LEASES, f"{job_id} {waiter}")
            if goes_on:
                unawaited = _lower(before["unawaited"], goes_on_with)
                wanted = [json.loads(value)[0] for value in others.values()]
                fields = before | {
                    "unawaited": unawaited,
                    "priority": min([unawaited, *wanted]),
                    "is_awaited": bool(others),
                    "posts_prediction": before["posts_prediction"] or posts_prediction,
                }
                self._write(pipe, job_id, before, fields)
            return goes_on

        return self._transaction(change, keys.job(job_id), keys.waiters(job_id))

    def lost_waiters(self) -> Iterator[tuple[str, str, Priority, bool]]:
        """(job, waiter, priority, whether to post) of those whose process has died."""
        for member in self._redis.zrangebyscore(keys.WAITER_LEASES, 0, self._clock()):
            job_id, waiter = member.decode().split(" ", 1)
            wanted = self._redis.hget(keys.waiters(job_id), waiter)
            if wanted is None:
                self._redis.zrem(keys.WAITER_LEASES, member)
                continue
            priority, posts = json.loads(wanted)
            yield job_id, waiter, Priority(priority), posts

    def leave(
        self, job_id: str, *, priority: Priority, posts_prediction: bool, is_awaited: bool
    ) -> bool:
        """As `JobStore.leave`, for one who waited without a name."""
        return self._update_unfinished(
            job_id,
            lambda fields: fields | {
                "priority": int(priority), "is_awaited": is_awaited,
                "posts_prediction": fields["posts_prediction"] or posts_prediction,
            },
        )

    def want_post(self, job_id: str) -> bool:
        """Let an unfinished job post its result; False when it has ended."""
        return self._update_unfinished(job_id, lambda fields: fields | {"posts_prediction": True})

    def _update_unfinished(self, job_id: str, changed: Callable[[Fields], Fields]) -> bool:
        def change(pipe: Pipeline) -> bool:
            before = self._watched(pipe, job_id)
            goes_on = before is not None and not JobState(before["state"]).has_ended
            pipe.multi()
            if goes_on:
                self._write(pipe, job_id, before, changed(before))
            return goes_on

        return self._transaction(change, keys.job(job_id))

    # --- running -------------------------------------------------------------

    def begin(self, job_id: str, line: Line | None = None) -> Job | None:
        """Take a queued job to run it; None when it is no longer queued.

        `line`: where its ticket was taken from.
        """

        def change(pipe: Pipeline) -> Job | None:
            before = self._watched(pipe, job_id)
            if before is None or before["state"] != JobState.QUEUED:
                pipe.multi()
                return None
            request = pipe.get(keys.request(job_id))
            now = self._clock()
            fields = before | {
                "state": JobState.RUNNING, "started_at": now, "owner": self.owner,
                "attempts": before["attempts"] + 1, "error": None, "failure": None,
            }
            pipe.multi()
            if line is not None:
                self.tickets.done(pipe, line, job_id)
            self._write(pipe, job_id, before, fields, taken_from=line)
            return job_of(fields, request)

        return self._transaction(change, keys.job(job_id))

    def renew(self, job_ids: Sequence[str]) -> dict[str, Fields]:
        """Say that these still run here; what has become of each meanwhile."""
        until = self._clock() + self.lease_seconds
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                # Not one that has ended, or that another took over.
                pipe.zadd(keys.LEASES, {job_id: until}, xx=True)
                pipe.hgetall(keys.job(job_id))
            found = pipe.execute()[1::2]
        return {job_id: decoded(stored) for job_id, stored in zip(job_ids, found)}

    def is_ours(self, fields: Fields) -> bool:
        """Whether a job, as `renew` tells it, is this process's to run."""
        return fields.get("state") == JobState.RUNNING and fields.get("owner") == self.owner

    def set_progress(self, job_id: str, done: int, total: int) -> None:
        key = keys.job(job_id)
        if self._redis.hexists(key, "state"):  # not one that was forgotten meanwhile
            self._redis.hset(key, mapping=encoded({"done": done, "total": total}))

    def finish(
        self,
        job_id: str,
        state: JobState,
        *,
        error: str | None = None,
        failure: str | None = None,
        result_key: str | None = None,
        prediction: Mapping[str, Any] | None = None,
        progress: tuple[int, int] | None = None,
        left_out: Mapping[str, Any] | None = None,
    ) -> Job | None:
        """End a job; the prediction, if it posts one, is kept in the same transaction.

        Args:
            failure: what kind of error it was (`failures`).
            progress: steps done and in all; None: as they were noted last.
            left_out: what of its request was malformed.

        Returns the job; None when it had ended before (it was cancelled).
        """
        post_id = None if prediction is None else self._redis.incr(keys.POST_SEQUENCE)

        def change(pipe: Pipeline) -> Job | None:
            before = self._watched(pipe, job_id)
            if before is None or JobState(before["state"]).has_ended:
                pipe.multi()
                return None
            request = pipe.get(keys.request(job_id))
            fields = before | {
                "state": state, "error": error, "failure": failure, "result_key": result_key,
                "finished_at": self._clock(), "left_out": left_out,
            }
            if progress is not None:
                fields["done"], fields["total"] = progress
            job = job_of(fields, request)
            pipe.multi()
            self._write(pipe, job_id, before, fields)
            pipe.expire(keys.published(job_id), _PUBLISHED_SECONDS)
            if post_id is not None and job.posts_prediction:
                self._write_post(pipe, post_id, job, prediction)
            return job

        return self._transaction(change, keys.job(job_id))

    def _write_post(
        self, pipe: Pipeline, post_id: int, job: Job, prediction: Mapping[str, Any]
    ) -> None:
        raise NotImplementedError  # `posts.RedisPosts`

    # --- again ---------------------------------------------------------------

    def put_back(self, job_id: str | None = None) -> None:
        """Queue a job of this process, or all of them, as if they had not begun."""
        job_ids = [job_id] if job_id is not None else self._running_here()
        for one in job_ids:
            self._queue_again(
                one, lambda fields: {"attempts": max(fields["attempts"] - 1, 0)}
            )

    def _running_here(self) -> list[str]:
        ids = [member.decode() for member in self._redis.zrange(keys.LEASES, 0, -1)]
        owner = json.dumps(self.owner).encode()
        return [i for i in ids if self._redis.hget(keys.job(i), "owner") == owner]

    def retry(self, job_id: str, error: str, after_seconds: float) -> None:
        """Queue a job of this process again that has failed, to begin no sooner than that."""
        due_at = self._clock() + after_seconds
        self._queue_again(
            job_id,
            lambda fields: {
                "error": error, "failures": fields["failures"] + 1,
                "attempts": max(fields["attempts"] - 1, 0),
            },
            due_at=due_at,
        )

    def _queue_again(
        self, job_id: str, changed: Callable[[Fields], Fields], due_at: float | None = None
    ) -> None:
        def change(pipe: Pipeline) -> None:
            before = self._watched(pipe, job_id)
            pipe.multi()
            if before is not None and self.is_ours(before):
                fields = before | {"state": JobState.QUEUED, "owner": None} | changed(before)
                self._write(pipe, job_id, before, fields, due_at=due_at, at_front=True)

        self._transaction(change, keys.job(job_id))

    def failures(self, job_id: str) -> int:
        """How often a job has failed that was queued again."""
        stored = self._redis.hget(keys.job(job_id), "failures")
        return 0 if stored is None else json.loads(stored)

    def requeue_lost(self, max_attempts: int) -> list[Job]:
        """Queue jobs again whose process has died; those that were begun too often have
        failed, and are returned: they may be what kills it."""
        lost = self._redis.zrangebyscore(keys.LEASES, 0, self._clock())
        ended = [self._requeue_one(member.decode(), max_attempts) for member in lost]
        return [job for job in ended if job is not None]

    def _requeue_one(self, job_id: str, max_attempts: int) -> Job | None:
        def change(pipe: Pipeline) -> Job | None:
            before = self._watched(pipe, job_id)
            until = pipe.zscore(keys.LEASES, job_id)
            is_lost = until is not None and until <= self._clock()
            if before is None or before["state"] != JobState.RUNNING or not is_lost:
                pipe.multi()
                if before is None:
                    pipe.zrem(keys.LEASES, job_id)
                return None
            if before["attempts"] >= max_attempts:
                fields = before | {
                    "state": JobState.FAILED, "finished_at": self._clock(),
                    "error": f"the service stopped {before['attempts']} times while this ran",
                }
                pipe.multi()
                self._write(pipe, job_id, before, fields)
                return job_of(fields, None)
            fields = before | {"state": JobState.QUEUED, "owner": None}
            pipe.multi()
            self._write(pipe, job_id, before, fields, at_front=True)
            return None

        # Its lease is not watched: those of others change all the time. A process that
        # renews it in this moment sees that the job is no longer its own.
        return self._transaction(change, keys.job(job_id))

    def queue_due(self) -> None:
        """Give tickets to jobs whose time for another attempt has come, and let any worker
        have those that have waited for one long enough."""
        now = self._clock()
        for member in self._redis.zrangebyscore(keys.RETRIES, 0, now):
            self._renew_ticket(member.decode())
        for member in self._redis.zrangebyscore(keys.PREFERRED, 0, now):
            self._renew_ticket(member.decode())

    def _renew_ticket(self, job_id: str) -> None:
        def change(pipe: Pipeline) -> None:
            before = self._watched(pipe, job_id)
            pipe.multi()
            if before is not None and before["state"] == JobState.QUEUED:
                self._write(pipe, job_id, before, dict(before), is_due=True, at_front=True)
            else:
                pipe.zrem(keys.RETRIES, job_id)
                pipe.zrem(keys.PREFERRED, job_id)

        self._transaction(change, keys.job(job_id))

    def queue_untaken(self) -> None:
        """Give new tickets to jobs that a worker took and did not live to begin."""
        for between, job_id in self.tickets.between():
            stored = self._redis.hget(keys.job(job_id), "state")
            if stored is None or json.loads(stored) != JobState.QUEUED:
                between.remove(job_id)
            elif not between.set_first_seen(job_id) and self._was_long_seen(between, job_id):
                self._renew_ticket(job_id)
                between.remove(job_id)

    def _was_long_seen(self, between: IntermediateQueue, job_id: str) -> bool:
        # RQ notes the time by this machine's clock or another's, not by Redis's.
        seen = between.get_first_seen(job_id)
        return seen is not None and time.time() - seen.timestamp() > self.lease_seconds

    # --- looking -------------------------------------------------------------

    def get(self, job_id: str) -> Job | None:
        fields, request = self._fields(job_id), self._redis.get(keys.request(job_id))
        return job_of(fields, request) if fields else None

    def fields(self, job_id: str) -> Fields:
        """Of a job, with what only this engine keeps; empty without one."""
        return self._fields(job_id)

    def _fields(self, job_id: str) -> Fields:
        return decoded(self._redis.hgetall(keys.job(job_id)))

    def list(
        self,
        *,
        states: Sequence[JobState] = (),
        project_id: int | None = None,
        task_id: int | None = None,
        limit: int = 100,
        offset: int = 0,
        with_requests: bool = True,
    ) -> list[Job]:
        """The newest first; all states and projects unless told."""
        if task_id is not None:
            index = keys.jobs_of_task(task_id)
        elif project_id is not None:
            index = keys.jobs_of_project(project_id)
        else:
            index = keys.ALL_JOBS
        if states and index == keys.ALL_JOBS:
            ids = self._ids_of_states(states, offset + limit)
        else:
            ids = self._ids_in(index)
        found, skipped = [], 0
        for fields in self._all_fields(ids):
            is_wanted = (not states or fields["state"] in states) and (
                project_id is None or fields["project_id"] == project_id
            )
            if not is_wanted:
                continue
            if skipped < offset:
                skipped += 1
            elif len(found) < limit:
                found.append(fields)
            if len(found) == limit:
                break
        return self._jobs(found, with_requests)

    def _ids_in(self, index: str) -> Iterator[str]:
        start = 0
        while ids := self._redis.zrange(index, start, start + _CHUNK - 1, desc=True):
            yield from (member.decode() for member in ids)
            start += _CHUNK

    def _ids_of_states(self, states: Sequence[JobState], count: int) -> Iterator[str]:
        with self._redis.pipeline(transaction=False) as pipe:
            for state in states:
                for kind in JobKind:
                    index = keys.jobs_of_state(kind, state)
                    pipe.zrange(index, 0, count, desc=True, withscores=True)
            scored = [item for items in pipe.execute() for item in items]
        for member, _ in sorted(scored, key=lambda item: -item[1]):
            yield member.decode()

    def _all_fields(self, ids: Iterator[str]) -> Iterator[Fields]:
        chunk: list[str] = []
        for job_id in ids:
            chunk.append(job_id)
            if len(chunk) == _CHUNK:
                yield from self._fields_of(chunk)
                chunk = []
        yield from self._fields_of(chunk)

    def _fields_of(self, ids: Sequence[str]) -> Iterator[Fields]:
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hgetall(keys.job(job_id))
            for stored in pipe.execute():
                if stored:
                    yield decoded(stored)

    def _jobs(self, found: Sequence[Fields], with_requests: bool) -> list[Job]:
        requests: Sequence[bytes | None] = [None] * len(found)
        if with_requests and found:
            requests = self._redis.mget([keys.request(fields["id"]) for fields in found])
        return [job_of(fields, request) for fields, request in zip(found, requests)]

    def count_queued(self, project_id: int | None) -> int:
        """How many jobs of a project wait."""
        return self._redis.zcard(keys.queued_of_project(project_id))

    def counts(self) -> dict[JobState, int]:
        """How many jobs there are of each state."""
        counts = dict.fromkeys(JobState, 0)
        for (_, state), count in self.counts_by_kind().items():
            counts[state] += count
        return counts

    def counts_by_kind(self) -> dict[tuple[JobKind, JobState], int]:
        """How many jobs there are of each kind and state, noughts included."""
        wanted = [(kind, state) for kind in JobKind for state in JobState]
        with self._redis.pipeline(transaction=False) as pipe:
            for kind, state in wanted:
                pipe.zcard(keys.jobs_of_state(kind, state))
            return dict(zip(wanted, pipe.execute()))

    def delete_old(self, age_seconds: float) -> int:
        """Forget jobs that ended so long ago, but none with a prediction still to post.

        Counted from the newest job's end, should the clock be far ahead of it.
        """
        newest = self._redis.zrange(keys.FINISHED, 0, 0, desc=True, withscores=True)
        before = min(self._clock(), newest[0][1] if newest else 0.0) - age_seconds
        old = self._redis.zrangebyscore(keys.FINISHED, 0, f"({before}")
        return sum(self._delete(member.decode()) for member in old)

    def _delete(self, job_id: str) -> bool:
        fields = self._fields(job_id)
        if not self._delete_post(job_id):
            return False
        with self._redis.pipeline() as pipe:
            for name in (keys.job, keys.request, keys.waiters, keys.published):
                pipe.delete(name(job_id))
            for index in (keys.FINISHED, keys.ALL_JOBS, *_indexes(fields)):
                pipe.zrem(index, job_id)
            pipe.execute()
        return True

    def _delete_post(self, job_id: str) -> bool:
        raise NotImplementedError  # `posts.RedisPosts`

    # --- writing -------------------------------------------------------------

    def _transaction(self, change: Callable[[Pipeline], Any], *watched: str) -> Any:
        """What `change` returns, once nobody has changed what it looked at meanwhile."""
        return self._redis.transaction(change, *watched, value_from_callable=True)

    def _watched(self, pipe: Pipeline, job_id: str) -> Fields | None:
        """A job's fields; if they change, the transaction begins again."""
        pipe.watch(keys.job(job_id))
        stored = pipe.hgetall(keys.job(job_id))
        return decoded(stored) if stored else None

    def _write(
        self,
        pipe: Pipeline,
        job_id: str,
        before: Fields | None,
        after: Fields,
        *,
        worker: str | None = None,
        taken_from: Line | None = None,
        due_at: float | None = None,
        is_due: bool = False,
        at_front: bool = False,
    ) -> None:
        """Everything that follows from a job's new fields, inside a transaction.

        Args:
            worker: the one that a person's job waits for first.
            taken_from: the queue that its ticket has been taken out of.
            due_at: it waits for another attempt until then.
            is_due: it waits for that no longer.
            at_front: it goes before those that wait already.
        """
        waits = before is not None and before["state"] == JobState.QUEUED and not before["line"]
        if after["state"] != JobState.QUEUED or not waits or is_due:
            old = None if before is None or before["line"] is None else Line.named(before["line"])
            new = self._new_line(after, worker) if due_at is None else None
            after["line"] = None if new is None else new.name
            if old is not None and old != taken_from and (old != new or at_front):
                self.tickets.drop(pipe, job_id, old)
            pipe.zrem(keys.RETRIES, job_id)
            pipe.zrem(keys.PREFERRED, job_id)
            if new is not None and (old != new or at_front):
                self.tickets.put(pipe, job_id, new, at_front=at_front)
            if due_at is not None:
                pipe.zadd(keys.RETRIES, {job_id: due_at})
            if new is not None and worker is not None:
                pipe.zadd(keys.PREFERRED, {job_id: self._clock() + _PREFERENCE_SECONDS})
        old = set() if before is None else set(_indexes(before))
        new = set(_indexes(after))
        for index in old - new:
            pipe.zrem(index, job_id)
        for index in new - old:
            pipe.zadd(index, {job_id: after["sequence"]})
        if before is None:
            pipe.zadd(keys.ALL_JOBS, {job_id: after["sequence"]})
        if after["state"] == JobState.RUNNING:
            if before is None or before["state"] != JobState.RUNNING:
                pipe.zadd(keys.LEASES, {job_id: self._clock() + self.lease_seconds})
        else:
            pipe.zrem(keys.LEASES, job_id)
        if JobState(after["state"]).has_ended:
            pipe.zadd(keys.FINISHED, {job_id: after["finished_at"]})
            pipe.delete(keys.unfinished(after["key"]))
            self.tickets.forget(pipe, job_id)
        changed = after if before is None else {
            name: value for name, value in after.items() if value != before[name]
        }
        if changed:
            pipe.hset(keys.job(job_id), mapping=encoded(changed))
        publish(pipe, _event_of(before, after), job_id)

    @staticmethod
    def _new_line(fields: Fields, worker: str | None) -> Line | None:
        """The queue that a job's ticket is to lie in; None while it is not queued."""
        if fields["state"] != JobState.QUEUED:
            return None
        return line_for(
            JobKind(fields["kind"]), Priority(fields["priority"]), fields["project_id"], worker
        )


def _indexes(fields: Fields) -> list[str]:
    """The sorted sets that a job is in."""
    if not fields:
        return []
    found = [keys.jobs_of_state(JobKind(fields["kind"]), JobState(fields["state"]))]
    if fields["task_id"] is not None:
        found.append(keys.jobs_of_task(fields["task_id"]))
    if fields["project_id"] is not None:
        found.append(keys.jobs_of_project(fields["project_id"]))
    # Windows are parts of one job that has its place already.
    if fields["state"] == JobState.QUEUED and fields["kind"] != JobKind.WINDOW:
        found.append(keys.queued_of_project(fields["project_id"]))
    return found


def _event_of(before: Fields | None, after: Fields) -> EventKind:
    if JobState(after["state"]).has_ended:
        return EventKind.ENDED
    if after["state"] == JobState.QUEUED:
        return EventKind.QUEUED
    return EventKind.CHANGED


def _lower(known: int | None, priority: Priority) -> int:
    return int(more_urgent(None if known is None else Priority(known), priority))
