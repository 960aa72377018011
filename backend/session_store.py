"""Sessions that survive a restart: prompts and finished frames in one SQLite file."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Collection, Mapping, Sequence

from backend.sqlite_file import SqliteFile, packed, unpacked

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, body BLOB NOT NULL, propagation BLOB, task_id INTEGER,
    created_at REAL NOT NULL, used_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS sessions_by_use ON sessions (used_at);
CREATE INDEX IF NOT EXISTS sessions_by_task ON sessions (task_id, used_at);
CREATE TABLE IF NOT EXISTS session_frames (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    frame_index INTEGER NOT NULL, serial INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (session_id, frame_index)
) WITHOUT ROWID;
"""

VERSION = 1
"""Of the schema above."""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class StoredFrame:
    """One frame's masks."""

    frame_index: int
    serial: int
    body: Json


@dataclass(frozen=True)
class StoredSession:
    """A session as it was left."""

    session_id: str
    body: Json
    propagation: Json | None
    frames: tuple[StoredFrame, ...]


@dataclass(frozen=True)
class KnownSession:
    """A session in a list of them."""

    session_id: str
    origin: Json
    created_at: float
    used_at: float


class SessionStore(SqliteFile):
    """Safe for many threads; every method is one transaction."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Raises as `SqliteFile`."""
        self._clock = clock
        super().__init__(path, _SCHEMA, version=VERSION)

    def create(
        self, session_id: str, body: Json, frames: Sequence[StoredFrame], *, task_id: int | None
    ) -> None:
        """Keep a new session, with the frames that it begins with."""
        now = self._clock()
        with self.transaction() as db:
            db.execute(
                "INSERT INTO sessions (id, body, task_id, created_at, used_at) "
                "VALUES (?, ?, ?, ?, ?)",
                (session_id, packed(body), task_id, now, now),
            )
            _put_frames(db, session_id, frames)

    def save(
        self,
        session_id: str,
        *,
        body: Json | None = None,
        propagation: Json | None = None,
        frames: Sequence[StoredFrame] = (),
    ) -> bool:
        """Keep what has changed, all or nothing of it; False, and nothing is kept, when the
        session has been deleted.

        Args:
            body: what it is, without its frames; None: as before.
            propagation: how far it has come; None: as before.
        """
        given = [None if value is None else packed(value) for value in (body, propagation)]
        with self.transaction() as db:
            is_there = db.execute(
                "UPDATE sessions SET used_at = ?, body = COALESCE(?, body), "
                "propagation = COALESCE(?, propagation) WHERE id = ?",
                (self._clock(), *given, session_id),
            ).rowcount
            if is_there:
                _put_frames(db, session_id, frames)
        return bool(is_there)

    def load(self, session_id: str) -> StoredSession | None:
        with self.transaction() as db:
            row = db.execute("SELECT * FROM sessions WHERE id = ?", (session_id,)).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE sessions SET used_at = ? WHERE id = ?", (self._clock(), session_id)
            )
            frames = db.execute(
                "SELECT frame_index, serial, body FROM session_frames WHERE session_id = ? "
                "ORDER BY serial",
                (session_id,),
            ).fetchall()
        return StoredSession(
            session_id,
            unpacked(row["body"]),
            None if row["propagation"] is None else unpacked(row["propagation"]),
            tuple(StoredFrame(f["frame_index"], f["serial"], unpacked(f["body"])) for f in frames),
        )

    def list(self, task_id: int | None) -> list[KnownSession]:
        """The sessions on a task (None: those without one), the last used first."""
        with self.transaction() as db:
            rows = db.execute(
                "SELECT id, body, created_at, used_at FROM sessions WHERE task_id IS ? "
                "ORDER BY used_at DESC, rowid DESC",
                (task_id,),
            ).fetchall()
        return [
            KnownSession(
                row["id"], unpacked(row["body"])["origin"], row["created_at"], row["used_at"]
            )
            for row in rows
        ]

    def origin(self, session_id: str) -> Json | None:
        """What a session is on; None when there is none of that id."""
        with self.transaction() as db:
            row = db.execute("SELECT body FROM sessions WHERE id = ?", (session_id,)).fetchone()
        return None if row is None else unpacked(row["body"])["origin"]

    def delete(self, session_id: str) -> bool:
        """Forget a session; False when there is none of that id."""
        with self.transaction() as db:
            return bool(
                db.execute("DELETE FROM sessions WHERE id = ?", (session_id,)).rowcount
            )

    def ids(self) -> set[str]:
        """Of all sessions."""
        with self.transaction() as db:
            return {row["id"] for row in db.execute("SELECT id FROM sessions")}

    def delete_old(self, age_seconds: float) -> int:
        """Forget sessions that nobody has used for so long; how many.

        Counted from the newest one's use, should the clock be far ahead of it.
        """
        with self.transaction() as db:
            newest = db.execute("SELECT MAX(used_at) FROM sessions").fetchone()[0]
            before = min(self._clock(), newest or 0.0) - age_seconds
            return db.execute("DELETE FROM sessions WHERE used_at < ?", (before,)).rowcount

    def delete_longest_unused(
        self, *, max_count: int, max_bytes: int, spared: Collection[str]
    ) -> str | None:
        """Forget one session when there are more than may be, or all take more bytes of the
        file; its id. None when they are within that, or all are `spared`."""
        with self.transaction() as db:
            (count,) = db.execute("SELECT COUNT(*) FROM sessions").fetchone()
            if count <= max_count and _bytes_in_use(db) <= max_bytes:
                return None
            for row in db.execute("SELECT id FROM sessions ORDER BY used_at, rowid"):
                if row["id"] not in spared:
                    break
            else:
                return None
            db.execute("DELETE FROM sessions WHERE id = ?", (row["id"],))
            return row["id"]


def _bytes_in_use(db: sqlite3.Connection) -> int:
    """Of the file, without the pages that are free to be written again."""
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size

def _put_frames(
    db: sqlite3.Connection, session_id: str, frames: Sequence[StoredFrame]
) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO session_frames VALUES (?, ?, ?, ?)",
        [(session_id, frame.frame_index, frame.serial, packed(frame.body)) for frame in frames],
    )
