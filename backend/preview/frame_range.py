"""Which frames of a video a picture is of."""

from __future__ import annotations

from converters.types import VideoInfo


def checked_range(frames: range | None, info: VideoInfo) -> range:
    """The frames to draw: all of the video, or those given if it has them.

    Raises ValueError for frames that are not consecutive or not in the video.
    """
    if frames is None:
        return range(info.frame_count)
    if frames.step != 1 or not 0 <= frames.start < frames.stop <= info.frame_count:
        raise ValueError(
            f"frames [{frames.start}, {frames.stop}) must be consecutive and within "
            f"[0, {info.frame_count})"
        )
    return frames
