"""Downloads on disk: each URL's file once, whole or not at all, within a limit.

A file that is older than a while is asked about again; what its host then
gives gets a new name, so that a path, once handed out, never changes its
content. `media_index` keeps the list.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import sqlite3
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Callable, Iterator, Protocol

from filelock import FileLock, Timeout

from backend.deadlines import Deadline
from backend.errors import HostDown, MediaTooLarge, MediaUnreachable, StorageFull
from backend.http_client import Version
from backend.media_index import Entry, MediaIndex

logger = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOCK_DIGITS = 3
"""Hexadecimal ones: of two files that arrive at once, one in 4,096 waits for the other."""
_AGAIN_SECONDS = 60.0
"""A host that is down is not asked again before."""


class Fetch(Protocol):
    """Gets the file: `http_client.download` with all but these said."""

    def __call__(
        self,
        file: BinaryIO,
        *,
        known: Version,
        begun: Version,
        on_begin: Callable[[Version], None],
    ) -> int | None: ...


class MediaCache:
    """Keeps what is fetched. Thread safe, and safe among processes on one folder."""

    def __init__(self, folder: Path, *, max_bytes: int, fresh_seconds: float) -> None:
        """
        Args:
            folder: the cache's own; its `files` holds nothing else.
            max_bytes: of all files; those in use stay and may keep it above.
            fresh_seconds: how long a file is served without its host being asked.
        """
        self._folder = folder
        self._files = folder / "files"
        self._max_bytes = max_bytes
        self._fresh_seconds = fresh_seconds
        self._index = MediaIndex(self._files, max_bytes=max_bytes)

    @contextlib.contextmanager
    def lease(self) -> Iterator[str]:
        """Files handed out under it are not removed before the block ends."""
        lease = self._index.new_lease()
        try:
            yield lease
        finally:
            self._index.end_lease(lease)

    def file(
        self,
        identity: str,
        fetch: Fetch,
        *,
        suffix: str,
        shown: str,
        lease: str,
        deadline: Deadline,
        is_fixed: bool = False,
    ) -> Path:
        """The file that `identity` stands for, fetched if need be.

        Args:
            identity: a URL, say; two with the same one are one file.
            suffix: of the path, "" or ".mp4".
            shown: what messages call it.
            is_fixed: it can never change, so it is never asked about again.

        Raises what `fetch` does, HostDown when others take too long to fetch it,
        MediaUnreachable when it cannot be written. When the host is down, the
        copy there is is served.
        """
        key = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:40]
        try:
            entry = self._index.take(key, lease)
            if entry is not None and self._is_fresh(entry):
                return self._files / entry.name
            with self._lock(key, deadline):
                entry = self._index.take(key, lease)  # another may have fetched it meanwhile
                if entry is not None and self._is_fresh(entry):
                    return self._files / entry.name
                return self._fetched(key, entry, fetch, suffix, shown, lease, is_fixed)
        except Timeout:
            raise HostDown(
                f"{shown}: another request has been fetching it for too long"
            ) from None
        except (OSError, sqlite3.Error) as error:
            if getattr(error, "errno", None) in _FULL:
                raise StorageFull(
                    f"{shown}: the disk of the media cache {self._folder} is full: make room, "
                    "or lower SAM2_MEDIA_CACHE_MIB"
                ) from error
            raise MediaUnreachable(
                f"{shown} cannot be kept in the media cache {self._folder}: {error}"
            ) from error

    def _lock(self, key: str, deadline: Deadline) -> FileLock:
        locks = self._folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        # So many files and no more: one for each key would stay for each refused address too.
        return FileLock(locks / key[:_LOCK_DIGITS], timeout=deadline.remaining_seconds)

    def _is_fresh(self, entry: Entry) -> bool:
        age_seconds = time.time() - entry.checked_at
        return entry.version.is_fixed or 0 <= age_seconds < self._fresh_seconds

    def _fetched(
        self,
        key: str,
        entry: Entry | None,
        fetch: Fetch,
        suffix: str,
        shown: str,
        lease: str,
        is_fixed: bool,
    ) -> Path:
        try:
            name = self._fetch(key, entry, fetch, suffix, shown, is_fixed, lease)
        except HostDown as error:
            if entry is None:
                raise
            logger.warning("%s; the copy from earlier is used", error.detail)
            later = min(_AGAIN_SECONDS, self._fresh_seconds)
            self._index.checked(entry.name, time.time() - self._fresh_seconds + later)
            name = None
        return self._files / (name or entry.name)

    def _fetch(
        self,
        key: str,
        entry: Entry | None,
        fetch: Fetch,
        suffix: str,
        shown: str,
        is_fixed: bool,
        lease: str,
    ) -> str | None:
        """The new file's name; None when `entry` is as it was."""
        partial = f"{key}.partial"
        with self.lease() as arriving:
            begun = self._index.begin(key, partial, arriving)
            so_far = begun.version if begun is not None else Version()
            arrival = _Arrival(replace(so_far, is_fixed=is_fixed))

            def on_begin(version: Version) -> None:
                arrival.version = version
                if not self._index.announce(key, partial, version):
                    raise MediaTooLarge(
                        f"{shown}: {version.total_bytes} bytes do not fit into the "
                        f"{self._max_bytes} bytes of the media cache beside the files in "
                        "use now; raise SAM2_MEDIA_CACHE_MIB or try later"
                    )

            path = self._files / partial
            try:
                with path.open("r+b" if begun is not None else "w+b") as file:
                    file.seek(0, 2)
                    size = fetch(
                        file,
                        known=entry.version if entry is not None else Version(),
                        begun=arrival.version,
                        on_begin=on_begin,
                    )
            except HostDown:
                self._index.abandon(partial, keep=arrival.version.can_resume)
                raise
            except BaseException:
                self._index.abandon(partial, keep=False)
                raise
            if size is None:
                self._index.abandon(partial, keep=False)
                self._index.checked(entry.name, time.time())
                return None
            name = f"{key}-{uuid.uuid4().hex[:8]}{suffix}"
            self._index.finish(key, partial, name, size, arrival.version, lease)
            logger.info("fetched %s, %d bytes", shown, size)
            return name


class _Arrival:
    """Which version is arriving."""

    def __init__(self, version: Version) -> None:
        self.version = version
