"""Tracks -> Label Studio regions; `lifespan` reads VideoRectangle regions back.

On `<Video>` a track becomes one VideoRectangle whose key frames carry the
masks (see `keyframes` for the fields). On frames shown as images it becomes
one region a frame.

A person's key frames stay as they were drawn: same box, no `mask` of their
own, so that the next request still finds them as prompts. The mask of such a
frame rides in the key frame's `masks`.
"""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from typing import Any, Collection, Iterable, Literal, Mapping

import numpy as np

from converters import bitmask_png, brush_rle
from converters.geometry import (
    indices_of_ls_frames,
    ls_frame_to_index,
    ls_frames_count,
    pixel_to_percent_box,
)
from converters.label_studio import polygons
from converters.label_studio.config import (
    ImageControl,
    ImageControlKind,
    VideoRectangleControl,
)
from converters.label_studio.keyframes import (
    BOX_FIELDS,
    OWN_FIELDS,
    Keyframe,
    editor_box,
    is_number,
    read_sequence,
)
from converters.label_studio.paths import InputError, at, named
from converters.label_studio.results import prompt_keyframes
from converters.masks import decode_mask, mask_box, mask_runs
from converters.types import MaskRLE, ObjectId, Track, VideoInfo

__all__ = [
    "editor_box",
    "track_to_frame_regions",
    "track_to_video_region",
]

KeyframeChoice = Literal["thin", "all"]

_PERCENT_DECIMALS = 6  # a 25,000th of a pixel at 4K
_SCORE_DECIMALS = 6
_IOU_MARGIN = 1e-6
_REGION_ID_CHARACTERS = 10


def track_to_video_region(
    track: Track,
    *,
    control: VideoRectangleControl,
    info: VideoInfo,
    framerate: float,
    source_region: Mapping[str, Any] | None = None,
    keyframes: KeyframeChoice = "thin",
    min_iou: float = 0.9,
) -> dict[str, Any] | None:
    """The track as one VideoRectangle result; None when the editor can show nothing.

    `framerate` is the label config's. With `source_region` the result has its
    id, meta and control names and keeps a person's key frames as drawn; only
    their `enabled` and `time` follow the track. `keyframes="all"` writes one
    a tracked frame; "thin" writes as few as keep the editor's box within
    `min_iou` of the mask's box on every frame between them. Masks of frames
    without a key frame, and of frames that the editor never shows, ride on
    the key frame before (the first one, where there is none before).

    Raises ValueError for a label that the control lacks, a frame outside the
    video, a mask of another size, or a bad option.
    """
    if keyframes not in ("thin", "all"):
        raise ValueError(f"keyframes={keyframes!r} must be 'thin' or 'all'")
    if not 0 < min_iou <= 1:
        raise ValueError(f"min_iou={min_iou!r} must be above 0 and at most 1")
    control.check_labels(track.labels)
    drawn = _drawn_keyframes(source_region, info, framerate)
    timeline = _Timeline.of(track, info, framerate, drawn)
    frames = _keyframe_frames(timeline, drawn, keyframes, min_iou)
    if not frames:
        return None
    source = source_region or {}
    value: dict[str, Any] = {
        "framesCount": max([timeline.frames_count, *drawn]),
        "duration": info.duration_seconds,
        "sequence": _sequence(track, timeline, drawn, frames, framerate),
    }
    if track.labels:
        value["labels"] = list(track.labels)
    region = {
        "id": source.get("id", str(track.object_id)),
        "from_name": source.get("from_name", control.name),
        "to_name": source.get("to_name", control.to_name),
        "type": "videorectangle",
        "origin": "prediction",
        "value": value,
    }
    if "meta" in source:
        region["meta"] = source["meta"]
    scores = [probability_of(track.scores[i]) for i in timeline.boxes if i in track.scores]
    if scores:
        region["score"] = round(sum(scores) / len(scores), _SCORE_DECIMALS)
    return region


def stored_masks(
    region: Mapping[str, Any], info: VideoInfo, framerate: float
) -> tuple[dict[int, MaskRLE], dict[int, float]]:
    """frame index -> mask, and -> logit, of all that still belong to their key frame.

    Sorted by frame. Raises InputError naming the value and the rule for a
    malformed sequence or mask.
    """
    masks: dict[int, MaskRLE] = {}
    scores: dict[int, float] = {}
    for keyframe in read_sequence(region):
        with at(f"value.sequence[{keyframe.position}]"):
            for frame_index, entry, path in _stored_masks(keyframe, info, framerate):
                with at(path):
                    masks[frame_index] = read_stored_mask(entry, info)
                scores.pop(frame_index, None)
                if (logit := logit_of(entry.get("score"))) is not None:
                    scores[frame_index] = logit
    in_order = sorted(masks)
    return (
        {index: masks[index] for index in in_order},
        {index: scores[index] for index in in_order if index in scores},
    )


