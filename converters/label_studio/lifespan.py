"""A VideoRectangle region -> what it says of each frame of its life span.

On every frame the editor shows a box or none. Where it shows one, the mask
that tracking left there may be out of date:

- a person moved a keyframe of ours, or drew a new one, since the object was
  tracked: from the keyframe before it to the one after it, both exclusive,
  the editor's boxes are no longer those of the masks;
- the frame has no mask: the object was never tracked there.

Both are called stale. A person's keyframe that has been answered since is
not. Frames that the editor never shows, as the config's frame rate is lower
than the video's, go with the frames that it shows before and after them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

import numpy as np

from converters.geometry import clip_box, indices_of_ls_frames
from converters.label_studio.keyframes import (
    Keyframe,
    PercentBox,
    editor_boxes,
    read_sequence,
    shown_keyframes,
)
from converters.label_studio.paths import named
from converters.label_studio.polygons import outline_mask
from converters.label_studio.regions import stored_masks
from converters.label_studio.results import labels_of, last_ls_frame
from converters.masks import box_mask, encode_mask
from converters.types import Box, MaskRLE, Track, VideoInfo


@dataclass(frozen=True, eq=False)
class Lifespan:
    """Frames are 0-based indices; mappings and tuples are sorted by frame."""

    boxes: Mapping[int, PercentBox]
    """Every frame that the editor shows with a box."""
    masks: Mapping[int, MaskRLE]
    """Masks that are up to date, on frames that are not hidden."""
    scores: Mapping[int, float]
    """Logits, of frames in `masks`."""
    stale: tuple[int, ...]
    """Frames with a box but no mask that is up to date."""
    hidden: tuple[int, ...]
    """Frames with a mask that is up to date, where a person hid the object."""
    drawn: Mapping[int, Box]
    """Boxes in pixels of the person's keyframes that no tracking has answered."""


def read_lifespan(region: Mapping[str, Any], info: VideoInfo, framerate: float) -> Lifespan:
    """What a VideoRectangle result says of each frame.

    `framerate` is the label config's. Raises InputError naming the value and
    the rule for a malformed sequence or mask.
    """
    sequence = read_sequence(region)
    masks, scores = stored_masks(region, info, framerate)
    last = last_ls_frame(region, info, framerate)
    timeline = _Timeline(info, framerate, last)
    boxes = _boxes_by_index(sequence, timeline)
    shown = shown_keyframes(sequence)
    unanswered = [
        (number, keyframe)
        for number, keyframe in enumerate(shown)
        if keyframe.is_prompt and not keyframe.carries_own_masks and keyframe.ls_frame <= last
    ]
    outdated = np.zeros(info.frame_count, bool)
    for number, _ in unanswered:
        timeline.mark_around(shown, number, outdated)
    fresh = {index: mask for index, mask in masks.items() if not outdated[index]}
    hidden = _hidden(fresh, masks, boxes, timeline)
    kept = {index: mask for index, mask in fresh.items() if index not in hidden}
    drawn = {}
    for _, keyframe in unanswered:
        index = timeline.index_of(keyframe.ls_frame)
        box = clip_box(keyframe.box.to_pixels((info.height, info.width)), (info.height, info.width))
        if box is not None and index in boxes:
            drawn[index] = box
    return Lifespan(
        boxes=boxes,
        masks=kept,
        scores={index: scores[index] for index in kept if index in scores},
        stale=tuple(index for index in boxes if index not in kept),
        hidden=tuple(sorted(hidden)),
        drawn=dict(sorted(drawn.items())),
    )


def region_to_track(region: Mapping[str, Any], info: VideoInfo, framerate: float) -> Track:
    """The masks of a VideoRectangle result that are up to date and shown, as a track.

    Frames that are stale have none. Scores come back as logits, to the
    precision of the stored probability. Raises ValueError naming the region
    for a malformed sequence or mask, or a mask of another size than the video.
    """
    with named(f"region {region.get('id')!r}"):
        span = read_lifespan(region, info, framerate)
        labels = labels_of(region, ("labels",))
    return Track(region.get("id"), labels, span.masks, span.scores)


def rectangle_mask(box: PercentBox, size_hw: tuple[int, int]) -> MaskRLE | None:
    """The pixels whose centre lies in a box, turned ones included; None for no pixel."""
    corners = box.corners(size_hw)
    if box.rotation_degrees % 360 == 0:
        (left, top), _, (right, bottom), _ = corners
        (left, right), (top, bottom) = sorted((left, right)), sorted((top, bottom))
        return box_mask(Box(left, top, right, bottom), *size_hw)
    mask = outline_mask(corners, size_hw)
    return encode_mask(mask) if mask.any() else None


class _Timeline:
    """Which frame index each LS frame shows."""

    def __init__(self, info: VideoInfo, framerate: float, last: int) -> None:
        self.last = last
        self._indices = indices_of_ls_frames(
            np.arange(1, max(last, 1) + 1), framerate, info.frame_times_seconds
        )

    def index_of(self, ls_frame: int) -> int:
        return int(self._indices[min(ls_frame, len(self._indices)) - 1])

    def mark_around(
        self, keyframes: tuple[Keyframe, ...], number: int, marked: np.ndarray
    ) -> None:
        """Marks the frames between the keyframes before and after this one, and its own."""
        here = self.index_of(keyframes[number].ls_frame)
        start, stop = 0, len(marked)
        if number > 0:
            start = self.index_of(keyframes[number - 1].ls_frame) + 1
        if number + 1 < len(keyframes) and keyframes[number + 1].ls_frame <= self.last:
            stop = self.index_of(keyframes[number + 1].ls_frame)
        marked[start:stop] = True
        marked[here] = True

    def neighbours(self, index: int) -> tuple[int, ...]:
        """The shown frames next to one; itself where it is shown."""
        after = int(np.searchsorted(self._indices, index))
        if after < len(self._indices) and self._indices[after] == index:
            return (index,)
        return tuple(
            int(self._indices[at]) for at in (after - 1, after) if 0 <= at < len(self._indices)
        )


def _boxes_by_index(
    sequence: tuple[Keyframe, ...], timeline: _Timeline
) -> dict[int, PercentBox]:
    """Of several LS frames that show one picture, a keyframe's box counts, else the first."""
    at_keyframe = {keyframe.ls_frame for keyframe in sequence}
    boxes: dict[int, PercentBox] = {}
    fixed: set[int] = set()
    for ls_frame, box in sorted(editor_boxes(sequence, timeline.last).items()):
        index = timeline.index_of(ls_frame)
        if ls_frame in at_keyframe:
            boxes[index] = box
            fixed.add(index)
        elif index not in fixed:
            boxes.setdefault(index, box)
    return dict(sorted(boxes.items()))


def _hidden(
    fresh: Mapping[int, MaskRLE],
    stored: Mapping[int, MaskRLE],
    boxes: Mapping[int, PercentBox],
    timeline: _Timeline,
) -> set[int]:
    """Frames with a mask that a person took out of the region's life span.

    A frame that is never shown is hidden when its neighbours are, though they
    have masks: had they none, tracking itself ended there.
    """
    hidden = set()
    for index in fresh:
        neighbours = timeline.neighbours(index)
        if any(other in boxes for other in neighbours):
            continue
        if any(other in stored for other in neighbours):
            hidden.add(index)
    return hidden
