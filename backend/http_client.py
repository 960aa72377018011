"""HTTP for media whose URLs are other people's text.

The host name is resolved once, its addresses are checked, and the connection
goes to the checked address, so that a name cannot point elsewhere a moment
later. Redirects are followed here, each hop checked like the first. Proxies
of the environment are not used.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, Iterator, Mapping
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from backend.deadlines import Deadline
from backend.errors import MediaNotFound, MediaRefused, MediaTooLarge, MediaUnreachable

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WAIT_SECONDS = 20.0
_READ_BYTES = 2**20
_MAX_JSON_BYTES = 2**20
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_DEFAULT_PORTS = {"http": 80, "https": 443}


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


@dataclass(frozen=True)
class Access:
    """Where requests may go, and what one host is told."""

    home: Origin | None = None
    """Label Studio: may be on a private address, and sees the key."""
    authorization: Callable[[], str] | None = None
    """The Authorization header for `home`."""
    private_hosts: tuple[str, ...] = ()
    """"host" or "host:port" that may be on private addresses."""

    def may_be_private(self, origin: Origin) -> bool:
        names = (origin.host, f"{origin.host}:{origin.port}")
        return origin == self.home or any(name in self.private_hosts for name in names)


def without_query(url: str) -> str:
    """The URL as it may be shown: no user, query or fragment, which may hold keys."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "the media reference"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))[:200]


def download(
    url: str, file: BinaryIO, *, access: Access, max_bytes: int, deadline: Deadline
) -> int:
    """Write what the URL gives into `file`; the number of bytes.

    The key goes to `access.home` only, and not any more once a redirect has
    left it.

    Raises MediaRefused, MediaNotFound, MediaTooLarge or MediaUnreachable, each
    with the URL (without its query) and the rule.
    """
    with _get(url, access, deadline) as (response, shown):
        _check_content(response, shown)
        announced = response.length
        if announced is not None and announced > max_bytes:
            raise MediaTooLarge(
                f"{shown} has {announced} bytes, must have at most {max_bytes}"
            )
        received = 0
        while chunk := _read(response, shown):
            received += len(chunk)
            if received > max_bytes:
                raise MediaTooLarge(f"{shown} has more than {max_bytes} bytes")
            if deadline.has_passed():
                raise MediaUnreachable(f"{shown} took too long: {received} bytes arrived")
            file.write(chunk)
        if announced is not None and received != announced:
            raise MediaUnreachable(
                f"{shown} broke off after {received} of {announced} bytes"
            )
        if received == 0:
            raise MediaUnreachable(f"{shown} is empty")
        return received


def post_json(url: str, body: Mapping[str, Any], *, access: Access) -> tuple[int, Any]:
    """(status, JSON or None) of a POST; no redirects, no key.

    Raises MediaRefused or MediaUnreachable.
    """
    deadline = Deadline(_WAIT_SECONDS)
    headers = {"Content-Type": "application/json"}
    with _exchange("POST", url, access, deadline, headers, json.dumps(body)) as response:
        text = response.read(_MAX_JSON_BYTES)
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, None


@contextlib.contextmanager
def _get(
    url: str, access: Access, deadline: Deadline
) -> Iterator[tuple[http.client.HTTPResponse, str]]:
    """The response after redirects, and its URL as it may be shown."""
    is_home = True
    for _ in range(_MAX_REDIRECTS + 1):
        is_home = is_home and Origin.of(url) == access.home
        headers = {}
        if is_home and access.authorization is not None:
            headers["Authorization"] = access.authorization()
        with _exchange("GET", url, access, deadline, headers) as response:
            location = response.getheader("Location")
            if response.status not in _REDIRECTS or not location:
                _check_status(response.status, without_query(url), is_home)
                yield response, without_query(url)
                return
        url = urljoin(url, location)
    raise MediaUnreachable(f"{without_query(url)}: more than {_MAX_REDIRECTS} redirects")


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
    kind = _SecureConnection if origin.scheme == "https" else _Connection
    wait = max(0.1, min(_WAIT_SECONDS, deadline.remaining_seconds))
    connection = kind(origin, wait, allow_private=access.may_be_private(origin))
    parts = urlsplit(url)
    path = quote(parts.path or "/", safe="/%:=&~+!$,;'@()*")
    query = quote(parts.query, safe="/%:=&~+!$,;'@()*?")
    target = f"{path}?{query}" if query else path
    with contextlib.closing(connection):
        try:
            connection.request(method, target, body=body, headers=dict(headers))
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise MediaUnreachable(f"{shown}: {_cause(error)}") from error
        with response:
            yield response


def _read(response: http.client.HTTPResponse, shown: str) -> bytes:
    try:
        return response.read(_READ_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise MediaUnreachable(f"{shown} broke off: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    return f"{type(error).__name__} ({error})" if str(error) else type(error).__name__


def _check_status(status: int, shown: str, is_home: bool) -> None:
    if status == 200:
        return
    if status in (404, 410):
        raise MediaNotFound(f"{shown} answered {status}")
    hint = ": is LABEL_STUDIO_API_KEY valid?" if is_home and status in (401, 403) else ""
    raise MediaUnreachable(f"{shown} answered {status}{hint}")


def _check_content(response: http.client.HTTPResponse, shown: str) -> None:
    kind = response.headers.get_content_type()
    if "Content-Type" in response.headers and (
        kind.startswith("text/") or kind in ("application/json", "application/xhtml+xml")
    ):
        # Most often a login page.
        raise MediaUnreachable(
            f"{shown} gave {kind}, must give a video or image; a page instead of a file "
            "often means that a key is missing"
        )


# --- connections -------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    """Connects to an address that has been checked."""

    def __init__(self, origin: Origin, wait_seconds: float, *, allow_private: bool) -> None:
        super().__init__(origin.host, origin.port, timeout=wait_seconds)
        self._allow_private = allow_private

    def connect(self) -> None:
        self.sock = _checked_socket(
            self.host, self.port, self.timeout, allow_private=self._allow_private
        )


class _SecureConnection(_Connection):
    default_port = 443

    def connect(self) -> None:
        super().connect()
        context = ssl.create_default_context()
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host)


def _checked_socket(
    host: str, port: int, wait_seconds: float, *, allow_private: bool
) -> socket.socket:
    """A connected socket. Raises MediaRefused when the host has a private address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise MediaRefused(f"{host!r} is not a host name") from None
    addresses = list(dict.fromkeys(item[4][0] for item in found))
    private = [address for address in addresses if not is_public(address)]
    if private and not allow_private:
        raise MediaRefused(
            f"host {host!r} is on the private or reserved address {private[0]}: name it in "
            "SAM2_ALLOW_PRIVATE_MEDIA_HOSTS if media may come from there"
        )
    last: OSError = OSError(f"{host}: no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), wait_seconds)
        except OSError as error:
            last = error
    raise last


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also when it wraps an IPv4 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        wrapped = [item for item in inner if item is not None]
        if wrapped:
            return all(is_public(str(item)) for item in wrapped)
    return ip.is_global and not ip.is_multicast
