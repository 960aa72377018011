"""Which frames a video file has, when each is shown and where decoding can start."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

from sam2_model.video.reader import KeyPacket, NeedsOneThread, Reader

_PROBE_FRAMES = 16
"""Frames decoded to check an index that was built without decoding."""

_FALLBACK_FPS = 25.0
"""For frames that carry no timestamps in a file that states no frame rate."""

# Here every packet is one shown frame and carries its timestamp. Elsewhere not:
# AVI and raw streams have no presentation times, MPEG-TS may send two packets a
# frame, VP8 and MPEG-4 part 2 have packets that show nothing.
_TRUSTED_CONTAINERS = {"mov", "matroska"}
_TRUSTED_CODECS = {"h264", "hevc", "vp9", "av1", "libdav1d", "mjpeg"}

# Browsers play these on the clock of their timestamps, as it is: Chromium 156 was
# asked which picture it shows when, see tests/e2e/test_time_zero.py.
_CONTAINERS_WITH_ZERO = {"mov", "matroska"}

_LONGEST_WAIT_SECONDS = 24 * 3600.0
"""For the first picture. More is a recorder's time of day, and no editor has a
timeline of fifty years."""


@dataclass
class _PacketTable:
    """What the packets say of the frames, without decoding them."""

    pts: list[int | None] = field(default_factory=list)
    """Of the packets that are to be shown."""
    keys: dict[int, KeyPacket] = field(default_factory=dict)
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
        if not self.pts and not self.discarded:
            self.starts_with_key = packet.is_keyframe
        if packet.is_discard:
            self.discarded += 1
        else:
            self.pts.append(packet.pts)
        if packet.dts is not None:
            self.decode_times.append(packet.dts)
        if packet.pts is not None:
            self.durations[packet.pts] = packet.duration or 0
            if packet.is_keyframe:
                self.keys[packet.pts] = KeyPacket.of(packet)

    def is_clean(self) -> bool:
        """Whether each packet must be one frame, shown at the packet's time."""
        return (
            self.starts_with_key
            and not self.discarded
            and None not in self.pts
            and len(set(self.pts)) == len(self.pts)
        )

    def count_before(self, pts: int | None) -> int:
        """How many packets were to be shown before a time."""
        return 0 if pts is None else sum(p is not None and p < pts for p in self.pts)