def track_to_frame_regions(
    track: Track,
    *,
    control: ImageControl,
    info: VideoInfo,
    frame_indices: Collection[int] | None = None,
    to_name: str | None = None,
    polygon_tolerance_pixels: float = 1.0,
) -> list[dict[str, Any]]:
    """One result a frame on which the object is visible, sorted by frame.

    `item_index` is the frame index; `frame_indices` limits the frames. The
    control is a BrushLabels, BitmaskLabels, PolygonLabels, VectorLabels or
    RectangleLabels. Ids depend on the control, the object and the frame alone,
    so that a later answer replaces an earlier one; `meta.track` names the
    object.

    A polygon or vector is one closed line around all parts and holes (see
    `polygons`), smoothed so that it stays within `polygon_tolerance_pixels`
    of the mask's edge: few points are easy to edit, parts smaller than that
    are lost. 0 keeps every pixel.

    Raises ValueError for a kind of control that is not written here, a label
    that it lacks, no label at all, a frame outside the video, or a mask of
    another size.
    """
    if control.kind not in _VALUE_WRITERS:
        raise ValueError(
            f"control {control.name!r} is a {control.kind}, must be one of "
            f"{[str(kind) for kind in _VALUE_WRITERS]}"
        )
    if not track.labels:
        raise ValueError(
            f"object {track.object_id!r} has no label: Label Studio drops a "
            f"{control.kind} region without one"
        )
    if not isinstance(track.object_id, (str, int)):
        raise ValueError(f"object_id {track.object_id!r} must be a string or an integer")
    control.check_labels(track.labels)
    write_value = _VALUE_WRITERS[control.kind]
    regions = []
    for frame_index in sorted(_boxes(track, info)):
        if frame_indices is not None and frame_index not in frame_indices:
            continue
        region = {
            "id": _frame_region_id(control.name, track.object_id, frame_index),
            "from_name": control.name,
            "to_name": to_name or control.to_name,
            "type": control.kind.result_type,
            "origin": "prediction",
            "original_width": info.width,
            "original_height": info.height,
            "image_rotation": 0,
            "item_index": frame_index,
            "meta": {"track": track.object_id},
            "value": {
                **write_value(track.masks[frame_index], polygon_tolerance_pixels),
                control.kind.result_type: list(track.labels),
            },
        }
        if frame_index in track.scores:
            region["score"] = probability_of(track.scores[frame_index])
        regions.append(region)
    return regions


# --- the editor's timeline ---------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Timeline:
    """What each Label Studio frame shows. Arrays are indexed by LS frame - 1."""

    frames_count: int
    indices: np.ndarray
    """(F,) int64: the frame index shown."""
    percent: np.ndarray
    """(F, 4) float64: x, y, width, height in percent; as drawn on a person's
    key frames, around the mask elsewhere, NaN where not visible."""
    boxes: Mapping[int, tuple[float, ...]]
    """frame index -> percent box around the mask, for every visible frame."""

    @classmethod
    def of(
        cls, track: Track, info: VideoInfo, framerate: float, drawn: Mapping[int, Keyframe]
    ) -> _Timeline:
        boxes = _boxes(track, info)
        # The browser may count a frame more than we do; a person may have used it.
        last_drawn = max(drawn, default=0)
        count = ls_frames_count(info.duration_seconds, framerate)
        ls_frames = np.arange(1, max(count, last_drawn) + 1)
        indices = indices_of_ls_frames(ls_frames, framerate, info.frame_times_seconds)
        by_index = np.full((info.frame_count, 4), np.nan)
        for frame_index, box in boxes.items():
            by_index[frame_index] = box
        percent = by_index[indices]
        percent[count:] = np.nan
        for ls_frame, keyframe in drawn.items():
            percent[ls_frame - 1] = [keyframe.fields[name] for name in BOX_FIELDS]
        return cls(count, indices, percent, boxes)

    @property
    def visible(self) -> np.ndarray:
        """(F,) bool."""
        return ~np.isnan(self.percent[:, 0])

    def stretches(self) -> list[tuple[int, int]]:
        """First and last LS frame of each visible stretch."""
        edges = np.diff(np.concatenate([[0], self.visible.astype(np.int8), [0]]))
        firsts = np.flatnonzero(edges == 1) + 1
        lasts = np.flatnonzero(edges == -1)
        return list(zip(firsts.tolist(), lasts.tolist()))


