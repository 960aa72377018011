"""Gunicorn, started from Python: one worker process, threads for the requests."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import math
import platform
import resource
import selectors
import socket
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any, Iterator

from flask import Flask
from gunicorn import systemd
from gunicorn.app.base import BaseApplication
from gunicorn.errors import AppImportError
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from backend.app import create_app
from backend.errors import ServiceError
from backend.processes import check_port
from backend.settings import Settings

_SPARE_THREADS = 12
"""For /health, /setup and webhooks while all /predict places are taken, and for viewers of
previews, of whom some wait and some hold a thread while they are sent a part."""

_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""
_HEAPS = 2

_LAST_ONE_SECONDS = 15.0
_LAST_PORT_SECONDS = 5.0
"""How long a server that is being replaced may take to be gone, and its port to be free."""


_LEAST_BYTES_PER_SECOND = 64 * 1024
"""A request's head and body may take `Settings.request_seconds`, and the time that what has
come of it takes at this rate."""

_OTHER_FILES = 256
"""Descriptors that are left for media, databases and decoders."""
_MOST_CONNECTIONS, _LEAST_CONNECTIONS = 1000, 64


class _RequestSocket(socket.socket):
    """A connection whose requests have to come in time: a byte now and then would hold a
    thread for ever, and so many threads there are not."""

    _until = math.inf

    def begin_request(self, seconds: float) -> None:
        """The time for the next one begins to run."""
        self._until = time.monotonic() + seconds

    def recv(self, *arguments: Any) -> bytes:
        """Raises ConnectionResetError, as if the other side had gone, when the time is over."""
        asked = self.gettimeout()
        left = self._until - time.monotonic()
        if left <= 0:
            raise ConnectionResetError(errno.ECONNRESET, "the request did not come in time")
        if left != math.inf:
            self.settimeout(left if asked is None else min(left, asked))
        try:
            data = super().recv(*arguments)
        except TimeoutError:
            if asked is not None and asked <= left:
                raise
            raise ConnectionResetError(
                errno.ECONNRESET, "the request did not come in time"
            ) from None
        finally:
            self.settimeout(asked)
        self._until += len(data) / _LEAST_BYTES_PER_SECOND
        return data


class _Worker(ThreadWorker):
    """One that tells the service at once when it is to stop: gunicorn itself waits until
    the requests are answered, and these wait for the service.

    A thread takes a connection when a request has begun to come, and gives it up when the
    request does not come in time: neither idle connections nor slow ones keep others waiting.
    """

    def enqueue_req(self, conn: Any) -> None:
        """Called for a new connection, and for each request on one."""
        if conn.initialized or conn.data_ready:
            conn.sock.begin_request(self.app.settings.request_seconds)
            super().enqueue_req(conn)
            return
        conn.sock = _RequestSocket(fileno=conn.sock.detach())
        conn.sock.setblocking(False)
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(
            conn.sock,
            selectors.EVENT_READ,
            functools.partial(self.on_pending_socket_readable, conn),
        )

    def handle_exit(self, sig: Any, frame: Any) -> None:
        if self.alive and self.wsgi is not None:
            service = self.wsgi.extensions["sam2"]
            # Half of the time is left for the answers and for what is closed then.
            threading.Thread(
                target=service.stop, args=(self.cfg.graceful_timeout / 2,), name="stop"
            ).start()
        super().handle_exit(sig, frame)


class _Logger(Logger):
    """Gunicorn's lines among the others: one form, and no secrets."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True


class Server(BaseApplication):
    """`Server(settings, ...).run()` serves until it is told to stop."""

    def __init__(self, settings: Settings, *, host: str, port: int, threads: int | None = None):
        enough = (
            2 * settings.max_waiting_requests  # for /predict, and for sessions
            + settings.max_session_streams
            + _SPARE_THREADS
        )
        threads = enough if threads is None else threads
        if threads <= settings.max_waiting_requests:
            raise ValueError(
                f"threads={threads} must be above max_waiting_requests="
                f"{settings.max_waiting_requests}, or /health could wait for /predict"
            )
        self.settings = settings
        self._address = host, port
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._options = {
            "bind": [address],
            "workers": 1,  # the process that owns the model
            "worker_class": _Worker,
            "logger_class": _Logger,
            "threads": threads,
            "worker_connections": _most_connections(threads),
            # No peer may say where the service is mounted, not even one of this machine.
            "forwarder_headers": "",
            "timeout": 120,
            "graceful_timeout": math.ceil(settings.stop_seconds),
            "keepalive": 5,
            "proc_name": "sam2-label-studio",
            "worker_exit": self._stop_service,
        }
        self._app: Flask | None = None
        super().__init__()

    def run(self) -> None:
        """Serve until told to stop. Raises ValueError when another server has the jobs,
        OSError when the port cannot be had."""
        with sole_use(self.settings.data_folder):
            if not systemd.listen_fds(unset_environment=False):  # else it is given its sockets
                check_port(*self._address, patience_seconds=_LAST_PORT_SECONDS)
            super().run()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)
        # Newer versions put one in the home folder, the same for every server.
        if "control_socket_disable" in self.cfg.settings:
            self.cfg.set("control_socket_disable", True)

    def load(self) -> Flask:
        # In the worker, after the fork: CUDA and threads do not survive one.
        _share_heaps()
        try:
            self._app = create_app(self.settings)
        except (ValueError, OSError, sqlite3.Error, ServiceError) as error:
            # What people can mend: gunicorn says it and ends, without a traceback.
            raise AppImportError(f"sam2-label-studio: {error}") from error
        return self._app

    def _stop_service(self, arbiter: Any, worker: Any) -> None:
        """In the worker, at its end: running jobs are put back, to begin again next time."""
        if self._app is not None:
            self._app.extensions["sam2"].stop()


def _most_connections(threads: int) -> int:
    """As many as there are descriptors for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = _MOST_CONNECTIONS if files == resource.RLIM_INFINITY else files - _OTHER_FILES
    return max(_LEAST_CONNECTIONS, threads + 1, min(_MOST_CONNECTIONS, free))


def _share_heaps() -> None:
    """glibc gives threads heaps of their own, which keep what the thread of each job frees:
    a service that has run for hours would hold memory that nobody uses."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS)


@contextlib.contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Hold a folder of jobs; two servers on one would take each other's jobs for lost ones.

    Raises ValueError when another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Not filelock: the workers inherit this one, and must not give it back.
    with (folder / "in-use.lock").open("a") as file:
        end = time.monotonic() + _LAST_ONE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= end:
                    raise ValueError(
                        f"data_folder={str(folder)!r} is in use by another server: give each "
                        "its own SAM2_DATA_FOLDER"
                    ) from None
                time.sleep(0.2)
        yield
