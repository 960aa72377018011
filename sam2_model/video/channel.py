"""Messages between the service and a decoder process: JSON, pictures, and sockets.

Nothing is unpickled: what a hostile file may have made of the decoder must not
run on this side.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from typing import Any

_LENGTH = struct.Struct(">I")
_MAX_JSON_BYTES = 64 * 2**20
"""A list of 100,000 files, or the times of a million frames."""


class Channel:
    """One end of a pair of sockets. Not thread safe.

    Everything raises OSError when the other end has gone, TimeoutError when it
    takes too long, and ValueError for what is no message.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """An end to use here, and one to give away."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    def close(self) -> None:
        self._socket.close()

    def wait_at_most(self, seconds: float | None) -> None:
        """For each receipt from now on."""
        self._socket.settimeout(seconds)

    def has_message_within(self, seconds: float) -> bool:
        """Whether one has begun to come, or the other end has gone."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(1000 * max(0.0, seconds)))

    def send(self, message: Any, give: socket.socket | None = None) -> None:
        """JSON, and with it a socket."""
        body = json.dumps(message).encode()
        if give is None:
            self._socket.sendall(_LENGTH.pack(len(body)) + body)
            return
        # All of the length goes with the socket: four bytes are never split.
        socket.send_fds(self._socket, [_LENGTH.pack(len(body))], [give.fileno()])
        self._socket.sendall(body)

    def receive(self) -> Any:
        """JSON; a socket that comes with it is closed."""
        message, given = self.receive_with_socket()
        if given is not None:
            given.close()
        return message

    def receive_with_socket(self) -> tuple[Any, socket.socket | None]:
        head, numbers, _, _ = socket.recv_fds(self._socket, _LENGTH.size, 1)
        given = socket.socket(fileno=numbers[0]) if numbers else None
        if not head:
            raise EOFError
        rest = bytearray(_LENGTH.size - len(head))
        self._fill(memoryview(rest))
        (length,) = _LENGTH.unpack(head + rest)
        if length > _MAX_JSON_BYTES:
            raise ValueError(f"a message of {length} bytes, may have {_MAX_JSON_BYTES}")
        body = bytearray(length)
        self._fill(memoryview(body))
        return json.loads(body), given

    def send_bytes(self, content: memoryview) -> None:
        """Raw, without a length: the other end knows how much comes."""
        self._socket.sendall(content)

    def receive_bytes(self, into: memoryview) -> None:
        """As many as fit."""
        self._fill(into)

    def _fill(self, view: memoryview) -> None:
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise EOFError
            view = view[count:]
