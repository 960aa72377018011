"""What a store of either engine keeps, over restarts and many threads."""

import random
from concurrent.futures import ThreadPoolExecutor

from backend.jobs.types import JobState, PostState, StoredResult
from backend.scheduler import Priority
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


def test_a_stop_is_no_failed_attempt(store):
    job, _ = store.add(spec())
    for _ in range(10):
        store.begin(job.id)
        store.put_back()
    assert store.get(job.id).state is JobState.QUEUED and store.get(job.id).attempts == 0


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
    one = store.result_bytes() // 3
    save(store, result("d", 10_000), max_bytes=2 * one + 100)
    assert [key for key in "abcd" if store.result(key)] == ["a", "d"]
    assert store.result_of_request("of b", lambda stamp: True) is None
    save(store, result("huge", 10_000), max_bytes=1)
    assert store.result("huge")  # what was just made is kept


def test_ever_new_requests_of_one_result_do_not_pile_up(store, clock):
    save(store, result("r"))
    for number in range(300):
        clock.now += 1
        store.link_request(f"signed {number}", "r", "stamp")
    found = [n for n in range(300) if store.result_of_request(f"signed {n}", lambda stamp: True)]
    assert found == list(range(200, 300))


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


def test_a_job_ends_with_its_progress_and_what_was_left_out(store):
    job, _ = store.add(spec())
    store.begin(job.id)
    store.set_progress(job.id, 3, 9)
    left_out = {"counts": {"regions (label …)": 1}, "regions": ["region 'é': label 'x'"]}
    ended = store.finish(job.id, JobState.DONE, progress=(9, 9), left_out=left_out)
    for found in (ended, store.get(job.id), *store.list(with_requests=False)):
        assert (found.done, found.total, found.left_out) == (9, 9, left_out)
