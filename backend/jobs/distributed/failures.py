"""What a job failed with in a worker, for the web process that is to answer it."""

from __future__ import annotations

from typing import Any, Mapping

from backend.errors import ServiceError
from converters.label_studio.config import UnsupportedConfigError
from sam2_model.video import VideoDecodeError

_VALUE_ERRORS = (VideoDecodeError, UnsupportedConfigError, ValueError)
"""The most special first."""
_ANSWERED = ("status", "name", "retry_after_seconds")
"""What of a `ServiceError` those who asked are told beside its text."""


def failure_of(error: BaseException) -> dict[str, Any] | None:
    """What tells the kind of an error, as JSON; None for one that nobody foresaw."""
    if isinstance(error, ServiceError):
        return {name: getattr(error, name) for name in _ANSWERED}
    for kind in _VALUE_ERRORS:
        if isinstance(error, kind):
            return {"type": kind.__name__}
    return None


def error_of(failure: Mapping[str, Any] | None, detail: str) -> Exception:
    """The error again: with the same HTTP status and message."""
    for kind in _VALUE_ERRORS:
        if failure is not None and failure.get("type") == kind.__name__:
            return kind(detail)
    error = ServiceError(detail)
    if failure is not None:
        for name in _ANSWERED:
            setattr(error, name, failure[name])
    return error
