"""What every source of frames offers: pictures by index, one or a range of them."""

from __future__ import annotations

import abc
import logging
import operator
import warnings
from collections.abc import Iterator
from contextlib import closing
from typing import Self

import numpy as np

from converters.types import VideoInfo
from sam2_model.video.errors import VideoDecodeWarning
from sam2_model.video.prefetch import prefetched

logger = logging.getLogger(__name__)

_PREFETCH_FRAMES = 4
"""RGB frames decoded ahead of the consumer, by `FrameSource.frames`."""


class FrameSource(abc.ABC):
    """Pictures by frame index. Thread safe; any number of iterators may run.

    A context manager; `close` frees what `frame` keeps open. Iterators made by
    `frames` hold their own decoder and free it when they end or are closed.
    """

    def __init__(self, name: str, info: VideoInfo) -> None:
        self._name = name
        self._info = info
        self._warned = False

    @property
    def info(self) -> VideoInfo:
        """Size in pixels, frame count and times in seconds."""
        return self._info

    def __len__(self) -> int:
        return self._info.frame_count

    def frame(self, index: int) -> np.ndarray:
        """One picture.

        Args:
            index: 0-based, in [0, len(self)); negative indices do not wrap.

        Returns:
            (H, W, 3) uint8 RGB, C-contiguous, the caller's to change.

        Raises:
            IndexError: `index` is outside the video.
            VideoDecodeError: no picture can be decoded.
        """
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(
                f"{self._name}: frame index {index} must be in [0, {len(self)})"
            )
        image, problem = self._read_frame(index)
        self._warn_once(problem)
        return image

    def frames(
        self, start: int = 0, stop: int | None = None, *, step: int = 1
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The frames of the half-open range [start, stop), one by one.

        A thread decodes up to 4 frames ahead. It ends before the iterator's
        `close` returns, so also when the iterator is dropped.

        Args:
            start, stop: 0 <= start <= stop <= len(self); `stop=None` is the end.
            step: 1 gives start, start+1, ..., stop-1. -1 gives the same frames
                in the opposite order: stop-1, ..., start.

        Returns:
            Iterator of (frame index, (H, W, 3) uint8 RGB C-contiguous array).
            Errors in the thread are raised by the iterator.

        Raises:
            ValueError: a bad range or step.
        """
        start = operator.index(start)
        stop = len(self) if stop is None else operator.index(stop)
        if not 0 <= start <= stop <= len(self):
            raise ValueError(
                f"{self._name}: frame range [{start}, {stop}) must have "
                f"0 <= start <= stop <= {len(self)}"
            )
        if step not in (1, -1):
            raise ValueError(f"step is {step!r}, must be 1 or -1")
        self._check_open()
        return self._iterate(start, stop, step)

    def _iterate(
        self, start: int, stop: int, step: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        decoded = prefetched(
            lambda: self._read_range(start, stop, step), _PREFETCH_FRAMES
        )
        with closing(decoded):
            for index, image, problem in decoded:
                self._warn_once(problem)
                yield index, image

    def close(self) -> None:
        """Free what is held open; may be called again."""

    def rest(self) -> None:
        """Free what `frame` keeps open, until the next call of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @abc.abstractmethod
    def _read_frame(self, index: int) -> tuple[np.ndarray, str]:
        """The picture at a checked index, and what is wrong with it ("" if nothing)."""

    def _read_range(
        self, start: int, stop: int, step: int
    ) -> Iterator[tuple[int, np.ndarray, str]]:
        """(index, picture, problem) over a checked range; runs in the thread."""
        for index in range(start, stop)[::step]:
            yield index, *self._read_frame(index)

    def _check_open(self) -> None:
        """Raise ValueError if the source needs to be open and is not."""

    def _warn_once(self, problem: str) -> None:
        # Always from the consumer's thread, where warning filters are the
        # caller's; once a source, since damage rarely comes as a single frame.
        if not problem:
            return
        logger.debug("%s", problem)
        if not self._warned:
            self._warned = True
            log_and_warn(problem)


def log_and_warn(message: str) -> None:
    """Log and warn of damage, pointing at the third caller up: the code outside."""
    logger.warning("%s", message)
    warnings.warn(message, VideoDecodeWarning, stacklevel=4)
