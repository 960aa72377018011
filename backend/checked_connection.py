"""Connections to hosts that other people's text names.

A host name is resolved once, its addresses are checked, and the connection
goes to the very address that was checked, so that the name cannot point
elsewhere a moment later. The whole exchange ends at a deadline, however slowly
the host drips.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import ipaddress
import socket
import ssl
import threading
from typing import Iterator

from backend.deadlines import Deadline
from backend.errors import MediaRefused

_WAIT_SECONDS = 20.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = (
    ipaddress.ip_network("192.0.0.0/24"),  # Oracle's metadata among others; older Pythons miss it
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's own, inside each of its networks
    # A network's own NAT64 (RFC 8215), which may lead anywhere inside it.
    ipaddress.ip_network("64:ff9b:1::/48"),
)
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


@contextlib.contextmanager
def connection_until(
    deadline: Deadline, scheme: str, host: str, port: int, *, allow_private: bool
) -> Iterator[http.client.HTTPConnection]:
    """A connection that is cut when the deadline passes; not yet connected.

    What it does may raise OSError, http.client.HTTPException, and MediaRefused
    for a host on an address that is not public.
    """
    kind = _SecureConnection if scheme == "https" else _Connection
    wait = max(0.1, min(_WAIT_SECONDS, deadline.remaining_seconds))
    connection = kind(host, port, wait, allow_private=allow_private)
    cutter = threading.Timer(max(0.1, deadline.remaining_seconds), connection.cut)
    cutter.daemon = True
    cutter.start()
    try:
        with contextlib.closing(connection):
            yield connection
    finally:
        cutter.cancel()


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, port: int, wait_seconds: float, *, allow_private: bool) -> None:
        super().__init__(host, port, timeout=wait_seconds)
        self._allow_private = allow_private
        self._to_cut: socket.socket | None = None
        self._is_cut = False

    def connect(self) -> None:
        self.sock = _checked_socket(
            self.host, self.port, self.timeout, allow_private=self._allow_private
        )
        self._watch(self.sock)

    def _watch(self, sock: socket.socket) -> None:
        self._to_cut = sock
        if self._is_cut:
            self.cut()

    def cut(self) -> None:
        """Ends what is being read or written, from another thread."""
        self._is_cut = True
        if self._to_cut is not None:
            with contextlib.suppress(OSError):
                # The plain socket's own: SSLSocket's drops its TLS state, which is in use.
                socket.socket.shutdown(self._to_cut, socket.SHUT_RDWR)


class _SecureConnection(_Connection):
    default_port = 443

    def connect(self) -> None:
        super().connect()
        plain = self.sock
        self.sock = _tls_context().wrap_socket(
            plain, server_hostname=self.host, do_handshake_on_connect=False
        )
        self._watch(self.sock)  # before the handshake, which may drip as well
        self.sock.do_handshake()


@functools.lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


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
    if any(ip in network for network in _NOT_PUBLIC):
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast
    inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    wrapped = [item for item in inner if item is not None]
    if wrapped:
        return all(is_public(str(item)) for item in wrapped)
    return ip in _GLOBAL_UNICAST and ip.is_global
