"""A clock that does not jump when the machine's is set."""

from __future__ import annotations

import time


class SteadyClock:
    """Seconds since the epoch: the machine's clock as it was at the beginning, and what has
    passed since. Setting the machine's clock moves neither what is due nor what is old.
    """

    def __init__(self) -> None:
        self._offset = time.time() - _passed()

    def __call__(self) -> float:
        return self._offset + _passed()


def _passed() -> float:
    # While the machine sleeps, CLOCK_MONOTONIC of Linux stands still.
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)
