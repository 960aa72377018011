"""What the store keeps, over restarts, kills, full disks and many threads."""

import contextlib
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.errors import StorageFull
from backend.jobs.store import JobStore
from backend.jobs.types import JobKind, JobState, PostState, StoredResult
from backend.scheduler import Priority
from backend.sqlite_file import packed
from tests.backend.jobs.conftest import spec

PREDICTION = {"result": [{"id": "a"}], "score": 0.5, "model_version": "v"}


def result(key, size=10, media=("video",)):
    region = {"id": "a", "noise": random.Random(key).randbytes(size).hex()}
    return StoredResult(
        key=key, regions=(region,), answer=(region,), score=0.5, model_version="v", media=media,
        created_at=0.0,
    )


def save(store, stored, request_key=None, max_bytes=10**9):
    store.save_result(
        stored, request_key=request_key or f"of {stored.key}", media_stamp="stamp",
        max_bytes=max_bytes,
    )


# --- jobs --------------------------------------------------------------------


def test_a_job_survives_with_all_that_was_said(store, open_store):
    request = {"text": "Ünïcode \ud800", "big": 10**30, "deep": [[[None]]]}
    job, is_new = store.add(spec("k", request=request, posts_prediction=True))
    assert is_new
    store.close()
    again = open_store().get(job.id)
    assert again == job and again.request == request and again.posts_prediction


def test_equal_unfinished_jobs_are_one_and_as_urgent_as_the_most_urgent(store):
    first, _ = store.add(spec("k", Priority.BATCH))
    second, is_new = store.add(spec("k", Priority.INTERACTIVE, posts_prediction=True))
    third, _ = store.add(spec("k", Priority.TRAINING), is_awaited=True)
    assert not is_new and first.id == second.id == third.id
    assert third.priority is Priority.INTERACTIVE
    assert third.posts_prediction and third.is_awaited
    store.finish(first.id, JobState.DONE)
    assert store.add(spec("k"))[1]


def test_a_job_is_begun_by_one_of_many(store):
    job, _ = store.add(spec())
    with ThreadPoolExecutor(8) as pool:
        begun = [item for item in pool.map(lambda _: store.begin(job.id), range(32)) if item]
    assert len(begun) == 1 and begun[0].attempts == 1


def test_a_job_ends_once(store):
    job, _ = store.add(spec(posts_prediction=True))
    store.begin(job.id)
    assert store.finish(job.id, JobState.CANCELLED).state is JobState.CANCELLED
    assert store.finish(job.id, JobState.DONE, prediction=PREDICTION) is None
    assert store.finish(job.id, JobState.FAILED, error="x") is None
    assert store.get(job.id).state is JobState.CANCELLED
    assert store.post_of_job(job.id) is None


def test_an_error_with_half_a_character_is_kept(store):
    job, _ = store.add(spec())
    store.begin(job.id)
    assert "label" in store.finish(job.id, JobState.FAILED, error="label \ud800").error


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


def test_listing_is_newest_first_and_narrowed(store, clock):
    ids = []
    for number in range(5):
        clock.now += 1
        ids.append(store.add(spec(str(number), task_id=number % 2, project_id=number))[0].id)
    store.begin(ids[0])
    listed = [job.id for job in store.list()]
    assert listed == ids[::-1]
    assert [job.id for job in store.list(task_id=1)] == [ids[3], ids[1]]
    assert [job.id for job in store.list(states=(JobState.RUNNING,))] == [ids[0]]
    assert [job.id for job in store.list(project_id=2)] == [ids[2]]
    assert [job.id for job in store.list(limit=2, offset=1)] == listed[1:3]
    assert store.counts()[JobState.QUEUED] == 4 and store.counts()[JobState.FAILED] == 0


# --- restarts ----------------------------------------------------------------


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


def test_a_stop_is_no_failed_attempt(store):
    job, _ = store.add(spec())
    for _ in range(10):
        store.begin(job.id)
        store.put_back()
    assert store.get(job.id).state is JobState.QUEUED and store.get(job.id).attempts == 0


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
            assert [waiting.id for waiting in store.first_waiting()] == ["queued"]
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


