"""Errors that have an HTTP status: what a request may fail with, in plain words.

`detail` names the value and the rule. It goes into logs and answers, so it
never holds a token, nor a URL's query (`http_client.without_query`).
"""

from __future__ import annotations


class ServiceError(Exception):
    """A request that cannot be answered; subclasses give the status and a short name."""

    status = 500
    name = "internal error"
    is_retryable = False
    """Whether the same may succeed later, nothing else being changed."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(ServiceError):
    """The request's JSON breaks the protocol."""

    status, name = 400, "bad request"


class Unauthorized(ServiceError):
    """One who asks does not know the password."""

    status, name = 401, "not authorized"


class Forbidden(ServiceError):
    """A request that is not taken from where it comes."""

    status, name = 403, "forbidden"


class Conflict(ServiceError):
    """What is asked cannot be done in the state that things are in."""

    status, name = 409, "conflict"


class UnusableTask(ServiceError):
    """The request is well-formed, but this service cannot work on what it names."""

    status, name = 422, "task cannot be answered"


class MediaRefused(ServiceError):
    """A media reference that the rules do not allow."""

    status, name = 403, "media refused"


class MediaNotFound(ServiceError):
    """There is nothing at the media reference."""

    status, name = 404, "media not found"


class MediaTooLarge(ServiceError):
    """The media is over a limit."""

    status, name = 413, "media too large"


class MediaUnreachable(ServiceError):
    """The host of the media did not give it."""

    status, name = 502, "media unreachable"


class HostDown(MediaUnreachable):
    """The host did not answer, or says that it cannot now; later it may."""

    is_retryable = True


class CutOff(HostDown):
    """The host's answer broke off."""


class NotReady(ServiceError):
    """The model is loading, has failed, or is busy for too long."""

    status, name = 503, "model not ready"


class TooManyJobs(ServiceError):
    """A limit on waiting work is passed."""

    status, name = 429, "too many jobs"


class NotFound(ServiceError):
    """There is nothing of that name."""

    status, name = 404, "not found"


class TooManySessions(ServiceError):
    """A limit on interactive sessions or their streams is passed."""

    status, name = 429, "too many sessions"


class TooManyRequests(ServiceError):
    """More than one key's share of requests."""

    status, name = 429, "too many requests"


class NotJson(ServiceError):
    """A change that is not said to be JSON: a form of another site could send it."""

    status, name = 415, "unsupported media type"