def _boxes(track: Track, info: VideoInfo) -> dict[int, tuple[float, ...]]:
    """Percent box around each mask that is not empty; checks frames and sizes."""
    check_track(track, info)
    boxes = {}
    for frame_index, mask in track.masks.items():
        box = mask_box(mask)
        if box is not None:
            percent = pixel_to_percent_box(box, (info.height, info.width))
            boxes[frame_index] = tuple(round(v, _PERCENT_DECIMALS) for v in percent)
    return boxes


def check_track(track: Track, info: VideoInfo) -> None:
    """Raises ValueError for a frame outside the video or a mask of another size."""
    for frame_index, mask in track.masks.items():
        with named(f"object {track.object_id!r}, frame index {frame_index}"):
            if not 0 <= frame_index < info.frame_count:
                raise ValueError(f"must be in [0, {info.frame_count})")
            _check_size(mask, info)


def _check_size(mask: MaskRLE, info: VideoInfo) -> None:
    if (mask.height, mask.width) != (info.height, info.width):
        raise ValueError(
            f"mask has size {mask.height} x {mask.width}, must be the "
            f"video's, {info.height} x {info.width}"
        )


def _drawn_keyframes(
    source_region: Mapping[str, Any] | None, info: VideoInfo, framerate: float
) -> dict[int, Keyframe]:
    """LS frame -> a person's key frame."""
    if source_region is None:
        return {}
    with named(f"region {source_region.get('id')!r}"):
        found = prompt_keyframes(source_region, info, framerate)
    return {keyframe.ls_frame: keyframe for _, keyframe in found}


# --- choosing key frames -----------------------------------------------------


def _keyframe_frames(
    timeline: _Timeline,
    drawn: Mapping[int, Keyframe],
    choice: KeyframeChoice,
    min_iou: float,
) -> list[int]:
    """Sorted LS frames that get a key frame."""
    frames: set[int] = set()
    for first, last in timeline.stretches():
        fixed = {first, last}
        for ls_frame in (frame for frame in drawn if first <= frame <= last):
            # Next to a turned box the editor would turn ours on the way.
            turned = drawn[ls_frame].box.rotation_degrees % 360 != 0
            near = (ls_frame - 1, ls_frame, ls_frame + 1) if turned else (ls_frame,)
            fixed.update(frame for frame in near if first <= frame <= last)
        if choice == "all":
            # The first LS frame of each picture; an editor faster than the
            # video shows a picture on several, which thinning then looks after.
            shown = timeline.indices[first - 1 : last]
            fixed.update((np.flatnonzero(np.diff(shown)) + first + 1).tolist())
        ends = sorted(fixed)
        frames.update(ends)
        for start, end in zip(ends, ends[1:]):
            frames.update(_thinned(timeline.percent, start, end, min_iou))
    return sorted(frames)


def _thinned(percent: np.ndarray, start: int, end: int, min_iou: float) -> list[int]:
    """LS frames to add between two key frames, so that straight lines stay close.

    From each key frame on it doubles the step while the line holds, then
    halves between the last that held and the first that did not. Every line
    taken has been checked on every frame under it.
    """
    added = []
    while not _line_holds(percent, start, end, min_iou):
        good, step = start + 1, 2
        while start + step < end and _line_holds(percent, start, start + step, min_iou):
            good, step = start + step, 2 * step
        bad = min(start + step, end)
        while bad - good > 1:
            middle = (good + bad) // 2
            if _line_holds(percent, start, middle, min_iou):
                good = middle
            else:
                bad = middle
        added.append(good)
        start = good
    return added