def test_many_threads_use_one_store(store):
    def work(number):
        for step in range(20):
            job, _ = store.add(spec(f"{number} {step}"))
            store.begin(job.id)
            store.set_progress(job.id, step, 20)
            store.finish(job.id, JobState.DONE, prediction=PREDICTION)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert store.counts()[JobState.DONE] == 160


# --- results -----------------------------------------------------------------


def test_a_result_is_found_by_content_request_and_media(store):
    save(store, result("r"), "asked")
    assert store.result("r").regions[0]["id"] == "a"
    assert store.result_of_request("asked", lambda stamp: stamp == "stamp").key == "r"
    assert store.result_of_request("asked", lambda stamp: False) is None  # the media changed
    assert store.result_of_request("other", lambda stamp: True) is None
    assert store.newest_result_of_media("video").key == "r"
    store.link_request("other", "r", "stamp")
    assert store.result_of_request("other", lambda stamp: True).key == "r"


def test_the_longest_unused_results_go_when_they_take_too_much(store, clock):
    for key in "abc":
        clock.now += 1
        save(store, result(key, 10_000))
    clock.now += 1
    assert store.result("a")  # used again
    clock.now += 1
    one = store._connection.execute("SELECT byte_count FROM results").fetchone()[0]
    save(store, result("d", 10_000), max_bytes=2 * one + 100)
    assert [key for key in "abcd" if store.result(key)] == ["a", "d"]
    assert store.result_of_request("of b", lambda stamp: True) is None
    save(store, result("huge", 10_000), max_bytes=1)
    assert store.result("huge")  # what was just made is kept


def test_ever_new_requests_of_one_result_do_not_pile_up(store):
    save(store, result("r"))
    for number in range(300):
        store.link_request(f"signed {number}", "r", "stamp")
    count = store._connection.execute("SELECT COUNT(*) FROM request_results").fetchone()[0]
    assert count == 100
    assert store.result_of_request("signed 299", lambda stamp: True)


def test_jobs_that_ended_long_ago_are_forgotten_but_not_their_waiting_predictions(store, clock):
    old, posted, waiting, running = (
        store.add(spec(name, posts_prediction=True))[0] for name in "opwr"
    )
    store.finish(old.id, JobState.FAILED, error="x")
    for job in (posted, waiting):
        store.finish(job.id, JobState.DONE, prediction=PREDICTION)
    store.set_posted(store.post_of_job(posted.id).id, 7)
    store.begin(running.id)
    clock.now += 100
    assert store.delete_old(50) == 0  # nothing is newer: is it the clock that is ahead?
    newest, _ = store.add(spec("n"))
    store.finish(newest.id, JobState.DONE)
    assert store.delete_old(50) == 2
    assert {job.id for job in store.list()} == {waiting.id, running.id, newest.id}
    assert store.post_of_job(waiting.id).state is PostState.WAITING


# --- predictions -------------------------------------------------------------


def test_a_prediction_is_kept_with_the_end_of_its_job(store, clock):
    wanted, _ = store.add(spec("a", posts_prediction=True))
    unwanted, _ = store.add(spec("b"))
    homeless, _ = store.add(spec("c", task_id=None, posts_prediction=True))
    for job in (wanted, unwanted, homeless):
        store.finish(job.id, JobState.DONE, prediction=PREDICTION)
    (post,) = store.due_posts()
    assert post.job_id == wanted.id and post.prediction == PREDICTION
    store.retry_post(post.id, "later", 5)
    assert store.due_posts() == [] and store.next_post_at() == clock.now + 5
    clock.now += 5
    assert store.due_posts()[0].error == "later"
    store.add_post(wanted.id, PREDICTION)
    assert len(store.due_posts()) == 1  # one a job


def test_leaving_a_job_says_whether_it_was_still_to_end(store):
    job, _ = store.add(spec("k", Priority.INTERACTIVE), is_awaited=True)
    left = {"priority": Priority.WEBHOOK, "posts_prediction": True, "is_awaited": False}
    assert store.leave(job.id, **left)
    assert store.get(job.id).posts_prediction and not store.get(job.id).is_awaited
    store.finish(job.id, JobState.DONE)
    assert not store.leave(job.id, **left)
