"""The frames of a list of images, or of a folder of them."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import numpy as np
from PIL import Image

from converters.frame_names import SameNumber, in_frame_order, masks_beside
from converters.media_kinds import is_image_file, is_image_name
from converters.types import VideoInfo
from sam2_model.video import deep_images
from sam2_model.video.errors import VideoDecodeError
from sam2_model.video.frame_source import FrameSource, log_and_warn
from sam2_model.video.image_file import (
    IMAGE_ERRORS,
    opened,
    orientation_of,
    turned,
)
from sam2_model.video.reader import MAX_PIXELS

ImageLike = Union[np.ndarray, Image.Image, str, "os.PathLike[str]"]

_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")


class ImageListSource(FrameSource):
    """A list of pictures as a video.

    Paths are read each time their frame is asked for; arrays and PIL images are
    kept by reference, and taken as they are. Alpha is dropped. Of samples of more
    than 8 bits the upper eight are kept of those bits that the brightest sample of
    all files uses (`deep_images`). Of an animated file, the first picture is the frame.

    Args:
        images: (H, W, 3) uint8 RGB arrays, PIL images, or paths to image files;
            all of one size.
        fps: Frames per second, for the times. None: unknown, so `info.fps` is
            0.0 and the times tick once a second (time i for frame i).
        max_pixels: Of one picture in a file.
        upright: Files are turned as browsers turn them, by their EXIF orientation.
            False: pixels as stored, as SAM 2 reads them.

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
        upright: bool = True,
    ) -> None:
        self._images = tuple(images)
        self._max_pixels = max_pixels
        self._upright = upright
        self._pil_lock = threading.Lock()
        if not self._images:
            raise ValueError("images is empty: there must be at least one")
        if fps is not None and not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps is {fps}, must be a finite number > 0, or None")
        headers = [self._header(index) for index in range(len(self._images))]
        self._bits = self._bits_in_use(headers)
        super().__init__("images", self._info_of(headers, fps))

    def _header(self, index: int) -> _Header:
        """What can be told before pixels are read."""
        image, name = self._images[index], self._name_of(index)
        if isinstance(image, Image.Image):
            return _Header(*image.size, deep_images.is_deep_gray(image))
        if isinstance(image, np.ndarray):
            _check_array(image, name)
            return _Header(image.shape[1], image.shape[0])
        if not isinstance(image, (str, os.PathLike)):
            raise ValueError(
                f"{name} is {type(image).__name__}, must be an array, a PIL image or a path"
            )
        try:
            with opened(image, self._max_pixels) as file:
                return _Header.of(file, self._upright)
        except FileNotFoundError:
            raise FileNotFoundError(f"{name}: no such image file") from None
        except IMAGE_ERRORS as error:
            raise VideoDecodeError(f"{name}: not an image that can be read") from error

    def _info_of(self, headers: Sequence[_Header], fps: float | None) -> VideoInfo:
        width, height = headers[0].width, headers[0].height
        for index, header in enumerate(headers):
            if (header.width, header.height) != (width, height):
                raise VideoDecodeError(
                    f"{self._name_of(index)}: {header.width}x{header.height} pixels, but "
                    f"{self._name_of(0)} has {width}x{height}: all frames must have one size"
                )
        count, seconds = len(headers), 1.0 if fps is None else 1 / fps
        return VideoInfo(
            width=width,
            height=height,
            frame_count=count,
            fps=0.0 if fps is None else float(fps),
            frame_times_seconds=tuple(i * seconds for i in range(count)),
            duration_seconds=count * seconds,
        )

    def _bits_in_use(self, headers: Sequence[_Header]) -> int:
        deep = ((i, header.declared_bits) for i, header in enumerate(headers) if header.is_deep)
        bits = 8
        for index, declared in deep:
            try:
                image = self._images[index]
                if isinstance(image, Image.Image):
                    bits = max(bits, deep_images.bits_of(image))
                else:
                    with opened(image, self._max_pixels) as file:
                        bits = max(bits, declared, deep_images.bits_of(file))
            except IMAGE_ERRORS:
                continue  # said when its frame is asked for
            if bits >= deep_images.ALL_BITS:
                break
        return bits

    def _read_frame(self, index: int) -> tuple[np.ndarray, str]:
        image = self._images[index]
        if isinstance(image, np.ndarray):
            return image.copy(order="C"), ""
        if isinstance(image, Image.Image):
            # PIL reads a file at the first use of its pixels, and two threads
            # may be the first.
            with self._pil_lock:
                return _rgb(image, self._bits), ""
        try:
            with opened(image, self._max_pixels) as file:
                # What is behind the pixels is no orientation to browsers: it is read first.
                orientation = orientation_of(file) if self._upright else 1
                problem = self._problem_of(file, index)
                if deep_images.is_deep(file):
                    pixels = deep_images.eight_bits(deep_images.deep_pixels(file), self._bits)
                else:
                    pixels = _rgb(file, self._bits)
        except IMAGE_ERRORS as error:
            raise VideoDecodeError(
                f"{os.fspath(image)}: frame {index} cannot be decoded: {error}"
            ) from error
        return np.require(turned(pixels, orientation), requirements=["C", "W"]), problem

    def _problem_of(self, image: Image.Image, index: int) -> str:
        if image.format not in _ANIMATED or not getattr(image, "is_animated", False):
            return ""
        return (
            f"{self._name_of(index)} is animated, and one frame of a list: its first picture "
            "is shown; give the file alone to have all of them"
        )

    def _name_of(self, index: int) -> str:
        image = self._images[index]
        return os.fspath(image) if isinstance(image, (str, os.PathLike)) else f"images[{index}]"


