"""Label Studio results -> prompts for the tracker, one request an object.

On `<Video>` the object is the VideoRectangle region, and its prompts are the
keyframes that a person drew or moved. On frames shown as images, regions that
carry our track id in `meta` are one object; key points and rectangles without
one are one object a label; a mask drawn by hand (brush, bitmask, polygon or
vector) is an object of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

import numpy as np

from converters import bitmask_png, brush_rle
from converters.geometry import clip_box, indices_of_ls_frames, ls_frames_count
from converters.label_studio import polygons
from converters.label_studio.config import ImageControlKind, LabelConfig
from converters.label_studio.keyframes import (
    MAX_COORDINATE,
    Keyframe,
    PercentBox,
    is_number,
    prompt_box,
    read_sequence,
    shown_keyframes,
)
from converters.label_studio.paths import InputError, at, named
from converters.types import Box, ObjectId, Prompt, VideoInfo

Result = Mapping[str, Any]

_POINT_KINDS = (ImageControlKind.KEY_POINT, ImageControlKind.RECTANGLE)
_MASK_KINDS = (
    ImageControlKind.BRUSH,
    ImageControlKind.BITMASK,
    ImageControlKind.POLYGON,
    ImageControlKind.VECTOR,
)
_KINDS_BY_TYPE = {kind.result_type: kind for kind in ImageControlKind}
_UNTOUCHED_PREDICTION = "prediction"  # an edited one is "prediction-changed"


@dataclass(frozen=True, eq=False)
class ObjectRequest:
    """What people asked about one object, and what to build its answer from."""

    object_id: ObjectId
    """The VideoRectangle's region id; on images our track id or the first region's id."""
    labels: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    """Sorted by frame, at most one a frame. Empty when nothing on a
    VideoRectangle is a person's any more."""
    source_region: Result | None = None
    """The VideoRectangle as it came; None on images."""


def video_requests(
    results: Sequence[Result], *, config: LabelConfig, info: VideoInfo, framerate: float
) -> tuple[ObjectRequest, ...]:
    """One request a VideoRectangle region, in the results' order.

    `framerate` is the label config's (`config.resolve_framerate`). Other
    types of results are passed over. A keyframe past the last frame shows no
    picture and is no prompt; of two that show the same picture the later
    counts. Boxes are axis-aligned, clipped to the frame.

    Raises ValueError naming the region and the rule for a malformed result,
    an unknown control or label, a box without area inside the frame, or two
    regions of one id.
    """
    requests: dict[str, ObjectRequest] = {}
    separate_labels = labels_beside_regions(results)
    for region in results:
        if type_of(region) != "videorectangle":
            continue
        with named(f"region {region.get('id')!r}"):
            region_id = region_id_of(region)
            if region_id in requests:
                raise ValueError("there is more than one videorectangle of this id")
            labels = labels_of(region, ("labels",)) or separate_labels.get(region_id, ())
            config.video_rectangle(region.get("from_name")).check_labels(labels)
            check_original_size(region, (info.height, info.width))
            prompts = _keyframe_prompts(region, info, framerate)
        requests[region_id] = ObjectRequest(region_id, labels, prompts, region)
    return tuple(requests.values())


def frame_requests(
    results: Sequence[Result], *, config: LabelConfig, info: VideoInfo
) -> tuple[ObjectRequest, ...]:
    """One request an object marked on frames shown as images.

    `info` is that of the list of images: `item_index` is the frame index.
    Untouched predictions of ours are answers, not prompts. A key point is
    background when `is_positive` is false (`value.positive` in Enterprise).
    Two rectangles of one label on one frame are two objects; a key point
    there goes to the first whose rectangle holds it, else to the first.

    Raises ValueError naming the region and the rule for a malformed result,
    an unknown control or label, an `item_index` that is no integer in range,
    or a mask of another size than the video.
    """
    marks = [
        (kind, _read_mark(region, kind, config, info))
        for region in results
        if (kind := image_kind_of(region)) is not None and not is_answer(region, kind)
    ]
    # Rectangles come first: they say to which object a key point belongs.
    marks.sort(key=lambda item: item[0] is ImageControlKind.KEY_POINT)
    objects: dict[ObjectId, _Collected] = {}
    pending: dict[tuple[str, ...], _PendingLabel] = {}
    for kind, mark in marks:
        object_id = mark.track
        if object_id is None and kind in _POINT_KINDS:
            object_id = pending.setdefault(mark.labels, _PendingLabel()).object_of(mark)
        elif object_id is None:
            object_id = mark.region_id
        objects.setdefault(object_id, _Collected(mark.labels)).add(mark)
    return tuple(
        ObjectRequest(object_id, collected.labels, collected.prompts(object_id))
        for object_id, collected in objects.items()
    )


