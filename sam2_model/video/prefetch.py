"""An iterator whose items are made ahead of time, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any


class _Failure:
    """An exception on its way from the decoding thread to the consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def prefetched(make_items: Callable[[], Iterator[Any]], depth: int) -> Iterator[Any]:
    """The items, made in a thread that runs at most `depth` items ahead."""
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    slots = threading.Semaphore(depth)
    stopped = threading.Event()
    end = object()

    def work() -> None:
        try:
            with closing(make_items()) as items:
                while slots.acquire() and not stopped.is_set():
                    ready.put(next(items, end))
        except BaseException as error:  # raised again in the consumer
            ready.put(_Failure(error))

    # A daemon, for an iterator that is still alive when the interpreter exits:
    # its thread waits for a slot that nobody will free.
    thread = threading.Thread(target=work, name="frame-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not end:
            if isinstance(item, _Failure):
                raise item.error
            slots.release()
            yield item
    finally:
        stopped.set()
        slots.release()
        # The garbage collector may run this in the very thread it would wait for.
        if threading.current_thread() is not thread:
            thread.join()