def _line_holds(percent: np.ndarray, start: int, end: int, min_iou: float) -> bool:
    """Whether boxes interpolated between two LS frames keep min_iou throughout."""
    if end - start < 2:
        return True
    truth = percent[start : end - 1]
    first, last = percent[start - 1], percent[end - 1]
    ratios = (np.arange(1, end - start) / (end - start))[:, None]
    shown = first + (last - first) * ratios
    low = np.maximum(truth[:, :2], shown[:, :2])
    high = np.minimum(truth[:, :2] + truth[:, 2:], shown[:, :2] + shown[:, 2:])
    intersection = np.clip(high - low, 0, None).prod(axis=1)
    union = truth[:, 2:].prod(axis=1) + shown[:, 2:].prod(axis=1) - intersection
    return bool((intersection >= min(min_iou + _IOU_MARGIN, 1) * union).all())


# --- writing key frames ------------------------------------------------------


def _sequence(
    track: Track,
    timeline: _Timeline,
    drawn: Mapping[int, Keyframe],
    frames: list[int],
    framerate: float,
) -> list[dict[str, Any]]:
    visible = np.append(timeline.visible, False)
    sequence = []
    for ls_frame in frames:
        goes_on = bool(visible[ls_frame])  # the next LS frame
        if ls_frame in drawn:
            keyframe = _drawn_keyframe(drawn[ls_frame])
        else:
            frame_index = int(timeline.indices[ls_frame - 1])
            keyframe = _own_keyframe(track, timeline, ls_frame, frame_index)
        keyframe["enabled"] = goes_on
        keyframe["time"] = ls_frame / framerate
        sequence.append(keyframe)
    _add_riding_masks(track, timeline, drawn, sequence)
    return sequence


def _own_keyframe(
    track: Track, timeline: _Timeline, ls_frame: int, frame_index: int
) -> dict[str, Any]:
    box = [float(value) for value in timeline.boxes[frame_index]]
    mask = track.masks[frame_index]
    keyframe: dict[str, Any] = {
        "frame": ls_frame,
        **dict(zip(BOX_FIELDS, box)),
        "rotation": 0,
        "mask": {"frame": ls_frame, "box": box, **stored_mask(mask)},
    }
    if frame_index in track.scores:
        keyframe["score"] = probability_of(track.scores[frame_index])
    return keyframe


def _drawn_keyframe(keyframe: Keyframe) -> dict[str, Any]:
    """As drawn, without what it may have inherited, stamped as answered."""
    kept = {name: v for name, v in keyframe.fields.items() if name not in OWN_FIELDS}
    rotation = keyframe.fields.get("rotation") or 0
    box = [kept[name] for name in BOX_FIELDS]
    stamp = {"frame": keyframe.ls_frame, "box": [*box, rotation]}
    return {**kept, "frame": keyframe.ls_frame, "rotation": rotation, "prompt": stamp}


def _add_riding_masks(
    track: Track,
    timeline: _Timeline,
    drawn: Mapping[int, Keyframe],
    sequence: list[dict[str, Any]],
) -> None:
    """Gives every visible frame that no key frame's `mask` holds a place in a `masks`."""
    indices = timeline.indices[[keyframe["frame"] - 1 for keyframe in sequence]]
    carried = {
        int(index)
        for index, keyframe in zip(indices, sequence)
        if keyframe["frame"] not in drawn
    }
    for frame_index in sorted(timeline.boxes):
        if frame_index in carried:
            continue
        before = max(int(np.searchsorted(indices, frame_index, side="right")) - 1, 0)
        entry: dict[str, Any] = stored_mask(track.masks[frame_index])
        if frame_index in track.scores:
            entry["score"] = probability_of(track.scores[frame_index])
        sequence[before].setdefault("masks", {})[str(frame_index)] = entry


def stored_mask(mask: MaskRLE) -> dict[str, Any]:
    """A mask as key frames carry it."""
    return {"size": [mask.height, mask.width], "counts": mask.counts}


def probability_of(logit: float) -> float:
    """The stored score of a logit: sigmoid, kept off 0 and 1 so that it can be turned back."""
    odds = math.exp(-abs(float(logit)))
    probability = 1 / (1 + odds) if logit >= 0 else odds / (1 + odds)
    smallest = 10**-_SCORE_DECIMALS
    return min(max(round(probability, _SCORE_DECIMALS), smallest), 1 - smallest)


def logit_of(probability: object) -> float | None:
    """A stored score turned back; None for one that is missing or not in (0, 1)."""
    if not is_number(probability) or not 0 < probability < 1:
        return None
    return math.log(probability / (1 - probability))


# --- reading key frames ------------------------------------------------------


