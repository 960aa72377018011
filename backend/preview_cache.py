"""Finished previews on disk, within a limit. A name, once handed out, never changes content."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from pathlib import Path

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SUFFIX = ".mp4"
_GROWING = ".growing"


class PreviewCache:
    """Thread safe. The folder is the cache's own, and one process uses it."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._is_clean = False

    def find(self, name: str) -> Path | None:
        """The file of that name, which now counts as used; None when there is none."""
        if not _NAME.fullmatch(name):
            return None
        path = self._folder / f"{name}{_SUFFIX}"
        try:
            # When it was read, not when it was made: that is its Last-Modified.
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        except FileNotFoundError:
            return None
        return path

    def new(self, name: str) -> Path:
        """Where to write the file of that name: it must appear there whole."""
        self._begin()
        return self._folder / f"{name}{_SUFFIX}"

    def growing(self, name: str) -> Path:
        """Where to write one that is not to be found yet."""
        self._begin()
        return self._folder / f"{name}{_GROWING}"

    def make_room(self, kept: Path) -> None:
        """Remove the longest unused until all fit; the one named stays."""
        with self._lock:
            files = [(path.stat(), path) for path in self._folder.glob(f"*{_SUFFIX}")]
            total = sum(stat.st_size for stat, _ in files)
            for stat, path in sorted(files, key=lambda item: item[0].st_atime_ns):
                if total <= self._max_bytes:
                    return
                if path != kept:
                    path.unlink(missing_ok=True)
                    total -= stat.st_size
                    logger.info("preview %s removed, to make room", path.stem)

    def _begin(self) -> None:
        """Make the folder; what an earlier process did not finish goes."""
        with self._lock:
            if self._is_clean:
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in self._folder.iterdir():
                if path.suffix != _SUFFIX or not _NAME.fullmatch(path.stem):
                    path.unlink(missing_ok=True)
            self._is_clean = True
