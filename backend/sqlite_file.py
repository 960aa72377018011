"""One SQLite file: a connection that this process's threads share, and values in it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
import zlib
from pathlib import Path
from typing import Any, Iterator


_RETRY_SECONDS = 0.02


class SqliteFile:
    """Safe for many threads: one transaction at a time. What is committed survives a kill."""

    def __init__(self, path: Path, schema: str, *, busy_seconds: float = 5.0) -> None:
        """Makes the file, and what of `schema` it lacks.

        Args:
            busy_seconds: how long a transaction waits for those of other connections.

        Raises OSError or sqlite3.Error when the file cannot be opened.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            path, timeout=busy_seconds, check_same_thread=False, isolation_level=None
        )
        self._connection.row_factory = sqlite3.Row
        try:
            _write_ahead(self._connection, busy_seconds)
            for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(schema)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside the `with`, or, when it raises, nothing of it."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk fails the COMMIT, or has ended the transaction already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


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
