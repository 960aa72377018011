"""HTTP for media whose URLs are other people's text.

Redirects are followed here, each hop checked like the first; where a
connection may go is `checked_connection`'s matter. What broke off is gone on
with. Proxies of the environment are not used.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import re
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, Iterator, Mapping, Protocol
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from backend.checked_connection import connection_until
from backend.content_coding import Coding, Decoder, coding_of
from backend.deadlines import Deadline
from backend.errors import (
    CutOff,
    HostDown,
    MediaNotFound,
    MediaRefused,
    MediaTooLarge,
    MediaUnreachable,
)

logger = logging.getLogger(__name__)

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAY_COME_BACK = frozenset({408, 425, 429})
_JSON_SECONDS = 20.0
_READ_BYTES = 2**20
_MAX_JSON_BYTES = 2**20
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Half a surrogate pair, which JSON may have, is no character of a URL either."""
_PASSWORD_IN_PATH = re.compile(r"[^/]*:[^/]*@")
"""Where a URL has a slash too many or too few: http:/user:password@host"""
_VALIDATOR = re.compile(r"[\x20-\x7e]{1,200}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_PAGE_TYPES = frozenset(
    {"text/html", "application/xhtml+xml", "application/json", "text/xml", "application/xml"}
)
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|\?xml)", re.IGNORECASE)


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port: what a key belongs to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Raises MediaRefused for what is not http(s) on a host, or names a user."""
        shown = without_query(url)
        if _CONTROL.search(url):
            raise MediaRefused(f"{shown!r} must not hold control characters")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise MediaRefused(f"{shown} is not a URL") from None
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise MediaRefused(f"{shown} must be http:// or https:// with a host")
        if parts.username is not None or parts.password is not None:
            raise MediaRefused(f"{shown} must not hold a user name or password")
        default = _DEFAULT_PORTS[parts.scheme]
        return cls(parts.scheme, parts.hostname, default if port is None else port)


class Authorization(Protocol):
    """What `Access.home` is told."""

    def headers(self) -> Iterator[str]:
        """Authorization headers, the next one when the host refused the last.

        Raises MediaUnreachable when it refused all, saying what to do.
        """


@dataclass(frozen=True)
class Access:
    """Where requests may go, and what one host is told."""

    home: Origin | None = None
    """Label Studio: may be on a private address, and sees the key."""
    authorization: Authorization | None = None
    """The Authorization headers for `home`."""
    private_hosts: tuple[str, ...] = ()
    """"host" or "host:port" that may be on private addresses."""
    gets_key: Callable[[str], bool] = lambda url: True
    """Whether the headers go to that URL of `home`."""

    def may_be_private(self, origin: Origin) -> bool:
        names = (origin.host, f"{origin.host}:{origin.port}")
        return origin == self.home or any(name.lower() in names for name in self.private_hosts)


@dataclass(frozen=True)
class Version:
    """What tells one version of a file from another."""

    etag: str | None = None
    last_modified: str | None = None
    total_bytes: int | None = None
    is_fixed: bool = False
    """The URL never gives anything else."""

    @property
    def can_resume(self) -> bool:
        """Whether a part of it can be told from a part of another version."""
        return self._range_condition is not None or (
            self.is_fixed and self.total_bytes is not None
        )

    @property
    def _range_condition(self) -> str | None:
        # A weak ETag does not promise equal bytes.
        has_strong_etag = self.etag is not None and not self.etag.startswith("W/")
        return self.etag if has_strong_etag else self.last_modified

    def changed_headers(self) -> dict[str, str]:
        """Headers that ask for the file only if it is another version now."""
        if self.etag is not None:
            return {"If-None-Match": self.etag}
        if self.last_modified is not None:
            return {"If-Modified-Since": self.last_modified}
        return {}

    def rest_headers(self, received_bytes: int) -> dict[str, str]:
        """Headers that ask for the rest, or the whole of another version."""
        if received_bytes == 0 or not self.can_resume:
            return {}
        headers = {"Range": f"bytes={received_bytes}-"}
        if self._range_condition is not None:
            headers["If-Range"] = self._range_condition
        return headers


UNKNOWN_VERSION = Version()


def without_query(url: str) -> str:
    """The URL as it may be shown: no user, query or fragment, which may hold keys.

    Nor anything that would break a log line.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "the media reference"
    path = _PASSWORD_IN_PATH.sub("", parts.path)
    shown = urlunsplit((parts.scheme, host, path, "", ""))
    return _CONTROL.sub("", shown)[:200]


