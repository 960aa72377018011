"""One file with masks: its pixels as indices, gray values or colours.

What those mean is told by all files of a video together: `mask_readings`.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from converters.indexed_png import VOID
from converters.malformed import MalformedValue
from converters.media_kinds import PILLOW_FORMATS

_GRAY_MODES = ("L", "P", "I", "I;16", "I;16B")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
# What PIL raises for a bad file; SyntaxError is for broken PNG chunks.
_IMAGE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


@dataclass(frozen=True)
class MaskPicture:
    """One file's pixels."""

    values: np.ndarray
    """(H, W) uint8, uint16 or int32: indices or gray values; 0xRRGGBB where it has colours."""
    is_coloured: bool = False
    is_lossy: bool = False
    palette: np.ndarray | None = None
    """(256,) int32 0xRRGGBB, of a picture that has indices of colours."""

    def in_8_bits(self) -> np.ndarray:
        """(H, W) gray values; of 16 bits the higher 8."""
        return self.values if self.values.dtype == np.uint8 else self.values >> 8

    def colours(self) -> np.ndarray:
        """(H, W) int32 0xRRGGBB."""
        if self.is_coloured:
            return self.values
        if self.palette is not None:
            return self.palette[self.values]
        return np.minimum(self.values, 255).astype(np.int32) * 0x010101


def read_mask_picture(path: str | os.PathLike[str]) -> MaskPicture:
    """A file of masks, of any format that a browser shows.

    Where a picture is transparent there is no object; one that is black all
    over and in part transparent has its mask in the transparency.

    Raises MalformedValue when the file is no image, or of a kind that holds no masks.
    """
    place = os.fspath(path)
    try:
        with warnings.catch_warnings():
            # Odd EXIF tags do not matter; too many pixels do.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=PILLOW_FORMATS) as image:
                picture = _picture(image)
    except _IMAGE_ERRORS as error:
        raise MalformedValue(place, f"is no readable image: {error}") from None
    if picture is None:
        raise MalformedValue(place, f"has mode {image.mode}, must be indexed, gray or RGB")
    return picture


def _picture(image: Image.Image) -> MaskPicture | None:
    is_lossy = image.format == "JPEG"
    if image.mode == "1":
        return MaskPicture(np.asarray(image).astype(np.uint8) * VOID)
    if image.mode == "P":
        palette = colour_codes(np.resize(np.array(image.getpalette("RGB"), np.uint8), (256, 3)))
        values = np.asarray(image)
        if (palette == np.arange(256) * 0x010101).all():
            return MaskPicture(values)
        if palette[0] == 0 or 0 not in palette[np.unique(values)]:
            return MaskPicture(values, palette=palette)
        # A tool has put the palette in another order: the colours are what was kept.
        return _gray_or_coloured(np.asarray(image.convert("RGB")), is_lossy)
    if image.mode in _GRAY_MODES:
        values = np.asarray(image)
        if values.min() < 0:
            raise ValueError("a value is negative")
        is_small = values.dtype == np.uint8 or int(values.max()) > 65535
        return MaskPicture(values if is_small else values.astype(np.uint16), is_lossy=is_lossy)
    if image.mode in _ALPHA_MODES:
        rgba = np.asarray(image.convert("RGBA"))
        rgb, alpha = rgba[..., :3], rgba[..., 3]
        if not rgb.any() and alpha.min() < alpha.max():
            return MaskPicture(alpha, is_lossy=is_lossy)
        return _gray_or_coloured(np.where(alpha[..., None] > 127, rgb, 0), is_lossy)
    if image.mode == "RGB":
        return _gray_or_coloured(np.asarray(image), is_lossy)
    return None


def _gray_or_coloured(rgb: np.ndarray, is_lossy: bool) -> MaskPicture:
    """(H, W, 3) uint8; gray if it is."""
    if (rgb == rgb[..., :1]).all():
        return MaskPicture(rgb[..., 0], is_lossy=is_lossy)
    return MaskPicture(colour_codes(rgb), is_coloured=True, is_lossy=is_lossy)


def colour_codes(rgb: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 -> (...) int32 0xRRGGBB."""
    red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue
