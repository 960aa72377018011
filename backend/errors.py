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
    retry_after_seconds: float | None = None
    """When to ask again (`Retry-After`); None: that would change nothing."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(ServiceError):
    """The request's JSON breaks the protocol."""

    status, name = 400, "bad request"


class RequestTooSlow(ServiceError):
    """A request's body that did not come in time."""

    status, name = 408, "request too slow"


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


class OverLimit(ServiceError):
    """One request asks for more than the settings allow; asking again changes nothing."""

    status, name = 413, "over a limit"


class NotReady(ServiceError):
    """The model is loading, has failed, or is busy for too long."""

    status, name = 503, "model not ready"
    retry_after_seconds = 10.0


class Stopping(NotReady):
    """The service is being stopped; the next one goes on."""

    name = "the service is stopping"
    is_retryable = True


class DeviceFull(ServiceError):
    """The device's memory does not suffice, whatever was tried; it may when others are done."""

    status, name = 503, "device out of memory"
    is_retryable = True
    retry_after_seconds = 60.0


class StorageUnavailable(ServiceError):
    """Nothing can be read or kept now: another process holds the database, or it fails."""

    status, name = 503, "storage unavailable"
    is_retryable = True
    retry_after_seconds = 10.0


class StorageFull(StorageUnavailable):
    """Nothing can be kept, as the disk is full."""

    status, name = 507, "storage full"
    retry_after_seconds = 60.0


class ResultNotKept(ServiceError):
    """What a job has found has no place now: the storage is full, or away."""

    status, name = 503, "result not kept"
    is_retryable = True
    retry_after_seconds = 60.0


class TooManyRequests(ServiceError):
    """More requests at once, or of one key, than the settings allow."""

    status, name = 429, "too many requests"
    retry_after_seconds = 5.0


class TooManyJobs(ServiceError):
    """A limit on waiting work is passed."""

    status, name = 429, "too many jobs"
    retry_after_seconds = 60.0


class NotFound(ServiceError):
    """There is nothing of that name."""

    status, name = 404, "not found"


class TooManySessions(ServiceError):
    """A limit on interactive sessions or their streams is passed."""

    status, name = 429, "too many sessions"
    retry_after_seconds = 5.0


class NotJson(ServiceError):
    """What is not said to be JSON: a form of another site could send it."""

    status, name = 415, "unsupported media type"


class NotHere(ServiceError):
    """What is asked for cannot be done with the settings in force."""

    status, name = 501, "not available with these settings"
