"""Frames of a video, a folder of images or a list of images, by index.

The rule every source keeps: **frame index i is the i-th frame in display order
that decodes**, `VideoInfo.frame_times_seconds[i]` is when it is shown, and the
same index always gives the same frame, whether frames are read forward,
backward or at random.

A video's frames are known by their presentation timestamps, never by counting
or by `time * fps`: the index is the sorted list of timestamps, and a decoded
frame is placed by the timestamp it carries. Reading the packets (no decoding)
is enough to build the index of a clean mp4, mov, mkv or webm; any other file,
and any file with something odd about it, is decoded once from end to end
instead (`_index_by_decoding`), which is slow and always right.

Pictures are RGB as stored, with the display matrix (rotation, mirroring)
applied. The sample aspect ratio is not applied (pixels stay the file's
pixels) and interlaced pictures are not deinterlaced. Where the picture size
changes in the middle of a file, later pictures are scaled to the first size.
"""

from __future__ import annotations

import abc
import itertools
import logging
import math
import operator
import os
import queue
import re
import threading
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self, Union

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from PIL import Image

from converters.types import VideoInfo

logger = logging.getLogger(__name__)

ImageLike = Union[np.ndarray, Image.Image, str, "os.PathLike[str]"]

_PREFETCH_FRAMES = 4
"""RGB frames decoded ahead of the consumer, by `FrameSource.frames`."""

_BACKWARD_FRAMES = 32
_BACKWARD_BYTES = 256 * 2**20
"""What backward reading may hold at once: whichever of the two is less."""

_SHORT_SKIP_FRAMES = 8
"""Up to here, decoding on to a wanted frame is cheaper than seeking to it."""

_PROBE_FRAMES = 16
"""Frames decoded to check an index that was built without decoding."""

_FALLBACK_FPS = 25.0
"""For frames that carry no timestamps in a file that states no frame rate."""

# Demuxers that can be opened. The rest of FFmpeg's must not be: playlists and
# scripts (hls, dash, concat, sdp) name other files and URLs to read, and the
# `tty` demuxer renders any text file as a video.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,"
    "ivf,obu,mjpeg,flv,ogg,asf,nut,yuv4mpegpipe,mxf,gif,apng,dv,vc1,wtv,rm,h263"
)

# Here every packet is one shown frame and carries its timestamp. Elsewhere not:
# AVI and raw streams have no presentation times, MPEG-TS may send two packets a
# frame, VP8 and MPEG-4 part 2 have packets that show nothing.
_TRUSTED_CONTAINERS = {"mov", "matroska"}
_TRUSTED_CODECS = {"h264", "hevc", "vp9", "av1", "libdav1d", "mjpeg"}

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}

# What PIL raises for a bad file; SyntaxError is for broken PNG chunks.
_IMAGE_ERRORS = (OSError, SyntaxError, Image.DecompressionBombError)


class VideoDecodeError(ValueError):
    """A video or image that gives no pictures; names the file and the cause."""


class VideoDecodeWarning(UserWarning):
    """A video of which only part decodes; names the file and what is missing."""


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
        decoded = _prefetched(
            lambda: self._read_range(start, stop, step), _PREFETCH_FRAMES
        )
        with closing(decoded):
            for index, image, problem in decoded:
                self._warn_once(problem)
                yield index, image

    def close(self) -> None:
        """Free what is held open; may be called again."""

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
            _warn(problem)


def _warn(message: str) -> None:
    logger.warning("%s", message)
    warnings.warn(message, VideoDecodeWarning, stacklevel=4)


def open_frame_source(
    source: FrameSource | str | os.PathLike[str] | Sequence[ImageLike],
) -> FrameSource:
    """The frame source for a video file, an image folder, or a list of images.

    A `FrameSource` is returned as it is.

    Raises:
        FileNotFoundError: nothing lies at the path.
        VideoDecodeError: it is not a readable video or image folder.
        ValueError: `source` is none of the above, or an empty list.
    """
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return ImageFolderSource(path) if path.is_dir() else VideoFileSource(path)
    if isinstance(source, (list, tuple)):
        return ImageListSource(source)
    raise ValueError(
        f"source is {type(source).__name__}, must be a path to a video file or a "
        "folder of images, a list or tuple of images, or a FrameSource"
    )


