"""A file of any kind -> the source that reads its frames."""

from __future__ import annotations

import os

from converters.media_kinds import MediaKind, image_format_of_file, kind_of_file
from sam2_model.video.errors import VideoDecodeError
from sam2_model.video.frame_source import FrameSource
from sam2_model.video.image_file import IMAGE_ERRORS, opened
from sam2_model.video.images import ImageListSource
from sam2_model.video.pages import PagesSource
from sam2_model.video.reader import MAX_PIXELS
from sam2_model.video.video_file import VideoFileSource


def open_file(
    path: str | os.PathLike[str],
    *,
    max_frames: int | None = None,
    max_pixels: int = MAX_PIXELS,
    decoder_threads: int | None = None,
) -> FrameSource:
    """A video's frames, or all pictures of an image file: a still one is a video of one frame.

    What it is, its content says. Raises as `VideoFileSource`, `PagesSource` and
    `ImageListSource`, whose arguments these are.
    """
    if kind_of_file(path) is MediaKind.IMAGE:
        format = image_format_of_file(path)
        count = 1 if format in ("JPEG", "BMP") else _picture_count(path, max_pixels)
        if count > 1 and format not in ("GIF", "PNG"):
            return PagesSource(path, max_frames=max_frames, max_pixels=max_pixels)
        # FFmpeg reads animations of these two, and shows GIF's one picture for its time.
        if count == 1 and format != "GIF":
            return ImageListSource([path], max_pixels=max_pixels)
    return VideoFileSource(
        path, max_frames=max_frames, max_pixels=max_pixels, decoder_threads=decoder_threads
    )


def _picture_count(path: str | os.PathLike[str], max_pixels: int) -> int:
    try:
        with opened(path, max_pixels) as image:
            return getattr(image, "n_frames", 1)
    except (*IMAGE_ERRORS, EOFError) as error:
        raise VideoDecodeError(
            f"{os.fspath(path)}: not an image that can be read: {error}"
        ) from error
