"""Each request has an id, which its answer, its log lines and its jobs have too."""

from __future__ import annotations

import logging
import time

from flask import Flask, Response, g, request

from backend import log_context

logger = logging.getLogger(__name__)

HEADER = "X-Request-ID"
_QUIET = ("GET", "HEAD", "OPTIONS")
"""Asked so often that a line each would hide the others; `/metrics` counts them."""


def follow(app: Flask) -> None:
    """Give requests their ids. Before all else that may refuse one."""
    app.before_request(_begin)
    app.after_request(_end)
    app.teardown_request(_forget)


def _begin() -> None:
    given = request.headers.get(HEADER)
    g.request_began = time.perf_counter()
    g.request_id = given if log_context.is_sane_id(given) else log_context.new_request_id()
    log_context.begin(request_id=g.request_id)


def _end(answer: Response) -> Response:
    answer.headers[HEADER] = g.request_id
    if request.method not in _QUIET:
        logger.info(
            "%s %s: %d in %.3f s", request.method, request.path[:200], answer.status_code,
            time.perf_counter() - g.request_began,
        )
    return answer


def _forget(_: BaseException | None) -> None:
    log_context.begin()  # the thread's next request is another one
