"""Gunicorn, started from Python: one worker process, threads for the requests."""

from __future__ import annotations

from flask import Flask
from gunicorn.app.base import BaseApplication

from backend.app import create_app
from backend.settings import Settings

_SPARE_THREADS = 4
"""For /health, /setup and webhooks while all /predict places are taken."""


class Server(BaseApplication):
    """`Server(settings, ...).run()` serves until it is told to stop."""

    def __init__(self, settings: Settings, *, host: str, port: int, threads: int | None = None):
        enough = settings.max_waiting_requests + _SPARE_THREADS
        threads = enough if threads is None else threads
        if threads <= settings.max_waiting_requests:
            raise ValueError(
                f"threads={threads} must be above max_waiting_requests="
                f"{settings.max_waiting_requests}, or /health could wait for /predict"
            )
        self._settings = settings
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._options = {
            "bind": [address],
            "workers": 1,  # the process that owns the model
            "worker_class": "gthread",
            "threads": threads,
            "timeout": 120,
            "graceful_timeout": 10,
            "keepalive": 5,
            "proc_name": "sam2-label-studio",
        }
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)
        # Newer versions put one in the home folder, the same for every server.
        if "control_socket_disable" in self.cfg.settings:
            self.cfg.set("control_socket_disable", True)

    def load(self) -> Flask:
        # In the worker, after the fork: CUDA and threads do not survive one.
        return create_app(self._settings)
