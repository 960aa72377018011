"""The service as web process and workers over one Redis, around a quick model."""

import dataclasses
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from backend.app import create_app
from backend.decoding import open_media
from backend.engines import Role
from backend.errors import StorageUnavailable
from backend.jobs.blobs import FolderBlobs
from backend.jobs.distributed import keys
from backend.jobs.types import JobKind, JobState, PostState
from backend.model import LoadedModel
from backend.service import TrackingService
from backend.settings import Settings
from sam2_model.session import InferenceState
from sam2_model.tracker import track_steps
from tests.backend.calls import (
    FRAMES,
    FRAMES_CONFIG,
    batch,
    box,
    call,
    jobs_of,
    keyframe,
    predict,
    rectangle,
    result_of,
    saved,
    service_of,
    task,
    wait_for_jobs,
    wait_until,
)
from tests.backend.conftest import FRAME_COUNT
from tests.backend.label_studio_site import KEY
from tests.backend.quick_model import SECONDS, Hold, QuickModel
from tests.backend.test_service import annotated, frames_task, shown_frames
from tests.sam2_model.small_model import small_predictor

PARTIAL_SECONDS = 4


@pytest.fixture
def cluster(redis_server, quick, studio, media_root, tmp_path):
    """(settings' changes) -> a client of a web process; `.worker(model)` begins a worker."""
    with redis_server.client() as redis:
        redis.flushall()
    started = []

    class Cluster:
        def settings(self, name, **changes):
            return dataclasses.replace(
                Settings(
                    queue=redis_server.url,
                    label_studio_url=studio.url,
                    label_studio_api_key=KEY,
                    label_studio_local_files_root=media_root,
                    media_cache=tmp_path / "cache",
                    data_folder=tmp_path / name,
                ),
                **changes,
            )

        def web(self, name="web", **changes):
            app = create_app(self.settings(name, **changes), load=lambda _: 1 / 0)
            started.append(app.extensions["sam2"])
            return app.test_client()

        def worker(self, model=quick, **changes):
            settings = self.settings(f"worker{len(started)}", **changes)
            service = TrackingService(settings, model.load, role=Role.WORKER)
            started.append(service)
            service.start()
            service.model.wait()
            wait_until(lambda: service.jobs.name in service.store.live_workers())
            return service

    yield Cluster()
    for service in reversed(started):
        service.stop()
        service.store.close()


def test_a_person_is_answered_from_the_worker_and_again_from_its_result(cluster, quick):
    client = cluster.web()
    worker = cluster.worker()
    (region,) = result_of(client, call(task(), box()))
    assert shown_frames(region) == set(range(1, FRAME_COUNT + 1))
    (job,) = wait_for_jobs(client)
    assert job.state is JobState.DONE and job.done == FRAME_COUNT
    assert result_of(client, call(task(), box())) == [region]
    assert len(quick.runs) == 1
    assert client.get("/health").json["model"] == "ready"
    assert worker.store.post_of_job(job.id) is None


def test_a_partial_answer_is_closed_and_the_whole_is_posted_once(cluster, quick, studio):
    hold = quick.before_frame = Hold(3)
    client = cluster.web(answer_seconds=PARTIAL_SECONDS)
    cluster.worker()
    (partial,) = result_of(client, call(task(), box()))
    assert partial["value"]["sequence"][-1]["enabled"] is False
    assert shown_frames(partial) == {1, 2, 3}
    hold.release()
    assert studio.arrived.acquire(timeout=SECONDS)
    (job,) = wait_for_jobs(client)
    wait_until(lambda: service_of(client).store.post_of_job(job.id).state is PostState.POSTED)
    (posted,) = studio.predictions
    assert shown_frames(posted["result"][0]) == set(range(1, FRAME_COUNT + 1))


def test_a_malformed_region_is_told_while_its_job_runs_and_after(cluster, quick):
    hold = quick.before_frame = Hold(3)
    client = cluster.web(answer_seconds=PARTIAL_SECONDS)
    cluster.worker()
    asked = call(task(), box("a"), box("bad", keyframe(1, x=150)))
    (partial,) = predict(client, asked)
    assert partial["left_out"]["regions"][0].startswith("region 'bad': ")
    hold.release()
    (job,) = wait_for_jobs(client)
    assert job.left_out == partial["left_out"] == predict(client, asked)[0]["left_out"]


def test_two_web_processes_post_each_prediction_once(cluster, studio):
    first, second = cluster.web("one"), cluster.web("two")
    cluster.worker()
    for number in range(20):
        client = first if number % 2 else second
        client.post("/webhook", json=saved(box(f"a{number}"), task_id=number))
    wait_until(lambda: service_of(first).store.post_counts()[PostState.POSTED] == 20)
    assert sorted(prediction["task"] for prediction in studio.predictions) == list(range(20))


