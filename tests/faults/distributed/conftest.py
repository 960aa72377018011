"""A web process, workers and Redis, each a process that a test may kill."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from backend.jobs.distributed.connection import connect
from backend.jobs.distributed.store import RedisJobStore
from tests.backend.calls import wait_until
from tests.backend.conftest import picture
from tests.backend.label_studio_site import KEY, serving_label_studio
from tests.backend.test_server import ask
from tests.redis_server import serving_redis
from tests.video_files import write_video

SECONDS = 240
"""Longer than anything here takes on a busy machine."""
FRAMES = 24
"""Enough that a job is still running when it is killed."""


class Cluster:
    def __init__(self, folder: Path, redis_url: str, studio_url: str, media: Path) -> None:
        self._folder, self._url = folder, redis_url
        self.environment = {
            "SAM2_QUEUE": redis_url,
            "SAM2_DEVICE": "cpu",
            "SAM2_SAVE_SECONDS": "0.05",
            "OMP_NUM_THREADS": "1",  # several processes share the cores
            "SAM2_MEDIA_CACHE": str(folder / "cache"),
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(media),
            "LABEL_STUDIO_URL": studio_url,
            "LABEL_STUDIO_API_KEY": KEY,
        }
        self._processes: list[subprocess.Popen] = []
        self.web_url = ""

    def _start(self, name: str, *arguments: str) -> subprocess.Popen:
        folder = self._folder / name
        environment = self.environment | {"SAM2_DATA_FOLDER": str(folder)}
        with open(self._folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "backend.cli", *arguments],
                env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def start_web(self) -> subprocess.Popen:
        """Answers when this returns; there need not be a worker."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = self._start("web", "serve", "--port", str(port))
        self.web_url = f"http://127.0.0.1:{port}"
        self.wait(lambda: _answers(self.web_url), process)
        return process

    def start_workers(self, count: int) -> list[subprocess.Popen]:
        """Take jobs when this returns."""
        with self.store() as store:
            ready = len(store.live_workers()) + count
            processes = [self._start(f"worker{n}", "worker") for n in range(count)]
            self.wait(lambda: len(store.live_workers()) >= ready, *processes)
        return processes

    @contextlib.contextmanager
    def store(self):
        """What the processes keep, as they have it."""
        store = RedisJobStore(connect(self._url, patience_seconds=30))
        try:
            yield store
        finally:
            store.close()

    def wait(self, holds, *alive: subprocess.Popen) -> None:
        def looked_at():
            assert all(process.poll() is None for process in alive), self.logs()
            return holds()

        try:
            wait_until(looked_at, SECONDS)
        except AssertionError:
            raise AssertionError(self.logs()) from None

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text()[-4000:]}"
            for path in sorted(self._folder.glob("*.log"))
        )

    def kill_all(self) -> None:
        for process in self._processes:
            kill(process)


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError):
        return ask(f"{url}/health")["status"] == "UP"
    return False


def kill(process: subprocess.Popen) -> None:
    """With all that it started, without a word."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)


@pytest.fixture
def studio():
    with serving_label_studio() as site:
        yield site


@pytest.fixture
def redis_server(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    with serving_redis(folder) as server:
        yield server


@pytest.fixture
def cluster(tmp_path, redis_server, studio):
    media = tmp_path / "media"
    media.mkdir()
    there_and_back = [*range(8), *reversed(range(8))]
    pictures = [picture(there_and_back[index % 16]) for index in range(FRAMES)]
    write_video(media / "n25.mp4", FRAMES, size=(320, 240), pictures=pictures)
    started = Cluster(tmp_path, redis_server.url, studio.url, media)
    try:
        yield started
    finally:
        started.kill_all()
