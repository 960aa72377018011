"""START_TRAINING: a made project on a local server, the real trainer, the real demo model."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from backend.app import create_app
from backend.jobs import training
from backend.jobs.training import model_name
from backend.jobs.types import JobState
from backend.model import load_model
from backend.model_choice import ModelChoice
from backend.settings import Settings, environment_without_secrets
from converters.label_studio.tasks import to_tasks
from sam2_model.checkpoints.finetuned import finetuned_names, finetuned_path, save_finetuned
from tests.backend.conftest import payload
from tests.backend.http_server import Reply
from tests.backend.commands.test_training import CONFIG, FRAMES, SIZE_HW, annotated, mask, picture
from tests.video_files import write_video

NAMES = ("one", "two", "three")
START = payload("webhook_start_training")
BASE = "sam2:demo"
VIDEO_CALL = "predict_interactive_videorectangle"


@pytest.fixture
def models_folder(tmp_path, monkeypatch):
    """Fine-tuned models of this test alone."""
    monkeypatch.setenv("SAM2_CACHE", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture(autouse=True)
def not_last_in_line(monkeypatch):
    # Beside other work a process that gives way may get next to nothing.
    monkeypatch.setattr(training, "_NICE", 0)


@pytest.fixture
def project(label_studio, models_folder, tmp_path):
    """A Label Studio project with annotated videos; the function sets which of them."""

    def serve(names=NAMES, label_config=CONFIG, mask=mask):
        tasks = list(
            to_tasks(
                [annotated(name, mask) for name in names], label_config=CONFIG,
                media_urls=lambda video: f"/data/upload/1/{video.name}.mp4",
            )
        )  # fmt: skip
        for number, task in enumerate(tasks, start=1):
            (prediction,) = task.pop("predictions")
            task |= {"id": number, "annotations": [{"id": number, **prediction}]}
        for name in names:
            file = tmp_path / f"{name}.mp4"
            pictures = [np.asarray(picture(name, frame)) for frame in range(FRAMES)]
            write_video(file, FRAMES, size=SIZE_HW[::-1], pictures=pictures)
            label_studio.replies[f"/data/upload/1/{name}.mp4"] = Reply(file.read_bytes())
        snapshot = "/api/projects/1/exports/"
        label_studio.replies[snapshot] = reply({"id": 5, "status": "completed"})
        label_studio.replies[f"{snapshot}5/download?exportType=JSON"] = reply(tasks)
        label_studio.replies[f"{snapshot}5"] = Reply(status=204)
        label_studio.replies["/api/projects/1/"] = reply({"id": 1, "label_config": label_config})

    return serve


def reply(value):
    return Reply(json.dumps(value).encode(), headers={"Content-Type": "application/json"})


def started(client):
    """The fine-tuning that the webhook began; once it has ended."""
    answer = client.post("/webhook", json=START).json
    assert answer["status"] == "queued", answer
    service = client.application.extensions["sam2"]
    handle = service.jobs.handle(answer["job"])
    if handle is not None:
        handle.wait(500)
    return service.store.get(answer["job"])


def versions(client):
    listed = client.get("/versions").json["versions"]
    assert client.post("/setup", json=payload("setup")).json["model_version"] == listed[0]
    assert client.get("/health").json["model_version"] == listed[0]
    return listed


@pytest.fixture
def quick_finetune(monkeypatch, checkpoint):
    """In place of the process: the weights as they are, and a report of a gain."""

    def finetune(arguments, handle, step=7):
        options = dict(zip(arguments[::2], arguments[1::2]))
        out = training.Path(options["--out"])
        out.mkdir(parents=True)
        report = {
            "before": {"step": 0, "region": 0.5, "contour": 0.5},
            "best": {"step": step, "region": 0.8, "contour": 0.8},
        }
        (out / "report.json").write_text(json.dumps(report))
        register(options["--name"])
        handle.report(step, step)

    monkeypatch.setattr(training, "run_finetune", finetune)
    return finetune


def register(name):
    """A model of that name with the demo model's weights."""
    from safetensors.torch import load_file

    from sam2_model.checkpoints import resolve_checkpoint

    finetuned_path(name).parent.mkdir(parents=True, exist_ok=True)
    save_finetuned(finetuned_path(name), load_file(resolve_checkpoint("demo")), network="demo")


# --- the whole way -----------------------------------------------------------


def test_a_projects_annotations_are_learned_from(make_client, project, monkeypatch):
    # No model knows by itself that the left half is meant.
    project(mask=lambda frame: mask(frame) & (np.cumsum(mask(frame), axis=1) <= 10))
    # Fast: within five steps J&F on the held-back videos rises from 63 to 96 %.
    options = (
        "--frames", "2", "--clips", "1", "--general-share", "0",
        "--learning-rate", "0.003", "--seed", "1",
    )  # fmt: skip
    monkeypatch.setattr(training, "_OPTIONS", options)
    reported = []
    # Four judgements, one a step, without a better one end a run: five steps do not with a gain.
    client = make_client(training_steps=5, load=load_model)
    service = client.application.extensions["sam2"]
    keep = service.store.set_progress
    monkeypatch.setattr(
        service.store, "set_progress", lambda *a: (reported.append(a[1:]), keep(*a))
    )
    job = started(client)
    assert job.state is JobState.DONE, job.error
    assert reported[-1] == (5, 5)
    new = f"sam2:{model_name(job)}"
    assert versions(client) == [new, BASE] and finetuned_names() == [model_name(job)]
    (prediction,) = client.post("/predict", json=payload(VIDEO_CALL)).json["results"]
    assert prediction["model_version"] == new and prediction["result"]
    assert list((service.settings.data_folder / "training").iterdir()) == []


