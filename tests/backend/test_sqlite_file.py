"""Transactions on a real file: all or nothing, from many threads, on a full disk too."""

import contextlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.errors import StorageFull, StorageUnavailable
from backend.sqlite_file import SqliteFile, packed, unpacked

SCHEMA = "CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, body BLOB);"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "file.sqlite3"


@pytest.fixture
def file(path):
    with contextlib.closing(SqliteFile(path, SCHEMA)) as opened:
        yield opened


def add(file, body=b""):
    with file.transaction() as db:
        db.execute("INSERT INTO items (body) VALUES (?)", (body,))


def count(file):
    with file.transaction() as db:
        return db.execute("SELECT COUNT(*) FROM items").fetchone()[0]


def test_a_file_that_another_has_only_just_begun_is_waited_for(tmp_path):
    """SQLite itself does not wait there: it says at once that the database is locked."""
    path = tmp_path / "file.sqlite3"
    with contextlib.closing(
        sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    ) as first:
        first.execute("CREATE TABLE others (id INTEGER)")
        first.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.5, first.execute, ("COMMIT",))
        timer.start()
        with contextlib.closing(SqliteFile(path, SCHEMA, busy_seconds=60)) as opened:
            add(opened)
            assert count(opened) == 1
        timer.join()


def test_a_file_that_stays_locked_is_refused_in_time(tmp_path):
    path = tmp_path / "file.sqlite3"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as first:
        first.execute("CREATE TABLE others (id INTEGER)")
        first.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            SqliteFile(path, SCHEMA, busy_seconds=0.2)


def test_what_is_committed_is_there_for_the_next_one_who_opens_it(file, path):
    add(file)
    with contextlib.closing(SqliteFile(path, SCHEMA)) as other:
        assert count(other) == 1


def test_an_error_undoes_all_of_a_transaction_and_the_next_one_works(file):
    with pytest.raises(ValueError, match="stop"), file.transaction() as db:
        db.execute("INSERT INTO items (body) VALUES ('x')")
        raise ValueError("stop")
    assert count(file) == 0
    add(file)
    assert count(file) == 1


def test_a_full_disk_loses_the_transaction_and_no_other(file):
    add(file, b"kept")
    with file.transaction() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(StorageFull, match="file.sqlite3 cannot be written .*full"):
        add(file, b"x" * 1_000_000)
    assert count(file) == 1
    add(file, b"small")
    assert count(file) == 2


def test_a_file_that_another_holds_is_said_and_goes_on_when_it_is_given_back(path):
    with contextlib.closing(SqliteFile(path, SCHEMA, busy_seconds=0.05)) as file:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageUnavailable, match="does another program hold it") as found:
                add(file)
            assert found.value.status == 503 and found.value.is_retryable
        add(file)
        assert count(file) == 1


def test_a_file_that_is_broken_is_said(path):
    with contextlib.closing(SqliteFile(path, SCHEMA)) as file:
        add(file, b"x" * 100_000)
    path.write_bytes(path.read_bytes()[:4096] + b"broken" * 20_000)
    with contextlib.closing(SqliteFile(path, SCHEMA)) as file:
        with pytest.raises(StorageUnavailable):
            for _ in range(20):
                add(file, b"y" * 10_000)


def test_our_own_mistakes_are_no_failures_of_the_storage(file):
    with pytest.raises(sqlite3.IntegrityError), file.transaction() as db:
        db.execute("INSERT INTO items (id) VALUES (1)")
        db.execute("INSERT INTO items (id) VALUES (1)")


def test_threads_take_turns(file):
    def add_one(number):
        with file.transaction() as db:
            known = db.execute("SELECT COUNT(*) FROM items").fetchone()[0]
            db.execute("INSERT INTO items (id) VALUES (?)", (known,))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_one, range(100)))
    assert count(file) == 100


def test_values_come_back_as_they_were():
    value = {"a": [1, 2.5, None, True, "ü"]}
    assert unpacked(packed(value)) == value
