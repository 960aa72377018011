"""Which files the media cache holds, how old they are, and who works with them.

One SQLite file, shared by all processes that use the folder. A lease is
somebody's work: files it was given are not removed before it ends. A process
that dies with leases open loses the lock on its own file, and with it them.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import uuid
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from filelock import FileLock, Timeout

from backend.http_client import Version
from backend.sqlite_file import SqliteFile

_BUSY_SECONDS = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    name TEXT PRIMARY KEY,
    key TEXT,
    is_whole INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    etag TEXT,
    last_modified TEXT,
    total_bytes INTEGER,
    is_fixed INTEGER NOT NULL,
    checked_at REAL NOT NULL,
    used_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS files_by_key ON files (key);
CREATE TABLE IF NOT EXISTS pins (
    name TEXT NOT NULL, lease TEXT NOT NULL, holder TEXT NOT NULL,
    PRIMARY KEY (name, lease)
);
CREATE INDEX IF NOT EXISTS pins_by_lease ON pins (lease);
"""


@dataclass(frozen=True)
class Entry:
    """A file of the cache, whole or begun."""

    name: str
    version: Version
    checked_at: float
    """When its host last said that it is so; seconds since 1970."""


class MediaIndex:
    """The list of `folder`'s files. Thread safe; so are several on one folder.

    Files in `folder` that it does not list are removed when it is first used:
    the folder is the cache's own.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._holder = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._opened: SqliteFile | None = None
        self._alive: FileLock | None = None

    def new_lease(self) -> str:
        return uuid.uuid4().hex

    def end_lease(self, lease: str) -> None:
        if self._opened is None:  # nothing was ever taken
            return
        with self._transaction() as db:
            db.execute("DELETE FROM pins WHERE lease = ?", (lease,))
            self._make_room(db)

    def take(self, key: str, lease: str) -> Entry | None:
        """The key's whole file, which now counts as used, by that lease."""
        with self._transaction() as db:
            entry = self._entry(db, key, is_whole=True)
            if entry is not None:
                now = time.time()
                db.execute("UPDATE files SET used_at = ? WHERE name = ?", (now, entry.name))
                self._pin(db, entry.name, lease)
            return entry

    def begin(self, key: str, name: str, lease: str) -> Entry | None:
        """Claim the name for a file that is about to arrive; what there is of it already."""
        with self._transaction() as db:
            entry = self._entry(db, key, is_whole=False)
            if entry is None:
                self._put(db, name, key, is_whole=False, size=0, version=Version())
            self._pin(db, name, lease)
            return entry

    def announce(self, key: str, name: str, version: Version) -> bool:
        """Note what is arriving and make room for it; False when there is none."""
        with self._transaction() as db:
            size = version.total_bytes or 0
            self._put(db, name, key, is_whole=False, size=size, version=version)
            return self._make_room(db)

    def finish(
        self, key: str, begun: str, name: str, size: int, version: Version, lease: str
    ) -> None:
        """The begun file is whole: give it its name. What the key had goes when unused."""
        with self._transaction() as db:
            db.execute("UPDATE files SET key = NULL WHERE key = ? AND is_whole", (key,))
            self._forget(db, begun)
            self._put(db, name, key, is_whole=True, size=size, version=version)
            self._pin(db, name, lease)
            (self._folder / begun).replace(self._folder / name)
            self._make_room(db)

    def abandon(self, name: str, *, keep: bool) -> None:
        """A begun file gets no further now: drop it, or keep it to go on with."""
        with self._transaction() as db:
            file = self._folder / name
            size = file.stat().st_size if keep and file.exists() else 0
            if size:
                db.execute("UPDATE files SET bytes = ? WHERE name = ?", (size, name))
            else:
                self._remove(db, name)

    def checked(self, name: str, at: float) -> None:
        """Its host said that it is as it was."""
        with self._transaction() as db:
            db.execute("UPDATE files SET checked_at = ? WHERE name = ?", (at, name))

    # --- inside a transaction ------------------------------------------------

    def _entry(self, db: sqlite3.Connection, key: str, *, is_whole: bool) -> Entry | None:
        row = db.execute(
            "SELECT name, bytes, etag, last_modified, total_bytes, is_fixed, checked_at "
            "FROM files WHERE key = ? AND is_whole = ?",
            (key, is_whole),
        ).fetchone()
        if row is None:
            return None
        name, size, etag, last_modified, total_bytes, is_fixed, checked_at = row
        try:
            size_on_disk = (self._folder / name).stat().st_size
        except FileNotFoundError:
            return None
        if is_whole and size_on_disk != size:  # the machine went down before it was written
            return None
        return Entry(name, Version(etag, last_modified, total_bytes, bool(is_fixed)), checked_at)

    def _put(
        self,
        db: sqlite3.Connection,
        name: str,
        key: str,
        *,
        is_whole: bool,
        size: int,
        version: Version,
    ) -> None:
        now = time.time()
        db.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                name, key, is_whole, size, version.etag, version.last_modified,
                version.total_bytes, version.is_fixed, now, now,
            ),
        )

    def _pin(self, db: sqlite3.Connection, name: str, lease: str) -> None:
        db.execute("INSERT OR IGNORE INTO pins VALUES (?, ?, ?)", (name, lease, self._holder))

    def _forget(self, db: sqlite3.Connection, name: str) -> None:
        db.execute("DELETE FROM files WHERE name = ?", (name,))
        db.execute("DELETE FROM pins WHERE name = ?", (name,))

    def _remove(self, db: sqlite3.Connection, name: str) -> None:
        self._forget(db, name)
        (self._folder / name).unlink(missing_ok=True)

    def _make_room(self, db: sqlite3.Connection) -> bool:
        """Remove replaced files, then the least recently used, until all fit. None in use."""
        (total,) = db.execute("SELECT COALESCE(SUM(bytes), 0) FROM files").fetchone()
        has_replaced = db.execute("SELECT 1 FROM files WHERE key IS NULL LIMIT 1").fetchone()
        if total <= self._max_bytes and has_replaced is None:
            return True
        self._drop_pins_of_the_dead(db)
        unused = db.execute(
            "SELECT name, bytes, key FROM files WHERE name NOT IN (SELECT name FROM pins) "
            "ORDER BY key IS NOT NULL, used_at"
        ).fetchall()
        for name, size, key in unused:
            if total <= self._max_bytes and key is not None:
                break
            self._remove(db, name)
            total -= size
        return total <= self._max_bytes

    def _drop_pins_of_the_dead(self, db: sqlite3.Connection) -> None:
        holders = {holder for (holder,) in db.execute("SELECT DISTINCT holder FROM pins")}
        for holder in holders - {self._holder}:
            lock = FileLock(self._holder_file(holder), thread_local=False)
            with contextlib.suppress(Timeout), lock.acquire(timeout=0):
                db.execute("DELETE FROM pins WHERE holder = ?", (holder,))
                self._holder_file(holder).unlink(missing_ok=True)

    # --- the database --------------------------------------------------------

    def _holder_file(self, holder: str) -> Path:
        return self._folder.parent / f"{holder}.holder"

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
        with self._opened.transaction() as db:
            yield db

    def _open(self) -> SqliteFile:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder.parent / "index.sqlite3"
        file = SqliteFile(path, _SCHEMA, busy_seconds=_BUSY_SECONDS)
        # Not at the exit: a thread that was left behind may hold the lock.
        weakref.finalize(self, file.close).atexit = False
        with file.transaction() as db:
            self._alive = FileLock(self._holder_file(self._holder), thread_local=False)
            self._alive.acquire()
            listed = {name for (name,) in db.execute("SELECT name FROM files")}
            for unlisted in self._folder.iterdir():
                if unlisted.name not in listed:
                    unlisted.unlink(missing_ok=True)
        return file