def test_the_new_model_serves_and_the_choice_survives_a_restart(
    make_client, project, quick_finetune, settings
):
    project()
    client = make_client()
    assert versions(client) == [BASE]
    job = started(client)
    assert job.state is JobState.DONE, job.error
    new = f"sam2:{model_name(job)}"
    assert versions(client) == [new, BASE]
    shown = client.get(f"/api/jobs/{job.id}").json
    assert (shown["kind"], shown["model"]) == ("finetune", model_name(job))

    again = create_app(settings, load=lambda _: None)
    assert versions(again.test_client()) == [new, BASE]
    again.extensions["sam2"].stop()
    other = create_app(dataclasses.replace(settings, model="other"), load=lambda _: None)
    assert versions(other.test_client()) == ["sam2:other"]
    other.extensions["sam2"].stop()


def test_the_data_set_holds_the_annotated_videos(make_client, project, quick_finetune, monkeypatch):
    from backend.annotated import cases_of

    project()
    seen = []

    def look(arguments, handle):
        options = dict(zip(arguments[::2], arguments[1::2]))
        data, root = (training.Path(options[n]) for n in ("--data", "--media-root"))
        for case in cases_of(data, media_root=root):
            seen.append((len(case.video.tracks), case.picture(0).shape, case.masks(0)))
        quick_finetune(arguments, handle)

    monkeypatch.setattr(training, "run_finetune", look)
    started(make_client())
    assert len(seen) == len(NAMES)
    for tracks, shape, masks in seen:
        assert tracks == 1 and shape == (*SIZE_HW, 3)
        (mask,) = masks.values()
        assert mask[20:40, 10:30].all() and mask.sum() == 400


# --- what goes wrong ---------------------------------------------------------


@pytest.mark.parametrize("names", [(), ("one",)])
def test_too_few_annotations_are_said(make_client, project, names):
    project(names)
    client = make_client()
    job = started(client)
    assert job.state is JobState.FAILED
    assert f"has {len(names)} annotated videos" in job.error and "2 or more" in job.error
    assert versions(client) == [BASE]


def test_a_task_whose_video_is_gone_is_left_out_and_named(
    make_client, project, label_studio, quick_finetune
):
    project()
    label_studio.replies["/data/upload/1/one.mp4"] = Reply(status=404)
    assert started(make_client()).state is JobState.DONE
    label_studio.replies["/data/upload/1/two.mp4"] = Reply(b"no video")
    job = started(make_client(media_cache=finetuned_path("x").parent / "empty"))
    assert job.state is JobState.FAILED
    assert "has 1 annotated videos" in job.error and "one.mp4" in job.error


def test_without_a_gain_the_model_stays(make_client, project, quick_finetune, monkeypatch):
    project()
    monkeypatch.setattr(training, "run_finetune", lambda a, h: quick_finetune(a, h, step=0))
    client = make_client()
    job = started(client)
    assert job.state is JobState.FAILED and "nothing was gained" in job.error
    assert versions(client) == [BASE] and finetuned_names() == []


def test_a_model_that_cannot_be_loaded_does_not_serve(make_client, project, quick_finetune, model):
    project()

    def load(settings):
        if settings.model != "demo":
            raise ValueError("broken weights")
        return model

    client = make_client(load=load)
    job = started(client)
    assert job.state is JobState.FAILED and "broken weights" in job.error
    assert versions(client) == [BASE]
    assert client.get("/health").json["model"] == "ready"


def test_without_label_studio_the_job_says_what_is_missing(make_client):
    job = started(make_client(label_studio_url=None, label_studio_api_key=None))
    assert job.state is JobState.FAILED and "LABEL_STUDIO_API_KEY" in job.error


@pytest.mark.parametrize("project_id", [None, "1", True, [1]])
def test_a_project_without_a_number_is_a_bad_request(client, project_id):
    body = {"action": "START_TRAINING", "project": {"id": project_id}}
    answer = client.post("/webhook", json=body)
    assert answer.status_code == 400 and "project.id" in answer.json["detail"]


def test_a_second_start_joins_the_first(make_client, project, quick_finetune, monkeypatch):
    project()
    entered, go_on = threading.Event(), threading.Event()

    def held(arguments, handle):
        entered.set()
        go_on.wait(60)
        quick_finetune(arguments, handle)

    monkeypatch.setattr(training, "run_finetune", held)
    client = make_client()
    first = client.post("/webhook", json=START).json["job"]
    assert entered.wait(60)
    assert client.post("/webhook", json=START).json["job"] == first
    go_on.set()
    assert started(client).state is JobState.DONE


