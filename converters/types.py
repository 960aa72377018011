"""The shared vocabulary: plain values that every stage takes and gives.

Conventions, everywhere in the project: pixels and 0-based frame indices,
boxes and frame ranges half-open, masks at video size in (height, width)
order. Percent and 1-based Label Studio frames exist only inside
`converters.label_studio`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Hashable, Mapping

import numpy as np

ObjectId = Hashable


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video's pictures and their times."""

    width: int
    """Pixels, after rotation metadata is applied."""
    height: int
    """Pixels, after rotation metadata is applied."""
    frame_count: int
    """Number of frames that can be shown; frame indices are [0, frame_count)."""
    fps: float
    """Average frames per second; 0.0 when unknown (a folder of images)."""
    frame_times_seconds: tuple[float, ...]
    """Presentation time of each frame, ascending, on the clock that a browser shows.

    Its zero is the container's, after edit lists, so the first frame may come
    later (sound began before it) and is shown until then as well; frames before
    zero, which some fragmented files have, are never shown.
    """
    duration_seconds: float
    """Presentation time of the last frame plus its duration, on the same clock."""

    def __post_init__(self) -> None:
        if len(self.frame_times_seconds) != self.frame_count:
            raise ValueError(
                f"frame_times_seconds has {len(self.frame_times_seconds)} entries "
                f"for frame_count={self.frame_count}: there must be one a frame"
            )

    @property
    def start_seconds(self) -> float:
        """Presentation time of the first frame; 0.0 for a video without frames."""
        return self.frame_times_seconds[0] if self.frame_times_seconds else 0.0


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in pixels, maxima exclusive."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    def __post_init__(self) -> None:
        values = (self.x_min, self.y_min, self.x_max, self.y_max)
        if not all(np.isfinite(value) for value in values):
            raise ValueError(f"box {values} must be finite")
        if self.x_max < self.x_min or self.y_max < self.y_min:
            raise ValueError(
                f"box {values} must have x_min <= x_max and y_min <= y_max"
            )

    @property
    def width(self) -> float:
        return self.x_max - self.x_min

    @property
    def height(self) -> float:
        return self.y_max - self.y_min

    @property
    def area(self) -> float:
        return self.width * self.height


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a person said about one object on one frame.

    A mask stands alone; a box and points may go together.
    """

    object_id: ObjectId
    frame_index: int
    box: Box | None = None
    points_xy: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 2), dtype=np.float32)
    )
    """(N, 2) float32, pixels."""
    point_labels: np.ndarray = field(
        default_factory=lambda: np.zeros((0,), dtype=np.int32)
    )
    """(N,) int32: 1 foreground, 0 background."""
    mask: np.ndarray | None = None
    """(H, W) bool at video size."""

    def __post_init__(self) -> None:
        points = np.asarray(self.points_xy, dtype=np.float32)
        labels = np.asarray(self.point_labels, dtype=np.int32)
        object.__setattr__(self, "points_xy", points)
        object.__setattr__(self, "point_labels", labels)
        where = f"prompt for object {self.object_id!r} on frame {self.frame_index}"
        if self.frame_index < 0:
            raise ValueError(f"{where}: frame_index must be >= 0")
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(
                f"{where}: points_xy has shape {points.shape}, must be (N, 2)"
            )
        if labels.shape != (points.shape[0],):
            raise ValueError(
                f"{where}: point_labels has shape {labels.shape}, "
                f"must be ({points.shape[0]},) to match points_xy"
            )
        if not np.isfinite(points).all():
            raise ValueError(f"{where}: points_xy {points.tolist()} must be finite")
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(
                f"{where}: point_labels {labels.tolist()} must be 1 (foreground) "
                "or 0 (background)"
            )
        if self.mask is not None:
            mask = np.asarray(self.mask)
            if mask.ndim != 2:
                raise ValueError(f"{where}: mask has shape {mask.shape}, must be (H, W)")
            object.__setattr__(self, "mask", mask.astype(bool, copy=False))
        if self.box is None and self.mask is None and len(points) == 0:
            raise ValueError(f"{where}: needs a box, points or a mask")
        if self.mask is not None and (self.box is not None or len(points)):
            raise ValueError(
                f"{where}: a mask stands alone, it cannot go with a box or points"
            )

    def check_inside(self, width: int, height: int) -> None:
        """Raises ValueError for a box without an area inside a picture of this size, and for
        a point outside it. A box may cross the border."""
        where = f"prompt for object {self.object_id!r} on frame {self.frame_index}"
        box = self.box
        if box is not None:
            inside = (
                min(box.x_max, width) - max(box.x_min, 0),
                min(box.y_max, height) - max(box.y_min, 0),
            )
            if min(inside) <= 0:
                corners = ", ".join(
                    f"{value:g}" for value in (box.x_min, box.y_min, box.x_max, box.y_max)
                )
                raise ValueError(
                    f"{where}: box ({corners}) must have an area inside the picture of "
                    f"{width} x {height} pixels"
                )
        for x, y in self.points_xy.tolist():
            if not (0 <= x <= width and 0 <= y <= height):
                raise ValueError(
                    f"{where}: point ({x:g}, {y:g}) must lie in the picture of "
                    f"{width} x {height} pixels"
                )


class Direction(enum.StrEnum):
    """Which way to track from the prompted frames."""

    FORWARD = "forward"
    BACKWARD = "backward"
    BOTH = "both"


@dataclass(frozen=True)
class FrameRange:
    """The half-open range [start, stop) of frames to track, and which way."""

    start: int
    stop: int
    direction: Direction = Direction.FORWARD

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", Direction(self.direction))
        if self.start < 0 or self.stop <= self.start:
            raise ValueError(
                f"frame range [{self.start}, {self.stop}) must have "
                "0 <= start < stop"
            )


@dataclass(frozen=True, eq=False)
class FrameMasks:
    """All objects' masks on one frame."""

    frame_index: int
    object_ids: tuple[ObjectId, ...]
    masks: np.ndarray
    """(N, H, W) bool at video size, in the order of `object_ids`."""
    scores: np.ndarray
    """(N,) float32 object-presence logits; > 0 means the object is there."""


