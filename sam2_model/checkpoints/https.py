"""What a download asks of a server and what it believes of the answers; where it may go at all."""

from __future__ import annotations

import email.message
import ipaddress
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass


class StaleResume(Exception):
    """The server cannot continue the partial file; start from zero."""


@dataclass(frozen=True)
class ResumePoint:
    """Where to continue a file, and how to tell that it is still the same."""

    offset: int
    """Bytes already on disk, > 0."""
    total_bytes: int | None
    validator: str | None
    """A strong ETag or a Last-Modified date, for If-Range (RFC 9110, 13.1.5)."""


_SENT_HEADERS = frozenset({"user-agent", "accept-encoding", "range", "if-range"})


def request_headers(resume: ResumePoint | None) -> dict[str, str]:
    """All this module ever sends (`_SENT_HEADERS`): no cookie, no credential."""
    headers = {"User-Agent": "sam2-label-studio", "Accept-Encoding": "identity"}
    if resume is not None:
        headers["Range"] = f"bytes={resume.offset}-"
        if resume.validator is not None:
            headers["If-Range"] = resume.validator
    return headers


def validator_of(headers: email.message.Message) -> str | None:
    """What changes whenever the file does, for `ResumePoint.validator`; None if not sent."""
    etag = headers.get("ETag")
    if etag and not etag.startswith("W/"):  # a weak one does not promise equal bytes
        return etag
    return headers.get("Last-Modified")


def content_length(headers: email.message.Message) -> int | None:
    """Bytes in the body; None where the server does not say."""
    text = headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else None


def continued_from(headers: email.message.Message, resume: ResumePoint) -> tuple[int, int | None]:
    """(offset, whole size) of a 206 answer; raises `StaleResume` unless it continues the same file."""
    text = headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", text, re.ASCII)
    if match is None or int(match[1]) != resume.offset:
        raise StaleResume(f"Content-Range {text!r} is not from byte {resume.offset}")
    total_bytes = None if match[2] == "*" else int(match[2])
    if None not in (total_bytes, resume.total_bytes) and total_bytes != resume.total_bytes:
        raise StaleResume(f"the file has {total_bytes} bytes now, {resume.total_bytes} before")
    validator = validator_of(headers)
    if None not in (validator, resume.validator) and validator != resume.validator:
        raise StaleResume("the file changed on the server")
    return resume.offset, resume.total_bytes if total_bytes is None else total_bytes


def require_safe_url(url: str, *, allow_loopback_http: bool) -> None:
    """Raises ValueError unless `url` is https, or http on a loopback address where that is allowed."""
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise ValueError(f"url={url!r}: must have a host, and no user name or password")
    if parts.scheme == "https":
        return
    if not (allow_loopback_http and parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError(f"url={url!r}: must be https")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to any https host; to http only on loopback, and only from there."""

    max_redirections = 5

    def __init__(self, *, allow_loopback_http: bool) -> None:
        self._allow_loopback_http = allow_loopback_http

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        try:
            require_safe_url(newurl, allow_loopback_http=self._allow_loopback_http)
        except ValueError as error:
            reason = f"redirect refused, {error}"
            raise urllib.error.HTTPError(req.full_url, code, reason, headers, fp) from error
        # Only what this module set: urllib may have added the credentials of a proxy.
        kept = {name: value for name, value in req.headers.items() if name.lower() in _SENT_HEADERS}
        return urllib.request.Request(newurl, headers=kept, unverifiable=True)


def https_opener(url: str) -> urllib.request.OpenerDirector:
    """An opener that knows http(s) only: urllib's own would also follow into ftp, and open file."""
    is_loopback_http = urllib.parse.urlsplit(url).scheme == "http"
    opener = urllib.request.OpenerDirector()
    handlers: list[urllib.request.BaseHandler] = [
        # The system's proxies, but never for a mirror on this machine.
        urllib.request.ProxyHandler({} if is_loopback_http else None),
        _SafeRedirects(allow_loopback_http=is_loopback_http),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ]
    if is_loopback_http:
        handlers.append(urllib.request.HTTPHandler())
    for handler in handlers:
        opener.add_handler(handler)
    return opener
