"""A real Redis on a free port, with what it keeps in a folder of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.backend.calls import wait_until

_BINARY = "redis-server"
_SECONDS = 60


class RedisServer:
    """With the append-only file, as docs/scaling.md asks for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        with open(self._folder / "redis.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    _BINARY, "--port", str(self._port), "--bind", "127.0.0.1",
                    "--dir", str(self._folder), "--appendonly", "yes", "--save", "",
                ],
                stdout=log, stderr=subprocess.STDOUT,
            )
        wait_until(self._answers, _SECONDS)

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url) as client, contextlib.suppress(redis.RedisError):
            return client.ping()
        return False

    def kill(self) -> None:
        """Without a word."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_SECONDS)
            self._process = None

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)


@contextlib.contextmanager
def serving_redis(folder: Path) -> Iterator[RedisServer]:
    """Skips the test where there is no Redis to run."""
    if shutil.which(_BINARY) is None:
        pytest.skip(f"{_BINARY} is not installed (apt-get install redis-server)")
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
