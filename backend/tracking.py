"""Requests -> masks of every frame, which others may look at while they come."""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence

from backend.kept_progress import FrameRecord
from backend.model import Tracker
from converters.label_studio.results import ObjectRequest
from converters.masks import encode_mask
from converters.types import (
    Direction,
    FrameMasks,
    FrameRange,
    MaskRLE,
    ObjectId,
    Track,
    VideoInfo,
)
from sam2_model.video import FrameSource

if TYPE_CHECKING:
    from sam2_model.bookmark import Bookmark

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrackingOptions:
    """Which way and how far from the prompts."""

    direction: Direction = Direction.FORWARD
    frame_limit: int | None = None
    """So many frames before the first prompt and after the last; None: to the ends."""

    def __post_init__(self) -> None:
        if self.frame_limit is not None and self.frame_limit < 1:
            raise ValueError(f"frame_limit={self.frame_limit} must be >= 1")


@dataclass(frozen=True)
class Tracked:
    """Tracks in the order of their requests."""

    tracks: tuple[Track, ...]
    is_complete: bool
    """False while it goes on, and when it was cancelled."""


class TrackingRun:
    """Objects being followed through a video: one thread runs, any may take `tracked()`.

    Forward, an object begins at its own first prompt, backward it ends at its last.
    """

    def __init__(
        self,
        requests: Sequence[ObjectRequest],
        info: VideoInfo,
        options: TrackingOptions,
        *,
        frame_range: FrameRange | None = None,
    ) -> None:
        """
        Args:
            frame_range: the frames to track; None: those that the options ask for.

        Raises ValueError for a prompt past the video's end.
        """
        self.requests = tuple(requests)
        self.info = info
        self.options = options
        self._objects = {r.object_id: _Object.of(r, options) for r in requests}
        self._lock = threading.Lock()
        self._is_complete = False
        whole = _frame_range(self._objects.values(), info, options)
        self.frame_range = whole if frame_range is None else frame_range
        self.total_frames = self.frame_range.stop - self.frame_range.start
        self._order: list[int] = []
        """Frames done, in the order in which they were tracked."""
        self._done: set[int] = set()
        self._is_in_order = True

    @property
    def done_frames(self) -> int:
        return len(self._order)

    @property
    def is_complete(self) -> bool:
        return self._is_complete

    def run(
        self,
        source: FrameSource,
        tracker: Tracker,
        *,
        bookmark: Bookmark | None = None,
        frame_done: Callable[[], None] = lambda: None,
        is_cancelled: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Track to the end.

        Args:
            bookmark: kept up to date; one of an earlier run goes on after the frames that
                were given to `restore`.
            frame_done: called after each frame, and when the run is left before its end.
            is_cancelled: asked before each prompt and frame.
            progress: called after each frame with frames done and in all.

        Raises ValueError as `sam2_model.tracker.track` does.
        """
        was_cancelled = False

        def is_stopped() -> bool:
            nonlocal was_cancelled
            was_cancelled = was_cancelled or is_cancelled()
            return was_cancelled

        prompts = [prompt for request in self.requests for prompt in request.prompts]
        options: dict[str, Any] = {} if bookmark is None else {"bookmark": bookmark}
        frames = tracker(source, prompts, self.frame_range, is_cancelled=is_stopped, **options)
        with contextlib.closing(frames):
            for frame_masks in frames:
                self._keep(frame_masks)
                frame_done()
                progress(self.done_frames, self.total_frames)
        self._is_complete = not was_cancelled or self.done_frames == self.total_frames
        if not self._is_complete:
            frame_done()
            logger.warning(
                "stopped early: %d of %d frames tracked", self.done_frames, self.total_frames
            )

    def _keep(self, frame_masks: FrameMasks) -> None:
        index = frame_masks.frame_index
        found = zip(frame_masks.object_ids, frame_masks.masks, frame_masks.scores)
        encoded = [
            (self._objects[object_id], encode_mask(mask) if mask.any() else None, float(score))
            for object_id, mask, score in found
        ]
        with self._lock:
            for item, mask, score in encoded:
                item.keep(index, mask, score)
            self._note(index)

    def _note(self, index: int) -> None:
        self._order.append(index)
        self._done.add(index)

    def frames_since(self, count: int) -> list[FrameRecord]:
        """The frames done after the first `count`, for `restore`."""
        objects = list(self._objects.values())
        with self._lock:
            return [
                [index, [item.record(number, index) for number, item in enumerate(objects)
                         if index in item.scores]]
                for index in self._order[count:]
            ]

    def restore(self, frames: Iterable[FrameRecord], *, in_order: bool = True) -> None:
        """Take over frames that an equal run has done; those known already change nothing.

        Args:
            in_order: whether they are the next ones.
        """
        objects = list(self._objects.values())
        height, width = self.info.height, self.info.width
        with self._lock:
            self._is_in_order = self._is_in_order and in_order
            for index, records in frames:
                if index in self._done:
                    continue
                for number, counts, score in records:
                    mask = None if counts is None else MaskRLE(height, width, counts)
                    objects[number].keep(index, mask, score)
                self._note(index)

    def set_complete(self) -> None:
        """All frames were restored."""
        self._is_complete = True

    def forget(self) -> None:
        """Begin anew."""
        with self._lock:
            self._order.clear()
            self._done.clear()
            for item in self._objects.values():
                item.masks.clear()
                item.scores.clear()

    def tracked(self) -> Tracked:
        """What there is so far; empty masks are left out."""
        with self._lock:
            return Tracked(
                tuple(item.track() for item in self._objects.values()), self._is_complete
            )

    def has_nearest(self, limit: int) -> bool:
        """Whether no frame still to come can be among the `limit` masks nearest to the
        prompts (`nearest_to_prompts`); always False but forward."""
        if self._is_complete:
            return True
        is_forward = self.options.direction is Direction.FORWARD and self._is_in_order
        if not is_forward or not self.done_frames:
            return False
        with self._lock:
            objects = list(self._objects.values())
            frame_index = self.frame_range.start + self.done_frames - 1
            if any(frame_index < item.prompted[-1] for item in objects):
                return False
            next_distance = min(frame_index + 1 - item.prompted[-1] for item in objects)
            near = sum(
                distance_to(index, item.prompted) <= next_distance
                for item in objects
                for index in item.masks
            )
        return near >= limit


@dataclass
class _Object:
    """One object while it is tracked."""

    request: ObjectRequest
    prompted: list[int]
    """Sorted frame indices of its prompts."""
    first: float
    """The frames [first, last] may show it."""
    last: float
    masks: dict[int, MaskRLE] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, request: ObjectRequest, options: TrackingOptions) -> _Object:
        prompted = sorted(prompt.frame_index for prompt in request.prompts)
        reach = float("inf") if options.frame_limit is None else options.frame_limit
        direction = options.direction
        return cls(
            request,
            prompted,
            first=prompted[0] - (0 if direction is Direction.FORWARD else reach),
            last=prompted[-1] + (0 if direction is Direction.BACKWARD else reach),
        )

    def keep(self, frame_index: int, mask: MaskRLE | None, score: float) -> None:
        if self.first <= frame_index <= self.last:
            self.scores[frame_index] = score
            if mask is not None:
                self.masks[frame_index] = mask

    def record(self, number: int, frame_index: int) -> list[Any]:
        mask = self.masks.get(frame_index)
        return [number, None if mask is None else mask.counts, self.scores[frame_index]]

    def track(self) -> Track:
        masks = {index: self.masks[index] for index in sorted(self.masks)}
        scores = {index: self.scores[index] for index in sorted(self.scores)}
        return Track(self.request.object_id, self.request.labels, masks, scores)


def _frame_range(
    objects: Iterable[_Object], info: VideoInfo, options: TrackingOptions
) -> FrameRange:
    objects = list(objects)
    last_prompt = max(item.prompted[-1] for item in objects)
    if last_prompt >= info.frame_count:
        raise ValueError(
            f"there is a prompt on frame {last_prompt}: the video has frames "
            f"[0, {info.frame_count})"
        )
    start = max(0, min(item.first for item in objects))
    stop = min(info.frame_count, max(item.last for item in objects) + 1)
    return FrameRange(int(start), int(stop), options.direction)


def distance_to(frame_index: int, prompted: Sequence[int]) -> int:
    """How many frames the nearest prompt is away."""
    return min(abs(frame_index - other) for other in prompted)


def nearest_to_prompts(
    tracks: Sequence[Track], requests: Sequence[ObjectRequest], limit: int
) -> dict[ObjectId, set[int]]:
    """object id -> frames to answer: the `limit` masks nearest to their own prompts.

    At one distance earlier frames come first. What is left out is logged.
    """
    prompted = {r.object_id: [p.frame_index for p in r.prompts] for r in requests}
    ranked = sorted(
        (distance_to(frame_index, prompted[track.object_id]), frame_index, number)
        for number, track in enumerate(tracks)
        for frame_index in track.masks
    )
    if len(ranked) > limit:
        logger.info(
            "%d masks found, the %d nearest to the prompts are answered", len(ranked), limit
        )
    chosen: dict[ObjectId, set[int]] = {track.object_id: set() for track in tracks}
    for _, frame_index, number in ranked[:limit]:
        chosen[tracks[number].object_id].add(frame_index)
    return chosen