def download(
    url: str,
    file: BinaryIO,
    *,
    access: Access,
    max_bytes: int,
    deadline: Deadline,
    known: Version = UNKNOWN_VERSION,
    begun: Version = UNKNOWN_VERSION,
    on_begin: Callable[[Version], None] | None = None,
) -> int | None:
    """Write what the URL gives into `file`; its number of bytes, None when it is as known.

    What breaks off is gone on with while more arrives each time. The key goes
    to `access.home` only, there to what `gets_key` says, and not any more once a redirect
    has left that.

    Args:
        file: at its end; what it holds already is the beginning of `begun`. After
            an error it holds what arrived, to go on with another time.
        known: the version that the caller has whole.
        begun: the version that the file holds a part of; `is_fixed` goes for what comes.
        on_begin: told which version is about to be written; may refuse by raising.

    Raises MediaRefused, MediaNotFound, MediaTooLarge, MediaUnreachable, HostDown
    or CutOff, each with the URL (without its query) and the rule.
    """
    transfer = _Transfer(url, file, access, max_bytes, deadline, begun, on_begin)
    while True:
        before = file.tell()
        try:
            return transfer.attempt(known)
        except CutOff as error:
            if file.tell() <= before or not transfer.version.can_resume or deadline.has_passed():
                raise
            logger.info("%s; going on with the rest", error.detail)


