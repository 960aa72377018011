"""Indexed PNG files with DAVIS' palette."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

VOID = 255
"""DAVIS marks what belongs to no object for certain with this index."""
MAX_OBJECTS = VOID - 1


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
