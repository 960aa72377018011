"""One open video file and its decoder: packets, frames, pictures."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from sam2_model.video.errors import VideoDecodeError

# Demuxers that can be opened. The rest of FFmpeg's must not be: playlists and
# scripts (hls, dash, concat, sdp) name other files and URLs to read, and the
# `tty` demuxer renders any text file as a video.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,"
    "ivf,obu,mjpeg,flv,ogg,asf,nut,yuv4mpegpipe,mxf,gif,apng,dv,vc1,wtv,rm,h263"
)


# Of those, the ones in which FFmpeg finds a display matrix.
_CONTAINERS_WITH_MATRIX = {"mov", "matroska"}

Matrix = tuple[int, int, int, int]
"""a, b, c, d of x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, 8.3.2), in any unit."""
_UPRIGHT = (1, 0, 0, 1)
_RIGHT_ANGLE_TOLERANCE = 0.01
"""Half a degree, as in Chromium, which does not turn by 89."""


@dataclass(frozen=True)
class KeyPacket:
    """A packet from which decoding can start; times in the stream's time base."""

    pts: int
    dts: int
    position: int
    """Offset in the file."""

    @classmethod
    def of(cls, packet: av.Packet) -> KeyPacket:
        dts = packet.pts if packet.dts is None else packet.dts
        return cls(packet.pts, dts, packet.pos)


MAX_PIXELS = 64_000_000
"""Of a picture, width times height: twice what 8K has."""


class NeedsOneThread(Exception):
    """Damage met while several threads decode: see `Reader`."""


class Reader:
    """One open container and its decoder. Not thread safe.

    Damage never raises: it is noted in `problems` and decoding goes on. But
    with several decoder threads it raises `NeedsOneThread`, and must be decoded
    again: an error of one thread makes PyAV drop good frames of the others that
    come back from the same call, and FFmpeg drop them without an error at the
    end of the file.

    Raises VideoDecodeError for a file that is no video, or whose pictures have
    more than `max_pixels`; one that grows larger in its middle is damage.
    """

    def __init__(self, path: Path, threads: int, max_pixels: int = MAX_PIXELS) -> None:
        self._path = path
        self._threads = threads
        self._max_pixels = max_pixels
        self.problems: list[str] = []
        self._reformatter = VideoReformatter()
        self._matrix: Matrix | None = None
        self._open()

    def _open(self) -> None:
        self._container, self.stream = _open_container(self._path)
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.thread_count = self._threads
        self._at_start = True
        width, height = self.stream.codec_context.width, self.stream.codec_context.height
        if width * height > self._max_pixels:
            self.close()
            raise VideoDecodeError(
                f"{self._path}: its pictures have {width} x {height} pixels, may have "
                f"{self._max_pixels} in all"
            )
        self.stream.codec_context.options = {"max_pixels": str(self._max_pixels)}

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
            raise NeedsOneThread

    def check_count(self, count: int, most: int | None) -> None:
        if most is not None and count > most:
            raise VideoDecodeError(f"{self._path}: the video has more than {most} frames")

    def close(self) -> None:
        self._container.close()

    def packets(self) -> Iterator[av.Packet]:
        """The video packets that have content, from here to the end of the file."""
        self._at_start = False
        try:
            for packet in self._demuxed():
                if packet.is_corrupt:
                    self.note("a packet is incomplete or marked corrupt")
                # Packets without content show nothing, and to the decoder they
                # would mean the end of the stream.
                if packet.size > 0:
                    yield packet
        except av.FFmpegError as error:
            self.note(f"reading stops early: {error.strerror}")

    def _demuxed(self) -> Iterator[av.Packet]:
        while True:
            try:
                yield from self._container.demux(self.stream)
                return
            except IndexError:
                # PyAV's word for a packet of a stream that was not there when the
                # file was opened: damage to MPEG-TS makes such. The next are read on.
                self.note("a stream begins in the middle of the file")

    def frames(self, packets: Iterable[av.Packet]) -> Iterator[av.VideoFrame]:
        """The frames that decode from `packets`, in the decoder's display order."""
        for packet in packets:
            yield from self._decode(packet)
        yield from self._decode(None)

    def frames_from(
        self, key: KeyPacket | None, keys: Mapping[int, KeyPacket]
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
                and keys.get(first.pts) == KeyPacket.of(first)
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
        matrix = self._display_matrix(frame)
        height, width = frame.height, frame.width
        if size_hw is not None:
            height, width = size_hw[::-1] if _swaps_axes(matrix) else size_hw
        converted = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24"
        )
        return np.require(
            _oriented(converted.to_ndarray(), matrix), requirements=["C", "W"]
        )

    def _display_matrix(self, frame: av.VideoFrame) -> Matrix:
        """The container's, which every frame carries; or a message's inside the stream,
        which browsers leave aside."""
        data = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        if data is None:
            return _UPRIGHT
        if self._matrix is None:
            matrix = _container_matrix(self.stream)
            # No message of such a codec can be meant.
            matrix = _matrix_of(bytes(data), "little") if matrix is None else matrix
            self._matrix = matrix if _is_right_angle(matrix) else _UPRIGHT
        return self._matrix

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        try:
            return self.stream.codec_context.decode(packet)
        except av.error.EOFError:  # the decoder had already been flushed
            return []
        except av.FFmpegError as error:
            self.require_one_thread()
            self.note(f"a packet does not decode: {error.strerror}")
            return []

    def note(self, problem: str) -> None:
        """Add to `problems`, once."""
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


def _container_matrix(stream: av.VideoStream) -> Matrix | None:
    """The container's display matrix, without what the stream itself says; None where
    FFmpeg cannot put the codec into an mp4.

    PyAV has no word for it, so it is read from the header of an mp4 that FFmpeg would
    make of the stream. Decoders that turn pictures by messages of their own (H.264's and
    HEVC's display orientation, the EXIF of Motion JPEG) are of codecs that mp4 holds.
    """
    if stream.container.format.name.split(",")[0] not in _CONTAINERS_WITH_MATRIX:
        return _UPRIGHT
    header = io.BytesIO()
    options = {"movflags": "empty_moov+frag_keyframe"}
    try:
        with av.open(header, "w", format="mp4", options=options) as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
            data = header.getvalue()
    except (av.FFmpegError, ValueError):
        return None
    # ISO/IEC 14496-12, 8.3.2, version 0: 40 bytes stand before the matrix a b u c d v x y w.
    at = data.index(b"tkhd") + 4 + 40
    return _matrix_of(data[at : at + 36], "big")


def _matrix_of(data: bytes, byte_order: str) -> Matrix:
    order = {"big": ">", "little": "<"}[byte_order]
    a, b, _, c, d = np.frombuffer(data, dtype=f"{order}i4")[:5].tolist()
    return a, b, c, d


def _swaps_axes(matrix: Matrix) -> bool:
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _is_right_angle(matrix: Matrix) -> bool:
    """Whether it turns or mirrors by right angles alone; browsers show others as stored."""
    a, b, c, d = map(abs, matrix)
    (one, two), (rest, other) = ((b, c), (a, d)) if _swaps_axes(matrix) else ((a, d), (b, c))
    return one == two and max(rest, other) < _RIGHT_ANGLE_TOLERANCE * one


def _oriented(image: np.ndarray, matrix: Matrix) -> np.ndarray:
    """The picture rotated and mirrored by a matrix of right angles; a view."""
    a, b, c, d = matrix
    if _swaps_axes(matrix):
        image, flip_x, flip_y = image.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
