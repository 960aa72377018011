"""Processes killed at the worst moments: every job is done, and posted once."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.jobs.distributed import keys
from backend.jobs.types import JobKind, JobState
from tests.backend.calls import box, call, keyframe, saved, task
from tests.backend.test_server import ask
from tests.faults.distributed.conftest import FRAMES, SECONDS, kill

BOX = box("a", keyframe(1, x=25, y=25, width=30, height=30))


def job_in(store):
    (job,) = store.list()
    return job


def worker_of(store, processes):
    """The process that runs task 1."""
    holder = store.redis.get(keys.holder(1)).decode()
    (process,) = [p for p in processes if f"-{p.pid}-" in holder]
    return process


def is_under_way(store):
    job = job_in(store)
    assert job.state in (JobState.QUEUED, JobState.RUNNING), "it ended before it was killed"
    return job.state is JobState.RUNNING and job.done > 0


def check_posted_once(cluster, store, studio):
    cluster.wait(lambda: studio.predictions)
    job = job_in(store)
    cluster.wait(lambda: store.post_of_job(job.id).state == "posted")
    (prediction,) = studio.predictions
    (region,) = prediction["result"]
    frames = {item["frame"] for item in region["value"]["sequence"]}
    assert min(frames) == 1 and max(frames) == FRAMES
    assert job_in(store).state is JobState.DONE


@pytest.mark.parametrize(("number", "attempts"), [(signal.SIGKILL, 2), (signal.SIGTERM, 1)])
def test_another_worker_takes_the_job_of_one_that_ends(cluster, studio, number, attempts):
    cluster.start_web()
    workers = cluster.start_workers(2)
    with cluster.store() as store:
        ask(f"{cluster.web_url}/webhook", saved(BOX))
        cluster.wait(lambda: is_under_way(store))
        ended = worker_of(store, workers)
        ended.send_signal(number)
        assert ended.wait(SECONDS) == (0 if number is signal.SIGTERM else -number)
        check_posted_once(cluster, store, studio)
        assert job_in(store).attempts == attempts  # a stop is none that it did not survive
        assert f"job {job_in(store).id} goes on after" in cluster.logs()
        assert not list(store.redis.scan_iter(keys.blob("*"))), "progress of a job that is done"


def test_a_killed_web_process_loses_no_job_and_no_answer(cluster, studio):
    web = cluster.start_web()
    (worker,) = cluster.start_workers(1)
    with cluster.store() as store, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, f"{cluster.web_url}/predict", call(task(), BOX))
        cluster.wait(lambda: store.list() and is_under_way(store))
        kill(web)
        with pytest.raises(OSError):
            asking.result(SECONDS)
        cluster.wait(lambda: job_in(store).state is JobState.DONE, worker)
        cluster.start_web()
        check_posted_once(cluster, store, studio)
        assert job_in(store).attempts == 1


def test_jobs_go_on_when_redis_is_killed_and_begins_again(cluster, studio, redis_server):
    web = cluster.start_web()
    (worker,) = cluster.start_workers(1)
    with cluster.store() as store:
        ask(f"{cluster.web_url}/webhook", saved(BOX))
        ask(f"{cluster.web_url}/webhook", saved(BOX, task_id=2))
        cluster.wait(lambda: any(job.done for job in store.list()))
        redis_server.kill()
        assert ask(f"{cluster.web_url}/health")["status"] == "UP"
        redis_server.start()
        cluster.wait(lambda: store.counts()[JobState.DONE] == 2, web, worker)
        cluster.wait(lambda: store.post_counts()["waiting"] == 0, web, worker)
        assert sorted(prediction["task"] for prediction in studio.predictions) == [1, 2]
        assert {job.attempts for job in store.list()} == {1}


def test_a_worker_that_is_killed_while_a_person_waits_answers_through_another(cluster, studio):
    cluster.start_web()
    workers = cluster.start_workers(2)
    with cluster.store() as store, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, f"{cluster.web_url}/predict", call(task(), BOX))
        cluster.wait(lambda: store.list() and is_under_way(store))
        kill(worker_of(store, workers))
        ((region,),) = [item["result"] for item in asking.result(SECONDS)["results"]]
        assert region["id"] == "a" and region["value"]["sequence"]


@pytest.mark.parametrize("is_killed", [False, True], ids=["helped", "helper killed"])
def test_two_workers_share_a_long_video(cluster, studio, is_killed):
    cluster.environment["SAM2_WINDOW_FRAMES"] = "8"
    cluster.start_web()
    workers = cluster.start_workers(2)
    prompted = box(
        "a",
        *(keyframe(n + 1, x=25 + 2.5 * at, y=20 + 1.6 * at, width=25, height=35)
          for n, at in ((0, 0), (8, 7), (16, 0))),
    )
    with cluster.store() as store:
        ask(f"{cluster.web_url}/webhook", saved(prompted))

        def windows():
            return [job for job in store.list() if job.kind is JobKind.WINDOW]

        def is_helped() -> bool:
            """Whether another worker than the whole video's tracks a window of it."""
            running = [job for job in windows() if job.state is JobState.RUNNING and job.done]
            (whole,) = [job for job in store.list() if job.kind is JobKind.TRACK]
            return any(
                store.fields(job.id)["owner"] != store.fields(whole.id)["owner"]
                for job in running
            )

        cluster.wait(is_helped)
        if is_killed:
            kill([p for p in workers if p is not worker_of(store, workers)][0])
        cluster.wait(lambda: studio.predictions)
        (prediction,) = studio.predictions
        (region,) = prediction["result"]
        frames = {item["frame"] for item in region["value"]["sequence"]}
        assert min(frames) == 1 and max(frames) == FRAMES
        assert len(windows()) == 2
        cluster.wait(lambda: not list(store.redis.scan_iter(keys.blob("*"))))
