"""What is an image and what is a video: told by a file's first bytes, or by a bare name's suffix.

The one place that knows. What is here is what `sam2_model.video` reads.
"""

from __future__ import annotations

import enum
import os
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Mapping


class MediaKind(enum.StrEnum):
    """What a file's pictures are."""

    IMAGE = "image"
    """Most often one picture; GIF, PNG, WebP, AVIF and TIFF may hold several."""
    VIDEO = "video"


IMAGE_FORMATS: Mapping[str, str] = MappingProxyType({
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG",
    ".png": "PNG", ".apng": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP", ".dib": "BMP",
    ".tif": "TIFF", ".tiff": "TIFF",
    ".gif": "GIF",
    ".avif": "AVIF",
})
"""Suffix -> the format's name, as Pillow has it."""

PILLOW_FORMATS = tuple(dict.fromkeys(IMAGE_FORMATS.values()))
"""For `Image.open(..., formats=)`. Pillow knows others, which must not be opened whatever a file
is called: EPS, for one, is a program that it has Ghostscript run."""

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe", ".m1v",
    ".m2v", ".vob", ".ts", ".m2ts", ".mts", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2",
    ".ogv", ".ogg", ".ogm", ".mxf", ".dv", ".nut", ".ivf", ".obu", ".y4m", ".h264", ".264",
    ".h265", ".265", ".hevc", ".h263", ".vc1", ".mjpeg", ".mjpg", ".mj2", ".rm", ".rmvb", ".wtv",
)
"""The most common first."""

_HEAD_BYTES = 400
_RAW_JPEG_VIDEOS = (".mjpeg", ".mjpg")
_IMAGES = (
    # offset, bytes there, format as Pillow has it
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
)
_SHORT_BOXES = (b"wide", b"free", b"skip", b"pnot")
"""Of an mp4 too, and words that a text may have there: but no text begins with a zero."""
_FORMAT_TITLES = {"WEBP": "WebP"}
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_VIDEOS = (
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (0, b"\0\0\1\xba", "MPEG"),
    (0, b"\0\0\1\xb3", "MPEG"),
    (8, b"AVI ", "AVI"),
    # An mp4's boxes: four bytes of size before each name.
    (4, b"ftyp", "mp4"),
    (4, b"moov", "mp4"),
    (4, b"mdat", "mp4"),
    (0, b"FLV\1", "FLV"),
    (0, b"OggS", "Ogg"),
    (0, bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "ASF or WMV"),
    (0, bytes.fromhex("060e2b34020501010d0102"), "MXF"),
    (0, bytes.fromhex("b7d800204937da11a64e0007e95ead8d"), "WTV"),
    (0, b"\x1f\x07\0", "DV"),
    (0, b"nut/multimedia container", "NUT"),
    (0, b"DKIF", "IVF"),
    (0, b"YUV4MPEG2", "YUV4MPEG"),
    (0, b".RMF", "RealMedia"),
    (0, b"\0\0\0\1", "H.264 or H.265"),
    (0, b"\0\0\1", "H.264 or H.265"),
)


def suffix_of(name: str | os.PathLike[str]) -> str:
    """The name's suffix in lower case, with its dot; "" when it has none."""
    return PurePosixPath(os.fspath(name)).suffix.lower()


def kind_of_name(name: str | os.PathLike[str]) -> MediaKind | None:
    """By the suffix, upper case or lower: for names of files that are not at hand."""
    suffix = suffix_of(name)
    if suffix in IMAGE_FORMATS:
        return MediaKind.IMAGE
    return MediaKind.VIDEO if suffix in VIDEO_SUFFIXES else None


def is_image_name(name: str | os.PathLike[str]) -> bool:
    return kind_of_name(name) is MediaKind.IMAGE


def kind_of_file(path: str | os.PathLike[str]) -> MediaKind | None:
    """By its first bytes, whatever its name; None for what is neither, or not a file.

    Raw H.263 and a few others begin like anything: those are told by their suffix.
    """
    head = _head(path)
    if not head:
        return None
    suffix = suffix_of(path)
    if image_format_of(head) is not None and suffix not in _RAW_JPEG_VIDEOS:
        return MediaKind.IMAGE
    if video_format_of(head) is not None:
        return MediaKind.VIDEO
    return MediaKind.VIDEO if suffix in VIDEO_SUFFIXES else None


def is_image_file(path: str | os.PathLike[str]) -> bool:
    return kind_of_file(path) is MediaKind.IMAGE


def image_format_of_file(path: str | os.PathLike[str]) -> str | None:
    """Its format's name as in `IMAGE_FORMATS`; None for what is no image, or not there."""
    return image_format_of(_head(path))


def image_format_of(head: bytes) -> str | None:
    """The same of a file's first bytes, of which a hundred are enough."""
    for offset, magic, name in _IMAGES:
        if head[offset:].startswith(magic):
            return name
    # "BM" alone may begin a text.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    # Written as other pictures of its family, with AVIF among what it is compatible with.
    if head[4:8] == b"ftyp" and b"avif" in head[8 : min(int.from_bytes(head[:4], "big"), 128)]:
        return "AVIF"
    return None


def video_format_of(head: bytes) -> str | None:
    """The container's name for people; None for what is no video at first sight."""
    for offset, magic, name in _VIDEOS:
        if head[offset:].startswith(magic):
            return name
    if head[:1] == b"\0" and head[4:8] in _SHORT_BOXES:
        return "mp4"
    # Packets of 188 bytes, in camera files with four more before each.
    if any(head[at::step][:2] == b"GG" for at, step in ((0, 188), (4, 192))):
        return "MPEG-TS"
    return None


def described(head: bytes) -> str | None:
    """For people: "a video (mp4)", "an image (PNG)"; None for what is neither."""
    image, video = image_format_of(head), video_format_of(head)
    if image is not None:
        return f"an image ({_FORMAT_TITLES.get(image, image)})"
    return None if video is None else f"a video ({video})"


def _head(path: str | os.PathLike[str]) -> bytes:
    """The first bytes of a regular file; none for anything else."""
    if not os.path.isfile(path):  # False too for a name that no file can have
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""
