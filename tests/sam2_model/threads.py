"""Which threads a test has left running; other tests' servers do not count."""

from __future__ import annotations

import threading

_at_start: set[threading.Thread] = set()


def mark_start() -> None:
    """Called before each test."""
    _at_start.clear()
    _at_start.update(threading.enumerate())


def new_threads() -> set[threading.Thread]:
    """Threads that run now and did not when the test began."""
    return set(threading.enumerate()) - _at_start
