"""A point in time until which an answer is worth something."""

from __future__ import annotations

import time


class Deadline:
    """`seconds` from now, on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def at_most(self, seconds: float) -> Deadline:
        """This one, or one so many seconds from now if that is sooner."""
        return Deadline(min(seconds, self.remaining_seconds))

    @property
    def remaining_seconds(self) -> float:
        """Never below 0."""
        return max(0.0, self._end - time.monotonic())

    def has_passed(self) -> bool:
        return self.remaining_seconds == 0.0
