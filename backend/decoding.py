"""Opens media: other people's files, so decoded in a process of their own, within limits."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

from backend.settings import Settings
from sam2_model.video import DecodingLimits, FrameSource, IsolatedSource


def open_media(
    files: Path | Sequence[Path], settings: Settings, *, decoder_threads: int | None = None
) -> FrameSource:
    """The frames of a video file, or of a list of images.

    Raises VideoDecodeError for what gives no pictures or is over a limit, and
    FileNotFoundError.
    """
    limits = DecodingLimits(
        memory_bytes=settings.decoder_memory_bytes,
        open_seconds=settings.decoder_open_seconds,
        frame_seconds=settings.decoder_frame_seconds,
        max_pixels=settings.max_pixels,
        max_frames=settings.max_frames,
    )
    return IsolatedSource(files, limits=limits, decoder_threads=decoder_threads)