@dataclass(frozen=True)
class _Header:
    """What a list needs to know of an image before its pixels are read."""

    width: int
    height: int
    is_deep: bool = False
    declared_bits: int = 8

    @classmethod
    def of(cls, image: Image.Image, upright: bool) -> _Header:
        width, height = image.size
        if upright and orientation_of(image) >= 5:
            width, height = height, width
        if not deep_images.is_deep(image):
            return cls(width, height)
        return cls(width, height, True, deep_images.declared_bits(image))


class ImageFolderSource(ImageListSource):
    """The images of a folder as a video: JPEG, PNG, WebP, BMP, TIFF, GIF and AVIF.

    Images are told by their content. Frame order is by number if every name is
    a number ("9.jpg" before "10.jpg", as in SAM 2; "-1.jpg" before "0.05.jpg"),
    otherwise natural ("shot2_9" before "shot2_10"): `converters.frame_names`.
    Files named as the masks of others ("00000_mask.png" beside "00000.jpg") are left
    out, with a `VideoDecodeWarning`. Other files, hidden files and subfolders are ignored. Reading, `fps` and
    `upright` are as in `ImageListSource`.

    Raises:
        FileNotFoundError: there is no folder at `path`.
        VideoDecodeError: no image in it, a file that is not a readable
            image or has not the size of the first, or two files with the same
            number, such as a picture and its mask where no name says so.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float | None = None,
        upright: bool = True,
    ) -> None:
        self.path = Path(path)
        if not os.path.isdir(self.path):
            raise FileNotFoundError(f"{self.path}: no such folder of images")
        names = [
            file.name
            for file in self.path.iterdir()
            # A broken image is not another kind of file: it is refused below.
            if not file.name.startswith(".")
            and file.is_file()
            and (is_image_name(file.name) or is_image_file(file))
        ]
        if not names:
            raise VideoDecodeError(f"{self.path}: no image file in this folder")
        beside = masks_beside(names)
        try:
            ordered = in_frame_order(set(names) - set(beside))
        except SameNumber as error:
            raise VideoDecodeError(f"{self.path}: {error}") from None
        super().__init__([self.path / name for name in ordered], fps=fps, upright=upright)
        self._name = str(self.path)
        if beside:
            log_and_warn(
                f"{self.path}: {len(beside)} files are masks of the pictures beside them by "
                f"their names ({', '.join(beside[:3])}...), and are no frames"
            )


def _check_array(image: np.ndarray, name: str) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"{name} has shape {image.shape} and dtype {image.dtype}, "
            "must be (H, W, 3) uint8 RGB"
        )
    if image.size == 0:
        raise ValueError(f"{name} has shape {image.shape}: it has no pixels")


def _rgb(image: Image.Image, bits: int) -> np.ndarray:
    """(H, W, 3) uint8, C-contiguous."""
    if deep_images.is_deep_gray(image):
        return deep_images.eight_bits(deep_images.deep_pixels(image), bits)
    return np.array(image.convert("RGB"), order="C")
