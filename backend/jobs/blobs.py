"""Bytes by name, for what a job leaves while it runs. Each is there whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Protocol
from uuid import uuid4

_ATTEMPTS = 20
"""To save into a folder that others drop whenever it is empty."""


class Blobs(Protocol):
    """Safe for many threads and processes. Names may have slashes.

    `FolderBlobs`, `distributed.storage.open_storage`, `distributed.blobs.RedisBlobs`.
    """

    def save(self, name: str, body: bytes) -> None: ...

    def load(self, name: str) -> bytes | None:
        """None when there is none."""
        ...

    def delete(self, name: str) -> None:
        """Nothing happens when there is none."""
        ...

    def delete_old(self, prefix: str, age_seconds: float) -> None:
        """What below "prefix/" nobody has written for so long was left by one who died."""
        ...


class FolderBlobs:
    """Files below one folder, which may not be there yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, name: str, body: bytes) -> None:
        """Raises OSError."""
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                return self._save(self._folder / name, body)
            except (FileNotFoundError, FileExistsError):
                if not attempts_left:
                    raise

    @staticmethod
    def _save(path: Path, body: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid4().hex}.part")
        try:
            partial.write_bytes(body)
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def load(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        """The folders that it leaves empty go too."""
        path = self._folder / name
        path.unlink(missing_ok=True)
        self._drop_empty(path.parent)

    def _drop_empty(self, folder: Path) -> None:
        # The first level is for all jobs: one of them may be about to write there.
        with contextlib.suppress(OSError):
            while len(folder.relative_to(self._folder).parts) > 1:
                folder.rmdir()
                folder = folder.parent

    def delete_old(self, prefix: str, age_seconds: float) -> None:
        oldest = time.time() - age_seconds
        for path in list((self._folder / prefix).rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # its job has just ended
                if path.is_file() and path.stat().st_mtime < oldest:
                    path.unlink()
                    self._drop_empty(path.parent)