@dataclass(frozen=True)
class MaskRLE:
    """A mask as COCO compressed RLE (column-major)."""

    height: int
    width: int
    counts: str


@dataclass(frozen=True)
class Category:
    """A class of objects in a data set: what the `category_id` of its annotations means."""

    id: int | str
    name: str
    """The label of its objects."""
    supercategory: str = ""


@dataclass(frozen=True)
class Track:
    """One object through a video."""

    object_id: ObjectId
    labels: tuple[str, ...]
    masks: Mapping[int, MaskRLE]
    """frame index -> mask; a missing key means not visible on that frame."""
    scores: Mapping[int, float] = field(default_factory=dict)
    """frame index -> object-presence logit, for frames that were tracked."""
    crowd_frames: frozenset[int] = frozenset()
    """Frames whose mask is of a crowd: many of a kind that nobody told apart (COCO's `iscrowd`)."""

    @property
    def is_crowd(self) -> bool:
        """Whether all of its masks are a crowd's: no single object to be found or followed."""
        return bool(self.masks) and self.crowd_frames.issuperset(self.masks)


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video with the objects marked on it."""

    name: str
    info: VideoInfo
    tracks: tuple[Track, ...]
    file_names: tuple[str, ...] = ()
    """One image name a frame, relative to the data set's image folder; empty when unknown."""
    categories: tuple[Category, ...] = ()
    """All of its data set, used or not, where that has ids for them; the same for its videos."""
    unknown_frames: frozenset[int] = frozenset()
    """Frames with a mask that could not be read: what is not on them is not known."""
