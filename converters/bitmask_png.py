"""Label Studio's bitmask: the PNG data URL of a BitmaskLabels region.

A pixel is in the mask when its alpha is above 0, so an opaque PNG of any
colour is a full mask.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct
import zlib

import numpy as np
from PIL import Image

from converters.masks import check_mask

_PREFIX = "data:image/png;base64,"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CLEAR_THEN_WHITE = [0, 0, 0, 255, 255, 255]


def encode(mask: np.ndarray) -> str:
    """(H, W) bool -> data URL of a 1-bit palette PNG, white on transparent."""
    image = Image.fromarray(check_mask(mask).astype(np.uint8))
    image.putpalette(_CLEAR_THEN_WHITE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", bits=1, transparency=0)
    return _PREFIX + base64.b64encode(buffer.getvalue()).decode("ascii")


def decode(data_url: str, size_hw: tuple[int, int]) -> np.ndarray:
    """Data URL of a PNG -> (H, W) bool: the pixels with alpha above 0.

    Raises ValueError when it is not a PNG data URL, is damaged, or has
    another size. The size is read from the header, before any pixel is.
    """
    data = _png_bytes(data_url)
    width, height = struct.unpack(">II", data[16:24])
    if (height, width) != tuple(size_hw):
        raise ValueError(
            f"bitmask has size {height} x {width}, must be {size_hw[0]} x {size_hw[1]}"
        )
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"bitmask is not a readable PNG: {error}") from error
    return alpha > 0


def _png_bytes(data_url: str) -> bytes:
    if not isinstance(data_url, str) or not data_url.startswith(_PREFIX):
        raise ValueError(
            f"bitmask {str(data_url)[:40]!r} must be a data URL that starts with "
            f"{_PREFIX!r}"
        )
    try:
        data = base64.b64decode(data_url[len(_PREFIX) :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"bitmask is not valid base64: {error}") from None
    if not data.startswith(_SIGNATURE) or data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError("bitmask is not a PNG")
    return data
