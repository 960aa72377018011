"""What a worker says of itself: a real one, on a real Redis, with a quick model."""

import base64
import dataclasses
import urllib.error
import urllib.request

import pytest

from backend.app import create_app
from backend.engines import Role
from backend.service import TrackingService
from backend.settings import Settings
from backend.worker_page import serving, worker_app
from tests.backend.calls import box, call, keyframe, task, wait_until
from tests.backend.quick_model import SECONDS, QuickModel


@pytest.fixture
def settings(redis_server, media_root, tmp_path):
    with redis_server.client() as redis:
        redis.flushall()
    return Settings(
        queue=redis_server.url, label_studio_local_files_root=media_root,
        media_cache=tmp_path / "cache", data_folder=tmp_path / "service",
    )


@pytest.fixture
def quick():
    return QuickModel()


@pytest.fixture
def start(quick):
    services = []

    def begin(settings):
        service = TrackingService(settings, quick.load, role=Role.WORKER)
        services.append(service)
        app = worker_app(service)
        service.start()
        wait_until(lambda: service.jobs.name in service.store.live_workers())
        return service, app

    yield begin
    for service in services:
        service.stop()
        service.store.close()


@pytest.fixture
def web(settings):
    app = create_app(settings, load=lambda _: 1 / 0)
    yield app.test_client()
    app.extensions["sam2"].stop()


def asked(url, headers=None):
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=headers or {}), timeout=SECONDS
    ) as answer:
        return answer.read().decode()


def metric(text, name):
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def test_a_worker_tells_how_full_its_device_is(settings, start, web):
    service, app = start(settings)
    assert web.post("/predict", json=call(task(), box("a", keyframe(1)))).status_code == 200
    with serving(app, "127.0.0.1", 0) as port:
        health = asked(f"http://127.0.0.1:{port}/health")
        assert '"UP"' in health and '"ready"' in health and service.jobs.name in health
        wait_until(lambda: metric(
            asked(f"http://127.0.0.1:{port}/metrics"), "sam2_frames_tracked_total") == 8)
        text = asked(f"http://127.0.0.1:{port}/metrics")
    assert metric(text, "sam2_device_busy_seconds_total") > 0
    assert 'sam2_model_state{state="ready"} 1' in text
    # What all processes know alike is told by the web processes alone.
    assert "sam2_jobs{" not in text and "sam2_jobs_ended" not in text
    told = web.get("/metrics").text
    assert "sam2_jobs{" in told and "sam2_device_busy_seconds" not in told


def test_who_may_ask_the_service_may_ask_its_workers(settings, start):
    _, app = start(dataclasses.replace(
        settings, basic_auth_user="label", basic_auth_password="studio-password"
    ))
    with serving(app, "127.0.0.1", 0) as port:
        assert '"UP"' in asked(f"http://127.0.0.1:{port}/health")
        with pytest.raises(urllib.error.HTTPError) as refused:
            asked(f"http://127.0.0.1:{port}/metrics")
        with refused.value as answer:
            assert answer.code == 401
        known = base64.b64encode(b"label:studio-password").decode()
        text = asked(f"http://127.0.0.1:{port}/metrics", {"Authorization": f"Basic {known}"})
        assert "sam2_threads" in text


def test_a_port_that_is_taken_is_said(settings, start):
    _, app = start(settings)
    with serving(app, "127.0.0.1", 0) as port, pytest.raises(OSError):
        with serving(app, "127.0.0.1", port):
            pass
