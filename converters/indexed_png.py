"""Masks in PNG files: DAVIS' palette, whole numbers in, pixels of an object out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from converters.media_kinds import PILLOW_FORMATS

VOID = 255
"""DAVIS marks what belongs to no object for certain with this index."""
MAX_OBJECTS = VOID - 1

_READABLE_MODES = ("1", "L", "P", "I", "I;16")
# What PIL raises for a bad file; SyntaxError is for broken PNG chunks.
_IMAGE_ERRORS = (OSError, SyntaxError, Image.DecompressionBombError)


def read_indices(path: str | os.PathLike[str]) -> np.ndarray:
    """(H, W) whole numbers or bool, as the PNG has them: indices or gray values.

    Raises ValueError when the file is no image, or has colours without indices.
    """
    try:
        with Image.open(path, formats=PILLOW_FORMATS) as image:
            if image.mode not in _READABLE_MODES:
                raise ValueError(
                    f"{os.fspath(path)}: has mode {image.mode}, must be an indexed or gray PNG"
                )
            return np.asarray(image)
    except FileNotFoundError:
        raise
    except _IMAGE_ERRORS as error:
        raise ValueError(f"{os.fspath(path)}: is no readable image: {error}") from None


def write_indices(path: Path, indices: np.ndarray) -> None:
    """(H, W) uint8 -> PNG with DAVIS' palette, as small as its highest index allows."""
    image = Image.fromarray(np.ascontiguousarray(indices, dtype=np.uint8))
    image.putpalette(davis_palette().tobytes())
    # Loaders see indices whatever the depth; one bit a pixel is the smallest.
    bits = 1 if indices.max() < 2 else 8
    image.save(path, format="PNG", bits=bits)


def davis_palette() -> np.ndarray:
    """(256, 3) uint8 RGB.

    Each bit of an index, from the lowest, sets a bit of red, green and blue
    in turn, from the highest. These are the colours of PASCAL VOC, which DAVIS uses: 1 dark red,
    2 dark green, 3 olive, ...
    """
    indices = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = (indices >> (3 * place + channel)) & 1
            palette[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return palette
