"""`sam2-label-studio serve` in processes of its own, over one data folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STARTING_SECONDS = 240


def ask(url: str, body: object = None, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON answer. Raises urllib.error.HTTPError."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=STARTING_SECONDS) as answer:
        return json.load(answer)


def refusal(url: str, body: object) -> tuple[int, dict, Mapping[str, str]]:
    """(status, JSON, headers) of an error; fails when there is none."""
    try:
        answer = ask(url, body)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), error.headers
    raise AssertionError(f"answered {answer}")


def wait_until_ready(url: str, process: subprocess.Popen, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the server has ended"
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if ask(f"{url}/health")["model"] == "ready":
                return
        time.sleep(0.05)
    raise AssertionError("the model is not ready")


class RealServer:
    """Started, killed and started again, as often as a test likes."""

    command: Sequence[str] = ("-m", "backend.cli", "serve")

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Its data lies in `folder`/service, what it prints in `folder`/log."""
        self.folder, self.environment = folder, dict(environment)
        self.process: subprocess.Popen | None = None
        self.url = ""

    def start(self, *, until_ready: bool = True) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.command, "--port", str(port)],
                env=os.environ | self.environment, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if until_ready:
            wait_until_ready(self.url, self.process, STARTING_SECONDS)

    def kill(self) -> None:
        """Arbiter and worker, without a word."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STARTING_SECONDS)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def rows(self, query: str) -> list[tuple]:
        path = self.folder / "service" / "jobs.sqlite3"
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as db:
            return db.execute(query).fetchall()
