"""What the model remembers of each session's objects, kept so that tracking goes on from it.

One file a session (`InteractiveVideo.save`), written anew when a propagation begins to find
something, now and then while it runs, and when it ends: what lies here is that of the frames
the store has, or of a little before. All together stay within a quota; the longest unused go
first. Nothing depends on it: without its memories a session is opened all the same, and
tracking goes on from the masks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path
from typing import Collection

from backend.jobs.blobs import FolderBlobs

logger = logging.getLogger(__name__)


class SessionMemories:
    """Safe for many threads of one process. Session ids must be fit for file names."""

    def __init__(self, folder: Path, quota_bytes: int) -> None:
        self._folder = folder
        self._quota_bytes = quota_bytes
        self._blobs = FolderBlobs(folder)
        self._lock = threading.Lock()

    def save(self, session_id: str, body: bytes) -> None:
        """In place of what was there. When it cannot be kept, nothing is: what is older
        would not fit the session's frames."""
        with self._lock:
            try:
                self._make_room(session_id, len(body))
                self._blobs.save(session_id, body)
            except (OSError, _OverQuota) as error:
                logger.warning(
                    "what the model remembers of session %s is not kept: %s", session_id, error
                )
                with contextlib.suppress(OSError):  # it may be what is wrong
                    self._blobs.delete(session_id)

    def _make_room(self, session_id: str, byte_count: int) -> None:
        """Raises _OverQuota."""
        if byte_count > self._quota_bytes:
            raise _OverQuota(
                f"it has {byte_count} bytes, all sessions may have {self._quota_bytes} "
                "(SAM2_SESSION_MEMORY_MIB)"
            )
        others = sorted(
            (stat.st_mtime, stat.st_size, path.name)
            for path, stat in self._files()
            if path.name != session_id
        )
        surplus = byte_count + sum(size for _, size, _ in others) - self._quota_bytes
        for _, size, name in others:
            if surplus <= 0:
                return
            self._blobs.delete(name)
            surplus -= size
            logger.info(
                "what the model remembers of session %s is dropped, to make room "
                "(SAM2_SESSION_MEMORY_MIB)", name,
            )

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        with contextlib.suppress(FileNotFoundError):  # nothing has been kept yet
            return [(path, path.stat()) for path in self._folder.iterdir()]
        return []

    def load(self, session_id: str) -> bytes | None:
        """None when there is nothing. Raises OSError."""
        with self._lock:
            body = self._blobs.load(session_id)
            if body is not None:
                os.utime(self._folder / session_id)
            return body

    def has(self, session_id: str) -> bool:
        return (self._folder / session_id).exists()

    def delete(self, session_id: str) -> None:
        with self._lock:
            self._blobs.delete(session_id)

    def keep_only(self, session_ids: Collection[str]) -> None:
        """Delete those of sessions that are no more, and what a killed process left."""
        with self._lock:
            for path, _ in self._files():
                if path.name not in session_ids:
                    self._blobs.delete(path.name)


class _OverQuota(Exception):
    pass
