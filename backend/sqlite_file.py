"""One SQLite file: a connection that this process's threads share, and values in it."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
import time
import zlib
from pathlib import Path
from typing import Any, Iterator, Mapping

from backend.errors import StorageFull, StorageUnavailable

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.02
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
"""A full disk shows as either: the log's shared memory has no error of its own."""


class SqliteFile:
    """Safe for many threads: one transaction at a time. What is committed survives a kill."""

    def __init__(
        self,
        path: Path,
        schema: str,
        *,
        version: int = 1,
        upgrades: Mapping[int, str] | None = None,
        busy_seconds: float = 5.0,
    ) -> None:
        """Makes the file, and what of `schema` it lacks.

        Args:
            version: of the schema; the file keeps it.
            upgrades: version -> statements that make the next one of it. The file as it
                was is kept beside the new one, as `NAME.version-N`.
            busy_seconds: how long a transaction waits for those of other connections.

        Raises OSError or sqlite3.Error when the file cannot be opened, ValueError when it
        is of a version that this program does not know.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            path, timeout=busy_seconds, check_same_thread=False, isolation_level=None
        )
        self._connection.row_factory = sqlite3.Row
        try:
            _write_ahead(self._connection, busy_seconds)
            for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._keep_old_version(version)
            self._make(schema, version, upgrades or {})
        except BaseException:
            self._connection.close()
            raise

    def _keep_old_version(self, version: int) -> None:
        """A copy for those who have to go back to the program that wrote it."""
        found = _version_of(self._connection)
        kept = self._path.with_name(f"{self._path.name}.version-{found}")
        if found is None or found >= version or kept.exists():
            return
        partial = kept.with_name(f"{kept.name}.partial")
        partial.unlink(missing_ok=True)
        self._connection.execute("VACUUM INTO ?", (str(partial),))
        partial.replace(kept)
        logger.warning("%s is upgraded to version %d; as it was: %s", self._path, version, kept)

    def _make(self, schema: str, version: int, upgrades: Mapping[int, str]) -> None:
        with self.transaction() as db:
            found = _version_of(db)
            if found is not None and found > version:
                raise ValueError(
                    f"{self._path} is of version {found}, this program knows {version} and "
                    "older: run the newer program, or move the file away (what is in it is "
                    "then not done)"
                )
            steps = [] if found is None else [upgrades[n] for n in range(found, version)]
            for script in (*steps, schema):
                for statement in script.split(";"):  # `executescript` would commit
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {version}")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside the `with`, or, when it raises, nothing of it.

        Raises StorageFull when the disk is, StorageUnavailable when another process holds
        the file for too long or it cannot be used.
        """
        with self._lock, _as_storage_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk fails the COMMIT, or has ended the transaction already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


@contextlib.contextmanager
def _as_storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # our own mistakes
    except sqlite3.DatabaseError as error:
        if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _FULL:
            raise StorageFull(
                f"{path} cannot be written ({error}): make room on its disk; it goes on by "
                "itself from then"
            ) from error
        raise StorageUnavailable(
            f"{path} cannot be used now ({error}): does another program hold it?"
        ) from error


def _version_of(connection: sqlite3.Connection) -> int | None:
    """Of the file's schema; None for an empty file."""
    if connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
        return None
    # Files had none at first.
    return max(1, connection.execute("PRAGMA user_version").fetchone()[0])


def _write_ahead(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Turns the write-ahead log on. Where two connections do so at once, SQLite refuses one
    without waiting, whatever its timeout: https://www.sqlite.org/rescode.html#busy."""
    until = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(_RETRY_SECONDS)


def packed(value: Any) -> bytes:
    """A JSON value as it is kept; `unpacked` reads it back."""
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 1)


def unpacked(body: bytes) -> Any:
    return json.loads(zlib.decompress(body))
