"""Takes up what killed processes left: jobs, tickets, and answers that nobody waits for."""

from __future__ import annotations

import logging
import math
import threading
import time

from redis.exceptions import RedisError

from backend.jobs.distributed.store import RedisJobStore
from backend.jobs.types import JobState
from backend.scheduler import Priority

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_SELDOM_SECONDS = 5.0


class Keeper:
    """A thread of every process: one of them that lives is enough."""

    def __init__(self, store: RedisJobStore, *, max_attempts: int) -> None:
        """
        Args:
            max_attempts: how often a job is begun that its worker did not survive.
        """
        self._store = store
        self._max_attempts = max_attempts
        self._next_seldom = 0.0
        self._last_look_at = math.inf
        self._trusts_leases_from = 0.0
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-keeper", daemon=True)

    def start(self) -> None:
        self._last_look_at = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_stopping.wait(_LOOK_SECONDS):
            try:
                self.look()
            except RedisError as error:
                logger.warning("jobs cannot be looked after, trying again: %s", error)
            except Exception:  # the boundary of the thread: it has to live on
                logger.exception("jobs cannot be looked after")

    def look(self) -> None:
        """Put in order what is out of it now."""
        self._store.queue_due()
        self._note_a_stall()
        if time.monotonic() < self._next_seldom:
            return
        self._next_seldom = time.monotonic() + min(
            _SELDOM_SECONDS, self._store.lease_seconds / 4
        )
        self._store.queue_untaken()
        self._store.tickets.forget_lines(self._store.live_workers())
        if time.monotonic() >= self._trusts_leases_from and not self._has_just_begun():
            for job in self._store.requeue_lost(self._max_attempts):
                logger.error("job %s of task %s failed: %s", job.id, job.task_id, job.error)
            self._release_lost_waiters()

    def _note_a_stall(self) -> None:
        """After a while without Redis, or without this machine, leases that others could not
        renew either have run out: they get the time for that."""
        now = time.monotonic()
        if now - self._last_look_at > self._store.lease_seconds / 2:
            logger.warning("no look at the jobs for %.0f s", now - self._last_look_at)
            self._trusts_leases_from = now + self._store.lease_seconds
        self._last_look_at = now

    def _has_just_begun(self) -> bool:
        """Whether Redis was down, so that nobody could say that they live."""
        uptime = self._store.redis.info("server")["uptime_in_seconds"]
        return uptime < self._store.lease_seconds

    def _release_lost_waiters(self) -> None:
        """Those whose web process died got no answer: it is posted, if it can be."""
        for job_id, waiter, priority, posts in self._store.lost_waiters():
            logger.warning("job %s: one who waited for it is gone", job_id)
            goes_on = self._store.drop_waiter(
                job_id, waiter,
                goes_on_with=max(priority, Priority.WEBHOOK), posts_prediction=posts,
            )
            if posts and not goes_on:
                self._post_result(job_id)

    def _post_result(self, job_id: str) -> None:
        job = self._store.get(job_id)
        if job is None or job.state is not JobState.DONE or job.result_key is None:
            return
        result = self._store.result(job.result_key)
        if result is not None and result.regions:
            prediction = {
                "result": list(result.regions), "score": result.score,
                "model_version": result.model_version,
            }
            self._store.add_post(job_id, prediction)