def is_answer(region: Result, kind: ImageControlKind) -> bool:
    """A mask or rectangle of ours that no one has changed since."""
    meta = region.get("meta")
    has_track = isinstance(meta, Mapping) and meta.get("track") is not None
    untouched = region.get("origin") == _UNTOUCHED_PREDICTION
    return untouched and (kind in _MASK_KINDS or has_track)


# --- video -------------------------------------------------------------------


def _keyframe_prompts(
    region: Result, info: VideoInfo, framerate: float
) -> tuple[Prompt, ...]:
    keyframes = prompt_keyframes(region, info, framerate)
    prompts: dict[int, Prompt] = {}
    for frame_index, keyframe in keyframes:
        box = prompt_box(keyframe, (info.height, info.width))
        if box is None:
            raise ValueError(
                f"the box at frame {keyframe.ls_frame} must have an area inside the picture"
            )
        prompts[frame_index] = Prompt(region["id"], frame_index, box=box)
    return tuple(prompts[index] for index in sorted(prompts))


def prompt_keyframes(
    region: Result, info: VideoInfo, framerate: float
) -> tuple[tuple[int, Keyframe], ...]:
    """(frame index, keyframe) of each of a person's keyframes that shows a picture.

    Raises InputError naming the value for a malformed sequence.
    """
    last = last_ls_frame(region, info, framerate)
    keyframes = [
        keyframe
        for keyframe in shown_keyframes(read_sequence(region))
        if keyframe.is_prompt and keyframe.ls_frame <= last
    ]
    if not keyframes:
        return ()
    indices = indices_of_ls_frames(
        [keyframe.ls_frame for keyframe in keyframes], framerate, info.frame_times_seconds
    )
    return tuple(zip(indices.tolist(), keyframes))


def last_ls_frame(region: Result, info: VideoInfo, framerate: float) -> int:
    """By our count or the browser's, which may differ, but not by a second."""
    count = ls_frames_count(info.duration_seconds, framerate)
    value = region.get("value")
    stored = value.get("framesCount") if isinstance(value, Mapping) else None
    if not is_number(stored):
        return count
    return max(count, min(int(stored), count + math.ceil(framerate)))


def labels_beside_regions(results: Iterable[Result]) -> dict[str, tuple[str, ...]]:
    """Labels kept in a result of their own under the region's id, as the SDK may."""
    return {
        region["id"]: labels_of(region, ("labels",))
        for region in results
        if type_of(region) == "labels" and isinstance(region.get("id"), str)
    }


# --- images ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Mark:
    """One region on one frame, in pixels."""

    region_id: str
    track: ObjectId | None
    labels: tuple[str, ...]
    frame_index: int
    point_xy: tuple[float, float] | None = None
    is_foreground: bool = True
    box: Box | None = None
    mask: np.ndarray | None = None


class _PendingLabel:
    """Key points and rectangles of one label that belong to no track yet."""

    def __init__(self) -> None:
        self._object_ids: list[str] = []
        self._boxes: dict[int, list[Box]] = {}

    def object_of(self, mark: _Mark) -> str:
        boxes = self._boxes.setdefault(mark.frame_index, [])
        if mark.box is not None:
            boxes.append(mark.box)
            number = len(boxes) - 1
        else:
            number = next(
                (i for i, box in enumerate(boxes) if _holds(box, mark.point_xy)), 0
            )
        if number == len(self._object_ids):
            self._object_ids.append(mark.region_id)
        return self._object_ids[number]


