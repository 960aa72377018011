"""Where a track is doubtful, as data: for plots, the panel and the web page.

A tracker that loses an object seldom says so. What can be seen from the
outside: its score falls, the object's size or place jumps from one frame to
the next, or the object is gone.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Iterable, Sequence

import numpy as np

from converters.masks import mask_area, mask_iou
from converters.types import Track


class Doubt(enum.StrEnum):
    """Why a frame is doubtful."""

    LOW_SCORE = "low score"
    AREA_JUMP = "area jump"
    OVERLAP_JUMP = "overlap jump"
    ABSENT = "absent"


@dataclass(frozen=True)
class DoubtLimits:
    """What counts as doubtful.

    A jump is a change beyond what is usual around it: the median over
    `window_frames` frames to either side. A fast object is not doubtful for
    being fast all the time.
    """

    low_score: float = 1.0
    """Object-presence logit; below it is near or below zero (1.0 is 73 %)."""
    area_factor: float = 1.5
    """Growth or shrinkage from one frame to the next, beyond the usual; > 1."""
    overlap_drop: float = 0.25
    """How far the IoU with the frame before falls below the usual; in (0, 1]."""
    least_overlap: float = 0.05
    """An IoU below it is doubtful however usual it is; in [0, 1]."""
    window_frames: int = 12
    join_gap_frames: int = 3
    """Doubtful frames with at most this many others between them are one stretch."""

    def __post_init__(self) -> None:
        for name, value, rule, holds in (
            ("low_score", self.low_score, "finite", math.isfinite(self.low_score)),
            ("area_factor", self.area_factor, "> 1", self.area_factor > 1),
            ("overlap_drop", self.overlap_drop, "in (0, 1]", 0 < self.overlap_drop <= 1),
            ("least_overlap", self.least_overlap, "in [0, 1]", 0 <= self.least_overlap <= 1),
            ("window_frames", self.window_frames, ">= 1", self.window_frames >= 1),
            ("join_gap_frames", self.join_gap_frames, ">= 0", self.join_gap_frames >= 0),
        ):
            if not holds:
                raise ValueError(f"{name}={value!r} must be {rule}")


@dataclass(frozen=True)
class DoubtfulStretch:
    """The half-open range [start, stop) of frames to look at again, and why."""

    start: int
    stop: int
    reasons: tuple[Doubt, ...]
    """Those of any of its frames, in the order of `Doubt`."""


@dataclass(frozen=True, eq=False)
class TrackCurve:
    """An object's course, one value for each of F frames."""

    frame_indices: np.ndarray
    """(F,) int64, ascending."""
    areas: np.ndarray
    """(F,) int64 pixels; 0 where the object is not visible."""
    scores: np.ndarray
    """(F,) float64 object-presence logits; NaN where there is none."""
    overlaps: np.ndarray
    """(F,) float64 IoU with the frame before; NaN unless both show the object."""


def track_curve(track: Track, frame_indices: Iterable[int] | None = None) -> TrackCurve:
    """Area, score and overlap over time.

    `frame_indices`: the frames to look at; name them when only every n-th was
    annotated, or the others count as absences. Default: all from the first to
    the last with a mask or a score; none before or after, where the object was
    not tracked. Raises ValueError for a malformed mask, or masks of different
    sizes.
    """
    if frame_indices is None:
        known = track.masks.keys() | track.scores.keys()
        frame_indices = range(min(known), max(known) + 1) if known else ()
    frames = np.array(sorted({int(index) for index in frame_indices}), np.int64)
    areas = np.zeros(len(frames), np.int64)
    scores, overlaps = np.full((2, len(frames)), np.nan)
    before = None
    for place, frame_index in enumerate(frames.tolist()):
        mask = track.masks.get(frame_index)
        areas[place] = 0 if mask is None else mask_area(mask)
        scores[place] = track.scores.get(frame_index, np.nan)
        visible = mask if areas[place] else None
        if visible is not None and before is not None:
            # Nothing has changed in most frames of a still object.
            overlaps[place] = 1.0 if visible == before else mask_iou(before, visible)
        before = visible
    return TrackCurve(frames, areas, scores, overlaps)


def doubtful_stretches(
    track: Track | TrackCurve,
    limits: DoubtLimits = DoubtLimits(),
    *,
    frame_indices: Iterable[int] | None = None,
) -> list[DoubtfulStretch]:
    """Where tracking should be looked at again, in order.

    `frame_indices` as for `track_curve`; a `TrackCurve` is used as it is. A
    jump counts on the frame after it, where the mask is new.
    """
    curve = track if isinstance(track, TrackCurve) else track_curve(track, frame_indices)
    doubts = frame_doubts(curve, limits)
    doubtful = np.flatnonzero(np.any(list(doubts.values()), axis=0))
    return [
        _stretch(curve, doubts, places) for places in _joined(doubtful, limits.join_gap_frames)
    ]


def frame_doubts(
    curve: TrackCurve, limits: DoubtLimits = DoubtLimits()
) -> dict[Doubt, np.ndarray]:
    """(F,) bool for each reason: on which of the curve's frames it holds."""
    with np.errstate(invalid="ignore"):
        low_score = curve.scores < limits.low_score
    growth = np.abs(_log_growth(curve.areas))
    unusual_growth = growth - _usual(growth, limits.window_frames, alone=0.0)
    usual_overlap = _usual(curve.overlaps, limits.window_frames, alone=1.0)
    # Comparisons with NaN are False: no frame before, no jump.
    return {
        Doubt.LOW_SCORE: low_score,
        Doubt.AREA_JUMP: unusual_growth > math.log(limits.area_factor),
        Doubt.OVERLAP_JUMP: (usual_overlap - curve.overlaps > limits.overlap_drop)
        | (curve.overlaps < limits.least_overlap),
        Doubt.ABSENT: curve.areas == 0,
    }


def _log_growth(areas: np.ndarray) -> np.ndarray:
    """(F,) log of the area over that of the frame before; NaN unless both are > 0."""
    growth = np.full(len(areas), np.nan)
    both = np.flatnonzero((areas[1:] > 0) & (areas[:-1] > 0)) + 1
    growth[both] = np.log(areas[both] / areas[both - 1])
    return growth


def _usual(values: np.ndarray, window: int, *, alone: float) -> np.ndarray:
    """(F,) median of each value's neighbours, itself left out; `alone` without any."""
    if len(values) == 0:
        return values
    padded = np.pad(values, window, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * window + 1)
    neighbours = np.delete(windows, window, axis=1)
    known = np.isfinite(neighbours).any(axis=1)
    usual = np.full(len(values), alone)
    if known.any():
        usual[known] = np.nanmedian(neighbours[known], axis=1)
    return usual


def _joined(places: np.ndarray, gap: int) -> list[np.ndarray]:
    if len(places) == 0:
        return []
    return np.split(places, np.flatnonzero(np.diff(places) > gap + 1) + 1)


def _stretch(
    curve: TrackCurve, doubts: dict[Doubt, np.ndarray], places: Sequence[int]
) -> DoubtfulStretch:
    reasons = tuple(reason for reason, holds in doubts.items() if holds[places].any())
    first, last = curve.frame_indices[places[0]], curve.frame_indices[places[-1]]
    return DoubtfulStretch(int(first), int(last) + 1, reasons)
