"""The pictures of one image file that holds several: animated WebP and AVIF, TIFF stacks."""

from __future__ import annotations

import itertools
import os
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from converters.types import VideoInfo
from sam2_model.video import deep_images
from sam2_model.video.errors import VideoDecodeError
from sam2_model.video.frame_source import FrameSource
from sam2_model.video.image_file import IMAGE_ERRORS, opened, orientation_of, turned
from sam2_model.video.reader import MAX_PIXELS

_ERRORS = (*IMAGE_ERRORS, EOFError)
_MS_WHERE_UNKNOWN = 1000


class PagesSource(FrameSource):
    """The pictures of an image file as a video's frames, in the file's order.

    Times are those of an animation; pages of a TIFF have none, and tick once a
    second. Pictures are turned and lose bits as those of `ImageListSource`.

    Raises:
        VideoDecodeError: a picture cannot be decoded, they are not of one size,
            or are more or larger than they may be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_frames: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.path = Path(path)
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        self._stack = ExitStack()
        try:
            self._image = self._stack.enter_context(opened(self.path, max_pixels))
            count = self._image.n_frames
            if max_frames is not None and count > max_frames:
                raise VideoDecodeError(f"{self.path}: the file has more than {max_frames} frames")
            self._orientation = orientation_of(self._image)
            self._bits = 8
            super().__init__(str(self.path), self._read_all(count))
        except _ERRORS as error:
            self._stack.close()
            raise VideoDecodeError(f"{self.path}: not an image that can be read: {error}") from error
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        with self._lock:
            self._stack.close()

    def _read_all(self, count: int) -> VideoInfo:
        """Sizes and times come with the pictures alone."""
        shown_ms: list[float] = []
        sizes = set()
        for index in range(count):
            pixels = self._pixels(index)
            sizes.add(pixels.shape[1::-1])
            if len(sizes) > 1:
                raise VideoDecodeError(
                    f"{self.path}: its pictures have sizes {sorted(sizes)}, all must have one"
                )
            if pixels.dtype != np.uint8:
                self._bits = max(self._bits, int(pixels.max()).bit_length())
            shown_ms.append(self._image.info.get("duration") or 0)
        is_timed = all(shown_ms)
        if not is_timed:
            shown_ms = [_MS_WHERE_UNKNOWN] * count
        *starts, end = (at / 1000 for at in itertools.accumulate(shown_ms, initial=0))
        ((width, height),) = sizes
        fps = count / end if is_timed else 0.0
        return VideoInfo(width, height, count, fps, tuple(starts), end)

    def _pixels(self, index: int) -> np.ndarray:
        """As shown; of whole numbers above 255 where the file has such."""
        self._image.seek(index)
        width, height = self._image.size
        if width * height > self._max_pixels:
            raise VideoDecodeError(
                f"{self.path}: picture {index} has {width} x {height} pixels, may have "
                f"{self._max_pixels} in all"
            )
        is_deep = deep_images.is_deep_gray(self._image)
        pixels = np.asarray(self._image if is_deep else self._image.convert("RGB"))
        return turned(np.maximum(pixels, 0), self._orientation)

    def _read_frame(self, index: int) -> tuple[np.ndarray, str]:
        with self._lock:
            try:
                pixels = self._pixels(index)
            except _ERRORS as error:
                raise VideoDecodeError(
                    f"{self.path}: frame {index} cannot be decoded: {error}"
                ) from error
        if pixels.dtype != np.uint8:
            pixels = deep_images.eight_bits(pixels, self._bits)
        return np.require(pixels, requirements=["C", "W"]), ""
