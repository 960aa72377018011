"""One image file: its size and its pixels, as a browser shows them.

A browser turns JPEG and PNG as their EXIF says, and AVIF as its own properties say, which
Pillow hands over as EXIF; it does not turn WebP, nor by XMP, and takes no EXIF that follows
the pixels (tried with Chromium). TIFF, which browsers do not show, is turned by its tag, as
Pillow does.
"""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

from converters.media_kinds import PILLOW_FORMATS
from sam2_model.video.errors import VideoDecodeError
from sam2_model.video.reader import MAX_PIXELS

_TURNED_BY_EXIF = ("JPEG", "MPO", "PNG", "AVIF")  # MPO is a JPEG with more behind it
_ORIENTATION, _SHORT = 0x0112, 3

# What PIL raises for a bad file; SyntaxError is for broken PNG chunks.
IMAGE_ERRORS = (OSError, SyntaxError, Image.DecompressionBombError)


@contextlib.contextmanager
def opened(
    path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """The image, its size known, its pixels not read yet.

    Raises OSError and the others of `IMAGE_ERRORS` for what is none, and
    VideoDecodeError for one that is too large.
    """
    with warnings.catch_warnings():
        # Pillow's own limit only warns; ours follows. Damaged EXIF is as none to browsers.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        image = Image.open(path, formats=PILLOW_FORMATS)
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise VideoDecodeError(
                f"{os.fspath(path)}: {width} x {height} pixels, may have {max_pixels} in all"
            )
        yield image


def is_upright(path: str | os.PathLike[str]) -> bool:
    """Whether the pixels of an image file are stored as they are shown.

    Raises as `opened`.
    """
    with opened(path) as image:
        if image.format == "TIFF":
            return image.tag_v2.get(_ORIENTATION, 1) in (1, None)
        return orientation_of(image) == 1


def orientation_of(image: Image.Image) -> int:
    """1 to 8, of an image file whose pixels are not read yet; how EXIF counts them.

    1 where nothing turns it, or Pillow does (TIFF).
    """
    exif = image.info.get("exif")
    if image.format not in _TURNED_BY_EXIF or not isinstance(exif, bytes):
        return 1
    try:
        return _exif_orientation(exif.removeprefix(b"Exif\0\0"))
    except struct.error:  # it ends before it says
        return 1


def _exif_orientation(tiff: bytes) -> int:
    """Of EXIF's first directory (TIFF 6.0, section 2); raises struct.error."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    (place,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, place)
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == _ORIENTATION:
            return value if kind == _SHORT and 1 <= value <= 8 else 1
    return 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) as stored -> as shown; a view."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    flips_y = orientation in (3, 4, 7, 8)
    flips_x = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if flips_y else 1, :: -1 if flips_x else 1]