# ---------------------------------------------------------------- prefetching


class _Failure:
    """An exception on its way from the decoding thread to the consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _prefetched(make_items: Callable[[], Iterator[Any]], depth: int) -> Iterator[Any]:
    """The items, made in a thread that runs at most `depth` items ahead."""
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    slots = threading.Semaphore(depth)
    stopped = threading.Event()
    end = object()

    def work() -> None:
        try:
            with closing(make_items()) as items:
                while slots.acquire() and not stopped.is_set():
                    ready.put(next(items, end))
        except BaseException as error:  # raised again in the consumer
            ready.put(_Failure(error))

    # A daemon, for an iterator that is still alive when the interpreter exits:
    # its thread waits for a slot that nobody will free.
    thread = threading.Thread(target=work, name="frame-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not end:
            if isinstance(item, _Failure):
                raise item.error
            slots.release()
            yield item
    finally:
        stopped.set()
        slots.release()
        # The garbage collector may run this in the very thread it would wait for.
        if threading.current_thread() is not thread:
            thread.join()


# ------------------------------------------------------------- reading a file


class _NeedsOneThread(Exception):
    """Damage met while several threads decode: see `_Reader`."""


class _Reader:
    """One open container and its decoder. Not thread safe.

    Damage never raises: it is noted in `problems` and decoding goes on. But
    with several decoder threads it raises `_NeedsOneThread`, and must be decoded
    again: an error of one thread makes PyAV drop good frames of the others that
    come back from the same call, and FFmpeg drop them without an error at the
    end of the file.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._threads = threads
        self.problems: list[str] = []
        self._reformatter = VideoReformatter()
        self._open()

    def _open(self) -> None:
        self._container, self.stream = _open_container(self._path)
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.thread_count = self._threads
        self._at_start = True

    def rewind(self) -> None:
        # Not every container can seek to its start; every one can be reopened.
        if not self._at_start:
            self.close()
            self._open()

    def use_one_thread(self) -> None:
        self.close()
        self._threads = 1
        self._open()

    def require_one_thread(self) -> None:
        """To be called where frames are missing, before taking them for damaged."""
        if self._threads > 1:
            raise _NeedsOneThread

    def close(self) -> None:
        self._container.close()

    def packets(self) -> Iterator[av.Packet]:
        """The video packets that have content, from here to the end of the file."""
        self._at_start = False
        try:
            for packet in self._container.demux(self.stream):
                if packet.is_corrupt:
                    self._note("a packet is incomplete or marked corrupt")
                # Packets without content show nothing, and to the decoder they
                # would mean the end of the stream.
                if packet.size > 0:
                    yield packet
        except av.FFmpegError as error:
            self._note(f"reading stops early: {error.strerror}")

    def frames(self, packets: Iterable[av.Packet]) -> Iterator[av.VideoFrame]:
        """The frames that decode from `packets`, in the decoder's display order."""
        for packet in packets:
            yield from self._decode(packet)
        yield from self._decode(None)

    def frames_from(
        self, key: _KeyPacket | None, keys: Mapping[int, _KeyPacket]
    ) -> Iterator[av.VideoFrame]:
        """The frames from a key frame or one before it; None: all frames.

        Gives nothing where the container cannot seek there. `keys` are the key
        frames met when reading from the start, by timestamp.
        """
        if key is None:
            self.rewind()
            return self.frames(self.packets())
        # Most containers seek by presentation time, MPEG-TS by decoding time.
        for target in (key.pts, key.dts):
            packets = self._packets_from(target)
            first = next(packets, None)
            # Where seeking is by guess it may land behind the key frame, and
            # where timestamps are made up they may be other ones than before.
            if (
                first is not None
                and first.pts is not None
                and first.pts <= key.pts
                and keys.get(first.pts) == _KeyPacket.of(first)
            ):
                return self.frames(itertools.chain([first], packets))
        return iter(())

    def _packets_from(self, timestamp: int) -> Iterator[av.Packet]:
        """The packets from the first key frame after a seek."""
        self._at_start = False
        try:
            self._container.seek(timestamp, stream=self.stream)
        except av.FFmpegError:
            return iter(())
        return itertools.dropwhile(lambda p: not p.is_keyframe, self.packets())

    def rgb(self, frame: av.VideoFrame, size_hw: tuple[int, int] | None) -> np.ndarray:
        """(H, W, 3) uint8 RGB as displayed, scaled to `size_hw` if that differs."""
        matrix = _display_matrix(frame)
        height, width = frame.height, frame.width
        if size_hw is not None:
            height, width = size_hw[::-1] if _swaps_axes(matrix) else size_hw
        converted = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24"
        )
        return np.require(
            _oriented(converted.to_ndarray(), matrix), requirements=["C", "W"]
        )

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        try:
            return self.stream.codec_context.decode(packet)
        except av.error.EOFError:  # the decoder had already been flushed
            return []
        except av.FFmpegError as error:
            self.require_one_thread()
            self._note(f"a packet does not decode: {error.strerror}")
            return []

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _open_container(path: Path) -> tuple[Any, av.VideoStream]:
    try:
        container = av.open(
            # Without the prefix, FFmpeg takes "a:b.mp4" for a protocol.
            f"file:{path}",
            metadata_errors="replace",
            options={"protocol_whitelist": "file", "format_whitelist": _FORMATS},
        )
    except av.FFmpegError as error:
        raise VideoDecodeError(
            f"{path}: not a video that can be read: {error.strerror}"
        ) from error
    streams = [
        stream
        for stream in container.streams.video
        # The cover picture of a song is stored as a video stream.
        if not stream.disposition & Disposition.attached_pic
    ]
    if streams and streams[0].codec_context is not None:
        return container, streams[0]
    cause = "there is no decoder for its video" if streams else "it has no video"
    container.close()
    raise VideoDecodeError(f"{path}: {cause}")


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """a, b, c, d of x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, 8.3.2)."""
    data = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    if data is None:
        return (1, 0, 0, 1)
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()
    return a, b, c, d


