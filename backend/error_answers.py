"""Errors as answers: each says what was wrong, by what rule, with the right status."""

from __future__ import annotations

import logging
import math

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from backend.errors import ServiceError
from backend.log_context import request_id
from backend.settings import Settings
from converters.label_studio.config import UnsupportedConfigError
from sam2_model.video import VideoDecodeError

logger = logging.getLogger(__name__)

_REDIS_SECONDS = 10
"""When to ask again while Redis is away."""


def answer_errors(app: Flask, settings: Settings) -> None:
    """Answer whatever a view raises."""
    app.register_error_handler(Exception, _answer_error)
    if settings.queue is not None:
        app.register_error_handler(_redis_error(), _answer_redis_error)


def _answer_error(error: Exception) -> tuple[Response, int]:
    """The outermost boundary: every error becomes {"error", "detail"} and a log line."""
    if isinstance(error, HTTPException):
        return _error(error.code or 500, error.name, error.description or "")
    if isinstance(error, ServiceError):
        logger.warning("%s %s: %s", request.method, request.path, error.detail)
        answer, status = _error(error.status, error.name, error.detail)
        if error.retry_after_seconds is not None:
            answer.headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
        return answer, status
    if isinstance(error, UnsupportedConfigError):
        logger.warning("%s %s: %s", request.method, request.path, error)
        return _error(422, "label config cannot be served", str(error))
    if isinstance(error, VideoDecodeError):
        logger.warning("%s %s: %s", request.method, request.path, error)
        return _error(422, "media cannot be decoded", str(error))
    if isinstance(error, ValueError):
        # The converters' and the tracker's word for what a person drew wrong.
        logger.warning("%s %s: %s", request.method, request.path, error, exc_info=error)
        return _error(400, "bad request", str(error))
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return _error(
        500, "internal error", f"{type(error).__name__}; the server's log has the traceback"
    )


def _redis_error() -> type[Exception]:
    from redis.exceptions import RedisError  # an extra, there if SAM2_QUEUE is set

    return RedisError


def _answer_redis_error(error: Exception) -> tuple[Response, int]:
    logger.error("%s %s: Redis: %s", request.method, request.path, error)
    answer, status = _error(
        503, "queue not ready", f"Redis: {type(error).__name__}; try again later"
    )
    answer.headers["Retry-After"] = str(_REDIS_SECONDS)
    return answer, status


def _error(status: int, name: str, detail: str) -> tuple[Response, int]:
    g.failure = name
    return jsonify({"error": name, "detail": detail, "request_id": request_id()}), status
