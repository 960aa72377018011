"""`sam2-label-studio worker`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import threading
from typing import Any

from backend.commands.options import add_model_options, port_or_any, with_options
from backend.engines import Role
from backend.settings import Settings

logger = logging.getLogger(__name__)


def add_worker(commands: Any) -> None:
    parser = commands.add_parser(
        "worker", help="run the jobs of SAM2_QUEUE with a model of its own, one process a GPU"
    )
    add_model_options(parser)
    parser.add_argument(
        "--port", type=port_or_any, help="answer GET /health and /metrics there; default: nowhere"
    )
    parser.add_argument("--host", default="127.0.0.1", help="for --port (default %(default)s)")
    parser.set_defaults(run=_work)


def _work(options: argparse.Namespace, settings: Settings) -> int:
    if settings.queue is None:
        raise ValueError(
            "SAM2_QUEUE must name the Redis whose jobs are to be run; without one, "
            "`sam2-label-studio serve` runs them itself"
        )
    from backend.private_files import keep_private
    from backend.processes import check_port
    from backend.service import TrackingService
    from backend.worker_page import serving, worker_app

    settings = with_options(settings, options)
    keep_private(settings)
    service = TrackingService(settings, role=Role.WORKER)
    is_stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: is_stopping.set())
    with contextlib.ExitStack() as stack:
        if options.port is not None:
            check_port(options.host, options.port)
            stack.enter_context(serving(worker_app(service), options.host, options.port))
        service.start()
        service.model.wait()  # a worker without a model would take jobs in vain
        logger.info("worker %s takes jobs", service.jobs.name)
        is_stopping.wait()
        service.stop(settings.stop_seconds / 2)
    return 0
