"""`track`: prompts in, masks of every frame out. The one call the backend makes."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator, Sequence

import numpy as np
import torch

from converters.types import Direction, FrameMasks, FrameRange, ObjectId, Prompt
from sam2_model.bookmark import Bookmark
from sam2_model.masks import masks_at_size, resize_logits, without_overlaps
from sam2_model.session import InferenceState, StateLimits
from sam2_model.video import FrameSource
from sam2_model.video_predictor import SAM2VideoPredictor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StopRules:
    """When to give an object up. All off unless set.

    A stopped object is left out of the following frames until one of its own
    prompts brings it back; when every object has stopped for good, tracking in
    that direction ends.
    """

    lost_frames: int | None = None
    """Stop after the object has been absent for so many frames in a row."""
    area_share: float | None = None
    """Stop when the mask covers more than this share of the frame: it has leaked."""

    def __post_init__(self) -> None:
        if self.lost_frames is not None and self.lost_frames < 1:
            raise ValueError(f"lost_frames={self.lost_frames} must be >= 1")
        if self.area_share is not None and not 0 < self.area_share <= 1:
            raise ValueError(f"area_share={self.area_share} must be in (0, 1]")


def track(
    source: str | Path | Sequence | FrameSource | InferenceState,
    prompts: Sequence[Prompt],
    frame_range: FrameRange | None = None,
    *,
    predictor: SAM2VideoPredictor,
    stop: StopRules = StopRules(),
    bookmark: Bookmark | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[FrameMasks]:
    """Track objects through a video.

    Args:
        source: a video file, a folder of frames, a list of images, a frame
            source, or an inference state of `predictor` (its cached features
            are used again; its prompts and tracks are replaced). Of anything
            but a state only what the next frame needs is kept, whatever the
            predictor's limits: nobody can ask for the rest again.
        prompts: on any frames, for any number of objects, in any order.
            Several for one object and frame are taken together.
        frame_range: which frames to answer, half-open, and which way; default:
            forward from the earliest prompted frame to the end.
        predictor: the model.
        stop: when to give an object up.
        bookmark: says where the run is; one of an earlier run of the same prompts makes
            this one go on from there.
        is_cancelled: asked before each prompt and frame; True ends the iteration.
        progress: called after each frame with frames done and frames in all.

    Yields:
        Every frame of the range once (fewer when stop rules end a direction
        early). Forward: ascending. Backward:
        descending. Both: from the earliest prompted frame of the range
        ascending to the end, then from the frame before it descending to the
        start; from the nearer end if no prompt is in the range. Objects stand in
        the order of their first prompt in `prompts`.

    Raises:
        ValueError: no prompts, a prompt or range outside the video, a box or point
            outside the picture (a box may cross its border), two boxes or a mask and
            something else for one object and frame, a bookmark of another run.
        VideoDecodeError: the video cannot be decoded.
    """
    steps = track_steps(
        source, prompts, frame_range, predictor=predictor, stop=stop, bookmark=bookmark,
        is_cancelled=is_cancelled, progress=progress,
    )
    with contextlib.closing(steps):
        for step in steps:
            if step is not None:
                yield step


def track_steps(
    source: str | Path | Sequence | FrameSource | InferenceState,
    prompts: Sequence[Prompt],
    frame_range: FrameRange | None = None,
    *,
    predictor: SAM2VideoPredictor,
    stop: StopRules = StopRules(),
    bookmark: Bookmark | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[FrameMasks | None]:
    """`track` in steps that are short, for those who share a device.

    Yields:
        None after each prompt, when there is nothing to show yet; then as `track`.
    """
    merged = merge_prompts(prompts)
    with contextlib.ExitStack() as stack:
        if isinstance(source, InferenceState):
            state = source
            state.reset()
        else:
            limits = StateLimits.least()
            state = stack.enter_context(predictor.init_state(source, limits=limits))
        frame_range = _check_range(frame_range, merged, state)
        for prompt in merged:
            prompt.check_inside(state.info.width, state.info.height)
        for prompt in merged:
            if is_cancelled():
                return
            apply_prompts(predictor, state, [prompt])
            # Now, while the frame's features are sure to be there.
            predictor.finish_prompts(state)
            yield None
        run = Follower(predictor, state, stop)
        bookmark = Bookmark() if bookmark is None else bookmark
        orders = passes(frame_range, [prompt.frame_index for prompt in merged])
        if len(orders) > 1 and state is not source:
            # The way back begins among what the way there found at its own beginning.
            state.kept_frames = predictor.frames_needed_after(orders[0].start, True)
        left = list(bookmark.resume(run, orders))
        total = frame_range.stop - frame_range.start
        done = total - sum(len(order) for _, order, _ in left)
        for number, order, has_begun in left:
            for frame_masks in run.follow(order, is_cancelled, has_begun=has_begun):
                done += 1
                bookmark.move(number, frame_masks.frame_index)
                progress(done, total)
                yield frame_masks
            if is_cancelled():
                logger.info("tracking cancelled after %d of %d frames", done, total)
                return


def passes(frame_range: FrameRange, prompted_frames: Sequence[int]) -> list[range]:
    """The frames of a range in the order they are tracked, one or two passes."""
    start, stop = frame_range.start, frame_range.stop
    if frame_range.direction is Direction.FORWARD:
        return [range(start, stop)]
    if frame_range.direction is Direction.BACKWARD:
        return [range(stop - 1, start - 1, -1)]
    inside = [frame for frame in prompted_frames if start <= frame < stop]
    nearest_end = stop if min(prompted_frames) >= stop else start
    pivot = min(inside) if inside else nearest_end
    return [range(pivot, stop), range(pivot - 1, start - 1, -1)]


def merge_prompts(prompts: Sequence[Prompt]) -> list[Prompt]:
    """One prompt for each object and frame, in the order of their first mention.

    Raises:
        ValueError: no prompts; two boxes, or a mask and something else, for
            one object on one frame.
    """
    if not prompts:
        raise ValueError("prompts is empty: tracking needs at least one prompt")
    merged: dict[tuple[ObjectId, int], Prompt] = {}
    for prompt in prompts:
        key = (prompt.object_id, prompt.frame_index)
        merged[key] = _together(merged[key], prompt) if key in merged else prompt
    return list(merged.values())


def _together(first: Prompt, second: Prompt) -> Prompt:
    where = f"object {first.object_id!r} on frame {first.frame_index}"
    if first.mask is not None or second.mask is not None:
        raise ValueError(f"{where} has a mask and another prompt: a mask stands alone")
    if first.box is not None and second.box is not None:
        raise ValueError(f"{where} has two boxes: one says where it is")
    return Prompt(
        object_id=first.object_id,
        frame_index=first.frame_index,
        box=first.box or second.box,
        points_xy=np.concatenate((first.points_xy, second.points_xy)),
        point_labels=np.concatenate((first.point_labels, second.point_labels)),
    )


def _check_range(
    frame_range: FrameRange | None, prompts: list[Prompt], state: InferenceState
) -> FrameRange:
    count = state.num_frames
    for prompt in prompts:
        if prompt.frame_index >= count:
            raise ValueError(
                f"prompt for object {prompt.object_id!r} is on frame {prompt.frame_index}: "
                f"the video has frames [0, {count})"
            )
    if frame_range is None:
        return FrameRange(min(prompt.frame_index for prompt in prompts), count)
    if frame_range.stop > count:
        raise ValueError(
            f"frame range [{frame_range.start}, {frame_range.stop}) must end within the "
            f"video's {count} frames"
        )
    return frame_range


def apply_prompts(
    predictor: SAM2VideoPredictor, state: InferenceState, prompts: Sequence[Prompt]
) -> None:
    """Tell a state what people said. Raises ValueError as `track`."""
    for prompt in prompts:
        if prompt.mask is not None:
            predictor.add_new_mask(state, prompt.frame_index, prompt.object_id, prompt.mask)
            continue
        box = prompt.box
        if box is not None and (box.width == 0 or box.height == 0):
            raise ValueError(
                f"box {(box.x_min, box.y_min, box.x_max, box.y_max)} of object "
                f"{prompt.object_id!r} on frame {prompt.frame_index} has no area"
            )
        apply_clicks(predictor, state, prompt)


def apply_clicks(
    predictor: SAM2VideoPredictor, state: InferenceState, prompt: Prompt, *, known_count: int = 0
) -> None:
    """Give a prompt's points one after another, after its box.

    Each is seen with the mask that those before it gave, as people click and as
    SAM 2 was trained; all at once they say less.

    Args:
        known_count: so many of the points, and the box, have been given already.
    """
    box = prompt.box
    corners = None if box is None else (box.x_min, box.y_min, box.x_max, box.y_max)
    counts = range(known_count + 1, len(prompt.points_xy) + 1)
    if corners is not None and not known_count:
        counts = range(0, len(prompt.points_xy) + 1)
    for count in counts:
        predictor.add_new_points_or_box(
            state,
            prompt.frame_index,
            prompt.object_id,
            points=prompt.points_xy[:count] if count else None,
            labels=prompt.point_labels[:count] if count else None,
            box=corners,
        )


@dataclass
class Follower:
    """One tracking run: who is still followed, and since when each has been lost."""

    predictor: SAM2VideoPredictor
    state: InferenceState
    stop: StopRules
    stopped: set[ObjectId] = field(default_factory=set)
    lost_for: dict[ObjectId, int] = field(default_factory=dict)

    def follow(
        self, order: range, is_cancelled: Callable[[], bool], *, has_begun: bool = False
    ) -> Iterator[FrameMasks]:
        """Track over one pass, or what is left of one that `has_begun`."""
        if not has_begun:
            self.stopped.clear()
            self.lost_for.clear()
        self.predictor.finish_prompts(self.state)
        with contextlib.closing(
            self.predictor.propagate_low_res(self.state, order, skipped=self.stopped)
        ) as frames:
            while not is_cancelled():
                answer = next(frames, None)
                if answer is None:
                    return
                frame_masks = self._frame_masks(*answer)
                self._judge(frame_masks)
                yield frame_masks
                if self.has_ended(frame_masks.frame_index, order):
                    return

    def _frame_masks(
        self, frame_index: int, object_ids: list[ObjectId],
        logits: torch.Tensor, scores: torch.Tensor,
    ) -> FrameMasks:
        size_hw = (self.state.info.height, self.state.info.width)
        if self.predictor.options.non_overlap_masks and len(object_ids) > 1:
            full = without_overlaps(resize_logits(logits, size_hw))
            masks = (full[:, 0] > 0).cpu().numpy()
        else:
            masks = masks_at_size(logits, size_hw)
        return FrameMasks(
            frame_index=frame_index,
            object_ids=tuple(object_ids),
            masks=masks,
            scores=scores.cpu().numpy().astype(np.float32),
        )

    def _judge(self, frame_masks: FrameMasks) -> None:
        """Apply the stop rules to what a frame showed."""
        for object_id, mask, score in zip(
            frame_masks.object_ids, frame_masks.masks, frame_masks.scores
        ):
            self.stopped.discard(object_id)
            lost = 0 if score > 0 else self.lost_for.get(object_id, 0) + 1
            self.lost_for[object_id] = lost
            rules = self.stop
            too_long = rules.lost_frames is not None and lost >= rules.lost_frames
            too_large = rules.area_share is not None and mask.mean() > rules.area_share
            if too_long or too_large:
                self.stopped.add(object_id)
                self.lost_for[object_id] = 0

    def has_ended(self, frame_index: int, order: range) -> bool:
        """Whether all objects have been given up for good after a frame of a pass."""
        if len(self.stopped) < len(self.state.objects):
            return False
        ahead = order[order.index(frame_index) + 1 :]
        return not any(
            frame in ahead for state in self.state.objects.values() for frame in state.conditioning
        )
