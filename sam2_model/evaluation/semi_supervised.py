"""The semi-supervised protocol: an object is shown once, then followed.

Each object is prompted on the first annotated frame it appears on, and judged
on every later annotated frame; as in DAVIS, the video's first and last
annotated frames do not count.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Collection, Iterable, Iterator, Protocol, Sequence

import numpy as np

from converters.types import Box, Prompt
from sam2_model.evaluation.metrics import contour_accuracy, region_similarity
from sam2_model.tracker import track
from sam2_model.video_predictor import SAM2VideoPredictor


class PromptKind(enum.StrEnum):
    """What an object is shown by."""

    MASK = "mask"
    BOX = "box"
    CLICK = "click"


class TrueVideo(Protocol):
    """A video and its true masks, such as `SyntheticVideo`."""

    name: str

    @property
    def source(self) -> Path | Sequence:
        """What `track` opens."""

    @property
    def frame_count(self) -> int: ...

    @property
    def annotations(self) -> Collection[int]:
        """Indices of the frames whose masks are known."""

    def masks(self, frame_index: int) -> dict[int, np.ndarray]:
        """Object id -> (H, W) bool, not empty."""

    def picture(self, frame_index: int) -> np.ndarray:
        """(H, W, 3) uint8."""


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask at an eighth of its bytes: one an object is kept of a whole data set."""

    bits: np.ndarray
    """uint8, eight pixels each, row after row."""
    size_hw: tuple[int, int]

    @classmethod
    def of(cls, mask: np.ndarray) -> PackedMask:
        """(H, W) bool."""
        return cls(np.packbits(mask), mask.shape)

    def unpacked(self) -> np.ndarray:
        """(H, W) bool."""
        height, width = self.size_hw
        bits = np.unpackbits(self.bits, count=height * width)
        return bits.reshape(self.size_hw).astype(bool)


@dataclass(frozen=True)
class ObjectResult:
    """How well one object was followed."""

    video: str
    object_id: int
    region: float
    """Mean J."""
    contour: float
    """Mean F."""
    frame_count: int
    """Frames judged."""
    presence_accuracy: float
    """Share of frames where the model knew whether the object was there."""
    worst_frame: int
    """Index of the frame with the lowest J."""
    worst_mask: PackedMask
    """What the model answered there."""

    @property
    def region_and_contour(self) -> float:
        return (self.region + self.contour) / 2


def evaluate(
    predictor: SAM2VideoPredictor,
    videos: Iterable[TrueVideo],
    prompt_kind: PromptKind = PromptKind.MASK,
    *,
    keep_ends: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[ObjectResult]:
    """Track every object of every video and judge it.

    Args:
        keep_ends: judge the first and last annotated frames too.
        progress: called after each frame of a video: frames done, frames in all.

    Yields:
        One result an object, video by video. Objects seen on no judged frame
        are left out.
    """
    for video in videos:
        yield from _evaluate_video(predictor, video, prompt_kind, keep_ends, progress)


def prompts_of(video: TrueVideo, kind: PromptKind) -> list[Prompt]:
    """One prompt an object, on the first annotated frame that shows it."""
    prompts: dict[int, Prompt] = {}
    for frame_index in sorted(video.annotations):
        for object_id, mask in video.masks(frame_index).items():
            if object_id not in prompts:
                prompts[object_id] = prompt_from_mask(object_id, frame_index, mask, kind)
    return list(prompts.values())


def prompt_from_mask(
    object_id: int, frame_index: int, mask: np.ndarray, kind: PromptKind
) -> Prompt:
    """The mask itself, its box, or a click on its innermost pixel."""
    if kind is PromptKind.MASK:
        return Prompt(object_id, frame_index, mask=mask)
    if kind is PromptKind.BOX:
        return Prompt(object_id, frame_index, box=box_around(mask))
    point = np.array([innermost_pixel(mask)], dtype=np.float32)
    return Prompt(object_id, frame_index, points_xy=point, point_labels=np.array([1]))


def box_around(mask: np.ndarray) -> Box:
    """The smallest box that holds a mask, (H, W) bool, not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def innermost_pixel(mask: np.ndarray) -> tuple[float, float]:
    """x, y of the centre of a pixel that is as far as any from the mask's edge.

    Far by steps along rows, columns and diagonals; the first in reading order
    among equals. (H, W) bool, not empty.
    """
    left = np.pad(mask, 1)
    while True:
        inner = left.copy()
        inner[1:, :] &= left[:-1, :]
        inner[:-1, :] &= left[1:, :]
        rows = inner.copy()
        inner[:, 1:] &= rows[:, :-1]
        inner[:, :-1] &= rows[:, 1:]
        if not inner.any():
            row, column = np.argwhere(left)[0]
            return float(column - 1) + 0.5, float(row - 1) + 0.5
        left = inner


def _evaluate_video(predictor, video, prompt_kind, keep_ends, progress):
    annotated = sorted(video.annotations)
    judged = set(annotated if keep_ends else annotated[1:-1])
    prompts = prompts_of(video, prompt_kind)
    first_frame = {prompt.object_id: prompt.frame_index for prompt in prompts}
    scores: dict[int, list[tuple[int, float, float, bool]]] = {key: [] for key in first_frame}
    worst: dict[int, tuple[float, PackedMask]] = {}
    if not prompts:
        return
    for answer in track(
        video.source, prompts, predictor=predictor, progress=progress
    ):
        if answer.frame_index not in judged:
            continue
        true = video.masks(answer.frame_index)
        for object_id, mask, score in zip(answer.object_ids, answer.masks, answer.scores):
            if answer.frame_index < first_frame[object_id]:
                continue
            wanted = true.get(object_id, np.zeros_like(mask))
            region = region_similarity(mask, wanted)
            if object_id not in worst or region < worst[object_id][0]:
                worst[object_id] = (region, PackedMask.of(mask))
            scores[object_id].append(
                (
                    answer.frame_index,
                    region,
                    contour_accuracy(mask, wanted),
                    bool(mask.any()) == bool(wanted.any()),
                )
            )
    for object_id, lines in scores.items():
        if not lines:
            continue
        frames, regions, contours, present = zip(*lines)
        yield ObjectResult(
            video=video.name,
            object_id=object_id,
            region=float(np.mean(regions)),
            contour=float(np.mean(contours)),
            frame_count=len(lines),
            presence_accuracy=float(np.mean(present)),
            worst_frame=frames[int(np.argmin(regions))],
            worst_mask=worst[object_id][1],
        )
