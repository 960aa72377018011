"""Who has to look at a job again, told over a channel. Nothing depends on its arriving:
those who listen also look by themselves now and then."""

from __future__ import annotations

import enum
import json
import logging
import threading
from typing import Any, Callable

from redis import Redis
from redis.exceptions import RedisError

from backend.jobs.distributed import keys

logger = logging.getLogger(__name__)

_LISTEN_SECONDS = 0.5
_PAUSE_SECONDS = 0.5


class EventKind(enum.StrEnum):
    QUEUED = "queued"
    CHANGED = "changed"
    ANSWERED = "answered"
    """There is a newer answer so far."""
    ENDED = "ended"


def publish(redis: Any, kind: EventKind, job_id: str) -> None:
    """`redis`: a client or a pipeline."""
    redis.publish(keys.EVENTS, json.dumps([kind, job_id]))


class EventListener:
    """A thread that calls back with each event; lasts over a restart of Redis."""

    def __init__(self, redis: Redis, heard: Callable[[EventKind, str], None]) -> None:
        self._redis = redis
        self._heard = heard
        self._is_stopping = threading.Event()
        self._is_listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-events", daemon=True)

    def start(self, *, wait_seconds: float = 5.0) -> None:
        """Events after this are heard."""
        self._thread.start()
        self._is_listening.wait(wait_seconds)

    def stop(self) -> None:
        self._is_stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            try:
                self._listen()
            except (RedisError, OSError) as error:
                logger.warning("events of jobs cannot be heard, trying again: %s", error)
                self._is_stopping.wait(_PAUSE_SECONDS)

    def _listen(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(keys.EVENTS)
            pubsub.get_message(timeout=_LISTEN_SECONDS)  # that it is subscribed
            self._is_listening.set()
            while not self._is_stopping.is_set():
                message = pubsub.get_message(timeout=_LISTEN_SECONDS)
                if message is not None:
                    self._tell(message["data"])

    def _tell(self, data: bytes) -> None:
        try:
            kind, job_id = json.loads(data)
            self._heard(EventKind(kind), job_id)
        except Exception:  # the boundary of one event: the next ones are heard
            logger.exception("an event of a job could not be followed: %r", data)
