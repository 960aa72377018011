"""Frames whose masks a person's later edit made out of date, tracked again.

Gives `converters.label_studio.export` its callback: one tracking run a region,
over the frames from its first stale one to its last. It starts from the boxes
that the person drew. Stale frames that no such box is among, as a keyframe of
ours was taken away there, start from the masks next to them that are still up
to date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Hashable, Iterator, Mapping

from backend.media_folder import find_media
from backend.model import Tracker
from converters.label_studio.exported import Resegment, ResegmentRequest
from converters.mask_store import MaskStore, StoredMasks
from converters.masks import decode_mask, encode_mask
from converters.types import Box, Direction, FrameRange, MaskRLE, ObjectId, Prompt
from sam2_model.video import open_frame_source

_Seed = tuple[int, Box | MaskRLE]
"""(frame index, where the object is on it)."""


def resegment_with(
    tracker: Tracker,
    *,
    media_root: Path,
    progress: Callable[[int], object] = lambda frames: None,
) -> Resegment:
    """The callback for `ExportOptions.resegment`; videos are found under `media_root`.

    An object that is not found on a frame has no mask there. A region that
    leaves nothing to start from gives none at all. `progress` is called with
    the number of frames just tracked. What is asked again is not tracked
    again, as both halves of a split read the whole export.

    The callback raises FileNotFoundError for a video that is not under the
    root, and ValueError for one that does not decode.
    """
    store = MaskStore()
    known: dict[Hashable, StoredMasks] = {}

    def resegment(request: ResegmentRequest) -> Mapping[int, MaskRLE]:
        path = find_media(media_root, request.media)
        if path is None:
            raise FileNotFoundError(
                f"video {request.media!r} of object {request.object_id!r} is not in {media_root}, "
                "and --stale resegment tracks in it: give its folder as --media-root"
            )
        seeds = _seeds(request)
        key = (path, request.object_id, request.frame_indices, seeds)
        if key not in known:
            masks = StoredMasks(store, request.info.height, request.info.width)
            for frame_index, mask in _tracked(path, request, seeds, tracker, progress):
                masks.add(frame_index, mask)
            known[key] = masks
        return known[key]

    return resegment


def _tracked(
    path: Path,
    request: ResegmentRequest,
    seeds: tuple[_Seed, ...],
    tracker: Tracker,
    progress: Callable[[int], object],
) -> Iterator[tuple[int, MaskRLE]]:
    """(frame index, mask) of the asked-for frames that show the object."""
    if not seeds:
        return
    asked = set(request.frame_indices)
    frame_range = FrameRange(min(asked), max(asked) + 1, Direction.BOTH)
    prompts = [_prompt(request.object_id, *seed) for seed in seeds]
    with open_frame_source(path) as source:
        for frame_masks in tracker(source, prompts, frame_range):
            progress(1)
            mask = frame_masks.masks[0]
            if frame_masks.frame_index in asked and mask.any():
                yield frame_masks.frame_index, encode_mask(mask)


def _prompt(object_id: ObjectId, frame_index: int, place: Box | MaskRLE) -> Prompt:
    if isinstance(place, Box):
        return Prompt(object_id, frame_index, box=place)
    return Prompt(object_id, frame_index, mask=decode_mask(place))


def _seeds(request: ResegmentRequest) -> tuple[_Seed, ...]:
    boxes = {prompt.frame_index: prompt.box for prompt in request.prompts}
    seeds: dict[int, Box | MaskRLE] = {i: box for i, box in boxes.items() if box is not None}
    fresh = sorted(request.masks)
    for first, last in _stretches(request.frame_indices, fresh):
        if any(first <= index <= last for index in boxes):
            continue
        before = [index for index in fresh if index < first][-1:]
        after = [index for index in fresh if index > last][:1]
        seeds.update((index, request.masks[index]) for index in (*before, *after))
    return tuple(sorted(seeds.items(), key=lambda seed: seed[0]))


def _stretches(stale: tuple[int, ...], fresh: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of the stale frames between which no frame has a mask.

    Not of neighbours alone: at a low frame rate the editor shows every fifth
    frame, say, and those between are neither stale nor have they a mask.
    """
    first = stale[0]
    for index, following in zip(stale, stale[1:]):
        if any(index < other < following for other in fresh):
            yield first, index
            first = following
    yield first, stale[-1]
