"""Label Studio results -> prompts for the tracker, one request an object.

On `<Video>` the object is the VideoRectangle region, and its prompts are the
keyframes that a person drew or moved. On frames shown as images, regions that
carry our track id in `meta` are one object; key points and rectangles without
one are one object a label; a mask drawn by hand is an object of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

import numpy as np

from converters import bitmask_png, brush_rle
from converters.geometry import (
    clip_box,
    indices_of_ls_frames,
    ls_frames_count,
    percent_to_pixel_box,
)
from converters.label_studio.config import ImageControlKind, LabelConfig
from converters.label_studio.keyframes import (
    Keyframe,
    is_number,
    prompt_box,
    read_sequence,
    shown_keyframes,
)
from converters.types import Box, ObjectId, Prompt, VideoInfo

Result = Mapping[str, Any]

_POINT_KINDS = (ImageControlKind.KEY_POINT, ImageControlKind.RECTANGLE)
_MASK_KINDS = (ImageControlKind.BRUSH, ImageControlKind.BITMASK)
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
    separate_labels = _labels_beside_regions(results)
    for region in results:
        if _type_of(region) != "videorectangle":
            continue
        region_id = _region_id(region)
        where = f"region {region_id!r}"
        if region_id in requests:
            raise ValueError(f"{where}: there is more than one videorectangle of this id")
        labels = _label_list(region, ("labels",)) or separate_labels.get(region_id, ())
        with _named(where):
            config.video_rectangle(region.get("from_name")).check_labels(labels)
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
        if (kind := _image_kind(region)) is not None and not _is_answer(region, kind)
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


def _is_answer(region: Result, kind: ImageControlKind) -> bool:
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
                f"region {region.get('id')!r}: the box at frame {keyframe.ls_frame} "
                "must have an area inside the picture"
            )
        prompts[frame_index] = Prompt(region["id"], frame_index, box=box)
    return tuple(prompts[index] for index in sorted(prompts))


def prompt_keyframes(
    region: Result, info: VideoInfo, framerate: float
) -> tuple[tuple[int, Keyframe], ...]:
    """(frame index, keyframe) of each of a person's keyframes that shows a picture."""
    last = _last_ls_frame(region, info, framerate)
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


def _last_ls_frame(region: Result, info: VideoInfo, framerate: float) -> int:
    """By our count or the browser's, which may differ, but not by a second."""
    count = ls_frames_count(info.duration_seconds, framerate)
    stored = region["value"].get("framesCount")
    if not is_number(stored):
        return count
    return max(count, min(int(stored), count + math.ceil(framerate)))


