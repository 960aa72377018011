"""The frames of a list of images, or of a folder of them."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Union

import numpy as np
from PIL import Image

from converters.types import VideoInfo
from sam2_model.video.errors import VideoDecodeError
from sam2_model.video.frame_source import FrameSource
from sam2_model.video.reader import MAX_PIXELS

ImageLike = Union[np.ndarray, Image.Image, str, "os.PathLike[str]"]
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}

# What browsers show, and TIFF. Pillow knows others that must not be opened: EPS,
# for one, is a program that it has Ghostscript run.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# What PIL raises for a bad file; SyntaxError is for broken PNG chunks.
_IMAGE_ERRORS = (OSError, SyntaxError, Image.DecompressionBombError)


class ImageListSource(FrameSource):
    """A list of pictures as a video.

    Paths are read each time their frame is asked for; arrays and PIL images are
    kept by reference. Alpha is dropped, 16-bit gray loses its lower 8 bits, and
    the EXIF orientation is not applied (SAM 2 does not either, so masks match
    the pixels as stored).

    Args:
        images: (H, W, 3) uint8 RGB arrays, PIL images, or paths to image files;
            all of one size.
        fps: Frames per second, for the times. None: unknown, so `info.fps` is
            0.0 and the times tick once a second (time i for frame i).
        max_pixels: Of one picture in a file.

    Raises:
        FileNotFoundError: a path does not exist.
        VideoDecodeError: a file is not a readable image or is too large, or one
            image has not the size of the first; it names the image.
        ValueError: an empty list, an image of a wrong type or shape, a bad fps.
    """

    def __init__(
        self,
        images: Sequence[ImageLike],
        *,
        fps: float | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._images = tuple(images)
        self._max_pixels = max_pixels
        self._pil_lock = threading.Lock()
        super().__init__("images", _image_list_info(self._images, fps, max_pixels))

    def _read_frame(self, index: int) -> tuple[np.ndarray, str]:
        image = self._images[index]
        if isinstance(image, np.ndarray):
            return image.copy(order="C"), ""
        if isinstance(image, Image.Image):
            # PIL reads a file at the first use of its pixels, and two threads
            # may be the first.
            with self._pil_lock:
                return _rgb_from_pil(image), ""
        try:
            with _opened(image, self._max_pixels) as opened:
                pixels = _rgb_from_pil(opened)
        except _IMAGE_ERRORS as error:
            raise VideoDecodeError(
                f"{os.fspath(image)}: frame {index} cannot be decoded: {error}"
            ) from error
        return pixels, ""


class ImageFolderSource(ImageListSource):
    """The JPEG and PNG files of a folder as a video.

    Frame order is by number if every name is a whole number ("9.jpg" before
    "10.jpg", as in SAM 2), otherwise natural ("shot2_9" before "shot2_10").
    Other files, hidden files and subfolders are ignored. Reading and `fps` are
    as in `ImageListSource`.

    Raises:
        FileNotFoundError: there is no folder at `path`.
        VideoDecodeError: no JPEG or PNG in it, a file that is not a readable
            image or has not the size of the first, or two files with the same
            number.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, fps: float | None = None
    ) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"{self.path}: no such folder of images")
        files = [
            file
            for file in self.path.iterdir()
            if file.suffix.lower() in _IMAGE_SUFFIXES
            and not file.name.startswith(".")
            and file.is_file()
        ]
        if not files:
            raise VideoDecodeError(f"{self.path}: no JPEG or PNG file in this folder")
        super().__init__(_in_frame_order(files), fps=fps)
        self._name = str(self.path)


def _in_frame_order(files: Iterable[Path]) -> list[Path]:
    files = sorted(files)
    if not all(re.fullmatch("[0-9]+", file.stem) for file in files):
        return sorted(files, key=lambda file: _natural_key(file.name))
    files.sort(key=lambda file: int(file.stem))
    for one, other in itertools.pairwise(files):
        if int(one.stem) == int(other.stem):
            # Often pictures and masks in one folder: any order would be wrong.
            raise VideoDecodeError(
                f"{one.parent}: {one.name} and {other.name} have the same frame number"
            )
    return files


def _natural_key(name: str) -> list[tuple[int, str]]:
    # re.split with a group alternates text and digits, so lists always compare.
    parts = re.split("([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def _image_list_info(
    images: Sequence[ImageLike], fps: float | None, max_pixels: int
) -> VideoInfo:
    if not images:
        raise ValueError("images is empty: there must be at least one")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}, must be a finite number > 0, or None")
    width, height = _image_size(images[0], 0, max_pixels)
    for index, image in enumerate(images):
        size = _image_size(image, index, max_pixels)
        if size != (width, height):
            raise VideoDecodeError(
                f"{_image_name(image, index)}: {size[0]}x{size[1]} pixels, but "
                f"{_image_name(images[0], 0)} has {width}x{height}: all frames must "
                "have one size"
            )
    seconds = 1.0 if fps is None else 1 / fps
    return VideoInfo(
        width=width,
        height=height,
        frame_count=len(images),
        fps=0.0 if fps is None else float(fps),
        frame_times_seconds=tuple(i * seconds for i in range(len(images))),
        duration_seconds=len(images) * seconds,
    )


def _image_size(image: ImageLike, index: int, max_pixels: int) -> tuple[int, int]:
    """(width, height), from the header alone for a file."""
    name = _image_name(image, index)
    if isinstance(image, Image.Image):
        return image.size
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"{name} has shape {image.shape} and dtype {image.dtype}, "
                "must be (H, W, 3) uint8 RGB"
            )
        if image.size == 0:
            raise ValueError(f"{name} has shape {image.shape}: it has no pixels")
        return image.shape[1], image.shape[0]
    if not isinstance(image, (str, os.PathLike)):
        raise ValueError(
            f"{name} is {type(image).__name__}, must be an array, a PIL image or a path"
        )
    try:
        with _opened(image, max_pixels) as opened:
            return opened.size
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such image file") from None
    except _IMAGE_ERRORS as error:
        raise VideoDecodeError(f"{name}: not an image that can be read") from error


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str], max_pixels: int) -> Iterator[Image.Image]:
    """Its size is known, its pixels are not read yet."""
    with warnings.catch_warnings():
        # Pillow's own limit only warns; ours follows.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        opened = Image.open(path, formats=_FORMATS)
    with opened:
        width, height = opened.size
        if width * height > max_pixels:
            raise VideoDecodeError(
                f"{os.fspath(path)}: {width} x {height} pixels, may have {max_pixels} in all"
            )
        yield opened


def _image_name(image: ImageLike, index: int) -> str:
    return (
        os.fspath(image)
        if isinstance(image, (str, os.PathLike))
        else f"images[{index}]"
    )


def _rgb_from_pil(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8, C-contiguous."""
    if image.mode.startswith("I;16") or image.mode == "I":
        # 16-bit gray, which PIL's own conversion clips at 255.
        gray = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"), order="C")
