"""Frames of a video, a folder of images or a list of images, by index.

The rule every source keeps: **frame index i is the i-th frame in display order
that decodes**, `VideoInfo.frame_times_seconds[i]` is when it is shown on the
container's own clock (as a browser counts: the first may be late), and the
same index always gives the same frame, whether frames are read forward,
backward or at random.

A video's frames are known by their presentation timestamps, never by counting
or by `time * fps`: the index is the sorted list of timestamps, and a decoded
frame is placed by the timestamp it carries. Reading the packets (no decoding)
is enough to build the index of a clean mp4, mov, mkv or webm; any other file,
and any file with something odd about it, is decoded once from end to end
instead (`frame_index.index_by_decoding`), which is slow and always right.

Pictures are RGB as stored, with the container's display matrix applied where it
is one of right angles (rotation, mirroring). As in browsers, orientation messages
inside a stream turn nothing. The sample aspect ratio is not applied (pixels stay the file's
pixels) and interlaced pictures are not deinterlaced. Where the picture size
changes in the middle of a file, later pictures are scaled to the first size.

Images are shown as browsers show them, so turned by their EXIF orientation.

Where things are: `frame_source` is what all sources share, `prefetch` its
thread; `opening` tells what a file is; `images` are the sources made of images,
`image_file` reads one and `deep_images` those of more than 8 bits, `pages` one
that holds several pictures; `video_file` is the one that
reads a video, over `reader` (one open decoder), `frame_index` (which frames
there are) and `file_length` (whether the file was cut short). `isolated` has a
stranger's file decoded in a process of its own (`decoder_process`, `channel`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from converters.types import VideoInfo
from sam2_model.video.errors import OpeningGivenUp, VideoDecodeError, VideoDecodeWarning
from sam2_model.video.frame_source import FrameSource
from sam2_model.video.images import ImageFolderSource, ImageLike, ImageListSource
from sam2_model.video.isolated import DecodingLimits, IsolatedSource
from sam2_model.video.opening import open_file
from sam2_model.video.video_file import VideoFileSource

__all__ = [
    "DecodingLimits",
    "FrameSource",
    "ImageFolderSource",
    "ImageLike",
    "ImageListSource",
    "IsolatedSource",
    "OpeningGivenUp",
    "VideoDecodeError",
    "VideoDecodeWarning",
    "VideoFileSource",
    "VideoInfo",
    "open_frame_source",
]


def open_frame_source(
    source: FrameSource | str | os.PathLike[str] | Sequence[ImageLike],
    *,
    upright: bool = True,
) -> FrameSource:
    """The frame source for a video file, an image folder, or a list of images.

    A `FrameSource` is returned as it is. An image file is a video of its pictures.

    Args:
        upright: image files of a folder or list are turned by their EXIF
            orientation, as browsers do; False: as stored, as SAM 2 reads them.

    Raises:
        FileNotFoundError: nothing lies at the path.
        VideoDecodeError: it is not a readable video or image folder.
        ValueError: `source` is none of the above, or an empty list.
    """
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if os.path.isdir(path):
            return ImageFolderSource(path, upright=upright)
        return open_file(path)
    if isinstance(source, (list, tuple)):
        return ImageListSource(source, upright=upright)
    raise ValueError(
        f"source is {type(source).__name__}, must be a path to a video file or a "
        "folder of images, a list or tuple of images, or a FrameSource"
    )
