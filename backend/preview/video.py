"""A video with its objects drawn in, as mp4 or GIF, a frame at a time."""

from __future__ import annotations

import math
import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Callable, Collection, Iterable, Iterator, Sequence

import av
import numpy as np
from PIL import Image

from backend.preview.frame_range import checked_range
from backend.preview.drawing import FramePainter
from backend.preview.sheet import sheet_frames
from backend.preview.text import Lettering
from converters.files import whole_file
from converters.types import ObjectId, Track, VideoInfo

if TYPE_CHECKING:
    from sam2_model.video import FrameSource

Progress = Callable[[int, int], None]

_LEAST_LONG_SIDE = 480
"""Smaller videos are enlarged: a caption would cover them."""
_GIF_LONG_SIDE = 480
_LEAST_WIDTH = 16
_GIF_TICKS = 100  # a second: the format's own unit
_GIF_PALETTE_FRAMES = 6
_BT709, _LIMITED_RANGE = 1, 1  # as FFmpeg numbers them


@dataclass(frozen=True)
class _Codec:
    name: str
    pixel_format: str
    ticks_per_second: int
    options: dict[str, str]


# In the order in which they are looked for; browsers play all but the last.
# No B-frames: with them every mp4 starts after zero, and players that leave the
# edit list aside would be off by a frame or two. 90,000 ticks hold frame times
# to 6 microseconds; MPEG-4 part 2 has no room for that many.
_CODECS = (
    _Codec("libx264", "yuv420p", 90_000, {"preset": "veryfast", "crf": "20", "bf": "0"}),
    _Codec("libopenh264", "yuv420p", 90_000, {"rc_mode": "quality"}),
    _Codec(
        "libvpx-vp9", "yuv420p", 90_000,
        {"deadline": "realtime", "cpu-used": "6", "crf": "30", "b": "0", "lag-in-frames": "0"},
    ),
    _Codec("mpeg4", "yuv420p", 30_000, {"qscale": "3"}),
)


def save_video(
    path: str | os.PathLike[str],
    source: FrameSource,
    tracks: Sequence[Track],
    *,
    frames: range | None = None,
    width: int | None = None,
    shown: Collection[ObjectId] | None = None,
    lettering: Lettering | None = None,
    progress: Progress | None = None,
) -> str:
    """Writes an mp4 and returns the name of its codec (libx264 where there is one).

    Every frame keeps its own time, so that the two videos are in step; those of
    a part are counted from its first frame. An odd
    size is filled up to an even one by repeating the last row or column. The
    file appears whole or not at all, also when `progress` raises to stop it.

    Args:
        tracks: All objects of the video; they decide the colours.
        frames: Consecutive frame indices, default all.
        width: Of the pictures, pixels; default the video's, or for a video
            smaller than 480 pixels a multiple of it.
        shown: Ids of the objects to draw, None for all.
        progress: Called as `progress(done, total)` after each frame.

    Raises:
        ValueError: masks that do not fit the video, a bad range or width.
    """
    info = source.info
    frames = checked_range(frames, info)
    painter = FramePainter(
        tracks, info, _picture_size(info, width), lettering=lettering, shown=shown
    )
    codec = best_codec()
    times = info.frame_times_seconds[frames.start : frames.stop]
    zero = times[0] if frames.start else 0.0
    ticks = ticks_of(times, codec.ticks_per_second, zero_seconds=zero)
    pictures = painted_frames(source, painter, frames, progress)
    with encoding(path), whole_file(path) as partial, closing(pictures):
        write_mp4(
            partial, pictures, painter.size_wh, info.fps, codec, ticks,
            last_duration_seconds(times, info),
        )
    return codec.name


def save_gif(
    path: str | os.PathLike[str],
    source: FrameSource,
    tracks: Sequence[Track],
    *,
    frames: range | None = None,
    width: int | None = None,
    max_fps: float = 12.5,
    shown: Collection[ObjectId] | None = None,
    lettering: Lettering | None = None,
    progress: Progress | None = None,
) -> int:
    """Writes a GIF that repeats for ever, with one palette for the whole of it; how many frames.

    Frames are left out so that at most `max_fps` a second are shown; the others
    keep their times to a hundredth of a second. Arguments and errors otherwise
    as for `save_video`, with a default width that gives 480 pixels on the long
    side.
    """
    info = source.info
    frames = checked_range(frames, info)
    if not 0 < max_fps <= 50:
        raise ValueError(f"max_fps={max_fps!r} must be in (0, 50]: viewers slow down faster GIFs")
    if width is None:
        width = round(info.width * _GIF_LONG_SIDE / max(info.width, info.height))
        width = max(_LEAST_WIDTH, width)
    size_wh = (width, _height(info, width))
    painter = FramePainter(tracks, info, size_wh, lettering=lettering, shown=shown)
    kept = _thinned(frames, info.frame_times_seconds, max_fps)
    times = [info.frame_times_seconds[index] for index in kept]
    last_seconds = last_duration_seconds(times, info)
    palette = _common_palette(
        painter.paint(source.frame(kept[place]), kept[place])
        for place in sheet_frames(0, len(kept), _GIF_PALETTE_FRAMES)
    )
    pictures = painted_frames(source, painter, frames, progress, kept=set(kept))
    with encoding(path), whole_file(path) as partial, closing(pictures):
        _write_gif(
            partial, pictures, painter.size_wh, palette,
            ticks_of(times, _GIF_TICKS, zero_seconds=times[0]), last_seconds,
        )
    return len(kept)


