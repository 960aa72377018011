"""A small real HTTP server that gives what a test tells it to, and notes what it was asked."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    body: bytes | Iterable[bytes] = b""
    """Parts are sent one by one, with no Content-Length."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None
    """Content-Length, where it is to differ from the body's; -1 for none."""


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Site:
    """Replies by path (with query), or a function of the request."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply | Callable[[Asked], Reply]] = {}
        self.otherwise: Callable[[Asked], Reply] = lambda asked: Reply(status=404)
        """For paths without a reply."""
        self.asked: list[Asked] = []
        self.url = ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def tokens(self) -> list[str | None]:
        return [asked.headers.get("Authorization") for asked in self.asked]


@contextlib.contextmanager
def serving_site(tls: ssl.SSLContext | None = None, *, port: int = 0) -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            asked = Asked(self.command, self.path, dict(self.headers), self.rfile.read(length))
            site.asked.append(asked)
            reply = site.replies.get(self.path, site.otherwise)
            reply = reply(asked) if callable(reply) else reply
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            is_whole = isinstance(reply.body, bytes)
            if reply.announced != -1 and (is_whole or reply.announced is not None):
                announced = len(reply.body) if reply.announced is None else reply.announced
                self.send_header("Content-Length", str(announced))
            self.end_headers()
            with contextlib.suppress(OSError):
                for part in [reply.body] if is_whole else reply.body:
                    self.wfile.write(part)

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # a client that does not trust it
    site.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
