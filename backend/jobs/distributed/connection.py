"""A connection to Redis that lasts over a restart of the server."""

from __future__ import annotations

import time
from typing import Callable

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, TimeoutError
from redis.retry import Retry

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
_IMPATIENT_SECONDS = 1.0
_BACKOFF_SECONDS, _MOST_BACKOFF_SECONDS = 0.05, 2.0
_CLOCK_SECONDS = 60.0
"""How long the difference between Redis's clock and ours is trusted."""


def connect(url: str, *, patience_seconds: float | None) -> Redis:
    """A client; nothing is sent yet.

    Args:
        patience_seconds: how long a command waits for a Redis that is down or loading;
            None: not at all, and little for one that does not answer.

    Raises ValueError for a URL that is none.
    """
    is_patient = patience_seconds is not None
    retries = 5 + int(patience_seconds / _MOST_BACKOFF_SECONDS) if is_patient else 0
    return Redis.from_url(
        url,
        socket_connect_timeout=_CONNECT_SECONDS if is_patient else _IMPATIENT_SECONDS,
        socket_timeout=_ANSWER_SECONDS if is_patient else _IMPATIENT_SECONDS,
        socket_keepalive=True,
        health_check_interval=30,
        retry=Retry(
            ExponentialBackoff(cap=_MOST_BACKOFF_SECONDS, base=_BACKOFF_SECONDS),
            retries,
            supported_errors=(ConnectionError, TimeoutError, BusyLoadingError),
        ),
    )


def server_clock(redis: Redis) -> Callable[[], float]:
    """Redis's clock in seconds since the epoch: the same for all machines, and it does
    not jump with this one's."""
    offset, until = 0.0, 0.0

    def now() -> float:
        nonlocal offset, until
        here = time.monotonic()
        if here >= until:
            seconds, microseconds = redis.time()
            here = time.monotonic()
            offset, until = seconds + microseconds / 1e6 - here, here + _CLOCK_SECONDS
        return here + offset

    return now
