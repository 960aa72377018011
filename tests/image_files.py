"""Image files as cameras and other tools write them, which Pillow does not."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def png_chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png_of_16_bits(samples: np.ndarray, *, significant_bits: int | None = None) -> bytes:
    """`samples`: (H, W) or (H, W, 3) uint16, stored as they are."""
    height, width = samples.shape[:2]
    colour_type = 0 if samples.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    said = b"" if significant_bits is None else png_chunk(
        b"sBIT", bytes([significant_bits] * (1 if samples.ndim == 2 else 3))
    )
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + said
        + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    )


def exif(orientation: int, *, kind: int = 3, order: str = ">") -> bytes:
    """EXIF with nothing but an orientation; `kind` 3 is SHORT, 4 LONG."""
    head = b"MM\0*" if order == ">" else b"II*\0"
    value = struct.pack(f"{order}HH", orientation, 0) if kind == 3 else struct.pack(
        f"{order}I", orientation
    )
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
    return head + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


def with_exif_in_jpeg(jpeg: bytes, *contents: bytes, title: bytes = b"Exif\0\0") -> bytes:
    """With APP1 segments right after its beginning."""
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(title + content) + 2) + title + content
        for content in contents
    )
    return jpeg[:2] + segments + jpeg[2:]


def with_exif_in_png(png: bytes, content: bytes, *, is_late: bool = False) -> bytes:
    """In an eXIf chunk before the pixels, or behind them."""
    place = png.rindex(b"IEND") - 4 if is_late else 33
    return png[:place] + png_chunk(b"eXIf", content) + png[place:]
