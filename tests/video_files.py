"""Small real videos for tests, every picture telling its own frame index.

A picture is a grid of four columns and two rows of black or white blocks, the
bits of the frame index, which survive lossy compression.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TICKS_PER_SECOND = 12800
TICKS_PER_FRAME = 512
"""25 frames a second, in ticks that mp4 keeps as they are."""

_QUIET_AND_FAST = {
    "libx264": {"preset": "ultrafast", "crf": "18"},
    "libx265": {"preset": "ultrafast", "crf": "18"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"},
    "libsvtav1": {"preset": "12", "crf": "20"},
    "mpeg4": {"qscale": "3"},
    "mjpeg": {"qmin": "2", "qmax": "3"},
}


def index_picture(index: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB that shows `index`, 0 to 255."""
    bits = (index >> np.arange(8)) & 1
    rows = np.arange(height) * 2 // height
    columns = np.arange(width) * 4 // width
    gray = bits.reshape(2, 4)[rows[:, None], columns[None, :]] * 255
    return np.repeat(gray[:, :, None], 3, axis=2).astype(np.uint8)


def shown_index(image: np.ndarray) -> int:
    """The index that a picture shows."""
    height, width = image.shape[:2]
    bits = 0
    for bit in range(8):
        row, column = divmod(bit, 4)
        y = (2 * row + 1) * height // 4
        x = (2 * column + 1) * width // 8
        block = image[y - height // 8 : y + height // 8 + 1]
        bits |= int(block[:, x - width // 16 : x + width // 16 + 1].mean() > 127) << bit
    return bits


def write_video(
    path: Path,
    count: int = 24,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (96, 64),
    pixel_format: str = "yuv420p",
    key_interval: int = 10,
    b_frames: int = 0,
    open_gop: bool = False,
    frame_ticks: Sequence[int] | None = None,
    shift_ticks: int = 0,
    container_format: str | None = None,
    container_options: dict[str, str] | None = None,
    with_audio: bool = False,
    pictures: Sequence[np.ndarray] | None = None,
) -> Path:
    """Write `count` pictures that show 0, 1, ... and return `path`.

    `size` is (width, height). `frame_ticks` are the presentation times, by
    default 25 a second; `shift_ticks` moves all of them in the container, where
    less than zero makes an mp4 whose edit list hides the frames before zero.
    """
    options = dict(_QUIET_AND_FAST.get(codec, {}))
    if codec == "libx264":
        options["x264-params"] = (
            f"keyint={key_interval}:min-keyint={key_interval}:scenecut=0:"
            f"bframes={b_frames}:b-adapt=0:open-gop={int(open_gop)}"
        )
    if codec == "libx265":
        options["x265-params"] = (
            f"log-level=none:keyint={key_interval}:min-keyint={key_interval}:"
            f"scenecut=0:bframes={b_frames}:b-adapt=0:open-gop={int(open_gop)}"
        )
    ticks = frame_ticks or [i * TICKS_PER_FRAME for i in range(count)]
    container = av.open(
        str(path), "w", format=container_format, options=container_options or {}
    )
    with container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        time_base = Fraction(1, TICKS_PER_SECOND)
        if codec in ("mpeg4", "mjpeg"):  # they count frames, not ticks
            time_base = Fraction(1, 25)
            ticks = [tick // TICKS_PER_FRAME for tick in ticks]
        stream.codec_context.time_base = time_base
        if codec != "mjpeg":
            stream.codec_context.gop_size = key_interval
        if codec == "mpeg4":
            stream.codec_context.max_b_frames = b_frames
        audio = container.add_stream("aac", rate=48000) if with_audio else None
        for i in range(count):
            picture = index_picture(i, *size) if pictures is None else pictures[i]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = ticks[i], time_base
            _mux(container, stream, frame, shift_ticks)
        _mux(container, stream, None, shift_ticks)
        if audio is not None:
            write_tone(container, audio)
    return path


def write_tone(container: object, stream: object) -> None:
    """A second of silence."""
    frame = av.AudioFrame.from_ndarray(
        np.zeros((1, 48000), dtype=np.float32), format="fltp", layout="mono"
    )
    frame.rate = 48000
    _mux(container, stream, frame, 0)
    _mux(container, stream, None, 0)


def _mux(container: object, stream: object, frame: object, shift_ticks: int) -> None:
    for packet in stream.encode(frame):
        if shift_ticks:
            packet.pts += shift_ticks
            packet.dts += shift_ticks
        container.mux(packet)


def decoded_pts(path: Path) -> list[int]:
    """What a plain decode of the whole file gives, in its order."""
    with av.open(str(path)) as container:
        return [frame.pts for frame in container.decode(video=0)]


def set_display_matrix(path: Path, matrix: tuple[float, float, float, float]) -> Path:
    """Write (a, b, c, d) of the matrix in an mp4's track header, and return `path`."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd")
    # ISO/IEC 14496-12, 8.3.2, version 0: the matrix a b u c d v x y w.
    at = header + 44
    values = (*matrix[:2], 0, *matrix[2:], 0, 0, 0)
    for position, value in enumerate(values):
        data[at + 4 * position : at + 4 * position + 4] = round(value * 2**16).to_bytes(
            4, "big", signed=True
        )
    path.write_bytes(data)
    return path


def overwrite_packet(path: Path, number: int, offset: int, content: bytes) -> Path:
    """Damage one packet (by decode order) of a file in place, and return `path`."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        at = packets[number].pos + offset
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)
    return path
