"""A share of requests for each key: so many a second, and a burst after a pause."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Callable, Hashable

from backend.errors import TooManyRequests

_BURST_SECONDS = 5.0
_MOST_KEPT = 1000


class ShareUsedUp(TooManyRequests):
    """More requests with one key than its share."""

    retry_after_seconds = 1.0


class RateLimits:
    """Thread safe. The longest unused keys are forgotten, and begin with a full share."""

    def __init__(
        self, per_second: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = max(1.0, per_second * _BURST_SECONDS)
        self._clock = clock
        self._lock = threading.Lock()
        self._shares: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        """What was left, and when."""

    def take(self, key: Hashable, cost: float = 1.0) -> None:
        """Raises ShareUsedUp, and takes nothing, where less than `cost` is left.

        A cost above the burst takes a full share.
        """
        cost = min(cost, self._burst)
        with self._lock:
            now = self._clock()
            left, then = self._shares.get(key, (self._burst, now))
            left = min(self._burst, left + (now - then) * self._per_second)
            is_enough = left >= cost
            self._shares[key] = (left - cost if is_enough else left, now)
            self._shares.move_to_end(key)
            if len(self._shares) > _MOST_KEPT:
                self._shares.popitem(last=False)
        if not is_enough:
            raise ShareUsedUp(
                f"this link's key has had its share of requests, {self._per_second:g} a second "
                "(SAM2_KEY_REQUESTS_PER_SECOND): try again in a moment"
            )
