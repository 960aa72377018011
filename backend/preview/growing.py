"""A video with its objects drawn in, that can be looked at while it is being made.

The encoder writes a fragmented mp4, readable up to the last whole fragment. A
look at it is another mp4, whole and as long as the source: what is drawn so far,
then still pictures with a message. Nothing is encoded twice but the stills.
"""

from __future__ import annotations

import itertools
import math
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, NamedTuple, Sequence

import av
import numpy as np
from PIL import Image

from backend.preview.drawing import FramePainter
from backend.preview.output import whole_file
from backend.preview.text import Lettering
from backend.preview.video import (
    Progress,
    best_codec,
    encoding,
    painted_frames,
    ticks_of,
    write_mp4,
)
from converters.types import Track, VideoInfo

if TYPE_CHECKING:
    from sam2_model.video import FrameSource

# Its header waits for the first pictures: only then is it known when they begin.
_FRAGMENTED = "+frag_keyframe+empty_moov+delay_moov+default_base_moof"
_THREADS = 2  # of the encoder: others want the machine too
_STILL_SECONDS, _MOST_STILLS = 1.0, 120
_SPREAD = 8
_BRIGHTNESS = 0.45


class Still(NamedTuple):
    """A picture that is shown from a time on."""

    seconds: float
    pixels: np.ndarray
    """(H, W, 3) uint8 RGB."""


def spread_stills(source: FrameSource) -> list[Still]:
    """A few pictures from all over the video: reading them is short, reading all is not."""
    count = min(_SPREAD, len(source))
    indices = [len(source) * place // count for place in range(count)]
    times = source.info.frame_times_seconds
    return [Still(times[index], source.frame(index)) for index in indices]


def write_growing(
    path: Path, source: FrameSource, tracks: Sequence[Track], progress: Progress
) -> None:
    """Write a fragmented mp4 of all frames at the source's size, each at its own time.

    An odd size becomes an even one, as in `save_video`.

    Raises ValueError for masks that do not fit the video, and what `progress` does.
    """
    info = source.info
    painter = FramePainter(tracks, info, (info.width, info.height))
    codec = best_codec()
    pictures = painted_frames(source, painter, range(info.frame_count), progress)
    with encoding(path), closing(pictures):
        write_mp4(
            path, pictures, painter.size_wh, info.fps, codec,
            ticks_of(info.frame_times_seconds, codec.ticks_per_second),
            info.duration_seconds - info.frame_times_seconds[-1],
            movflags=_FRAGMENTED, threads=_THREADS,
        )


def finish(path: Path, grown: Path) -> None:
    """Write the whole `grown` as an mp4 that plays while it loads."""
    with encoding(path), whole_file(path) as partial:
        _join(partial, [(grown, 0)])


def look(
    path: Path, grown: Path | None, info: VideoInfo, stills: Sequence[Still], message: str
) -> int:
    """Write an mp4 as long as the video: what `grown` has so far, then stills.

    Args:
        grown: of `write_growing`, which may be writing it now.
        stills: one or more pictures of the video's size, in the order of their
            times; they are dimmed.
        message: on the stills.

    Returns:
        How many frames are drawn.
    """
    count = 0 if grown is None else sum(1 for _ in _whole_packets(grown))
    with encoding(path), whole_file(path) as partial:
        if count == info.frame_count:
            _join(partial, [(grown, 0)])
            return count
        if count:
            rest = partial.with_name(f"{partial.name}.rest")
            try:
                begin_tick = _write_stills(rest, info, count, stills, message)
                if _headers(grown) == _headers(rest):
                    _join(partial, [(grown, 0), (rest, begin_tick)], max_first=count)
                    return count
            finally:
                rest.unlink(missing_ok=True)
        # Nothing yet, or an encoder whose videos cannot be put together: stills alone.
        _write_stills(partial, info, 0, stills, message)
        return 0


def _write_stills(
    path: Path, info: VideoInfo, begin_index: int, stills: Sequence[Still], message: str
) -> int:
    """From a frame's time on (the first: from zero) to the end; returns its tick.

    Its own times begin at 0.
    """
    codec = best_codec()
    begin, begin_tick, late_seconds = 0.0, 0, 0.0
    if begin_index:
        late_seconds = max(0.0, info.start_seconds)  # see write_mp4
        begin = info.frame_times_seconds[begin_index]
        begin_tick = ticks_of(info.frame_times_seconds, codec.ticks_per_second)[begin_index]
    rest_seconds = max(info.duration_seconds - begin, 1 / codec.ticks_per_second)
    step = max(_STILL_SECONDS, rest_seconds / _MOST_STILLS)
    times = [i * step for i in range(math.ceil(rest_seconds / step))]
    write_mp4(
        path, _shown(stills, message, [begin + time for time in times]),
        (info.width, info.height), info.fps, codec,
        ticks_of(times, codec.ticks_per_second), rest_seconds - times[-1] + late_seconds,
        threads=_THREADS,
    )
    return begin_tick


def _shown(
    stills: Sequence[Still], message: str, times_seconds: Sequence[float]
) -> Iterator[np.ndarray]:
    """At each time the latest still, the first one before it."""
    place, picture = 0, _dimmed(stills[0].pixels, message)
    for time in times_seconds:
        latest = place
        while latest + 1 < len(stills) and stills[latest + 1].seconds <= time:
            latest += 1
        if latest != place:
            place, picture = latest, _dimmed(stills[latest].pixels, message)
        yield picture


def _dimmed(pixels: np.ndarray, message: str) -> np.ndarray:
    """The picture, darker, with the message at its bottom."""
    picture = Image.fromarray((pixels * _BRIGHTNESS).astype(np.uint8))
    lettering, size = Lettering(), max(8, picture.height // 16)
    while size > 8 and lettering.size(message, size)[0] > picture.width * 0.9:
        size -= 1
    width, height = lettering.size(message, size)
    place = (max(0, (picture.width - width) // 2), max(0, picture.height - 2 * height))
    lettering.chip(picture, place, message, size, (0, 0, 0))
    return np.asarray(picture)


def _whole_packets(path: Path) -> Iterator[av.Packet]:
    """A file may be growing: up to what has been written."""
    try:
        with av.open(os.fspath(path)) as container:
            for packet in container.demux(video=0):
                if packet.is_corrupt:
                    return
                if packet.size:
                    yield packet
    except av.FFmpegError:
        return  # its end is not written yet


def _headers(path: Path) -> bytes:
    with av.open(os.fspath(path)) as container:
        return container.streams.video[0].codec_context.extradata or b""


def _join(path: Path, parts: Sequence[tuple[Path, int]], *, max_first: int | None = None) -> None:
    """One mp4 of the parts' packets, each part moved by so many ticks.

    `max_first`: so many of the first, which may have grown meanwhile.
    """
    with av.open(os.fspath(parts[0][0])) as template:
        stream_in = template.streams.video[0]
        ticks = stream_in.time_base.denominator
        options = {"movflags": "+faststart", "video_track_timescale": str(ticks)}
        with av.open(os.fspath(path), "w", format="mp4", options=options) as container:
            stream = container.add_stream_from_template(stream_in)
            for place, (part, moved_ticks) in enumerate(parts):
                limit = max_first if place == 0 else None
                for packet in itertools.islice(_whole_packets(part), limit):
                    packet.pts += moved_ticks
                    packet.dts += moved_ticks
                    packet.stream = stream
                    container.mux(packet)