@dataclass(frozen=True)
class FrameIndex:
    """Which frames there are, and where decoding can start."""

    pts: tuple[int, ...] | None
    """Presentation timestamp of each frame, ascending; None if the frames have
    no usable timestamps and can only be counted from the start of the file."""
    keys: dict[int, KeyPacket]
    """By pts, ascending; some may precede the first frame."""
    key_indices: tuple[int, ...]
    """Their frame indices (the first frame at or after each)."""
    times_seconds: tuple[float, ...]
    duration_seconds: float
    fps: float

    def entry_points(self, index: int) -> list[KeyPacket | None]:
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
) -> FrameIndex:
    """The index of frames given in display order."""
    if None not in frame_pts and all(a < b for a, b in itertools.pairwise(frame_pts)):
        pts = tuple(frame_pts)
        keys = dict(sorted(table.keys.items()))
        times = _times_from_pts(pts, _zero_pts(pts[0], table, stream), stream.time_base)
        last = table.durations.get(pts[-1], 0) * stream.time_base
    else:
        pts, keys = None, {}
        rate = _rate_of_packets(table, stream)
        start = _start_of_packets(table, stream)
        times = tuple(start + i / rate for i in range(len(frame_pts)))
        last = 1 / rate
    fps = _average_fps(times, stream)
    if last <= 0:
        last = times[-1] - times[-2] if len(times) > 1 else (1 / fps if fps else 0.0)
    return FrameIndex(
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


def _start_of_packets(table: _PacketTable, stream: av.VideoStream) -> float:
    """Seconds from the clock's zero to the first of frames without presentation times."""
    if not table.decode_times:
        return 0.0
    first = min(table.decode_times)
    # Decoding may begin before zero where pictures are reordered; showing does not.
    return max(0.0, float((first - _zero_pts(first, table, stream)) * stream.time_base))


def _zero_pts(first_pts: int, table: _PacketTable, stream: av.VideoStream) -> int:
    """The timestamp that a player takes for time zero, in the stream's time base.

    Elsewhere than in mp4 and Matroska, clocks begin anywhere, and players (and
    FFmpeg, when it makes an mp4 of it) count from where the first of all streams
    does: `start_time`. Unknown, in a raw stream, it is the first picture.
    """
    container = stream.container
    kind = container.format.name.split(",")[0]
    zero = 0
    if kind not in _CONTAINERS_WITH_ZERO:
        if container.start_time is None:
            return first_pts
        zero = round(Fraction(container.start_time, av.time_base) / stream.time_base)
    if kind == "avi" and table.decode_times:
        # Its only times are those of decoding; where pictures are reordered, the
        # decoder's are later by as many. The first is shown when it is decoded.
        zero += first_pts - min(table.decode_times)
    too_late = abs(first_pts - zero) * stream.time_base > _LONGEST_WAIT_SECONDS
    return first_pts if too_late else zero


def _times_from_pts(
    frame_pts: Sequence[int], zero_pts: int, time_base: Any
) -> tuple[float, ...]:
    # One division of whole numbers a frame: no error adds up over the video.
    numerator, denominator = time_base.numerator, time_base.denominator
    return tuple((pts - zero_pts) * numerator / denominator for pts in frame_pts)


def _average_fps(times: Sequence[float], stream: av.VideoStream) -> float:
    """The stated rate where it fits the timestamps to half a frame, else theirs.

    Matroska's whole milliseconds make 29.97 of 30; a stated rate can be the
    rate of a part that an edit list cut away.
    """
    stated = float(stream.average_rate or 0)
    if len(times) < 2:
        return stated
    seconds = times[-1] - times[0]
    measured = (len(times) - 1) / seconds
    return stated if abs(stated - measured) * seconds < 0.5 else measured


def index_by_packets(
    reader: Reader, max_frames: int | None = None
) -> tuple[FrameIndex, av.VideoFrame] | None:
    """The index from the packets alone, and the first frame.

    None where anything leaves a doubt, down to the first frames not being
    decoded at just the times that their packets promise.

    Raises VideoDecodeError for more than `max_frames`.
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
        reader.check_count(len(table.pts), max_frames)
    if not table.is_clean() or len(table.pts) < stream.frames:
        return None
    frame_pts = sorted(table.pts)
    promised = frame_pts[:_PROBE_FRAMES]
    probe = list(itertools.islice(reader.frames_from(None, {}), len(promised)))
    if not probe or [frame.pts for frame in probe] != promised or reader.problems:
        return None
    return _make_index(frame_pts, table, reader.stream), probe[0]


def index_by_decoding(
    reader: Reader, max_frames: int | None = None
) -> tuple[FrameIndex, av.VideoFrame] | None:
    """The index of the frames that decode, and the first; None if none does.

    Raises VideoDecodeError for more than `max_frames`.
    """
    table, frame_pts, first = _PacketTable(), [], None
    reader.rewind()
    for frame in reader.frames(table.watch(reader.packets())):
        frame_pts.append(frame.pts)
        reader.check_count(len(frame_pts), max_frames)
        first = frame if first is None else first
    if len(frame_pts) < len(table.pts):
        reader.require_one_thread()
    if first is None:
        return None
    early = table.count_before(first.pts)
    if early:
        reader.note(f"it begins before its first key frame: {early} frames cannot be decoded")
    return _make_index(frame_pts, table, reader.stream), first


def whatever_the_threads(
    build: Callable[[Reader, int | None], tuple[FrameIndex, av.VideoFrame] | None],
    reader: Reader,
    max_frames: int | None,
) -> tuple[FrameIndex, av.VideoFrame] | None:
    """What `build` makes of the file, with one decoder thread where several fail."""
    try:
        return build(reader, max_frames)
    except NeedsOneThread:
        reader.use_one_thread()
        return build(reader, max_frames)
