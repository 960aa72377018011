"""Whether a video file was cut short, from what its container says of its length."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


def missing_bytes(path: Path) -> int:
    """How much shorter the file is than its own header says; 0 if it cannot tell.

    FFmpeg reads a file that was cut off without complaint where the cut falls
    between two packets, and only logs it elsewhere. Raw streams say nothing of
    their length, so theirs goes unnoticed.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(189)
        if head[:4] == b"RIFF":
            length = int.from_bytes(head[4:8], "little")
            end = 0 if length == 0xFFFFFFFF else 8 + length
        elif head[:1] == head[188:] == b"G":
            end = -(-size // 188) * 188  # MPEG-TS comes in packets of 188 bytes
        elif head[:4] == bytes.fromhex("1A45DFA3"):
            end = _matroska_end(file)
        else:
            end = _last_box_end(file, size)
    return max(0, end - size)


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment should end (RFC 8794, RFC 9559), 0 if it is not stated."""
    file.seek(4)
    file.seek(_read_ebml_size(file) or 0, os.SEEK_CUR)
    if file.read(4) != bytes.fromhex("18538067"):
        return 0
    size = _read_ebml_size(file)
    return 0 if size is None else file.tell() + size


def _read_ebml_size(file: BinaryIO) -> int | None:
    """A variable-size integer; None for the reserved "unknown" (all ones)."""
    first = int.from_bytes(file.read(1), "big")
    if first == 0:
        return None
    more = 8 - first.bit_length()
    marker = 1 << (7 * more + 7)
    value = (first << (8 * more) | int.from_bytes(file.read(more), "big")) - marker
    return None if value == marker - 1 else value


def _last_box_end(file: BinaryIO, size: int) -> int:
    """Where the last top-level box should end (ISO/IEC 14496-12, 4.2)."""
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        # Length 0 runs to the end of the file. What is no box, in files of other
        # kinds or as junk after the last box, says nothing of the length.
        if length < 8 or not kind.isalnum():
            return 0
        if end + length > size and kind not in (b"mdat", b"moov", b"moof"):
            return 0
        end += length
    return end
