"""Waiting for what goes on in other processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_Value = TypeVar("_Value")


def eventually(
    look: Callable[[], _Value], *, what: str, timeout_seconds: float = 180.0
) -> _Value:
    """The first true thing that is seen. Raises AssertionError, with what was seen last."""
    end = time.monotonic() + timeout_seconds
    while not (seen := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not in {timeout_seconds:.0f} s: {what}; seen last: {seen!r}")
        time.sleep(0.5)
    return seen