def _stored_masks(
    keyframe: Keyframe, info: VideoInfo, framerate: float
) -> Iterable[tuple[int, Mapping[str, Any], str]]:
    """(frame index, entry, its path) of each mask that is still this key frame's."""
    if keyframe.carries_own_masks:
        for frame_index, entry in riding_masks(keyframe.fields, info):
            yield frame_index, entry, f"masks.{frame_index}"
    if keyframe.carries_own_mask:
        frame_index = ls_frame_to_index(
            keyframe.ls_frame, framerate, info.frame_times_seconds
        )
        score = keyframe.fields.get("score")
        yield frame_index, {**keyframe.fields["mask"], "score": score}, "mask"


def riding_masks(
    keyframe: Mapping[str, Any], info: VideoInfo
) -> Iterable[tuple[int, Mapping[str, Any]]]:
    """(frame index, entry) of a key frame's `masks`.

    Raises InputError for an entry that is no object under a frame index.
    """
    riding = keyframe.get("masks")
    for key, entry in riding.items() if isinstance(riding, Mapping) else ():
        if not _is_frame_index(key, info) or not isinstance(entry, Mapping):
            raise InputError(
                "masks",
                f"entry {str(key)[:40]!r} must be an object under a frame index in "
                f"[0, {info.frame_count})",
            )
        yield int(key), entry


def _is_frame_index(key: object, info: VideoInfo) -> bool:
    is_number_text = isinstance(key, str) and key.isascii() and key.isdigit()
    return is_number_text and len(key) < 10 and int(key) < info.frame_count


def read_stored_mask(entry: Mapping[str, Any], info: VideoInfo) -> MaskRLE:
    """A stored mask, checked; raises InputError naming the field and the rule."""
    size = entry.get("size")
    if not isinstance(size, list) or len(size) != 2:
        raise InputError("size", f"{size!r} must be [height, width]")
    mask = MaskRLE(size[0], size[1], entry.get("counts"))
    with at("size"):
        _check_size(mask, info)
    with at("counts"):
        mask_runs(mask)
    return mask


# --- regions on images -------------------------------------------------------


def _brush_value(mask: MaskRLE) -> dict[str, Any]:
    return {"format": "rle", "rle": brush_rle.encode(decode_mask(mask))}


def _bitmask_value(mask: MaskRLE) -> dict[str, Any]:
    return {"imageDataURL": bitmask_png.encode(decode_mask(mask))}


def _rectangle_value(mask: MaskRLE) -> dict[str, Any]:
    box = mask_box(mask)
    assert box is not None, "frames with an empty mask are passed over"
    percent = pixel_to_percent_box(box, (mask.height, mask.width))
    return {**dict(zip(BOX_FIELDS, percent)), "rotation": 0}


def _polygon_value(mask: MaskRLE, tolerance_pixels: float) -> dict[str, Any]:
    points = outline_percent(mask, tolerance_pixels)
    return {"points": [list(point) for point in points], "closed": True}


def _vector_value(mask: MaskRLE, tolerance_pixels: float) -> dict[str, Any]:
    points = outline_percent(mask, tolerance_pixels)
    return {"vertices": polygons.vertices_of(points), "closed": True}


def outline_percent(mask: MaskRLE, tolerance_pixels: float) -> list[tuple[float, float]]:
    """One closed line around the mask, in percent of the frame.

    Empty for an empty mask. What the tolerance would make vanish keeps its
    exact outline instead.
    """
    pixels, size_hw = decode_mask(mask), (mask.height, mask.width)
    outline = polygons.mask_outline(pixels, tolerance_pixels=tolerance_pixels)
    if not polygons.outline_mask(outline, size_hw).any():
        outline = polygons.mask_outline(pixels)
    return polygons.to_percent(outline, size_hw)


_VALUE_WRITERS = {
    ImageControlKind.BRUSH: lambda mask, _: _brush_value(mask),
    ImageControlKind.BITMASK: lambda mask, _: _bitmask_value(mask),
    ImageControlKind.RECTANGLE: lambda mask, _: _rectangle_value(mask),
    ImageControlKind.POLYGON: _polygon_value,
    ImageControlKind.VECTOR: _vector_value,
}


def _frame_region_id(control_name: str, object_id: ObjectId, frame_index: int) -> str:
    """Ten characters that stay the same from answer to answer."""
    text = repr((control_name, object_id, frame_index))
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return base64.urlsafe_b64encode(digest).decode("ascii")[:_REGION_ID_CHARACTERS]
