"""Who may use the device now: one at a time, a frame at a time, people first."""

from __future__ import annotations

import contextlib
import enum
import heapq
import itertools
import threading
import time
from typing import Callable, ContextManager, Hashable, Iterator, TypeVar

from backend.errors import DeviceFull
from sam2_model.errors import DeviceMemoryError

_LOOK_SECONDS = 0.5
"""How often those who wait look whether they have become urgent."""

_Item = TypeVar("_Item")


class Priority(enum.IntEnum):
    """Who waits for an answer; the lower goes first."""

    INTERACTIVE = 0
    """A person, at this moment."""
    WEBHOOK = 1
    """A person, soon: an annotation was submitted."""
    BATCH = 2
    """No one in particular."""
    TRAINING = 3


class DeviceListener:
    """Told what the device does; does nothing with it."""

    def turn_ended(
        self, priority: Priority, waited_seconds: float, held_seconds: float
    ) -> None: ...

    def frame_tracked(self, priority: Priority) -> None: ...

    def out_of_memory(self) -> None: ...


class DeviceScheduler:
    """Turns on one device.

    A turn lasts for one prompt or frame, so a person's prompt goes between those of
    a running batch job. Those of one priority take turns in the order they came.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: list[tuple[int, int]] = []
        self._tickets = itertools.count()
        self._is_taken = False
        self.listener = DeviceListener()

    @contextlib.contextmanager
    def turn(self, priority: Priority) -> Iterator[None]:
        """Wait for the device, hold it inside the `with`.

        Raises DeviceFull when what is done inside needs more memory than it has.
        """
        ticket = (int(priority), next(self._tickets))
        asked = time.perf_counter()
        with self._condition:
            heapq.heappush(self._waiting, ticket)
            try:
                self._condition.wait_for(
                    lambda: not self._is_taken and self._waiting[0] == ticket
                )
            except BaseException:  # an interrupt: the others must not wait for this one
                self._waiting.remove(ticket)
                heapq.heapify(self._waiting)
                self._condition.notify_all()
                raise
            heapq.heappop(self._waiting)
            self._is_taken = True
        taken = time.perf_counter()
        try:
            yield
        except DeviceMemoryError as error:
            self.listener.out_of_memory()
            raise DeviceFull(str(error)) from error
        finally:
            self.listener.turn_ended(priority, taken - asked, time.perf_counter() - taken)
            with self._condition:
                self._is_taken = False
                self._condition.notify_all()

    @property
    def waiting_count(self) -> int:
        """How many wait for a turn."""
        with self._condition:
            return len(self._waiting)


class OneAtATime:
    """Equal work one after the other, so that the second finds what the first has kept."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._busy: set[Hashable] = set()

    @contextlib.contextmanager
    def doing(self, key: Hashable, is_urgent: Callable[[], bool]) -> Iterator[None]:
        """Wait while others do the same; not when `is_urgent`, which may change meanwhile."""
        with self._condition:
            while key in self._busy and not is_urgent():
                self._condition.wait(_LOOK_SECONDS)
            is_first = key not in self._busy
            self._busy.add(key)
        try:
            yield
        finally:
            if is_first:
                with self._condition:
                    self._busy.discard(key)
                    self._condition.notify_all()


_END = object()


def in_turns(
    items: Iterator[_Item], turn: Callable[[], ContextManager[None]]
) -> Iterator[_Item]:
    """The items, each of them made within a turn of its own; closes `items` at the end."""
    with contextlib.closing(items):
        while True:
            with turn():
                item = next(items, _END)
            if item is _END:
                return
            yield item