def _labels_beside_regions(results: Iterable[Result]) -> dict[str, tuple[str, ...]]:
    """Labels kept in a result of their own under the region's id, as the SDK may."""
    return {
        region["id"]: _label_list(region, ("labels",))
        for region in results
        if _type_of(region) == "labels" and isinstance(region.get("id"), str)
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


def _image_kind(region: Result) -> ImageControlKind | None:
    for kind in (*_POINT_KINDS, *_MASK_KINDS):
        if _type_of(region) == kind.result_type:
            return kind
    return None


def _read_mark(
    region: Result, kind: ImageControlKind, config: LabelConfig, info: VideoInfo
) -> _Mark:
    region_id = _region_id(region)
    labels = _label_list(region, (kind.result_type, "labels"))
    meta = region.get("meta")
    track = meta.get("track") if isinstance(meta, Mapping) else None
    with _named(f"region {region_id!r}"):
        config.image_control(region.get("from_name")).check_labels(labels)
        if not isinstance(track, (str, int, type(None))):
            raise ValueError(f"meta.track {track!r} must be a string or an integer")
        if region.get("image_rotation") not in (None, 0):
            raise ValueError(
                f"image_rotation {region.get('image_rotation')!r} must be 0: turn the "
                "picture back before marking it"
            )
        return _Mark(
            region_id,
            track,
            labels,
            item_index_of(region, info.frame_count),
            **_shape(region, kind, info),
        )


def item_index_of(region: Result, frame_count: int) -> int:
    """The region's 0-based frame; a missing one is 0, as Label Studio reads it.

    Raises ValueError when it is not an integer in [0, frame_count).
    """
    index = region.get("item_index")
    if index is None:
        index = 0
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < frame_count:
        raise ValueError(f"item_index {index!r} must be an integer in [0, {frame_count})")
    return index


def _shape(region: Result, kind: ImageControlKind, info: VideoInfo) -> dict[str, Any]:
    """The pixels of a region, as the fields of a `_Mark`."""
    value = region["value"]
    if kind is ImageControlKind.KEY_POINT:
        return _key_point(region, info)
    if kind is ImageControlKind.RECTANGLE:
        return {"box": _rectangle(value, info)}
    size = (region.get("original_height"), region.get("original_width"))
    if size != (info.height, info.width):
        raise ValueError(
            f"original size {size[0]!r} x {size[1]!r} must be the video's, "
            f"{info.height} x {info.width}"
        )
    if kind is ImageControlKind.BITMASK:
        mask = bitmask_png.decode(value.get("imageDataURL"), size)
    elif value.get("format") != "rle":
        raise ValueError(f"value.format {value.get('format')!r} must be 'rle'")
    else:
        mask = brush_rle.decode(value.get("rle"), size)
    if not mask.any():
        raise ValueError("its mask is empty, must have at least one pixel")
    return {"mask": mask}


def _key_point(region: Result, info: VideoInfo) -> dict[str, Any]:
    value = region["value"]
    x, y = (_percent(value, name, maximum=100) for name in ("x", "y"))
    is_positive = region.get("is_positive")
    for name in ("is_positive", "positive"):
        is_positive = value.get(name) if is_positive is None else is_positive
    if not isinstance(is_positive, (bool, type(None))):
        raise ValueError(f"is_positive {is_positive!r} must be true or false")
    return {
        "point_xy": (x * info.width / 100, y * info.height / 100),
        "is_foreground": is_positive is not False,
    }


def _rectangle(value: Mapping[str, Any], info: VideoInfo) -> Box:
    x, y = _percent(value, "x"), _percent(value, "y")
    width, height = _percent(value, "width", minimum=0), _percent(value, "height", minimum=0)
    rotation = 0.0 if value.get("rotation") is None else _percent(value, "rotation")
    size_hw = (info.height, info.width)
    box = clip_box(
        percent_to_pixel_box(
            x, y, width, height, size_hw=size_hw, rotation_degrees=rotation
        ),
        size_hw,
    )
    if box is None:
        raise ValueError("its box must have an area inside the picture")
    return box


def _percent(
    value: Mapping[str, Any],
    name: str,
    minimum: float | None = None,
    maximum: float | None = None,
) -> float:
    number = value.get(name)
    if not is_number(number):
        raise ValueError(f"value.{name} {number!r} must be a finite number")
    lowest = 0 if maximum is not None else minimum
    if (lowest is not None and number < lowest) or (maximum is not None and number > maximum):
        raise ValueError(
            f"value.{name} {number!r} must be "
            + (f"from 0 to {maximum}" if maximum is not None else f">= {minimum}")
        )
    return float(number)


def _holds(box: Box, point_xy: tuple[float, float] | None) -> bool:
    if point_xy is None:
        return False
    x, y = point_xy
    return box.x_min <= x < box.x_max and box.y_min <= y < box.y_max


# --- any result --------------------------------------------------------------


class _named:
    """Puts the region's name in front of a ValueError raised within."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, ValueError):
            raise ValueError(f"{self._where}: {error}") from error


def _type_of(region: object) -> object:
    if not isinstance(region, Mapping):
        raise ValueError(f"result {region!r} must be an object")
    return region.get("type")


def _region_id(region: Result) -> str:
    region_id = region.get("id")
    if not isinstance(region_id, str) or not region_id:
        raise ValueError(f"region {region_id!r}: id must be a string that is not empty")
    if not isinstance(region.get("value"), Mapping):
        raise ValueError(f"region {region_id!r}: value must be an object")
    return region_id


def _label_list(region: Result, keys: tuple[str, ...]) -> tuple[str, ...]:
    value = region.get("value")
    for key in keys:
        labels = value.get(key) if isinstance(value, Mapping) else None
        if labels is None:
            continue
        if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
            raise ValueError(
                f"region {region.get('id')!r}: value.{key} {labels!r} must be a list of strings"
            )
        return tuple(labels)
    return ()
