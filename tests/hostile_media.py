"""Files that are made to harm whoever decodes them, each of a few bytes to a few megabytes."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path

import av

from sam2_model.video import isolated
from tests.video_files import write_video


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def _png(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels)
        + _chunk(b"IEND", b"")
    )


def huge_png_header(path: Path) -> Path:
    """100,000 x 100,000 pixels, it says."""
    path.write_bytes(_png(100_000, 100_000, zlib.compress(bytes(100))))
    return path


def png_bomb(path: Path, side: int = 12_000) -> Path:
    """All of its pixels are there, a bit each: 144 million of them in 18 kB."""
    row = bytes(1 + side // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    path.write_bytes(_png(side, side, packed))
    return path


def gif_of_many_frames(path: Path, count: int) -> Path:
    """16 x 16 pixels, 24 bytes a frame."""
    header = b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0x80, 0, 0) + bytes(6)
    control = b"\x21\xf9\x04\x00\x01\x00\x00\x00"
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    path.write_bytes(header + (control + image) * count + b"\x3b")
    return path


def gif_of_costly_frames(path: Path, count: int = 60_000) -> Path:
    """4,000 x 4,000 pixels, 23 bytes a frame: hours to decode, 1.4 MB in all."""
    data = bytearray(gif_of_many_frames(path, count).read_bytes())
    data[6:10] = struct.pack("<HH", 4000, 4000)
    path.write_bytes(data)
    return path


def y4m_of_tiny_frames(path: Path, count: int) -> Path:
    """2 x 2 pixels, 12 bytes a frame."""
    head = b"YUV4MPEG2 W2 H2 F25:1 Ip A1:1 C420jpeg\n"
    path.write_bytes(head + (b"FRAME\n" + bytes(6)) * count)
    return path


def y4m_of_huge_frames(path: Path) -> Path:
    path.write_bytes(b"YUV4MPEG2 W100000 H100000 F25:1 Ip A1:1 C420jpeg\nFRAME\n" + bytes(1000))
    return path


def gif_of_huge_frames(path: Path) -> Path:
    """65,535 x 65,535 pixels, it says."""
    data = bytearray(gif_of_many_frames(path, 3).read_bytes())
    data[6:10] = struct.pack("<HH", 65535, 65535)
    path.write_bytes(data)
    return path


def mp4_of_huge_pictures(path: Path) -> Path:
    """Motion JPEG whose pictures say 65,500 x 65,500, as all of the container does."""
    write_video(path, 3, codec="mjpeg", pixel_format="yuvj420p")
    data = bytearray(path.read_bytes())
    width, height = 96, 64
    at = 0
    while (at := data.find(b"\xff\xc0\x00\x11\x08", at)) >= 0:
        data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
        at += 9
    sizes = struct.pack(">HH", width, height)
    at = data.index(sizes, data.index(b"stsd"))
    data[at : at + 4] = struct.pack(">HH", 65500, 65500)
    path.write_bytes(data)
    return path


def mp4_of_endless_duration(path: Path, count: int = 0x7FFFFFFF) -> Path:
    """A few frames, and tables that tell of two thousand million of one byte each."""
    write_video(path, 3)
    data = bytearray(path.read_bytes())
    at = data.index(b"stsz") + 8  # after version and flags: the size of all, their count
    data[at : at + 8] = struct.pack(">II", 1, count)
    at = data.index(b"stts") + 8
    data[at : at + 12] = struct.pack(">III", 1, count, 512)
    at = data.index(b"stsc") + 8
    data[at : at + 16] = struct.pack(">IIII", 1, 1, count, 1)
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        at = data.index(box) + (20 if box != b"tkhd" else 24)
        data[at : at + 4] = struct.pack(">I", 0xFFFFFFFF)
    path.write_bytes(data)
    return path


def mkv_of_many_streams(path: Path, count: int = 1000) -> Path:
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mjpeg", rate=25) for _ in range(count)]
        for stream in streams:
            stream.width = stream.height = 16
            stream.pix_fmt = "yuvj420p"
            stream.codec_context.time_base = Fraction(1, 25)
        frame = av.VideoFrame(16, 16, "yuvj420p")
        for stream in streams:
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            for packet in stream.encode(frame):
                container.mux(packet)
    return path


def decoders() -> set[int]:
    """The processes that decode now."""
    process = isolated._processes._process
    if process is None:
        return set()
    place = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    children = place.read_text(encoding="ascii").split()
    return {int(number) for number in children if not _is_zombie(number)}


def no_more_decode_than(known: Collection[int]) -> bool:
    """Whether soon only these processes decode, or some of them: other tests' may end."""
    for _ in range(1200):
        if decoders() <= set(known):
            return True
        time.sleep(0.05)
    return False


def _is_zombie(process_id: str) -> bool:
    try:
        status = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii")
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"
