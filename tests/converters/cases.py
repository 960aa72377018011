"""Masks and videos that the converter tests share."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from converters.masks import encode_mask
from converters.types import AnnotatedVideo, Track, VideoInfo

DATA = Path(__file__).parent / "data"


def payload(name: str):
    return json.loads((DATA / f"{name}.json").read_text("utf-8"))


def constant_rate_info(
    frame_count: int = 10, *, fps: float = 25.0, width: int = 64, height: int = 48
) -> VideoInfo:
    return VideoInfo(
        width=width,
        height=height,
        frame_count=frame_count,
        fps=fps,
        frame_times_seconds=tuple(i / fps for i in range(frame_count)),
        duration_seconds=frame_count / fps,
    )


def blob(height: int, width: int, *, centre=(0.5, 0.5), size=(0.5, 0.5)) -> np.ndarray:
    """An ellipse, centre and size as parts of the frame (down, across)."""
    y, x = np.mgrid[:height, :width] + 0.5
    down = (y / height - centre[0]) / (size[0] / 2)
    across = (x / width - centre[1]) / (size[1] / 2)
    return down**2 + across**2 <= 1


def five_parts_with_holes() -> np.ndarray:
    mask = np.zeros((60, 80), bool)
    for top, left in ((2, 2), (2, 60), (40, 2), (40, 60), (22, 30)):
        mask[top : top + 15, left : left + 15] = True
        mask[top + 5 : top + 10, left + 5 : left + 10] = False
    return mask


def _corner(row: int, column: int) -> np.ndarray:
    mask = np.zeros((5, 7), bool)
    mask[row, column] = True
    return mask


def _frame_edge() -> np.ndarray:
    mask = np.ones((9, 12), bool)
    mask[1:-1, 1:-1] = False
    return mask


ADVERSARIAL_MASKS = {
    "empty": np.zeros((6, 8), bool),
    "full": np.ones((6, 8), bool),
    "one pixel, top left": _corner(0, 0),
    "one pixel, top right": _corner(0, -1),
    "one pixel, bottom left": _corner(-1, 0),
    "one pixel, bottom right": _corner(-1, -1),
    "touches all four edges": _frame_edge(),
    "1 x 1, set": np.ones((1, 1), bool),
    "1 x 1, clear": np.zeros((1, 1), bool),
    "one row": np.array([[True, False, False, True, True]]),
    "one column": np.array([[True], [False], [True]]),
    "five parts with holes": five_parts_with_holes(),
    "checkerboard": np.indices((33, 47)).sum(axis=0) % 2 == 0,
    "noise": np.random.default_rng(3).random((41, 29)) < 0.5,
    "one whole column": np.eye(4, dtype=bool)[[1] * 3].copy(),
    # Longer than the longest run record of brush RLE, and exactly as long.
    "run of 65,536 words": np.ones((128, 128), bool),
    "run of 65,540 words": np.ones((1, 16385), bool),
    "4K blob": blob(2160, 3840),
}


def moving_track(
    info: VideoInfo,
    frames,
    *,
    object_id="car",
    labels=("Car",),
    with_scores: bool = True,
    speed: float = 0.05,
) -> Track:
    """A blob that moves across and grows, on the given frames."""
    masks = {}
    for index in frames:
        part = 0.2 + (index * speed) % 0.5
        wobble = 0.05 * np.sin(index)
        mask = blob(
            info.height, info.width, centre=(0.5 + wobble, part), size=(0.5, 0.3 + wobble)
        )
        masks[index] = encode_mask(mask)
    scores = {index: 1.0 + 0.25 * index for index in masks} if with_scores else {}
    return Track(object_id=object_id, labels=labels, masks=masks, scores=scores)


def annotated_video(name="clip", *, info=None, tracks=None, file_names=()) -> AnnotatedVideo:
    info = info or constant_rate_info()
    if tracks is None:
        tracks = (
            # Absent in the middle, and present in one frame only.
            moving_track(info, [0, 1, 2, 6, 7, 8, 9], object_id="a", labels=("Car",)),
            moving_track(info, [4], object_id="b", labels=("Hund ü 犬",)),
        )
    return AnnotatedVideo(name=name, info=info, tracks=tuple(tracks), file_names=file_names)


def late(video):
    """The same, with half a second of sound before the first picture."""
    info = video.info
    times = tuple(0.5 + time for time in info.frame_times_seconds)
    return dataclasses.replace(
        video,
        info=dataclasses.replace(
            info, frame_times_seconds=times, duration_seconds=0.5 + info.duration_seconds
        ),
    )
