"""RQ's queues: whose turn is next, for every worker the same.

A ticket is an RQ job that names one of ours. A worker moves it into RQ's
intermediate list as it takes it, so that one killed in that moment loses nothing.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Collection, Iterator

from redis import Redis
from redis.client import Pipeline
from rq import Queue
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job as RqJob

from backend.jobs.runner import INTERACTIVE, lane_of
from backend.jobs.types import JobKind
from backend.scheduler import Priority

_NAME = "sam2"
_SHARED = "any"
_FUNCTION = "backend.jobs.distributed.tickets.run"


def run(job_id: str) -> None:
    """What a ticket says to do, to those who look at it with RQ's own tools.

    Raises RuntimeError: only our own workers hold a model.
    """
    raise RuntimeError(f"job {job_id} is run by `sam2-label-studio worker`, not by `rq worker`")


@dataclass(frozen=True)
class Line:
    """One queue: the jobs of one kind, priority and project, or of people for one worker."""

    kind: JobKind
    priority: Priority
    of: str
    """The project; of people's jobs the worker that they wait for, or `any`."""

    @property
    def name(self) -> str:
        """RQ's: "sam2/track/batch/7"."""
        return f"{_NAME}/{self.kind}/{self.priority.name.lower()}/{self.of}"

    @property
    def lane(self) -> str:
        return lane_of(self.kind, self.priority)

    @property
    def project_id(self) -> int | None:
        return int(self.of) if self.of.isdigit() else None

    @classmethod
    def named(cls, name: str) -> Line | None:
        """None for queues that are not ours."""
        parts = name.split("/", 3)
        if len(parts) != 4 or parts[0] != _NAME:
            return None
        try:
            return cls(JobKind(parts[1]), Priority[parts[2].upper()], parts[3])
        except (ValueError, KeyError):
            return None


def shared_line() -> Line:
    """People's jobs, for whichever worker is free."""
    return Line(JobKind.TRACK, Priority.INTERACTIVE, _SHARED)


def worker_line(worker: str) -> Line:
    """People's jobs on videos that a worker has open."""
    return Line(JobKind.TRACK, Priority.INTERACTIVE, worker)


def line_for(
    kind: JobKind, priority: Priority, project_id: int | None, worker: str | None = None
) -> Line:
    """Where a job waits; a person's for one worker, if one is named."""
    if lane_of(kind, priority) == INTERACTIVE:
        return shared_line() if worker is None else worker_line(worker)
    return Line(kind, priority, str(project_id))


class Tickets:
    """Puts tickets into RQ's queues and takes them out. Safe for many threads."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._lock = threading.Lock()
        self._queues: dict[str, Queue] = {}

    def _queue(self, name: str) -> Queue:
        with self._lock:
            if name not in self._queues:
                queue = Queue(name, connection=self._redis)
                queue.get_redis_server_version()  # asked once, and never inside a pipeline
                self._queues[name] = queue
            return self._queues[name]

    def put(self, pipe: Pipeline, job_id: str, line: Line, *, at_front: bool = False) -> None:
        self._queue(line.name).enqueue_call(
            _FUNCTION, args=(job_id,), job_id=job_id, timeout=-1, result_ttl=0,
            description=f"{line.kind} {job_id}", at_front=at_front, pipeline=pipe,
        )

    def drop(self, pipe: Pipeline, job_id: str, line: Line) -> None:
        """Take a waiting ticket out of its queue."""
        self._queue(line.name).remove(job_id, pipeline=pipe)

    def forget(self, pipe: Pipeline, job_id: str) -> None:
        """The job has ended: RQ need know it no longer."""
        pipe.delete(RqJob.key_for(job_id))

    # --- for workers ---------------------------------------------------------

    def lines(self) -> list[Line]:
        """Those with a ticket in them."""
        keys = sorted(self._redis.smembers(Queue.redis_queues_keys))
        names = [key.decode().removeprefix(Queue.redis_queue_namespace_prefix) for key in keys]
        found = [line for name in names if (line := Line.named(name)) is not None]
        if not found:
            return []
        with self._redis.pipeline(transaction=False) as pipe:
            for line in found:
                pipe.llen(self._queue(line.name).key)
            return [line for line, count in zip(found, pipe.execute()) if count]

    def take(self, line: Line) -> str | None:
        """The next job of a queue; `done` follows when it has begun, or need not."""
        taken = Queue.lmove(self._redis, self._queue(line.name).key, None)
        return None if taken is None else taken[1].decode()

    def done(self, redis: Redis, line: Line, job_id: str) -> None:
        """`redis`: a client or a pipeline."""
        redis.lrem(self._queue(line.name).intermediate_queue_key, 1, job_id)

    def between(self) -> Iterator[tuple[IntermediateQueue, str]]:
        """Tickets that someone took and has not done with: for a moment, or was killed."""
        for key in sorted(self._redis.smembers(Queue.redis_queues_keys)):
            name = key.decode().removeprefix(Queue.redis_queue_namespace_prefix)
            if Line.named(name) is not None:
                between = IntermediateQueue(key.decode(), self._redis)
                for job_id in between.get_job_ids():
                    yield between, job_id

    def forget_lines(self, live_workers: Collection[str]) -> None:
        """Let RQ forget the empty queues of workers that are no more."""
        for key in self._redis.smembers(Queue.redis_queues_keys):
            name = key.decode().removeprefix(Queue.redis_queue_namespace_prefix)
            line = Line.named(name)
            is_ours = line is not None and line.lane == INTERACTIVE
            if is_ours and line.of not in (_SHARED, *live_workers) and not self._redis.llen(key):
                self._redis.srem(Queue.redis_queues_keys, key)