# --- the process -------------------------------------------------------------


class Handle:
    def __init__(self, is_cancelled=False):
        self.reports = []
        self._is_cancelled = is_cancelled

    def is_cancelled(self):
        return self._is_cancelled

    def report(self, done, total):
        self.reports.append((done, total))


def test_what_the_command_finds_wrong_is_the_reason(tmp_path):
    arguments = ["--data", str(tmp_path / "none.json"), "--out", str(tmp_path / "out")]
    with pytest.raises(Exception, match="none.json is not there"):
        training.run_finetune(arguments, Handle())


def test_a_cancelled_process_is_killed(tmp_path):
    arguments = ["--data", str(tmp_path / "none.json"), "--out", str(tmp_path / "out")]
    training.run_finetune(arguments, Handle(is_cancelled=True))
    assert not (tmp_path / "out").exists()


class KillingHandle(Handle):
    """As the kernel does when there is no memory left."""

    def is_cancelled(self):
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                    if b"backend.child" in stat.with_name("cmdline").read_bytes():
                        os.kill(int(stat.parent.name), signal.SIGKILL)
        return False


def test_a_process_that_was_killed_says_so_and_what_to_lower(tmp_path):
    arguments = ["--data", str(tmp_path / "none.json"), "--out", str(tmp_path / "out")]
    with pytest.raises(training.TrainingKilled, match="killed.*memory.*--clips 1 --frames 2"):
        training.run_finetune(arguments, KillingHandle())


def test_the_bar_is_read_as_progress():
    handle = Handle()
    output = training._Output(handle.report)
    for line in (
        "fine-tuning:   0%|          | 0/400 [00:00<?, ?step/s]",
        "fine-tuning:   3%|3         | 12/400 [00:01<00:03, 1.0step/s, loss=0.3]",
        "video 1 of 3 prepared", "", "sam2-label-studio: steps=0 must be at least 1",
    ):
        output._take(line)
    assert handle.reports == [(0, 400), (12, 400)]
    assert output.mistake == "steps=0 must be at least 1"
    assert output.text.splitlines()[0] == "video 1 of 3 prepared"


def test_the_process_gets_no_secret(monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "planted-key")
    monkeypatch.setenv("SAM2_BASIC_AUTH_USER", "a")
    monkeypatch.setenv("SAM2_BASIC_AUTH_PASSWORD", "planted-word")
    monkeypatch.setenv("SAM2_QUEUE", "redis://:planted-queue@host/1")
    monkeypatch.setenv("SAM2_STORAGE", "s3://bucket/sam2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-storage")
    monkeypatch.setenv("SAM2_MEDIA_CACHE", "/somewhere")
    environment = environment_without_secrets()
    assert environment["SAM2_MEDIA_CACHE"] == "/somewhere"
    assert not any("planted" in value for value in environment.values())
    Settings.from_environment(environment)


# --- the choice --------------------------------------------------------------


def test_running_jobs_finish_with_the_model_they_began_with(
    make_client, project, quick_finetune, model
):
    project()
    entered, go_on = threading.Event(), threading.Event()

    def held(*arguments, **options):
        entered.set()
        go_on.wait(60)
        yield from model.track(*arguments, **options)

    client = make_client(track=held)
    call = payload(VIDEO_CALL)
    order = {
        "task": call["tasks"][0], "label_config": call["label_config"],
        "results": call["params"]["context"]["result"],
    }
    job_id = client.post("/api/jobs", json=order).json["id"]
    assert entered.wait(60)
    service = client.application.extensions["sam2"]
    handle = service.jobs.handle(job_id)
    training_job = started(client)
    assert training_job.state is JobState.DONE
    go_on.set()
    handle.wait(120)
    result = client.get(f"/api/jobs/{job_id}/result").json
    assert result["model_version"] == BASE
    assert versions(client)[0] != BASE
    # The same question to the new model is another one.
    assert client.post("/api/jobs", json=order).json["id"] != job_id


def test_a_fine_tuned_model_is_loaded_from_its_file(settings, models_folder):
    register("mine")
    app = create_app(settings, load=load_model)
    service = app.extensions["sam2"]
    service.use_model("mine")
    assert app.test_client().get("/health").json == {
        "status": "UP", "model_class": "SAM2Video", "model_version": "sam2:mine", "model": "ready",
    }
    service.stop()


def test_a_choice_that_is_gone_or_broken_is_not_made(settings, models_folder, caplog):
    register("old"), register("new")
    choice = ModelChoice(settings)
    choice.choose("old"), choice.choose("new")
    assert ModelChoice(settings).versions == ["sam2:new", "sam2:old", BASE]
    finetuned_path("new").unlink()
    assert ModelChoice(settings).settings.model_version == "sam2:old"
    assert "'new' is not there" in caplog.text
    for content in ("", "[]", "{}", '{"instead_of": "sam2:demo", "models": [3, "../x", null]}'):
        (settings.data_folder / "model.json").write_text(content)
        assert ModelChoice(settings).settings == settings
    shutil.rmtree(settings.data_folder)
    assert ModelChoice(settings).settings == settings
