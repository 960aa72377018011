"""What a download keeps on disk. In the cache folder, next to `NAME.pt`:

    NAME.pt.part       bytes received so far
    NAME.pt.part.json  what those bytes are part of, so that a changed file is never mixed into them
    NAME.pt.lock       held by the process that downloads
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sam2_model.checkpoints.errors import CheckpointDownloadError
from sam2_model.checkpoints.https import ResumePoint

logger = logging.getLogger(__name__)


class DiskError(Exception):
    """Wraps an OSError of the disk, to tell it from one of the network."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextlib.contextmanager
def on_disk() -> Iterator[None]:
    """Turns an OSError of the statements inside into a `DiskError`."""
    try:
        yield
    except OSError as error:
        raise DiskError(error) from error


@contextlib.contextmanager
def only_one_process(target: Path) -> Iterator[None]:
    """Holds the download lock of `target`, waiting for as long as another process has it.

    The lock is the operating system's, on an open file: it goes when its holder dies, even by
    SIGKILL, so a lock file left in the folder means nothing and is never a reason to wait.
    """
    lock = FileLock(target.with_name(target.name + ".lock"))
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("%s is being downloaded by another process; waiting for it", target)
            lock.acquire()
    except OSError as error:
        raise CheckpointDownloadError(
            f"cannot write in the cache folder {target.parent} ({error}); "
            "set SAM2_CACHE to a folder that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class PartialFile:
    """The bytes received so far, and the note of what they belong to."""

    path: Path

    @property
    def note_path(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def size_bytes(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def resume_point(self, url: str) -> ResumePoint | None:
        """Where to continue a download from `url`; None where nothing trustworthy is on disk."""
        size_bytes = self.size_bytes()
        try:
            note = json.loads(self.note_path.read_text("utf-8"))
        except (FileNotFoundError, ValueError):  # the writer was killed in between
            return None
        if size_bytes == 0 or not isinstance(note, dict) or note.get("url") != url:
            return None
        total_bytes, validator = note.get("total_bytes"), note.get("validator")
        return ResumePoint(
            offset=size_bytes,
            total_bytes=total_bytes if isinstance(total_bytes, int) else None,
            validator=validator if isinstance(validator, str) else None,
        )

    def write_note(self, *, url: str, total_bytes: int | None, validator: str | None) -> None:
        note = {"url": url, "total_bytes": total_bytes, "validator": validator}
        self.note_path.write_text(json.dumps(note), "utf-8")

    def discard(self) -> None:
        # The bytes first: a note without bytes is harmless, bytes with a wrong note are not.
        self.path.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)


def write_all(file, chunk: bytes) -> None:
    """Writes to an unbuffered file: a buffered one would fail a second time on a full disk, at close."""
    rest = memoryview(chunk)
    while rest:
        with on_disk():
            rest = rest[file.write(rest) :]


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut, where the system can open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
