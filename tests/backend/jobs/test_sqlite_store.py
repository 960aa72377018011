"""What is the SQLite file's own: the choice of the next job, restarts, full disks."""

import contextlib
import sqlite3

import pytest

from backend.errors import StorageFull
from backend.jobs.store import JobStore
from backend.jobs.types import JobKind, JobState
from backend.scheduler import Priority
from backend.sqlite_file import packed
from tests.backend.jobs.conftest import spec
from tests.backend.jobs.test_store import PREDICTION, result, save


@pytest.fixture
def engine():
    return "sqlite"


def may_begin(store):
    """The ids of the jobs that `take` offers."""
    offered = []
    store.take(offered.extend)
    return [waiting.id for waiting in offered]


def test_the_oldest_of_each_kind_priority_and_project_may_be_next(store, clock):
    ids = {}
    for name, priority, project in (("a", 2, 1), ("b", 2, 1), ("c", 2, 2), ("d", 0, 1)):
        clock.now += 1
        ids[name] = store.add(spec(name, Priority(priority), project_id=project))[0].id
    clock.now += 1
    ids["e"] = store.add(spec("e", Priority.TRAINING, kind=JobKind.FINETUNE))[0].id
    assert set(may_begin(store)) == {ids[n] for n in "acde"}
    store.begin(ids["a"])
    assert set(may_begin(store)) == {ids[n] for n in "bcde"}


def test_a_job_that_is_taken_has_begun_and_it_is_told_whether_there_are_more(store, clock):
    first = store.add(spec("a"))[0]
    clock.now += 1
    second = store.add(spec("b"))[0]
    taken = store.take(lambda waiting: waiting[0])
    assert (taken.job.id, taken.job.state, taken.job.attempts) == (first.id, JobState.RUNNING, 1)
    assert taken.has_more and taken.seconds_to_retry is None
    taken = store.take(lambda waiting: waiting[0])
    assert (taken.job.id, taken.has_more) == (second.id, False)
    store.retry(first.id, "away", 60.0)
    assert store.take(lambda waiting: None) == (None, False, 60.0)
    clock.now += 61
    assert store.take(lambda waiting: waiting[0]).job.id == first.id


def test_interrupted_jobs_are_queued_again_and_unheard_answers_posted(store):
    awaited, _ = store.add(spec("awaited", Priority.INTERACTIVE), is_awaited=True)
    batch, _ = store.add(spec("batch", Priority.BATCH), is_awaited=True)
    quiet, _ = store.add(spec("quiet", Priority.BATCH))
    for job in (awaited, quiet):
        store.begin(job.id)
    assert store.requeue_interrupted(3, posts_predictions=True) == 2
    found = {job.key: job for job in store.list()}
    assert {job.state for job in found.values()} == {JobState.QUEUED}
    assert found["awaited"].priority is Priority.WEBHOOK
    assert found["batch"].priority is Priority.BATCH
    assert found["awaited"].posts_prediction and found["batch"].posts_prediction
    assert not found["quiet"].posts_prediction  # it was never to be posted
    assert not any(job.is_awaited for job in found.values())


def test_a_job_that_the_process_dies_of_fails_in_the_end(store):
    job, _ = store.add(spec())
    for _ in range(3):
        assert store.get(job.id).state is JobState.QUEUED
        store.begin(job.id)
        store.requeue_interrupted(3, posts_predictions=False)
    ended = store.get(job.id)
    assert ended.state is JobState.FAILED and "3 times" in ended.error


VERSION_1 = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, priority INTEGER NOT NULL,
    key TEXT NOT NULL, project_id INTEGER, task_id INTEGER,
    posts_prediction INTEGER NOT NULL, is_awaited INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0, error TEXT, result_key TEXT,
    created_at REAL NOT NULL, started_at REAL, finished_at REAL, request BLOB NOT NULL
);
CREATE INDEX jobs_waiting ON jobs (state, kind, priority, project_id, created_at, id);
CREATE INDEX jobs_by_key ON jobs (key, state);
CREATE INDEX jobs_by_task ON jobs (task_id, state);
CREATE TABLE posts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL UNIQUE, task_id INTEGER NOT NULL,
    state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_attempt_at REAL NOT NULL,
    error TEXT, prediction_id INTEGER, prediction BLOB NOT NULL
);
PRAGMA user_version = 1;
"""
"""As the first release made it."""


def test_a_file_of_an_older_version_is_upgraded_and_a_copy_kept(tmp_path, caplog):
    path = tmp_path / "jobs.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(VERSION_1)
        for state in ("queued", "done"):
            old.execute(
                "INSERT INTO jobs (id, kind, state, priority, key, posts_prediction, "
                "created_at, request) VALUES (?, 'track', ?, 1, ?, 1, 5.0, ?)",
                (state, state, state, packed({"a": state})),
            )
        old.execute(
            "INSERT INTO posts (job_id, task_id, state, next_attempt_at, prediction) "
            "VALUES ('done', 7, 'waiting', 1.0, ?)", (packed(PREDICTION),),
        )
        old.commit()
    for _ in range(2):  # once upgraded, nothing more is done
        with contextlib.closing(JobStore(path)) as store:
            assert store.get("queued").request == {"a": "queued"}
            assert store.get("queued").request_id is None
            (post,) = store.due_posts()
            assert post.task_id == 7 and post.prediction == PREDICTION
            assert may_begin(store) == ["queued"]
    kept = tmp_path / "jobs.sqlite3.version-1"
    with contextlib.closing(sqlite3.connect(kept)) as old:
        assert old.execute("SELECT COUNT(*) FROM jobs").fetchone() == (2,)
        assert old.execute("PRAGMA user_version").fetchone() == (1,)
    assert str(kept) in caplog.text


def test_an_upgrade_makes_what_a_new_file_has(tmp_path):
    def columns(path):
        with contextlib.closing(sqlite3.connect(path)) as db:
            return [row[1:4] for row in db.execute("PRAGMA table_info(jobs)")]

    with contextlib.closing(sqlite3.connect(tmp_path / "old")) as old:
        old.executescript(VERSION_1)
    for name in ("old", "new"):
        JobStore(tmp_path / name).close()
    assert columns(tmp_path / "old") == columns(tmp_path / "new")


def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "jobs.sqlite3"
    JobStore(path).close()
    with contextlib.closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="version 99.*run the newer program"):
        JobStore(path)
    with contextlib.closing(sqlite3.connect(path)) as newer:
        assert newer.execute("PRAGMA user_version").fetchone() == (99,)
    assert [file.name for file in tmp_path.iterdir()] == ["jobs.sqlite3"]


def test_a_file_that_is_no_store_is_an_error_that_leaves_it_alone(tmp_path):
    path = tmp_path / "jobs.sqlite3"
    path.write_text("not a database, but someone's notes " * 100)
    with pytest.raises(sqlite3.DatabaseError):
        JobStore(path)
    assert path.read_text().startswith("not a database")


def test_a_failed_transaction_changes_nothing_and_the_next_one_works(store):
    job, _ = store.add(spec())
    with pytest.raises(ZeroDivisionError), store.transaction() as db:
        db.execute("DELETE FROM jobs")
        1 / 0
    assert store.get(job.id) == job


def test_a_full_disk_is_an_error_after_which_the_store_still_works(store):
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(StorageFull, match="jobs.sqlite3 cannot be written .*full"):
        save(store, result("big", 10**6))
    store._connection.execute("PRAGMA max_page_count = 1000000")
    save(store, result("big", 10**6))
    assert store.result("big") is not None
