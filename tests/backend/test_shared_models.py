"""START_TRAINING over Redis: one worker trains, all serve what came of it."""

import dataclasses
import logging

import pytest

from backend import service as service_module
from backend.app import create_app
from backend.doctor_queue import queue_findings
from backend.engines import Role
from backend.findings import Level
from backend.jobs.distributed.models import SharedModels
from backend.jobs.distributed.storage import open_storage
from backend.jobs.training import model_name
from backend.jobs.types import JobState
from backend.model_choice import ModelChoice
from backend.service import TrackingService
from backend.worker_page import worker_app
from sam2_model.checkpoints.finetuned import finetuned_path
from tests.backend.calls import wait_until
from tests.backend.test_training_jobs import (  # noqa: F401
    BASE,
    START,
    models_folder,
    project,
    quick_finetune,
    register,
)

WAIT = 60


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(service_module, "_HOUSE_SECONDS", 0.1)


@pytest.fixture
def queue_settings(settings, redis_server, tmp_path, models_folder):  # noqa: F811
    with redis_server.client() as redis:
        redis.flushall()
    return dataclasses.replace(
        settings, queue=redis_server.url, storage=str(tmp_path / "storage")
    )


@pytest.fixture
def start(queue_settings, model):
    started = []

    def begin(role=Role.WORKER, load=lambda _: model, **changes):
        settings = dataclasses.replace(queue_settings, **changes)
        if role is Role.WEB:
            app = create_app(settings)
            started.append(app.extensions["sam2"])
            return app.test_client()
        service = TrackingService(settings, load, role=role)
        started.append(service)
        service.start()
        wait_until(lambda: service.jobs.name in service.store.live_workers())
        return service

    yield begin
    for service in reversed(started):
        service.stop()


def test_a_project_is_learned_from_on_one_worker_and_serves_on_all(
    start, project, quick_finetune, queue_settings  # noqa: F811
):
    project()
    web, workers = start(Role.WEB), [start(), start()]
    assert web.get("/versions").json["versions"] == [BASE]
    job_id = web.post("/webhook", json=START).json["job"]
    store = web.application.extensions["sam2"].store
    wait_until(lambda: store.get(job_id).state.has_ended, WAIT)
    job = store.get(job_id)
    assert job.state is JobState.DONE, job.error
    new = f"sam2:{model_name(job)}"
    wait_until(lambda: web.get("/versions").json["versions"] == [new, BASE], WAIT)
    assert web.get("/health").json["model_version"] == new
    for worker in workers:
        wait_until(lambda: worker.settings.model_version == new, WAIT)
    told = store.worker_settings()
    assert {said["model_version"] for said in told.values()} == {new} and len(told) == 2
    levels = [f.level for f in queue_findings(queue_settings)]
    assert Level.BROKEN not in levels
    # One that begins later serves with it at once.
    assert start().settings.model_version == new


def test_a_worker_of_another_machine_fetches_the_weights(models_folder, tmp_path):  # noqa: F811
    storage = open_storage(str(tmp_path / "storage"))
    register("better")
    here = SharedModels(storage, needs_weights=True)
    here.write(b"choice", "better")
    weights = finetuned_path("better").read_bytes()
    finetuned_path("better").unlink()
    assert SharedModels(storage, needs_weights=False).has("better")
    assert not finetuned_path("better").exists()  # a web process has no use for them
    assert here.has("better") and finetuned_path("better").read_bytes() == weights
    assert [path.name for path in finetuned_path("better").parent.iterdir()] == [
        finetuned_path("better").name
    ]
    assert not here.has("other")
    with pytest.raises(ValueError):
        here.has("../../other")


def test_choices_of_two_workers_do_not_undo_each_other(
    models_folder, queue_settings, tmp_path  # noqa: F811
):
    register("one"), register("two")
    shared = SharedModels(open_storage(str(tmp_path / "storage")), needs_weights=True)
    first, second = (ModelChoice(queue_settings, shared) for _ in range(2))
    first.choose("one")
    second.choose("two")
    assert first.refresh() and not first.refresh()
    assert first.versions == second.versions == ["sam2:two", "sam2:one", BASE]


def test_a_storage_that_cannot_be_read_changes_nothing(
    models_folder, queue_settings, tmp_path, caplog  # noqa: F811
):
    register("one")
    shared = SharedModels(open_storage(str(tmp_path / "storage")), needs_weights=True)
    choice = ModelChoice(queue_settings, shared)
    choice.choose("one")

    def broken():
        raise OSError("no route to host")

    shared.read = broken
    with caplog.at_level(logging.ERROR):
        assert not choice.refresh()
    assert choice.versions == ["sam2:one", BASE] and "no route to host" in caplog.text


def test_a_model_that_cannot_be_loaded_elsewhere_leaves_the_old_one(
    start, model, models_folder, caplog  # noqa: F811
):
    def load(settings):
        if settings.model != "demo":
            raise ValueError("not on this machine")
        return model

    register("better")
    worker, other = start(), start(load=load)
    worker.use_model("better")
    wait_until(lambda: "not on this machine" in caplog.text, WAIT)
    assert other.settings.model_version == BASE
    assert worker.settings.model_version == "sam2:better"


def test_a_model_that_could_not_be_loaded_for_a_while_serves_in_the_end(
    start, model, models_folder, monkeypatch  # noqa: F811
):
    monkeypatch.setattr(service_module, "_LOAD_AGAIN_SECONDS", 0.5)
    is_full = True

    def load(settings):
        if settings.model != "demo" and is_full:
            raise RuntimeError("out of memory")
        return model

    register("better")
    worker, other = start(), start(load=load)
    worker.use_model("better")
    wait_until(lambda: other.trouble is not None, WAIT)
    health = worker_app(other).test_client().get("/health").json
    assert health["model_version"] == BASE and "out of memory" in health["detail"]
    is_full = False
    wait_until(lambda: other.settings.model_version == "sam2:better", WAIT)
    assert other.trouble is None


def test_without_a_storage_it_says_what_is_missing(start):
    web = start(Role.WEB, storage=None)
    answer = web.post("/webhook", json=START)
    assert answer.status_code == 501 and "SAM2_STORAGE" in answer.json["detail"]


def test_doctor_says_when_the_storage_cannot_be_read(queue_settings):
    settings = dataclasses.replace(queue_settings, storage="s3://bucket/sam2")
    (found,) = [f for f in queue_findings(settings) if "storage" in f.text]
    assert found.level is Level.BROKEN  # s3fs is not installed here