@dataclass
class _Transfer:
    """One file on its way, over as many connections as it takes."""

    url: str
    file: BinaryIO
    access: Access
    max_bytes: int
    deadline: Deadline
    version: Version
    on_begin: Callable[[Version], None] | None
    coding: Coding | None = None
    """What the answer that is being read is compressed with."""

    def attempt(self, known: Version) -> int | None:
        headers = self.version.rest_headers(self.file.tell())
        if not headers:
            self._start_over()
            headers = known.changed_headers()
        with _get(self.url, self.access, self.deadline, headers) as (response, shown):
            if response.status == 304 and headers and "Range" not in headers:
                return None
            if response.status == 416 and "Range" in headers:
                self._start_over()
            else:
                _check_status(response.status, shown)
                self._begin(response, shown)
                self._receive(response, shown)
                return self.file.tell()
        return self.attempt(known)  # with no Range any more

    def _start_over(self) -> None:
        self.file.seek(0)
        self.file.truncate()

    def _begin(self, response: http.client.HTTPResponse, shown: str) -> None:
        """Check what the answer announces, and put the file where it goes on."""
        self.coding = coding_of(response.getheader("Content-Encoding"), shown)
        total = response.length
        if self.coding is not None:
            # What arrives is not counted as the file's bytes are: nothing to go on with.
            total = None
            self._start_over()
            self.version = Version(is_fixed=self.version.is_fixed)
            if response.status == 206:
                raise MediaUnreachable(f"{shown} gave a part of it compressed, must give all of it")
        elif response.status == 206:
            total = self._check_part(response, shown)
        else:
            self._start_over()
            self.version = _version(response, total, is_fixed=self.version.is_fixed)
        _check_type(response, shown)
        if total is not None and total > self.max_bytes:
            raise MediaTooLarge(f"{shown} has {total} bytes, must have at most {self.max_bytes}")
        if self.on_begin is not None:
            self.on_begin(self.version)

    def _check_part(self, response: http.client.HTTPResponse, shown: str) -> int:
        """The whole's number of bytes; the part must be the rest that was asked for."""
        text = response.getheader("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(text)
        total = int(match[3]) if match else None
        fits = match is not None and int(match[1]) == self.file.tell()
        etag = response.getheader("ETag", self.version.etag)
        if not fits or total != (self.version.total_bytes or total) or etag != self.version.etag:
            self._start_over()
            raise MediaUnreachable(f"{shown} gave {text!r:.80}, not the rest that was asked for")
        return total

    def _receive(self, response: http.client.HTTPResponse, shown: str) -> None:
        decoder = Decoder(self.coding, shown)
        try:
            for chunk in self._chunks(response, decoder, shown):
                if self.file.tell() == 0 and _PAGE.match(chunk):
                    raise MediaUnreachable(_page_instead(shown, "a page"))
                if self.file.tell() + len(chunk) > self.max_bytes:
                    raise MediaTooLarge(f"{shown} has more than {self.max_bytes} bytes")
                self.file.write(chunk)
        except CutOff:
            if self.coding is not None:
                self._start_over()
            raise
        received, total = self.file.tell(), self.version.total_bytes
        if total is not None and received < total:
            raise CutOff(f"{shown} broke off after {received} of {total} bytes")
        if received == 0:
            raise MediaUnreachable(f"{shown} is empty")

    def _chunks(
        self, response: http.client.HTTPResponse, decoder: Decoder, shown: str
    ) -> Iterator[bytes]:
        """The file's bytes as they come; none of them empty."""
        while chunk := self._read(response, shown):
            yield from decoder.decoded(chunk)
        if not decoder.has_ended:
            raise CutOff(f"{shown} broke off after {self.file.tell()} bytes")

    def _read(self, response: http.client.HTTPResponse, shown: str) -> bytes:
        """What is there, so that the file has it when the rest does not come."""
        received = self.file.tell()
        try:
            chunk = response.read1(_READ_BYTES)
        except (OSError, http.client.HTTPException) as error:
            _check_deadline(self.deadline, shown, received)
            raise CutOff(
                f"{shown} broke off after {received} bytes: {_cause(error)}"
            ) from error
        _check_deadline(self.deadline, shown, received)
        return chunk


def _version(
    response: http.client.HTTPResponse, total: int | None, *, is_fixed: bool
) -> Version:
    def validator(name: str) -> str | None:
        value = response.getheader(name)
        return value if value and _VALIDATOR.fullmatch(value) else None

    return Version(validator("ETag"), validator("Last-Modified"), total, is_fixed)


def post_json(url: str, body: Mapping[str, Any], *, access: Access) -> tuple[int, Any]:
    """(status, JSON or None) of a POST; no redirects, no key.

    Raises MediaRefused or HostDown.
    """
    deadline = Deadline(_JSON_SECONDS)
    headers = {"Content-Type": "application/json"}
    shown = without_query(url)
    with _exchange("POST", url, access, deadline, headers, json.dumps(body)) as response:
        try:
            text = response.read(_MAX_JSON_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise HostDown(f"{shown} broke off: {_cause(error)}") from error
    _check_deadline(deadline, shown, len(text))
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, None


@contextlib.contextmanager
def _get(
    url: str, access: Access, deadline: Deadline, headers: Mapping[str, str]
) -> Iterator[tuple[http.client.HTTPResponse, str]]:
    """The response after redirects, and its URL as it may be shown."""
    is_keyed = True
    for _ in range(_MAX_REDIRECTS + 1):
        is_keyed = is_keyed and Origin.of(url) == access.home and access.gets_key(url)
        shown = without_query(url)
        tokens = access.authorization if is_keyed else None
        with _with_token(url, access, deadline, headers, tokens) as response:
            location = response.getheader("Location")
            if response.status not in _REDIRECTS or not location:
                if response.status in (401, 403):
                    _refuse(response.status, shown, is_keyed=is_keyed, access=access)
                yield response, shown
                return
        url = _redirected(url, location)
    raise MediaUnreachable(f"{without_query(url)}: more than {_MAX_REDIRECTS} redirects")


def _redirected(url: str, location: str) -> str:
    shown = without_query(url)
    if _CONTROL.search(location):  # urljoin would drop some of them
        raise MediaRefused(f"{shown} redirects to a URL with control characters")
    try:
        return urljoin(url, location)
    except ValueError:
        raise MediaRefused(f"{shown} redirects to what is not a URL") from None


@contextlib.contextmanager
def _with_token(
    url: str,
    access: Access,
    deadline: Deadline,
    headers: Mapping[str, str],
    authorization: Authorization | None,
) -> Iterator[http.client.HTTPResponse]:
    """The response to the first token that is not refused."""
    tokens = iter(()) if authorization is None else authorization.headers()
    token = next(tokens, None)
    while True:
        given = {} if token is None else {"Authorization": token}
        with _exchange("GET", url, access, deadline, {**headers, **given}) as response:
            if response.status != 401 or token is None:
                yield response
                return
        try:
            token = next(tokens, None)
        except MediaUnreachable as error:
            raise type(error)(f"{without_query(url)} answered 401: {error.detail}") from None


@contextlib.contextmanager
def _exchange(
    method: str,
    url: str,
    access: Access,
    deadline: Deadline,
    headers: Mapping[str, str],
    body: str | None = None,
) -> Iterator[http.client.HTTPResponse]:
    origin, shown = Origin.of(url), without_query(url)
    parts = urlsplit(url)
    path = quote(parts.path or "/", safe="/%:=&~+!$,;'@()*")
    query = quote(parts.query, safe="/%:=&~+!$,;'@()*?")
    target = f"{path}?{query}" if query else path
    with connection_until(
        deadline,
        origin.scheme,
        origin.host,
        origin.port,
        allow_private=access.may_be_private(origin),
    ) as connection:
        try:
            connection.request(method, target, body=body, headers=dict(headers))
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            _check_deadline(deadline, shown, 0)
            raise HostDown(f"{shown}: {_cause(error)}") from error
        with response:
            yield response


def _check_deadline(deadline: Deadline, shown: str, received_bytes: int) -> None:
    if deadline.has_passed():
        raise HostDown(f"{shown} took too long: {received_bytes} bytes arrived")


def _cause(error: Exception) -> str:
    return f"{type(error).__name__} ({error})" if str(error) else type(error).__name__


def _check_status(status: int, shown: str) -> None:
    if status in (200, 206):
        return
    if status in (404, 410):
        raise MediaNotFound(f"{shown} answered {status}")
    if status >= 500 or status in _MAY_COME_BACK:
        raise HostDown(f"{shown} answered {status}")
    raise MediaUnreachable(f"{shown} answered {status}")


def _refuse(status: int, shown: str, *, is_keyed: bool, access: Access) -> None:
    home = access.home
    hint = ""
    if is_keyed and status == 401:
        hint = ": Label Studio wants a token: set LABEL_STUDIO_API_KEY to a personal access token"
    elif is_keyed:
        hint = ": the owner of the token may not see it in Label Studio"
    elif home is not None and Origin.of(shown) == home:
        hint = ": Label Studio's key is not sent to this address"
    elif home is not None and urlsplit(shown).hostname == home.host:
        hint = (
            f": the token goes to {home.scheme}://{home.host}:{home.port} alone; set "
            "LABEL_STUDIO_URL to this address if it is Label Studio's"
        )
    raise MediaUnreachable(f"{shown} answered {status}{hint}")


def _check_type(response: http.client.HTTPResponse, shown: str) -> None:
    kind = response.headers.get_content_type()
    if "Content-Type" in response.headers and kind in _PAGE_TYPES:
        raise MediaUnreachable(_page_instead(shown, kind))


def _page_instead(shown: str, kind: str) -> str:
    return (
        f"{shown} gave {kind}, must give a video or image; a page instead of a file is most "
        "often a login page: the address needs a key, or is not the file's own"
    )
