"""Compressed HTTP answers (RFC 9110, 8.4.1), though none is asked for: stores that keep files
compressed send them so to everybody."""

from __future__ import annotations

import enum
import zlib
from typing import Any, Iterator

from backend.errors import MediaUnreachable

_CHUNK_BYTES = 2**20
_NO_CODINGS = ("", "identity", "aws-chunked")
"""The last is how a file came into a bucket, which some stores keep and tell."""


class Coding(enum.StrEnum):
    """What can be undone."""

    GZIP = "gzip"
    DEFLATE = "deflate"


_NAMES = {"gzip": Coding.GZIP, "x-gzip": Coding.GZIP, "deflate": Coding.DEFLATE}


def coding_of(header: str | None, shown: str) -> Coding | None:
    """What a Content-Encoding means; None for a file as it is.

    Raises MediaUnreachable for one that cannot be undone, or several.
    """
    names = [name.strip().lower() for name in (header or "").split(",")]
    names = [name for name in names if name not in _NO_CODINGS]
    if not names:
        return None
    if len(names) > 1 or names[0] not in _NAMES:
        raise MediaUnreachable(
            f"{shown} is compressed as {', '.join(names)!r:.60}, which was not asked for; gzip and "
            "deflate can be read: have its server send it so, or as it is (without Content-Encoding)"
        )
    return _NAMES[names[0]]


class Decoder:
    """Bytes as they come -> the file's, in pieces of at most a MiB, however small they were."""

    def __init__(self, coding: Coding | None, shown: str) -> None:
        self._coding = coding
        self._shown = shown
        self._stream: Any = None
        self.has_ended = coding is None
        """Whether nothing is missing at the end."""

    def decoded(self, chunk: bytes) -> Iterator[bytes]:
        """Raises MediaUnreachable for what is not compressed as it says."""
        if self._coding is None:
            yield chunk
            return
        while True:
            if self._stream is None:
                self._stream = zlib.decompressobj(_window_bits(self._coding, chunk))
            stream, piece = self._stream, self._piece(chunk)
            if piece:
                yield piece
            self.has_ended = stream.eof
            if stream.eof:
                # A file may be several streams one behind the other, and zeros after them.
                self._stream, chunk = None, stream.unused_data.lstrip(b"\0")
            else:
                chunk = stream.unconsumed_tail
            if not chunk and (stream.eof or len(piece) < _CHUNK_BYTES):
                return

    def _piece(self, chunk: bytes) -> bytes:
        try:
            return self._stream.decompress(chunk, _CHUNK_BYTES)
        except zlib.error as error:
            raise MediaUnreachable(
                f"{self._shown} says that it is compressed ({self._coding}), and is not, or is "
                f"damaged: {error}; have its server send it without Content-Encoding"
            ) from None


def _window_bits(coding: Coding, head: bytes) -> int:
    if coding is Coding.GZIP:
        return 16 + zlib.MAX_WBITS
    # "deflate" is a zlib stream, and from some servers one without its header.
    is_zlib = len(head) < 2 or (head[0] & 15 == 8 and (head[0] << 8 | head[1]) % 31 == 0)
    return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS
