"""Boxes between percent and pixels, and Label Studio frames to frame indices.

Percent boxes are Label Studio's: (x, y, width, height) of the frame's width
and height, rotated clockwise about their top-left corner in pixel space.
"""

from __future__ import annotations

import bisect
import math
from typing import Sequence

import numpy as np

from converters.types import Box

_SEEK_STEP_SECONDS = 0.002  # the editor rounds its seeks to this, and adds one
_STEPS_PER_SECOND = 500
_TIME_TOLERANCE_SECONDS = 1e-9


def percent_to_pixel_box(
    x_percent: float,
    y_percent: float,
    width_percent: float,
    height_percent: float,
    *,
    size_hw: tuple[int, int],
    rotation_degrees: float = 0.0,
) -> Box:
    """The axis-aligned pixel box around a percent box; not clipped to the frame.

    The corners are turned in pixels: turning percents would shear the box on
    every frame that is not square.
    """
    height, width = size_hw
    left, top = x_percent * width / 100, y_percent * height / 100
    across, down = width_percent * width / 100, height_percent * height / 100
    if rotation_degrees % 360 == 0:
        return Box(left, top, left + across, top + down)
    cosine = math.cos(math.radians(rotation_degrees))
    sine = math.sin(math.radians(rotation_degrees))
    corners = [(0.0, 0.0), (across, 0.0), (across, down), (0.0, down)]
    xs = [left + x * cosine - y * sine for x, y in corners]
    ys = [top + x * sine + y * cosine for x, y in corners]
    return Box(min(xs), min(ys), max(xs), max(ys))


def pixel_to_percent_box(
    box: Box, size_hw: tuple[int, int]
) -> tuple[float, float, float, float]:
    """(x, y, width, height) in percent of the frame."""
    height, width = size_hw
    return (
        100 * box.x_min / width,
        100 * box.y_min / height,
        100 * box.width / width,
        100 * box.height / height,
    )


def clip_box(box: Box, size_hw: tuple[int, int]) -> Box | None:
    """The part of the box inside the frame; None when it has no area."""
    height, width = size_hw
    x_min, x_max = max(box.x_min, 0.0), min(box.x_max, float(width))
    y_min, y_max = max(box.y_min, 0.0), min(box.y_max, float(height))
    if x_max <= x_min or y_max <= y_min:
        return None
    return Box(x_min, y_min, x_max, y_max)


def box_iou(first: Box, second: Box) -> float:
    """Intersection over union in [0, 1]; 0.0 when neither has an area."""
    across = min(first.x_max, second.x_max) - max(first.x_min, second.x_min)
    down = min(first.y_max, second.y_max) - max(first.y_min, second.y_min)
    intersection = max(across, 0.0) * max(down, 0.0)
    union = first.area + second.area - intersection
    return intersection / union if union > 0 else 0.0


def ls_frame_to_index(
    ls_frame: int, framerate: float, frame_times_seconds: Sequence[float]
) -> int:
    """The 0-based frame that the editor shows for a 1-based Label Studio frame.

    `framerate` is the label config's, not the video's. The editor seeks to
    (ls_frame - 1) / framerate in steps of 2 ms, one step further, and the
    browser shows the last picture not after that time:

        time = floor((ls_frame - 1) / framerate / 0.002 + 0.5) * 0.002 + 0.002
        index = max(i with frame_times_seconds[i] <= time), or 0 if there is none

    Times are the container's (`VideoInfo.frame_times_seconds`), not counted from
    the first picture: a browser shows that one from zero until its time comes.
    """
    _check_framerate(framerate)
    if isinstance(ls_frame, bool) or not isinstance(ls_frame, int) or ls_frame < 1:
        raise ValueError(f"ls_frame={ls_frame!r} must be an integer >= 1")
    if len(frame_times_seconds) == 0:
        raise ValueError("frame_times_seconds is empty, must hold a time a frame")
    after = bisect.bisect_right(frame_times_seconds, seek_time_seconds(ls_frame, framerate))
    return max(0, after - 1)


def index_to_ls_frame(
    frame_index: int,
    framerate: float,
    frame_times_seconds: Sequence[float],
    *,
    frames_count: int | None = None,
) -> int | None:
    """The first Label Studio frame on which the editor shows this frame index.

    None when there is none: at a framerate below the video's some frames are
    never shown, nor are frames before time zero, and `frames_count`, where given,
    is the editor's last frame.
    """
    _check_framerate(framerate)
    if not 0 <= frame_index < len(frame_times_seconds):
        raise ValueError(
            f"frame_index={frame_index} must be in [0, {len(frame_times_seconds)})"
        )
    # The first picture is also shown before its time.
    time = frame_times_seconds[frame_index] if frame_index else 0.0
    # Start below the answer: a seek lands at most 3 ms after its nominal time.
    ls_frame = max(1, math.floor((time - 2 * _SEEK_STEP_SECONDS) * framerate))
    while seek_time_seconds(ls_frame, framerate) < time:
        ls_frame += 1
    if frames_count is not None and ls_frame > frames_count:
        return None
    shown = ls_frame_to_index(ls_frame, framerate, frame_times_seconds)
    return ls_frame if shown == frame_index else None


def indices_of_ls_frames(
    ls_frames: Sequence[int] | np.ndarray,
    framerate: float,
    frame_times_seconds: Sequence[float],
) -> np.ndarray:
    """(N,) int64: `ls_frame_to_index` of many frames at once."""
    _check_framerate(framerate)
    ls_frames = np.asarray(ls_frames)
    if ls_frames.dtype.kind not in "iu" or (ls_frames < 1).any():
        raise ValueError(f"ls_frames={ls_frames.tolist()} must be integers >= 1")
    if len(frame_times_seconds) == 0:
        raise ValueError("frame_times_seconds is empty, must hold a time a frame")
    steps = np.floor((ls_frames - 1) / framerate / _SEEK_STEP_SECONDS + 0.5)
    times = (steps + 1) / _STEPS_PER_SECOND + _TIME_TOLERANCE_SECONDS
    after = np.searchsorted(np.asarray(frame_times_seconds), times, side="right")
    return np.maximum(after - 1, 0)


def ls_frames_count(duration_seconds: float, framerate: float) -> int:
    """The editor's `framesCount`: its last 1-based frame (JavaScript's rounding)."""
    _check_framerate(framerate)
    return math.floor(duration_seconds * framerate + 0.5)


def seek_time_seconds(ls_frame: int, framerate: float) -> float:
    """To which time the editor seeks for a 1-based frame (see `ls_frame_to_index`)."""
    steps = math.floor((ls_frame - 1) / framerate / _SEEK_STEP_SECONDS + 0.5)
    return (steps + 1) / _STEPS_PER_SECOND + _TIME_TOLERANCE_SECONDS


def _check_framerate(framerate: float) -> None:
    if not (math.isfinite(framerate) and framerate > 0):
        raise ValueError(f"framerate={framerate!r} must be a number above 0")
