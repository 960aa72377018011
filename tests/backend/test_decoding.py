"""Hostile media through the whole service: an error about it, and others go on."""

from __future__ import annotations

import os
import signal
import time

import pytest

from backend.link_keys import KeyPurpose, make_key
from backend.model import load_model
from backend.preview_videos import PreviewVideos
from tests import hostile_media
from tests.backend.calls import VIDEO_CONFIG, box, jobs_of, service_of, wait_for_jobs
from tests.backend.test_enterprise import CONFIG

LIMITS = {"decoder_memory_bytes": 512 * 2**20, "max_frames": 500, "answer_seconds": 600.0}


def call(path):
    task = {"id": 1, "project": 1, "data": {"video": str(path)}}
    return {
        "tasks": [task], "label_config": VIDEO_CONFIG, "params": {"context": {"result": [box()]}}
    }


def order(path):
    task = {"id": 1, "project": 1, "data": {"video": str(path)}}
    return {"task": task, "label_config": VIDEO_CONFIG, "results": [box()]}


@pytest.fixture
def make_limited_client(make_client, media_root, tmp_path):
    def make(**changes):
        return make_client(media_roots=(media_root, tmp_path), **{**LIMITS, **changes})

    return make


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda path: hostile_media.mp4_of_endless_duration(path, 60_000_000), "a.mp4"),
        (hostile_media.mp4_of_huge_pictures, "b.mp4"),
        (hostile_media.gif_of_huge_frames, "c.gif"),
        (lambda path: hostile_media.y4m_of_tiny_frames(path, 20_000), "d.y4m"),
    ],
)  # fmt: skip
def test_a_hostile_video_is_refused_everywhere(make_limited_client, tmp_path, media_root, make, name):
    client, path = make_limited_client(load=load_model), make(tmp_path / name)
    answers = [
        client.post("/predict", json=call(path)),
        client.post("/api/sessions", json={"data": {"video": str(path)}, "label_config": CONFIG}),
    ]
    for answer in answers:
        assert answer.status_code == 422, answer.json
        assert name in answer.json["detail"]
    assert client.post("/api/jobs", json=order(path)).status_code == 202
    job = wait_for_jobs(client)[0]
    assert job.state == "failed" and name in job.error and "Traceback" not in job.error
    key = make_key(service_of(client).settings, 1, KeyPurpose.PREVIEW)
    shown = client.get("/preview.mp4", query_string={"key": key, "src": str(path)})
    assert shown.status_code in (302, 403)
    assert client.get("/health").status_code == 200
    good = client.post("/predict", json=call(media_root / "n25.mp4"))
    assert good.status_code == 200 and good.json["results"][0]["result"]


def test_a_decoder_that_crashes_in_a_job_fails_that_job_alone(make_limited_client, media_root):
    """The kernel may end one as well, when memory is short."""
    killed: list[int] = []

    def track(state, prompts, frame_range=None, **_):
        if not killed:
            killed.append(state.source._decoder.process_id)
            os.kill(killed[0], signal.SIGSEGV)
        state.source.frame(0)
        yield from ()

    client = make_limited_client(track=track)
    path = media_root / "n25.mp4"
    refused = client.post("/predict", json=call(path))
    assert refused.status_code == 422 and "crashed" in refused.json["detail"]
    assert client.post("/predict", json=call(path)).status_code == 200
    assert jobs_of(client)


# --- somebody waits ---------------------------------------------------------------


@pytest.fixture
def costly(tmp_path):
    return hostile_media.gif_of_costly_frames(tmp_path / "costly.gif")


@pytest.fixture
def make_hurried_client(make_limited_client):
    def make(**changes):
        limits = {"max_frames": 100_000, "decoder_memory_bytes": 2 * 2**30}
        return make_limited_client(load=load_model, answer_seconds=1.5, **limits, **changes)

    return make


def test_a_person_waits_for_a_costly_video_until_the_deadline(make_hurried_client, costly):
    """Its decoder ends then: what nobody waits for keeps no processor."""
    client, known = make_hurried_client(label_studio_api_key=None), hostile_media.decoders()
    body = {"data": {"video": str(costly)}, "label_config": CONFIG}
    answer = client.post("/api/sessions", json=body)
    assert answer.status_code == 422 and "took longer than" in answer.json["detail"]
    assert hostile_media.no_more_decode_than(known)
    assert client.post("/predict", json=call(costly)).status_code in (422, 503)
    assert hostile_media.no_more_decode_than(known)


def test_a_job_takes_its_time_and_ends_when_it_is_cancelled(make_hurried_client, costly):
    client, known = make_hurried_client(), hostile_media.decoders()
    job_id = client.post("/api/jobs", json=order(costly)).json["id"]
    while not (decoding := hostile_media.decoders() - known):
        time.sleep(0.05)
    time.sleep(2.0)  # longer than a person waits
    assert decoding <= hostile_media.decoders()
    assert client.post(f"/api/jobs/{job_id}/cancel", json={}).status_code == 200
    assert hostile_media.no_more_decode_than(known)
    assert [job.state for job in wait_for_jobs(client)] == ["cancelled"]


def test_a_preview_waits_for_a_costly_video_until_the_deadline(make_hurried_client, costly):
    client, known = make_hurried_client(), hostile_media.decoders()
    with client.application.test_request_context("/preview.mp4"):
        client.application.preprocess_request()
        assert PreviewVideos(service_of(client)).newest([str(costly)]).is_file()
    assert hostile_media.no_more_decode_than(known)
