"""Previews being drawn: each once, however many look at it, and after everything else."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import uuid
from collections import deque
from pathlib import Path
from typing import Callable, ContextManager, Sequence

from backend.errors import ServiceError
from backend.preview.growing import Still, finish, look, spread_stills, write_growing
from backend.preview_cache import PreviewCache
from converters.types import Track
from sam2_model.video import FrameSource, VideoDecodeError

logger = logging.getLogger(__name__)

_MOST_WAITING = 32
_NICENESS = 10
_LOOK_SECONDS = 10.0
"""A look at a preview that is being drawn serves all who come within this time."""

Scene = tuple[FrameSource, Sequence[Track]]


class _Stopped(Exception):
    """The service stops."""


class Render:
    """A preview on its way: one thread draws it, any may look at what there is."""

    def __init__(
        self, name: str, cache: PreviewCache, scene: Callable[[], ContextManager[Scene]]
    ) -> None:
        self.name = name
        self._cache = cache
        self._scene = scene
        self._ended = threading.Event()
        self._is_stopping = False
        self._lock = threading.Lock()
        self._source: FrameSource | None = None
        self._stills: list[Still] | None = None
        self._last_look: tuple[float, Path] | None = None
        self.failure: str | None = None
        """Why there will be none, once it has ended."""

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it has ended."""
        return self._ended.wait(timeout_seconds)

    def stop(self) -> None:
        """Give it up at the next frame."""
        self._is_stopping = True

    def run(self) -> None:
        """Draw it all. What goes wrong is logged, and kept as `failure`."""
        grown = self._cache.growing(self.name)
        try:
            with self._scene() as (source, tracks):
                with self._lock:
                    self._source = source
                try:
                    self._draw(grown, source, tracks)
                finally:
                    with self._lock:  # nobody looks any more
                        self._source = None
        except _Stopped:
            self.failure = "the service stops"
        except (ServiceError, ValueError, VideoDecodeError) as error:
            logger.warning("preview %s cannot be drawn: %s", self.name, error)
            self.failure = "the masks cannot be drawn over this video"
        except Exception:  # the boundary of the thread
            logger.exception("preview %s cannot be drawn", self.name)
            self.failure = "the masks cannot be drawn: an internal error"
        finally:
            grown.unlink(missing_ok=True)
            self._ended.set()

    def _draw(self, grown: Path, source: FrameSource, tracks: Sequence[Track]) -> None:
        begin = time.monotonic()

        def go_on(_: int, __: int) -> None:
            if self._is_stopping:
                raise _Stopped

        write_growing(grown, source, tracks, go_on)
        path = self._cache.new(self.name)
        finish(path, grown)
        self._cache.make_room(path)
        logger.info(
            "preview %s: %d frames in %.1f s", self.name, len(source), time.monotonic() - begin
        )

    def look(self, message: str) -> Path | None:
        """A video of what is drawn so far, the rest with a message.

        None when it has not begun, or has ended.
        """
        with self._lock:
            if self._source is None:
                return None
            now = time.monotonic()
            if self._last_look is not None and now - self._last_look[0] < _LOOK_SECONDS:
                if self._last_look[1].exists():
                    return self._last_look[1]
            source = self._source
            path = self._cache.new(uuid.uuid4().hex)
            if self._stills is None:
                self._stills = spread_stills(source)
            grown = self._cache.growing(self.name)
            look(path, grown if grown.exists() else None, source.info, self._stills, message)
            self._cache.make_room(path)
            self._last_look = (now, path)
            return path


class Renders:
    """Draws previews one after the other, in a thread of low priority."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: deque[Render] = deque()
        self._unfinished: dict[str, Render] = {}
        self._thread: threading.Thread | None = None
        self._is_stopping = False

    def join(self, name: str, begin: Callable[[], Render]) -> Render | None:
        """The unfinished one of that name, or a new one; None when too many wait."""
        with self._condition:
            render = self._unfinished.get(name)
            if render is not None:
                return render
            if len(self._waiting) >= _MOST_WAITING or self._is_stopping:
                return None
            render = begin()
            self._unfinished[name] = render
            self._waiting.append(render)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="preview-renderer", daemon=True
                )
                self._thread.start()
            self._condition.notify()
            return render

    def stop(self) -> None:
        """Give up what is drawn, and wait until that has stopped."""
        with self._condition:
            self._is_stopping = True
            for render in self._unfinished.values():
                render.stop()
            self._condition.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        _lower_priority()
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._is_stopping)
                if self._is_stopping:
                    return
                render = self._waiting.popleft()
            render.run()
            with self._condition:
                del self._unfinished[render.name]


def _lower_priority() -> None:
    """Of this thread and those that decoders and encoders begin from it."""
    if sys.platform == "linux":  # elsewhere it would be the whole process's
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
