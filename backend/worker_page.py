"""What a worker answers about itself: whether it lives, and its metrics."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Iterator

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from backend.access import guard
from backend.error_answers import answer_errors
from backend.metrics import measure_work, serve_metrics

if TYPE_CHECKING:
    from backend.service import TrackingService


def worker_app(service: TrackingService) -> Flask:
    """`/health`, for everyone, and `/metrics`, for those who may ask the service."""
    app = Flask(__name__, static_folder=None)

    def health() -> dict[str, Any]:
        answer = {
            "status": "UP",
            "worker": service.jobs.name,
            "model_version": service.settings.model_version,
            "model": str(service.model.state),
        }
        return answer | ({"detail": service.trouble} if service.trouble else {})

    app.add_url_rule("/health", "health", health, methods=["GET"])
    serve_metrics(app, measure_work(service))
    answer_errors(app, service.settings)
    guard(app, service.settings)
    return app


@contextlib.contextmanager
def serving(app: Flask, host: str, port: int) -> Iterator[int]:
    """Answers in threads inside the `with`; the port, a free one for 0.

    Raises OSError when it cannot be had.
    """
    with socket.create_server((host, port)) as listening:  # the server would end the process
        server = make_server(
            host, port, app, threaded=True, request_handler=_QuietHandler, fd=listening.fileno()
        )
    thread = threading.Thread(target=server.serve_forever, name="worker-page", daemon=True)
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        """Prometheus asks every few seconds."""
