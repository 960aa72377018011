"""The frames of a video file: forward, backward and at random, also where it is damaged."""

from __future__ import annotations

import itertools
import os
import threading
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np

from converters.types import VideoInfo
from sam2_model.video.errors import VideoDecodeError
from sam2_model.video.file_length import missing_bytes
from sam2_model.video.frame_index import (
    FrameIndex,
    index_by_decoding,
    index_by_packets,
    whatever_the_threads,
)
from sam2_model.video.frame_source import FrameSource, log_and_warn
from sam2_model.video.reader import MAX_PIXELS, NeedsOneThread, Reader

_BACKWARD_FRAMES = 32
_BACKWARD_BYTES = 256 * 2**20
"""What backward reading may hold at once: whichever of the two is less."""

_SHORT_SKIP_FRAMES = 8
"""Up to here, decoding on to a wanted frame is cheaper than seeking to it."""


class VideoFileSource(FrameSource):
    """The frames of a video file (see the package's docstring for their order).

    **Damage that shows when the file is opened**: it is cut short, packets are
    marked corrupt, the first frames do not decode, or `verify` is on. Frames
    that do not decode are left out of the index, with a `VideoDecodeWarning`.

    **Damage that shows later**, inside a packet: by then the caller knows the
    length and may have stored masks by frame index, so nothing may move. The
    frame keeps its index and time, and shows the nearest earlier picture that
    decodes (the nearest later one if there is none), with one
    `VideoDecodeWarning` a source. A player shows the same.

    Where a decoder conceals damage by itself, it tells nobody: the picture is
    its guess, which may depend on where decoding started. Its index is right.

    **Frames without timestamps** (raw H.264, AVI with B-frames) can only be
    counted from the start of the file, so each jump backward decodes from there.

    Args:
        path: A video file.
        verify: Decode the whole file first, so that every frame in the index
            is known to decode.
        decoder_threads: Threads a decoder runs; by default up to 4.
        max_frames: A file with more is refused as soon as that is known.
        max_pixels: Of one picture.

    Raises:
        FileNotFoundError: there is no file at `path`.
        VideoDecodeError: the file gives no frame, or is over a limit; it names
            the cause.
        ValueError: `decoder_threads` is less than 1.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        verify: bool = False,
        decoder_threads: int | None = None,
        max_frames: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.path = _existing_file(path)
        if decoder_threads is None:
            decoder_threads = min(4, os.cpu_count() or 1)
        if decoder_threads < 1:
            raise ValueError(f"decoder_threads is {decoder_threads}, must be >= 1")
        self._threads = decoder_threads
        self._max_frames = max_frames
        self._max_pixels = max_pixels
        self._index, info = self._build_index(verify)
        super().__init__(str(self.path), info)
        self._index_of_pts = {pts: i for i, pts in enumerate(self._index.pts or ())}
        self._undecodable: set[int] = set()
        self._closed = False
        # All for `frame`: where its decoder stands, and what it gave last.
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        self._shown: Iterator[tuple[int, av.VideoFrame, str]] | None = None
        self._next_shown = 0
        self._last: tuple[int, np.ndarray, str] | None = None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._free()

    def rest(self) -> None:
        with self._lock:
            self._free()

    def _free(self) -> None:
        """The decoder that `frame` has open; the next `frame` opens one. Under the lock."""
        self._shown, self._last = None, None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path}: the frame source is closed")

    def _new_reader(self) -> Reader:
        return Reader(self.path, self._threads, self._max_pixels)

    def _build_index(self, verify: bool) -> tuple[FrameIndex, VideoInfo]:
        missing = missing_bytes(self.path)
        with closing(self._new_reader()) as reader:
            found = None
            if not verify and not missing:
                found = whatever_the_threads(index_by_packets, reader, self._max_frames)
            if found is None:
                found = whatever_the_threads(index_by_decoding, reader, self._max_frames)
            problems = list(reader.problems)
            if missing:
                problems.insert(0, f"{missing} bytes are missing at its end")
            if found is None:
                cause = "; ".join(problems) or "it holds no video packets"
                raise VideoDecodeError(f"{self.path}: no frame can be decoded: {cause}")
            index, first = found
            height, width = reader.rgb(first, None).shape[:2]
        info = VideoInfo(
            width=width,
            height=height,
            frame_count=len(index.times_seconds),
            fps=index.fps,
            frame_times_seconds=index.times_seconds,
            duration_seconds=index.duration_seconds,
        )
        if problems:
            log_and_warn(
                f"{self.path}: damaged ({'; '.join(problems)}); "
                f"{info.frame_count} frames decode"
            )
        return index, info

    def _read_frame(self, index: int) -> tuple[np.ndarray, str]:
        with self._lock:
            self._check_open()
            if self._last is None or self._last[0] != index:
                self._last = self._decode_one(index)
            _, image, problem = self._last
            return image.copy(), problem

    def _decode_one(self, index: int) -> tuple[int, np.ndarray, str]:
        if self._reader is None:
            self._reader = self._new_reader()
        shown, self._shown = self._shown, None  # not reused if this fails
        skipped = index - self._next_shown
        near = (
            skipped <= _SHORT_SKIP_FRAMES
            or self._index.key_index_before(index) <= self._next_shown
        )
        if shown is None or skipped < 0 or not near:
            shown = self._shown_frames(self._reader, index, len(self))
        _, frame, problem = next(item for item in shown if item[0] == index)
        self._shown, self._next_shown = shown, index + 1
        return index, self._reader.rgb(frame, self._size_hw), problem

    def _read_range(
        self, start: int, stop: int, step: int
    ) -> Iterator[tuple[int, np.ndarray, str]]:
        with closing(self._new_reader()) as reader:
            while start < stop:
                # Forward, all in one go; backward, the last frames first.
                first = start if step == 1 else self._backward_chunk(start, stop)
                shown = self._shown_frames(reader, first, stop)
                if step == -1:
                    shown = _popped(list(shown))
                for index, frame, problem in shown:
                    yield index, reader.rgb(frame, self._size_hw), problem
                stop = first

    @property
    def _size_hw(self) -> tuple[int, int]:
        return self.info.height, self.info.width

    def _backward_chunk(self, start: int, stop: int) -> int:
        """Where to begin to decode, for the last frames of [start, stop).

        At a key frame if one is near enough; else in the middle of what one key
        frame begins, which is then decoded again for each chunk of it.
        """
        # Frames are held as decoded, at most 3 bytes a pixel (10-bit 4:2:0).
        affordable = _BACKWARD_BYTES // (3 * self.info.width * self.info.height)
        first = max(start, stop - max(1, min(_BACKWARD_FRAMES, affordable)))
        keys = self._index.key_indices
        found = bisect_left(keys, first)
        return keys[found] if found < len(keys) and keys[found] < stop else first

    def _shown_frames(
        self, reader: Reader, start: int, stop: int
    ) -> Iterator[tuple[int, av.VideoFrame, str]]:
        """(index, picture, problem) for every index of [start, stop)."""
        while True:
            try:
                for item in self._fill_gaps(reader, start, stop):
                    yield item
                    start = item[0] + 1
                return
            except NeedsOneThread:
                reader.use_one_thread()

    def _fill_gaps(
        self, reader: Reader, start: int, stop: int
    ) -> Iterator[tuple[int, av.VideoFrame, str]]:
        earlier, decoded = self._decode_to(reader, start)
        wanted = start
        for index, frame in decoded:
            if index > wanted:
                reader.require_one_thread()
            for gap in range(wanted, min(index, stop)):
                stand_in = frame if earlier is None else earlier
                yield gap, stand_in, self._gap_problem(gap, reader)
            if index >= stop:
                return
            yield index, frame, ""
            wanted, earlier = index + 1, frame
            if wanted >= stop:
                return
        reader.require_one_thread()
        if earlier is None:
            cause = "; ".join(reader.problems) or "the file has changed"
            raise VideoDecodeError(f"{self.path}: no frame can be decoded: {cause}")
        for gap in range(wanted, stop):
            yield gap, earlier, self._gap_problem(gap, reader)

    def _decode_to(
        self, reader: Reader, start: int
    ) -> tuple[av.VideoFrame | None, Iterator[tuple[int, av.VideoFrame]]]:
        """The last frame before `start` met on the way, and those from it on."""
        for key in self._index.entry_points(start):
            earlier, index = None, -1
            decoded = self._numbered(reader.frames_from(key, self._index.keys))
            for index, frame in decoded:
                if index >= start:
                    decoded = itertools.chain([(index, frame)], decoded)
                    break
                earlier = frame
            known = start in self._undecodable and earlier is not None
            if index == start or known:
                return earlier, decoded
        reader.require_one_thread()
        # Not even from the start of the file: the next time, do not try that.
        self._undecodable.add(start)
        return earlier, decoded

    def _numbered(
        self, frames: Iterator[av.VideoFrame]
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames that the index knows, with their indices, ascending."""
        if self._index.pts is None:
            yield from enumerate(frames)
            return
        last = -1
        for frame in frames:
            index = self._index_of_pts.get(frame.pts, -1)
            if index > last:
                last = index
                yield index, frame

    def _gap_problem(self, index: int, reader: Reader) -> str:
        cause = f" ({'; '.join(reader.problems)})" if reader.problems else ""
        return (
            f"{self.path}: damaged: frame {index} does not decode{cause}; the nearest "
            "picture that does is shown in its place. VideoFileSource(path, "
            "verify=True) leaves such frames out"
        )


def _popped(items: list[Any]) -> Iterator[Any]:
    """The items from the last to the first, each let go as it is given."""
    while items:
        yield items.pop()


def _existing_file(path: str | os.PathLike[str]) -> Path:
    path = Path(path).absolute()
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such video file")
    if not path.is_file():
        # A pipe or a device could keep a reader waiting for ever.
        raise VideoDecodeError(f"{path}: not a regular file")
    if path.stat().st_size == 0:
        raise VideoDecodeError(f"{path}: the file is empty")
    return path