class _Collected:
    """The marks of one object, a frame at a time."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self._frames: dict[int, list[_Mark]] = {}

    def add(self, mark: _Mark) -> None:
        self._frames.setdefault(mark.frame_index, []).append(mark)

    def prompts(self, object_id: ObjectId) -> tuple[Prompt, ...]:
        return tuple(
            _frame_prompt(object_id, frame_index, self._frames[frame_index])
            for frame_index in sorted(self._frames)
        )


def _frame_prompt(object_id: ObjectId, frame_index: int, marks: list[_Mark]) -> Prompt:
    masks = [mark for mark in marks if mark.mask is not None]
    boxes = [mark for mark in marks if mark.box is not None]
    points = [mark for mark in marks if mark.point_xy is not None]
    if masks and (boxes or points):
        raise ValueError(
            f"region {masks[0].region_id!r}: a mask stands alone, but object "
            f"{object_id!r} also has points or a rectangle on item_index {frame_index}"
        )
    if len(boxes) > 1:
        raise ValueError(
            f"region {boxes[1].region_id!r}: object {object_id!r} can have one "
            f"rectangle a frame, item_index {frame_index} has {len(boxes)}"
        )
    if masks:
        # Strokes in several regions make one mask, as the editor shows them.
        union = np.logical_or.reduce([mark.mask for mark in masks])
        return Prompt(object_id, frame_index, mask=union)
    return Prompt(
        object_id,
        frame_index,
        box=boxes[0].box if boxes else None,
        points_xy=np.array([m.point_xy for m in points], np.float32).reshape(-1, 2),
        point_labels=np.array([m.is_foreground for m in points], np.int32),
    )


def image_kind_of(region: Result) -> ImageControlKind | None:
    """The kind of control that a result on an image is of; None for another type."""
    kind = type_of(region)
    return _KINDS_BY_TYPE.get(kind) if isinstance(kind, str) else None


def _read_mark(
    region: Result, kind: ImageControlKind, config: LabelConfig, info: VideoInfo
) -> _Mark:
    with named(f"region {region.get('id')!r}"):
        labels = labels_of(region, (kind.result_type, "labels"))
        config.image_control(region.get("from_name")).check_labels(labels)
        return _Mark(
            region_id_of(region),
            track_id_of(region),
            labels,
            item_index_of(region, info.frame_count),
            **_shape(region, kind, info),
        )


def track_id_of(region: Result) -> ObjectId | None:
    """`meta.track`, the object that a region on an image is part of; None without."""
    meta = region.get("meta")
    track = meta.get("track") if isinstance(meta, Mapping) else None
    if isinstance(track, bool) or not isinstance(track, (str, int, type(None))):
        raise InputError("meta.track", f"{track!r} must be a string or an integer")
    return track


def item_index_of(region: Result, frame_count: int) -> int:
    """The region's 0-based frame; a missing one is 0, as Label Studio reads it.

    Raises InputError when it is not an integer in [0, frame_count).
    """
    index = region.get("item_index")
    if index is None:
        index = 0
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < frame_count:
        raise InputError("item_index", f"{index!r} must be an integer in [0, {frame_count})")
    return index


def _shape(region: Result, kind: ImageControlKind, info: VideoInfo) -> dict[str, Any]:
    """The pixels of a region, as the fields of a `_Mark`."""
    size_hw = (info.height, info.width)
    check_upright(region)
    check_original_size(region, size_hw)
    if kind is ImageControlKind.KEY_POINT:
        return _key_point(region, info)
    if kind is ImageControlKind.RECTANGLE:
        box = clip_box(rectangle_of(region).to_pixels(size_hw), size_hw)
        if box is None:
            raise ValueError("its box must have an area inside the picture")
        return {"box": box}
    mask = mask_of(region, kind, size_hw)
    if not mask.any():
        raise ValueError("its mask is empty, must have at least one pixel")
    return {"mask": mask}


def check_upright(region: Result) -> None:
    """Raises InputError for a picture that was turned before it was marked."""
    turn = region.get("image_rotation")
    if turn not in (None, 0):
        raise InputError(
            "image_rotation", f"{turn!r} must be 0: turn the picture back before marking it"
        )


def mask_of(region: Result, kind: ImageControlKind, size_hw: tuple[int, int]) -> np.ndarray:
    """A brush, bitmask, polygon or vector region's pixels, (H, W) bool; may be empty.

    Raises InputError naming the value and the rule for one that is malformed
    or of another size than `size_hw`.
    """
    value = region["value"]
    if kind in (ImageControlKind.BRUSH, ImageControlKind.BITMASK):
        check_original_size(region, size_hw, is_needed=True)
    if kind is ImageControlKind.BITMASK:
        with at("value.imageDataURL"):
            return bitmask_png.decode(value.get("imageDataURL"), size_hw)
    if kind is ImageControlKind.BRUSH:
        if value.get("format") != "rle":
            raise InputError("value.format", f"{value.get('format')!r} must be 'rle'")
        with at("value.rle"):
            return brush_rle.decode(value.get("rle"), size_hw)
    read = polygons.read_points if kind is ImageControlKind.POLYGON else polygons.read_vertices
    with at("value"):
        return polygons.outline_mask(read(value, size_hw), size_hw)


def check_original_size(
    region: Result, size_hw: tuple[int, int], *, is_needed: bool = False
) -> None:
    """Raises InputError, with both, where a region was drawn on a picture of another size.

    `is_needed`: the region must say its size; else it may be missing or null.
    """
    height, width = size_hw
    said = region.get("original_width"), region.get("original_height")
    for name, given, right in zip(("original_width", "original_height"), said, (width, height)):
        if given != right and (given is not None or is_needed):
            turned = ": one of them is turned" if said == (height, width) else ""
            raise InputError(
                name,
                f"{given!r} must be {right}: the region says {said[0]!r} x {said[1]!r} pixels, "
                f"the picture has {width} x {height} (width x height){turned}",
            )


def _key_point(region: Result, info: VideoInfo) -> dict[str, Any]:
    value = region["value"]
    x, y = (_percent(value, name, maximum=100) for name in ("x", "y"))
    is_positive = region.get("is_positive")
    for name in ("is_positive", "positive"):
        is_positive = value.get(name) if is_positive is None else is_positive
    if not isinstance(is_positive, (bool, type(None))):
        raise InputError("is_positive", f"{is_positive!r} must be true or false")
    return {
        "point_xy": (x * info.width / 100, y * info.height / 100),
        "is_foreground": is_positive is not False,
    }


def rectangle_of(region: Result) -> PercentBox:
    """A RectangleLabels region's box; raises InputError naming the value."""
    value = region["value"]
    return PercentBox(
        _percent(value, "x"),
        _percent(value, "y"),
        _percent(value, "width", minimum=0),
        _percent(value, "height", minimum=0),
        0.0 if value.get("rotation") is None else _percent(value, "rotation"),
    )


