"""Images of more than 8 bits a sample, as 8: which of the bits hold the picture.

Cameras write 10, 12 or 14 bits into files of 16, and the upper eight of those are nearly
black. So the brightest sample of all frames says how many bits there are: of all frames
together, or the brightness would jump from one to the next.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import numpy as np
from PIL import Image

from sam2_model.video.image_file import turned

ALL_BITS = 16
"""Of a file's sample, at most; a few have 32, of which the upper ones count."""
_MAX_SAMPLE_VALUE, _ORIENTATION = 281, 274  # tags of TIFF 6.0
_DECODERS = {"PNG": "png", "TIFF": "tiff"}


def is_deep(image: Image.Image) -> bool:
    """Whether an image, its pixels not read yet, has more than 8 bits a sample."""
    return is_deep_gray(image) or (image.format in _DECODERS and _is_deep_colour(image))


def is_deep_gray(image: Image.Image) -> bool:
    """The same of images without colour, which Pillow reads whole."""
    return image.mode.startswith("I;16") or image.mode == "I"


def declared_bits(image: Image.Image) -> int:
    """How many bits a file says that its samples use; 8 where it does not say.

    PNG says it in sBIT, TIFF in MaxSampleValue or by samples of other than 16 bits.
    """
    if image.format == "PNG":
        bits = max(_significant_bits(Path(image.filename)), default=0)
    elif image.format == "TIFF":
        most = image.tag_v2.get(_MAX_SAMPLE_VALUE) or 0
        most = max(most) if isinstance(most, tuple) else most
        bits = int(most).bit_length() or max(image.tag_v2.get(258, (0,)))
    else:
        bits = 0
    # All of them is what every file says that does not know better.
    return bits if 8 < bits < ALL_BITS else 8


def bits_of(image: Image.Image) -> int:
    """How many bits an image's brightest sample uses; reads its pixels."""
    return int(deep_pixels(image).max()).bit_length()


def deep_pixels(image: Image.Image) -> np.ndarray:
    """(H, W) or (H, W, 3) of whole numbers, from 0 on."""
    if is_deep_gray(image):
        return np.maximum(np.asarray(image), 0)
    # Pillow keeps the upper eight bits of colours alone.
    orientation = image.tag_v2.get(_ORIENTATION, 1) if image.format == "TIFF" else 1
    decoder = av.CodecContext.create(_DECODERS[image.format], "r")
    width, height = image.size if orientation < 5 else image.size[::-1]
    # Lines are longer in memory than in the picture.
    decoder.options = {"max_pixels": str((width + 256) * height)}
    packet = av.Packet(Path(image.filename).read_bytes())
    try:
        frames = [*decoder.decode(packet), *decoder.decode(None)]
    except av.FFmpegError as error:
        raise OSError(f"its samples of 16 bits cannot be decoded: {error.strerror}") from error
    if not frames or (frames[0].width, frames[0].height) != (width, height):
        raise OSError("its samples of 16 bits cannot be decoded")
    return turned(frames[0].reformat(format="rgb48le").to_ndarray(), orientation)


def eight_bits(pixels: np.ndarray, bits: int) -> np.ndarray:
    """(H, W, 3) uint8: the upper eight of so many bits."""
    shown = np.minimum(pixels >> (bits - 8), 255).astype(np.uint8)
    return np.repeat(shown[:, :, None], 3, axis=2) if shown.ndim == 2 else shown


def _is_deep_colour(image: Image.Image) -> bool:
    # The first tile's decoder is told how samples are stored: "RGB;16B".
    for tile in image.tile[:1]:
        modes = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        return any(isinstance(mode, str) and ";16" in mode for mode in modes)
    return False


def _significant_bits(path: Path) -> bytes:
    """The content of a PNG's sBIT chunk (PNG, 11.3.2.4); empty when it has none."""
    with path.open("rb") as file:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind == b"sBIT":
                return file.read(min(length, 4))
            if kind == b"IDAT":
                break
            file.seek(length + 4, os.SEEK_CUR)
    return b""