def test_a_new_prompt_gives_up_what_was_tracked_for_the_old_one(cluster, quick):
    hold = quick.before_frame = Hold(3)
    client = cluster.web(answer_seconds=PARTIAL_SECONDS)
    cluster.worker()
    result_of(client, call(task(), box("a", keyframe(1))))
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(
            result_of, client.application.test_client(), call(task(), box("a", keyframe(1, x=40)))
        )
        wait_until(lambda: JobState.CANCELLED in {job.state for job in jobs_of(client)})
        hold.release()
        (region,) = asking.result()
    assert region["value"]["sequence"][0]["x"] == 40
    assert {job.state for job in wait_for_jobs(client)} == {JobState.DONE, JobState.CANCELLED}


def test_one_who_stops_a_job_gets_what_it_had_found(cluster, quick):
    hold = quick.before_frame = Hold(3)
    client = cluster.web()
    cluster.worker()
    client.post("/webhook", json=saved(box()))
    hold.wait()
    answer = service_of(client).stop_task(1)
    hold.release()
    assert shown_frames(answer.regions[0]) == {1, 2, 3}
    assert [job.state for job in wait_for_jobs(client)] == [JobState.CANCELLED]


def test_errors_of_a_worker_are_answered_as_ones_of_this_process(cluster):
    client = cluster.web()
    cluster.worker(max_objects=1)
    elsewhere = task(data={"video": "/data/upload/1/x.mp4"})
    missing = client.post("/predict", json=call(elsewhere, box()))
    assert missing.status_code == 404 and "x.mp4" in missing.json["detail"]
    many = client.post("/predict", json=call(task(), box("a"), box("b")))
    assert many.status_code == 413 and "2 objects" in many.json["detail"]


def test_a_batch_is_answered_in_full_or_posted(cluster, studio):
    client = cluster.web()
    cluster.worker()
    first = predict(client, batch(*(annotated(n, box(f"a{n}")) for n in range(6))))
    wait_for_jobs(client)
    wait_until(lambda: service_of(client).store.post_counts()[PostState.WAITING] == 0)
    posted = {prediction["task"] for prediction in studio.predictions}
    answered = {number for number, item in enumerate(first) if item}
    assert posted.isdisjoint(answered) and posted | answered == set(range(6))
    assert len(studio.predictions) == len(posted)


def test_frames_are_answered_as_many_as_fit_and_the_others_posted(cluster, studio):
    client = cluster.web(max_brush_regions=2)
    cluster.worker(max_brush_regions=2)
    body = call(frames_task(), rectangle(), config=FRAMES_CONFIG)
    assert [region["item_index"] for region in result_of(client, body)] == [0, 1]
    assert studio.arrived.acquire(timeout=SECONDS)
    assert len(studio.predictions[0]["result"]) == len(FRAMES)


def test_people_come_to_the_worker_that_has_their_video_open(cluster):
    client, models = cluster.web(), [QuickModel(), QuickModel()]
    workers = [cluster.worker(model) for model in models]
    result_of(client, call(task(1), box("first")))
    (one,) = [n for n, model in enumerate(models) if model.runs]
    for number in range(4):
        result_of(client, call(task(1), box(f"a{number}")))
    assert len(models[one].runs) == 5 and len(models[one].states) == 1
    assert not models[1 - one].runs
    # Another takes it when that one does not: it has no place free, say.
    holder = workers[one]
    with holder.jobs._lock:
        holder.jobs._places["interactive"] = 0
    assert result_of(client, call(task(1), box("other")))
    assert models[1 - one].runs == [("other",)]


def test_without_a_worker_people_are_told_and_the_work_is_kept(cluster, studio):
    client = cluster.web(answer_seconds=1)
    assert client.get("/health").json["model"] == "loading"
    answer = client.post("/predict", json=call(task(), box()))
    assert answer.status_code == 503 and "sam2-label-studio worker" in answer.json["detail"]
    cluster.worker()
    assert studio.arrived.acquire(timeout=SECONDS)
    assert [job.state for job in wait_for_jobs(client)] == [JobState.DONE]


def test_what_needs_a_model_in_the_web_process_is_refused_and_says_why(cluster):
    client = cluster.web()
    answer = client.post("/api/sessions", json={"video": "/data/local-files/?d=n25.mp4"})
    assert answer.status_code == 501 and "SAM2_QUEUE" in answer.json["detail"]
    body = {"action": "START_TRAINING", "project": {"id": 1}}
    answer = client.post("/webhook", json=body)
    assert answer.status_code == 501 and "SAM2_QUEUE" in answer.json["detail"]
    assert jobs_of(client) == []


def test_a_web_process_loads_no_pytorch(redis_server, tmp_path):
    script = (
        "import sys\n"
        "from backend.app import create_app\n"
        "client = create_app().test_client()\n"
        "assert client.get('/health').json['status'] == 'UP'\n"
        "assert client.post('/webhook', json={}).status_code\n"
        "assert client.get('/metrics').status_code == 200\n"
        "client.application.extensions['sam2'].stop()\n"
        "print('torch' in sys.modules)\n"
    )
    environment = os.environ | {"SAM2_QUEUE": redis_server.url, "SAM2_DATA_FOLDER": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True,
        timeout=SECONDS * 3,
    )
    assert done.stdout.strip() == "False", done.stderr
    with redis_server.client() as redis:
        assert not redis.exists(keys.WORKERS)


# --- a storage or a Redis that is away for a moment ---------------------------


@pytest.fixture
def done_in_the_end(cluster, quick, studio, tmp_path):
    """(worker options) -> the job and its worker, once its prediction is posted."""

    def do(client, worker, break_now=lambda: None):
        worker.jobs.retry_seconds = (0.05,)
        break_now()
        client.post("/webhook", json=saved(box()))
        assert studio.arrived.acquire(timeout=SECONDS)
        (job,) = wait_for_jobs(client)
        assert job.state is JobState.DONE and len(studio.predictions) == 1
        return job

    return do


def once(monkeypatch, owner, name, error, *, if_=lambda *arguments: True):
    """Let a method fail the first time; the list of the times that it has."""
    real, failed = getattr(owner, name), []

    def fails_once(*arguments, **options):
        if not failed and if_(*arguments):
            failed.append(arguments)
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, fails_once)
    return failed


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("bucket is away")]
)
def test_a_result_that_the_storage_did_not_take_is_kept_later(
    cluster, done_in_the_end, monkeypatch, tmp_path, error
):
    storage = str(tmp_path / "storage")
    client, worker = cluster.web(storage=storage), cluster.worker(storage=storage)
    failed = once(
        monkeypatch, FolderBlobs, "save", error, if_=lambda _, name, __: "results/" in name
    )
    job = done_in_the_end(client, worker)
    assert failed and job.error is None and worker.store.result(job.result_key) is not None


def test_a_person_is_told_when_the_storage_takes_no_result(cluster, monkeypatch, tmp_path):
    storage = str(tmp_path / "storage")
    client = cluster.web(storage=storage)
    cluster.worker(storage=storage)
    error = RuntimeError("planted-key is wrong")
    once(monkeypatch, FolderBlobs, "save", error, if_=lambda _, name, __: "results/" in name)
    answer = client.post("/predict", json=call(task(), box()))
    assert answer.status_code == 503 and "SAM2_STORAGE" in answer.json["detail"]
    assert "planted" not in answer.text and answer.headers["Retry-After"] == "60"
    (region,) = result_of(client, call(task(), box()))
    assert shown_frames(region) == set(range(1, FRAME_COUNT + 1))


def test_a_storage_that_is_away_is_told_before_anything_is_tracked(cluster, quick, tmp_path):
    storage = tmp_path / "storage"
    client = cluster.web(storage=str(storage))
    worker = cluster.worker(storage=str(storage))
    result_of(client, call(task(), box()))
    (job,) = wait_for_jobs(client)
    storage.rename(tmp_path / "elsewhere")
    storage.write_text("no folder")
    with pytest.raises(StorageUnavailable):  # now the worker knows it too
        worker.store.result(job.result_key)
    answers = [client.get(f"/api/jobs/{job.id}/{what}") for what in ("result", "scores")]
    answers.append(client.post("/predict", json=call(task(2), box("b", keyframe(1, x=30)))))
    for answer in answers:
        assert answer.status_code == 503 and answer.headers["Retry-After"] == "10", answer.text
        assert "SAM2_STORAGE" in answer.json["detail"]
    assert len(quick.runs) == 1


@pytest.mark.parametrize("name", ["set_progress", "save_result", "finish"])
@pytest.mark.parametrize("error", [OutOfMemoryError("used memory"), RedisConnectionError("gone")])
def test_a_redis_that_fails_once_fails_no_job(
    cluster, done_in_the_end, monkeypatch, name, error
):
    client, worker = cluster.web(), cluster.worker()
    failed = once(monkeypatch, type(worker.store), name, error)
    job = done_in_the_end(client, worker)
    assert failed and (job.error, job.attempts) == (None, 1)


def test_a_cancelled_video_leaves_nothing_of_its_windows(cluster, redis_server):
    options = {"window_frames": 3, "save_seconds": 0.01}
    client = cluster.web(**options)
    for _ in range(2):
        cluster.worker(SlowSmallModel, **options)
    client.post("/webhook", json=saved(box("a", keyframe(1), keyframe(5))))
    store = service_of(client).store
    with redis_server.client() as redis:
        wait_until(lambda: redis.keys("sam2:blob:progress/window-*/listing"))
        (whole,) = [job for job in store.list() if job.kind is JobKind.TRACK]
        service_of(client).jobs.cancel(whole.id)
        wait_until(lambda: all(job.state.has_ended for job in store.list()))
        wait_until(lambda: not redis.keys("sam2:blob:*"))


class SlowSmallModel:
    """A real, small predictor that takes its time for each frame."""

    @staticmethod
    def load(settings):
        predictor = small_predictor()

        def slowly(*arguments, **options):
            for step in track_steps(*arguments, predictor=predictor, **options):
                time.sleep(0.15)
                yield step

        return LoadedModel(
            slowly,
            lambda files: InferenceState(open_media(files, settings), predictor.model),
            lambda frames: None,
        )
