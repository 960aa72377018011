"""One SQLite file of this process: a connection that threads share, and values in it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import zlib
from pathlib import Path
from typing import Any, Iterator


class SqliteFile:
    """Safe for many threads: one transaction at a time. What is committed survives a kill."""

    def __init__(self, path: Path, schema: str) -> None:
        """Makes the file, and what of `schema` it lacks.

        Raises OSError or sqlite3.Error when the file cannot be opened.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(schema)

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


def packed(value: Any) -> bytes:
    """A JSON value as it is kept; `unpacked` reads it back."""
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 1)


def unpacked(body: bytes) -> Any:
    return json.loads(zlib.decompress(body))