def _percent(
    value: Mapping[str, Any],
    name: str,
    minimum: float | None = None,
    maximum: float | None = None,
) -> float:
    number = value.get(name)
    if not is_number(number):
        raise InputError(f"value.{name}", f"{number!r} must be a finite number")
    if abs(number) > MAX_COORDINATE:
        rule = f"must be from -{MAX_COORDINATE} to {MAX_COORDINATE}"
        raise InputError(f"value.{name}", f"{number!r} {rule}")
    lowest = 0 if maximum is not None else minimum
    if (lowest is not None and number < lowest) or (maximum is not None and number > maximum):
        rule = f"from 0 to {maximum}" if maximum is not None else f">= {minimum}"
        raise InputError(f"value.{name}", f"{number!r} must be {rule}")
    return float(number)


def _holds(box: Box, point_xy: tuple[float, float] | None) -> bool:
    if point_xy is None:
        return False
    x, y = point_xy
    return box.x_min <= x < box.x_max and box.y_min <= y < box.y_max


# --- any result --------------------------------------------------------------


def type_of(region: object) -> object:
    if not isinstance(region, Mapping):
        raise ValueError(f"result {region!r} must be an object")
    return region.get("type")


def region_id_of(region: Result) -> str:
    """The region's id; raises InputError without one, and without a `value`."""
    region_id = region.get("id")
    if not isinstance(region_id, str) or not region_id:
        raise InputError("id", f"{region_id!r} must be a string that is not empty")
    if not isinstance(region.get("value"), Mapping):
        raise InputError("value", "must be an object")
    return region_id


def labels_of(region: Result, keys: tuple[str, ...]) -> tuple[str, ...]:
    """The labels under the first of these keys of `value` that is there."""
    value = region.get("value")
    for key in keys:
        labels = value.get(key) if isinstance(value, Mapping) else None
        if labels is None:
            continue
        if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
            raise InputError(f"value.{key}", f"{labels!r} must be a list of strings")
        return tuple(labels)
    return ()