@contextmanager
def encoding(path: str | os.PathLike[str]) -> Iterator[None]:
    """Makes what FFmpeg cannot do a ValueError that names the file."""
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):  # a full disk, no permission: it says so itself
            raise
        raise ValueError(f"{os.fspath(path)}: the video cannot be encoded: {error}") from error


def painted_frames(
    source: FrameSource,
    painter: FramePainter,
    frames: range,
    progress: Progress | None,
    *,
    kept: Collection[int] | None = None,
) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 RGB pictures of the frames, of those in `kept` where it is given."""
    with closing(source.frames(frames.start, frames.stop)) as decoded:
        for done, (frame_index, pixels) in enumerate(decoded, start=1):
            if kept is None or frame_index in kept:
                yield np.asarray(painter.paint(pixels, frame_index))
            if progress is not None:
                progress(done, len(frames))


def _picture_size(info: VideoInfo, width: int | None) -> tuple[int, int]:
    if width is None:
        width = info.width * math.ceil(_LEAST_LONG_SIDE / max(info.width, info.height))
        width = max(_LEAST_WIDTH, width)
    return width, _height(info, width)


def _height(info: VideoInfo, width: int) -> int:
    if width < _LEAST_WIDTH:
        raise ValueError(f"width={width} must be at least {_LEAST_WIDTH} pixels")
    return max(1, round(info.height * width / info.width))


def ticks_of(
    times_seconds: Sequence[float], per_second: int, *, zero_seconds: float = 0.0
) -> list[int]:
    """Whole ticks from zero on, strictly ascending.

    Frames before zero, which no player shows, get the first ticks after it.
    """
    ticks: list[int] = []
    for time in times_seconds:
        tick = round((time - zero_seconds) * per_second)
        ticks.append(max(tick, ticks[-1] + 1 if ticks else 0))
    return ticks


def _thinned(frames: range, times_seconds: Sequence[float], max_fps: float) -> list[int]:
    """Frame indices at least 1 / max_fps apart, but for what hundredths round off."""
    kept: list[int] = []
    for index in frames:
        least = 1 / max_fps - 0.5 / _GIF_TICKS
        if not kept or times_seconds[index] - times_seconds[kept[-1]] >= least:
            kept.append(index)
    return kept


def last_duration_seconds(times_seconds: Sequence[float], info: VideoInfo) -> float:
    """Seconds that the last picture is shown: as long as the one before it."""
    if len(times_seconds) > 1:
        return times_seconds[-1] - times_seconds[-2]
    return max(info.duration_seconds - times_seconds[-1], 0.1)


def best_codec() -> _Codec:
    """The first that this PyAV has. Raises ValueError when it has none."""
    for codec in _CODECS:
        try:
            av.Codec(codec.name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        return codec
    names = ", ".join(codec.name for codec in _CODECS)
    raise ValueError(f"this PyAV has no video encoder for mp4: none of {names}")


def write_mp4(
    path: os.PathLike[str],
    pictures: Iterable[np.ndarray],
    size_wh: tuple[int, int],
    fps: float,
    codec: _Codec,
    ticks: Sequence[int],
    last_seconds: float,
    *,
    movflags: str = "+faststart",
    threads: int = 0,
) -> None:
    """Encode (H, W, 3) uint8 RGB pictures.

    Args:
        fps: about how many; seeks land within two seconds.
        ticks: when each picture is shown. The first one may be late, as its
            source's is; the last one then lasts so much longer.
        threads: the encoder's; 0: as many as it likes.
    """
    time_base = Fraction(1, codec.ticks_per_second)
    rate = Fraction(fps or 1).limit_denominator(1001)
    options = {"movflags": movflags, "video_track_timescale": str(codec.ticks_per_second)}
    with av.open(os.fspath(path), "w", format="mp4", options=options) as container:
        stream = container.add_stream(codec.name, rate=rate or 1, options=dict(codec.options))
        stream.width, stream.height = (side + side % 2 for side in size_wh)
        stream.pix_fmt = codec.pixel_format
        context = stream.codec_context
        context.time_base = time_base
        context.thread_count = threads
        context.gop_size = max(1, min(250, round(2 * float(rate))))  # seeks land within 2 s
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        # FFmpeg, and so Chromium, takes the time before the first picture off the
        # duration, and no seek goes beyond that.
        last = max(1, round(last_seconds * codec.ticks_per_second)) + ticks[0]
        durations = iter([*(b - a for a, b in zip(ticks, ticks[1:])), last])

        def write(frame: av.VideoFrame | None) -> None:
            # Without B-frames packets come in the order of frames; the last one's
            # duration is known to nobody but us.
            for packet in stream.encode(frame):
                packet.duration = next(durations, last)
                container.mux(packet)

        for place, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(_even(pixels), format="rgb24").reformat(
                format=codec.pixel_format, dst_colorspace="ITU709"
            )
            frame.pts, frame.time_base = ticks[place], time_base
            write(frame)
        write(None)


def _even(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    if height % 2 == width % 2 == 0:
        return pixels
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _common_palette(pictures: Iterable[Image.Image]) -> np.ndarray:
    """(256, 3) uint8: colours for all of the GIF, from some of its pictures."""
    sample = np.concatenate([np.asarray(picture.convert("RGB")) for picture in pictures])
    # 255, as one place stays free for the pixels that are as in the frame before.
    found = Image.fromarray(sample).quantize(255, method=Image.Quantize.MEDIANCUT)
    colours = np.array(found.getpalette(), np.uint8).reshape(-1, 3)[:255]
    return np.concatenate([colours, np.zeros((256 - len(colours), 3), np.uint8)])


def _write_gif(
    path: os.PathLike[str],
    pictures: Iterable[np.ndarray],
    size_wh: tuple[int, int],
    palette: np.ndarray,
    ticks: Sequence[int],
    last_seconds: float,
) -> None:
    """FFmpeg's encoder: Pillow's keeps every picture until the last one is there."""
    time_base = Fraction(1, _GIF_TICKS)
    options = {"loop": "0", "final_delay": str(max(2, round(last_seconds * _GIF_TICKS)))}
    with av.open(os.fspath(path), "w", format="gif", options=options) as container:
        stream = container.add_stream("gif", rate=_GIF_TICKS)
        stream.width, stream.height = size_wh
        stream.pix_fmt = "pal8"
        stream.codec_context.time_base = time_base
        to_palette = _PaletteGraph(size_wh, palette, time_base)
        for place, pixels in enumerate(pictures):
            for frame in to_palette.push(pixels, ticks[place]):
                container.mux(stream.encode(frame))
        for frame in to_palette.finish():
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


class _PaletteGraph:
    """RGB pictures -> the nearest colours of one palette, with an ordered dither.

    An ordered dither stays where it is from frame to frame: it does not
    flicker, and what does not move costs nothing.
    """

    def __init__(
        self, size_wh: tuple[int, int], palette: np.ndarray, time_base: Fraction
    ) -> None:
        self._time_base = time_base
        graph = av.filter.Graph()
        self._input = graph.add_buffer(
            width=size_wh[0], height=size_wh[1], format="rgb24", time_base=time_base
        )
        colours = graph.add_buffer(width=16, height=16, format="rgba", time_base=time_base)
        use = graph.add("paletteuse", "dither=bayer:bayer_scale=4:diff_mode=rectangle")
        for source, place in ((self._input, 0), (colours, 1)):
            convert = graph.add("format", "bgra")
            source.link_to(convert)
            convert.link_to(use, 0, place)
        self._output = graph.add("buffersink")
        use.link_to(self._output)
        graph.configure()
        self._graph = graph
        opaque = np.full((16, 16, 1), 255, np.uint8)
        grid = np.concatenate([palette.reshape(16, 16, 3), opaque], axis=2)
        colours.push(self._frame(grid, "rgba", 0))
        colours.push(None)

    def push(self, pixels: np.ndarray, tick: int) -> Iterator[av.VideoFrame]:
        self._input.push(self._frame(pixels, "rgb24", tick))
        return self._pulled()

    def finish(self) -> Iterator[av.VideoFrame]:
        self._input.push(None)
        return self._pulled()

    def _frame(self, pixels: np.ndarray, pixel_format: str, tick: int) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=pixel_format)
        frame.pts, frame.time_base = tick, self._time_base
        return frame

    def _pulled(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                frame = self._output.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            frame.pict_type = 0
            yield frame
