"""Inference states kept between requests: the next prompt on a video finds its features."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Callable, Hashable, Iterator, Protocol


class Closeable(Protocol):
    def close(self) -> None: ...


@dataclass
class _Idle:
    state: Any
    since: float


class StateCache:
    """Lends states out, each to one borrower at a time, and keeps the last used.

    A state holds an open video and its cached features, both bounded by its own
    limits; this bounds how many there are and how long one lies unused.
    """

    def __init__(
        self,
        *,
        max_idle: int,
        idle_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_idle = max_idle
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: OrderedDict[Hashable, _Idle] = OrderedDict()
        self._is_closed = False

    @contextlib.contextmanager
    def borrowed(self, key: Hashable, make: Callable[[], Closeable]) -> Iterator[Any]:
        """The state kept under `key`, or a new one.

        Two borrowers of one key at the same time get a state each. One that was
        left by an exception is closed: nobody knows what it is like.
        """
        self.close_old()
        with self._lock:
            idle = self._idle.pop(key, None)
        state = make() if idle is None else idle.state
        try:
            yield state
        except BaseException:
            state.close()
            raise
        self._put_back(key, state)

    def _put_back(self, key: Hashable, state: Closeable) -> None:
        surplus = []
        with self._lock:
            if (other := self._idle.pop(key, None)) is not None:
                surplus.append(other.state)
            self._idle[key] = _Idle(state, self._clock())
            while len(self._idle) > (0 if self._is_closed else self._max_idle):
                surplus.append(self._idle.popitem(last=False)[1].state)
        _close_all(surplus)

    def close_old(self) -> None:
        """Close those that nobody has used for too long."""
        with self._lock:
            end = self._clock() - self._idle_seconds
            old = [key for key, idle in self._idle.items() if idle.since < end]
            states = [self._idle.pop(key).state for key in old]
        _close_all(states)

    def close_idle(self) -> None:
        """Close those that nobody uses now."""
        with self._lock:
            states = [idle.state for idle in self._idle.values()]
            self._idle.clear()
        _close_all(states)

    def close(self) -> None:
        """Close all, and those that are lent out once they come back."""
        with self._lock:
            self._is_closed = True
        self.close_idle()

    def __len__(self) -> int:
        with self._lock:
            return len(self._idle)


def _close_all(states: list[Closeable]) -> None:
    for state in states:
        state.close()
