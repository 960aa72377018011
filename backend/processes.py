"""Programs started beside this one, and ended with everything that they started."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

from backend.settings import environment_with

_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.1


class ProcessError(Exception):
    """A program did not start, or ended by itself; the message names its log."""


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_port(host: str, port: int, *, patience_seconds: float = 0.0) -> None:
    """Raises OSError, saying what to do, when a server could not listen there.

    Args:
        patience_seconds: for one that is being replaced to be gone.
    """
    end = time.monotonic() + patience_seconds
    while True:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socket.create_server((host, port), family=family).close()
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= end:
                raise OSError(_port_trouble(error, host, port)) from None
        time.sleep(_POLL_SECONDS)


def _port_trouble(error: OSError, host: str, port: int) -> str:
    what = f"port {port} of {host} cannot be listened on"
    if error.errno == errno.EADDRINUSE:
        return f"{what}, as another program has it: end that one, or give another --port"
    if error.errno == errno.EACCES:
        return f"{what}, as ports below 1024 are the administrator's: give a --port from 1024 on"
    return f"{what} ({error.strerror or error}): is --host an address of this machine?"


def get_json(url: str) -> Any:
    """The JSON answer, never through a proxy. Raises OSError or ValueError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        return json.load(response)


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    is_ready: Callable[[], bool],
    variables: Mapping[str, str] | None = None,
    timeout_seconds: float = 300.0,
) -> Iterator[None]:
    """Run a program until the block ends, however it ends; begins when it is ready.

    Args:
        log: takes what it prints.
        is_ready: asked again while it raises OSError or ValueError or says no.
        variables: added to its environment.

    Raises ProcessError when it ends by itself before that, or takes too long.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        # A session, so a process group, of its own: Ctrl-C reaches us alone, and whatever the
        # program starts ends with it.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=environment_with(variables or {}), start_new_session=True,
        )
        try:
            _wait(process, command[0], log, is_ready, timeout_seconds)
            yield
        finally:
            _end_group(process)


@contextlib.contextmanager
def running_backend(
    options: Sequence[str] = (),
    *,
    log: Path,
    port: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """The URL of `sam2-label-studio serve` on the loopback address, its model loaded.

    `options` are those of the command, `variables` those of `backend.settings`.
    Raises ProcessError as `running` does, and when the model cannot be loaded.
    """
    port = free_port() if port is None else port
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "backend.cli", "serve",
        "--host", "127.0.0.1", "--port", str(port), *options,
    ]

    def is_ready() -> bool:
        health = get_json(f"{url}/health")
        if health["model"] == "failed":
            raise ProcessError(f"{health['detail']}; see {log}")
        return health["model"] == "ready"

    with running(command, log=log, is_ready=is_ready, variables=variables):
        yield url


def _wait(
    process: subprocess.Popen,
    name: str,
    log: Path,
    is_ready: Callable[[], bool],
    timeout_seconds: float,
) -> None:
    end = time.monotonic() + timeout_seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise ProcessError(f"{name} ended with status {process.returncode}; see {log}")
        with contextlib.suppress(OSError, ValueError):
            if is_ready():
                return
        time.sleep(_POLL_SECONDS)
    raise ProcessError(f"{name} is not ready after {timeout_seconds:.0f} s; see {log}")


def _end_group(process: subprocess.Popen) -> None:
    try:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    finally:  # also when a second Ctrl-C says that this takes too long
        # The leader may have gone before those that it started.
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