def _swaps_axes(matrix: tuple[int, int, int, int]) -> bool:
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _oriented(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """The picture rotated and mirrored to the nearest right angle; a view."""
    a, b, c, d = matrix
    if _swaps_axes(matrix):
        image, flip_x, flip_y = image.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


# ------------------------------------------------------------------ the index


@dataclass(frozen=True)
class _KeyPacket:
    """A packet from which decoding can start; times in the stream's time base."""

    pts: int
    dts: int
    position: int
    """Offset in the file."""

    @classmethod
    def of(cls, packet: av.Packet) -> _KeyPacket:
        dts = packet.pts if packet.dts is None else packet.dts
        return cls(packet.pts, dts, packet.pos)


@dataclass
class _PacketTable:
    """What the packets say of the frames, without decoding them."""

    pts: list[int | None] = field(default_factory=list)
    keys: dict[int, _KeyPacket] = field(default_factory=dict)
    """By pts."""
    decode_times: list[int] = field(default_factory=list)
    durations: dict[int, int] = field(default_factory=dict)
    """pts -> duration, both in the stream's time base."""
    starts_with_key: bool = False
    discarded: int = 0
    """Packets that an edit list hides; they are decoded but not shown."""

    def watch(self, packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
        """The packets, unchanged, each added on its way."""
        for packet in packets:
            self.add(packet)
            yield packet

    def add(self, packet: av.Packet) -> None:
        if not self.pts:
            self.starts_with_key = packet.is_keyframe
        self.pts.append(packet.pts)
        self.discarded += packet.is_discard
        if packet.dts is not None:
            self.decode_times.append(packet.dts)
        if packet.pts is not None:
            self.durations[packet.pts] = packet.duration or 0
            if packet.is_keyframe:
                self.keys[packet.pts] = _KeyPacket.of(packet)

    def is_clean(self) -> bool:
        """Whether each packet must be one frame, shown at the packet's time."""
        return (
            self.starts_with_key
            and not self.discarded
            and None not in self.pts
            and len(set(self.pts)) == len(self.pts)
        )


@dataclass(frozen=True)
class _FrameIndex:
    """Which frames there are, and where decoding can start."""

    pts: tuple[int, ...] | None
    """Presentation timestamp of each frame, ascending; None if the frames have
    no usable timestamps and can only be counted from the start of the file."""
    keys: dict[int, _KeyPacket]
    """By pts, ascending; some may precede the first frame."""
    key_indices: tuple[int, ...]
    """Their frame indices (the first frame at or after each)."""
    times_seconds: tuple[float, ...]
    duration_seconds: float
    fps: float

    def entry_points(self, index: int) -> list[_KeyPacket | None]:
        """Where to decode from to reach a frame, the best first; None: the start.

        The second choices are for containers that mark frames as key frames
        from which decoding cannot start.
        """
        if self.pts is None:
            return [None]
        key_pts = list(self.keys)
        last = bisect_right(key_pts, self.pts[index]) - 1
        # Nothing is gained by seeking to the first key frame.
        found = [self.keys[key_pts[i]] for i in (last, last - 1) if i > 0]
        return [*found, None]

    def key_index_before(self, index: int) -> int:
        """The last frame at or before `index` at which decoding can start."""
        found = bisect_right(self.key_indices, index)
        return self.key_indices[found - 1] if found else 0


def _make_index(
    frame_pts: Sequence[int | None], table: _PacketTable, stream: av.VideoStream
) -> _FrameIndex:
    """The index of frames given in display order."""
    if None not in frame_pts and all(a < b for a, b in itertools.pairwise(frame_pts)):
        pts = tuple(frame_pts)
        keys = dict(sorted(table.keys.items()))
        times = _times_from_pts(pts, stream.time_base)
        last = table.durations.get(pts[-1], 0) * stream.time_base
    else:
        pts, keys = None, {}
        rate = _rate_of_packets(table, stream)
        times = tuple(i / rate for i in range(len(frame_pts)))
        last = 1 / rate
    fps = _average_fps(times, stream)
    if last <= 0:
        last = times[-1] - times[-2] if len(times) > 1 else (1 / fps if fps else 0.0)
    return _FrameIndex(
        pts=pts,
        keys=keys,
        key_indices=tuple(bisect_left(frame_pts, key) for key in keys),
        times_seconds=times,
        duration_seconds=times[-1] + float(last),
        fps=fps,
    )


def _rate_of_packets(table: _PacketTable, stream: av.VideoStream) -> float:
    """Frames per second of frames without presentation times."""
    ticks = max(table.decode_times, default=0) - min(table.decode_times, default=0)
    if ticks > 0:
        return float((len(table.decode_times) - 1) / (ticks * stream.time_base))
    return float(stream.average_rate or stream.guessed_rate or _FALLBACK_FPS)


def _times_from_pts(frame_pts: Sequence[int], time_base: Any) -> tuple[float, ...]:
    # One division of whole numbers a frame: no error adds up over the video.
    numerator, denominator = time_base.numerator, time_base.denominator
    return tuple(
        (pts - frame_pts[0]) * numerator / denominator for pts in frame_pts
    )


def _average_fps(times: Sequence[float], stream: av.VideoStream) -> float:
    """The stated rate where it fits the timestamps to half a frame, else theirs.

    Matroska's whole milliseconds make 29.97 of 30; a stated rate can be the
    rate of a part that an edit list cut away.
    """
    stated = float(stream.average_rate or 0)
    if len(times) < 2:
        return stated
    measured = (len(times) - 1) / times[-1]
    return stated if abs(stated - measured) * times[-1] < 0.5 else measured


def _index_by_packets(reader: _Reader) -> tuple[_FrameIndex, av.VideoFrame] | None:
    """The index from the packets alone, and the first frame.

    None where anything leaves a doubt, down to the first frames not being
    decoded at just the times that their packets promise.
    """
    stream = reader.stream
    if stream.container.format.name.split(",")[0] not in _TRUSTED_CONTAINERS:
        return None
    if stream.codec_context.codec.name not in _TRUSTED_CODECS:
        return None
    table = _PacketTable()
    reader.rewind()
    for packet in reader.packets():
        table.add(packet)
    if not table.is_clean() or len(table.pts) < stream.frames:
        return None
    frame_pts = sorted(table.pts)
    promised = frame_pts[:_PROBE_FRAMES]
    probe = list(itertools.islice(reader.frames_from(None, {}), len(promised)))
    if not probe or [frame.pts for frame in probe] != promised or reader.problems:
        return None
    return _make_index(frame_pts, table, reader.stream), probe[0]


def _index_by_decoding(reader: _Reader) -> tuple[_FrameIndex, av.VideoFrame] | None:
    """The index of the frames that decode, and the first; None if none does."""
    table, frame_pts, first = _PacketTable(), [], None
    reader.rewind()
    for frame in reader.frames(table.watch(reader.packets())):
        frame_pts.append(frame.pts)
        first = frame if first is None else first
    if len(frame_pts) < len(table.pts) - table.discarded:
        reader.require_one_thread()
    if first is None:
        return None
    return _make_index(frame_pts, table, reader.stream), first


def _whatever_the_threads(
    build: Callable[[_Reader], tuple[_FrameIndex, av.VideoFrame] | None],
    reader: _Reader,
) -> tuple[_FrameIndex, av.VideoFrame] | None:
    try:
        return build(reader)
    except _NeedsOneThread:
        reader.use_one_thread()
        return build(reader)


def _missing_bytes(path: Path) -> int:
    """How much shorter the file is than its own header says; 0 if it cannot tell.

    FFmpeg reads a file that was cut off without complaint where the cut falls
    between two packets, and only logs it elsewhere. Raw streams say nothing of
    their length, so theirs goes unnoticed.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(189)
        if head[:4] == b"RIFF":
            length = int.from_bytes(head[4:8], "little")
            end = 0 if length == 0xFFFFFFFF else 8 + length
        elif head[:1] == head[188:] == b"G":
            end = -(-size // 188) * 188  # MPEG-TS comes in packets of 188 bytes
        elif head[:4] == bytes.fromhex("1A45DFA3"):
            end = _matroska_end(file)
        else:
            end = _last_box_end(file, size)
    return max(0, end - size)


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment should end (RFC 8794, RFC 9559), 0 if it is not stated."""
    file.seek(4)
    file.seek(_read_ebml_size(file) or 0, os.SEEK_CUR)
    if file.read(4) != bytes.fromhex("18538067"):
        return 0
    size = _read_ebml_size(file)
    return 0 if size is None else file.tell() + size


def _read_ebml_size(file: BinaryIO) -> int | None:
    """A variable-size integer; None for the reserved "unknown" (all ones)."""
    first = int.from_bytes(file.read(1), "big")
    if first == 0:
        return None
    more = 8 - first.bit_length()
    marker = 1 << (7 * more + 7)
    value = (first << (8 * more) | int.from_bytes(file.read(more), "big")) - marker
    return None if value == marker - 1 else value


def _last_box_end(file: BinaryIO, size: int) -> int:
    """Where the last top-level box should end (ISO/IEC 14496-12, 4.2)."""
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        # Length 0 runs to the end of the file. What is no box, in files of other
        # kinds or as junk after the last box, says nothing of the length.
        if length < 8 or not kind.isalnum():
            return 0
        if end + length > size and kind not in (b"mdat", b"moov", b"moof"):
            return 0
        end += length
    return end


# ---------------------------------------------------------------- video files


class VideoFileSource(FrameSource):
    """The frames of a video file (see the module's docstring for their order).

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

    Raises:
        FileNotFoundError: there is no file at `path`.
        VideoDecodeError: the file gives no frame; it names the cause.
        ValueError: `decoder_threads` is less than 1.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        verify: bool = False,
        decoder_threads: int | None = None,
    ) -> None:
        self.path = _existing_file(path)
        if decoder_threads is None:
            decoder_threads = min(4, os.cpu_count() or 1)
        if decoder_threads < 1:
            raise ValueError(f"decoder_threads is {decoder_threads}, must be >= 1")
        self._threads = decoder_threads
        self._index, info = self._build_index(verify)
        super().__init__(str(self.path), info)
        self._index_of_pts = {pts: i for i, pts in enumerate(self._index.pts or ())}
        self._undecodable: set[int] = set()
        self._closed = False
        # All for `frame`: where its decoder stands, and what it gave last.
        self._lock = threading.Lock()
        self._reader: _Reader | None = None
        self._shown: Iterator[tuple[int, av.VideoFrame, str]] | None = None
        self._next_shown = 0
        self._last: tuple[int, np.ndarray, str] | None = None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._shown, self._last = None, None
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path}: the frame source is closed")

    def _build_index(self, verify: bool) -> tuple[_FrameIndex, VideoInfo]:
        missing = _missing_bytes(self.path)
        with closing(_Reader(self.path, self._threads)) as reader:
            found = None
            if not verify and not missing:
                found = _whatever_the_threads(_index_by_packets, reader)
            if found is None:
                found = _whatever_the_threads(_index_by_decoding, reader)
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
            _warn(
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
            self._reader = _Reader(self.path, self._threads)
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
        with closing(_Reader(self.path, self._threads)) as reader:
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
        self, reader: _Reader, start: int, stop: int
    ) -> Iterator[tuple[int, av.VideoFrame, str]]:
        """(index, picture, problem) for every index of [start, stop)."""
        while True:
            try:
                for item in self._fill_gaps(reader, start, stop):
                    yield item
                    start = item[0] + 1
                return
            except _NeedsOneThread:
                reader.use_one_thread()

    def _fill_gaps(
        self, reader: _Reader, start: int, stop: int
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
        self, reader: _Reader, start: int
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

    def _gap_problem(self, index: int, reader: _Reader) -> str:
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
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such video file")
    if not path.is_file():
        # A pipe or a device could keep a reader waiting for ever.
        raise VideoDecodeError(f"{path}: not a regular file")
    if path.stat().st_size == 0:
        raise VideoDecodeError(f"{path}: the file is empty")
    return path


# --------------------------------------------------------------------- images


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

    Raises:
        FileNotFoundError: a path does not exist.
        VideoDecodeError: a file is not a readable image, or one image has not
            the size of the first; it names the image.
        ValueError: an empty list, an image of a wrong type or shape, a bad fps.
    """

    def __init__(
        self, images: Sequence[ImageLike], *, fps: float | None = None
    ) -> None:
        self._images = tuple(images)
        self._pil_lock = threading.Lock()
        super().__init__("images", _image_list_info(self._images, fps))

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
            with Image.open(image) as opened:
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


def _image_list_info(images: Sequence[ImageLike], fps: float | None) -> VideoInfo:
    if not images:
        raise ValueError("images is empty: there must be at least one")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}, must be a finite number > 0, or None")
    width, height = _image_size(images[0], 0)
    for index, image in enumerate(images):
        size = _image_size(image, index)
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


def _image_size(image: ImageLike, index: int) -> tuple[int, int]:
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
        with Image.open(image) as opened:
            return opened.size
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such image file") from None
    except _IMAGE_ERRORS as error:
        raise VideoDecodeError(f"{name}: not an image that can be read") from error


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
