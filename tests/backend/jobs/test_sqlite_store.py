"""What is the SQLite file's own: the choice of the next job, restarts, full disks."""

import sqlite3

import pytest

from backend.jobs.store import JobStore
from backend.jobs.types import JobKind, JobState
from backend.scheduler import Priority
from tests.backend.jobs.conftest import spec
from tests.backend.jobs.test_store import result, save


@pytest.fixture
def engine():
    return "sqlite"


def test_the_oldest_of_each_kind_priority_and_project_may_be_next(store, clock):
    ids = {}
    for name, priority, project in (("a", 2, 1), ("b", 2, 1), ("c", 2, 2), ("d", 0, 1)):
        clock.now += 1
        ids[name] = store.add(spec(name, Priority(priority), project_id=project))[0].id
    clock.now += 1
    ids["e"] = store.add(spec("e", Priority.TRAINING, kind=JobKind.FINETUNE))[0].id
    assert {job.id for job in store.first_waiting()} == {ids[n] for n in "acde"}
    store.begin(ids["a"])
    assert {job.id for job in store.first_waiting()} == {ids[n] for n in "bcde"}


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


def test_a_file_of_another_version_is_put_aside(tmp_path, caplog):
    path = tmp_path / "jobs.sqlite3"
    old = sqlite3.connect(path)
    old.execute("CREATE TABLE jobs (id TEXT)")
    old.commit()
    old.close()
    store = JobStore(path)
    assert store.list() == []
    store.close()
    assert (tmp_path / "jobs.sqlite3.version-0").exists() and "version-0" in caplog.text


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
    with pytest.raises(sqlite3.OperationalError, match="full"):
        save(store, result("big", 10**6))
    store._connection.execute("PRAGMA max_page_count = 1000000")
    save(store, result("big", 10**6))
    assert store.result("big") is not None
