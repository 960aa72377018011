"""Prompts as a person writes them: `12:40,30,90,80:car:Car` on the command line, or a JSON file.

The file holds a list, one entry an object and frame:

    [{"frame": 0, "object": "car", "label": "Car", "box": [40, 30, 90, 80]},
     {"frame": 5, "object": "car", "points": [[60, 50], [20, 20, 0]]},
     {"frame": 0, "object": "cat", "mask": "cat.png"}]

Frames are 0-based, boxes x1, y1, x2, y2 with the maxima exclusive, in pixels or
in percent of the picture. A point with a 0 behind it is background. Masks are
images of the video's size, the object where they are not transparent, or, when no part
of them is, where they are not black (0 in a palette image); their paths are relative to
the file. It may be in UTF-8, UTF-16 or UTF-32, with a byte-order mark or without.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from converters.json_stream import location_text
from converters.json_values import BadValue, array, finite, identifier, text, whole
from converters.label_studio.paths import NamedError
from converters.label_studio.results import ObjectRequest
from converters.malformed import MalformedValue
from converters.report import Report
from converters.types import Box, ObjectId, Prompt, VideoInfo
from sam2_model.video.image_file import IMAGE_ERRORS, opened, orientation_of, turned

_KEYS = frozenset({"frame", "object", "label", "box", "points", "mask"})


@dataclass(frozen=True)
class PointSpec:
    """In pixels or percent, as the others of the same command."""

    x: float
    y: float
    is_foreground: bool = True


@dataclass(frozen=True)
class PromptSpec:
    """What was written about one object on one frame."""

    frame_index: int
    object_id: ObjectId | None = None
    """None: a box or mask is a new object's, points are the only object's."""
    label: str | None = None
    box: Box | None = None
    points: tuple[PointSpec, ...] = ()
    mask_file: Path | None = None
    place: str = ""
    """Of a prompt in a file: its name and the entry."""


def parse_box(written: str) -> PromptSpec:
    """FRAME:X1,Y1,X2,Y2[:ID[:LABEL]]; raises ValueError."""
    frame, numbers, *rest = _parts(written, 2, 4)
    object_id, label = [*rest, None, None][:2]
    return PromptSpec(
        _frame(frame), _object_id(object_id), label or None, box=_box(_numbers(numbers, 4))
    )


def parse_point(written: str) -> PromptSpec:
    """FRAME:X,Y[:-][:ID], with the - for background; raises ValueError."""
    frame, numbers, *rest = _parts(written, 2, 4)
    is_foreground = rest[:1] != ["-"]
    rest = rest if is_foreground else rest[1:]
    if len(rest) > 1:
        raise ValueError(f"{rest[0]!r} must be -, or nothing")
    x, y = _numbers(numbers, 2)
    object_id = _object_id(rest[0] if rest else None)
    return PromptSpec(_frame(frame), object_id, points=(PointSpec(x, y, is_foreground),))


def parse_mask(written: str) -> PromptSpec:
    """FRAME:FILE[:ID]; raises ValueError."""
    frame, colon, rest = written.partition(":")
    if not colon or not rest:
        raise ValueError("must be FRAME:FILE[:ID]")
    file, colon, object_id = rest.rpartition(":")
    if not colon or os.path.exists(rest):  # a colon may be part of the file's name
        return PromptSpec(_frame(frame), mask_file=Path(rest))
    return PromptSpec(_frame(frame), _object_id(object_id), mask_file=Path(file))


def read_prompt_file(path: Path, *, report: Report | None = None) -> list[PromptSpec]:
    """The entries; malformed ones are left out and counted in `report`. Without one, or with
    a strict one, the first raises ValueError naming the entry and the rule.

    Raises ValueError for a file that is no JSON list, OSError when there is none.
    """
    report = report or Report(strict=True)
    try:
        entries = array(json.loads(path.read_bytes()), ())  # it knows byte-order marks
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8: save it in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be a JSON list of prompts: {error}") from None
    specs = []
    for index, entry in enumerate(entries):
        with report.leaving_out("prompts"), _in_file(path):
            place = f"{path}: {location_text((index,))}"
            specs.append(dataclasses.replace(_entry(entry, (index,), path.parent), place=place))
    return specs


@contextlib.contextmanager
def _in_file(path: Path) -> Iterator[None]:
    try:
        yield
    except MalformedValue as error:
        raise NamedError(str(path), error) from None


def object_requests(
    specs: Sequence[PromptSpec],
    info: VideoInfo,
    *,
    is_percent: bool = False,
    default_label: str = "object",
    report: Report | None = None,
) -> list[ObjectRequest]:
    """One request an object, in the order the objects were first written.

    Raises ValueError when it is not clear which object is meant, when one has
    two labels or two boxes on a frame, a prompt lies outside the picture or the
    video, or a mask has another size than it; OSError when a mask cannot be
    read. A prompt of a file is left out then, and counted in `report`, unless
    there is none or it is strict.
    """
    strict = Report(strict=True)
    report = report or strict
    prompts: dict[ObjectId, list[Prompt]] = {}
    labels: dict[ObjectId, str] = {}
    object_ids = _ObjectIds(specs)
    for spec in specs:
        with (report if spec.place else strict).leaving_out("prompts"), _at(spec):
            object_id = object_ids.of(spec)
            prompt = _prompt(object_id, spec, info, is_percent)
            known = labels.get(object_id)
            if None not in (spec.label, known) and known != spec.label:
                raise ValueError(
                    f"object {object_id!r} has the labels {known!r} and {spec.label!r}, can have "
                    "one"
                )
            _check_together([*prompts.get(object_id, ()), prompt])
            prompts.setdefault(object_id, []).append(prompt)
            if spec.label is not None:
                labels[object_id] = spec.label
    return [
        ObjectRequest(object_id, (labels.get(object_id, default_label),), tuple(items))
        for object_id, items in prompts.items()
    ]


@contextlib.contextmanager
def _at(spec: PromptSpec) -> Iterator[None]:
    """Says where what is wrong stands, of a prompt in a file."""
    if not spec.place:
        yield
        return
    try:
        yield
    except (ValueError, OSError) as error:
        raise NamedError(spec.place, ValueError(str(error))) from None


def _check_together(prompts: Sequence[Prompt]) -> None:
    """Raises ValueError for what one object cannot have on one frame."""
    from sam2_model.tracker import merge_prompts  # imported here: torch takes seconds

    merge_prompts(prompts)


class _ObjectIds:
    """Those written; new numbers for boxes and masks without one."""

    def __init__(self, specs: Sequence[PromptSpec]) -> None:
        taken = {spec.object_id for spec in specs} - {None}
        free = (number for number in range(1, 2 * len(specs) + 2) if number not in taken)
        self._ids = {
            id(spec): next(free) if spec.object_id is None and not spec.points else spec.object_id
            for spec in specs
        }
        self._known = list(dict.fromkeys(i for i in self._ids.values() if i is not None))

    def of(self, spec: PromptSpec) -> ObjectId:
        """Raises ValueError for a point that says no object where there are several."""
        object_id = self._ids[id(spec)]
        if object_id is None and len(self._known) > 1:
            raise ValueError(
                f"a point says no object, and there are {self._known}: write FRAME:X,Y:ID with "
                "one of them"
            )
        return (self._known or [1])[0] if object_id is None else object_id


def _prompt(object_id: ObjectId, spec: PromptSpec, info: VideoInfo, is_percent: bool) -> Prompt:
    if spec.frame_index >= info.frame_count:
        raise ValueError(
            f"there is a prompt on frame {spec.frame_index}: the video has frames "
            f"[0, {info.frame_count})"
        )
    x_scale, y_scale = (info.width / 100, info.height / 100) if is_percent else (1.0, 1.0)
    box = spec.box
    if box is not None:
        box = Box(
            box.x_min * x_scale, box.y_min * y_scale, box.x_max * x_scale, box.y_max * y_scale
        )
    points = [(point.x * x_scale, point.y * y_scale) for point in spec.points]
    prompt = Prompt(
        object_id,
        spec.frame_index,
        box=box,
        points_xy=np.array(points, np.float32).reshape(-1, 2),
        point_labels=np.array([point.is_foreground for point in spec.points], np.int32),
        mask=None if spec.mask_file is None else _read_mask(spec.mask_file, info),
    )
    prompt.check_inside(info.width, info.height)
    return prompt


def _read_mask(path: Path, info: VideoInfo) -> np.ndarray:
    """(H, W) bool."""
    try:
        with opened(path) as image:
            orientation = orientation_of(image)
            mask = turned(_object_in(image), orientation)
    except FileNotFoundError:
        raise
    except IMAGE_ERRORS as error:
        raise ValueError(f"{path} is not an image that can be read: {error}") from None
    if mask.shape != (info.height, info.width):
        raise ValueError(
            f"{path} has {mask.shape[1]} x {mask.shape[0]} pixels, must have the video's "
            f"{info.width} x {info.height}"
        )
    if not mask.any():
        raise ValueError(f"{path} is black or transparent all over, must show the object")
    return mask


def _object_in(image: Image.Image) -> np.ndarray:
    """(H, W) bool: where it is not transparent; where nothing is, where it is not black."""
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[:, :, 3]
        if not alpha.all():
            return alpha != 0
    shown = image if image.mode in ("1", "L", "P", "I", "I;16") else image.convert("L")
    return np.asarray(shown) != 0


# --- the command line's form ---------------------------------------------------


def _parts(written: str, fewest: int, most: int) -> list[str]:
    parts = written.split(":")
    if "," in parts[0]:
        raise ValueError("the frame is missing, which comes first")
    if not fewest <= len(parts) <= most:
        raise ValueError(f"has {len(parts)} parts between colons, must have {fewest} to {most}")
    return parts


def _frame(written: str) -> int:
    if not written.isascii() or not written.isdigit():
        raise ValueError(f"frame {written!r} must be a whole number from 0 on")
    return int(written)


def _numbers(written: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in written.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"{written!r} must be {count} numbers with commas between them")
    return numbers


def _box(numbers: Sequence[float]) -> Box:
    box = Box(*numbers)
    if box.area == 0:
        raise ValueError(f"box {tuple(numbers)} has no area")
    return box


def _object_id(written: str | None) -> ObjectId | None:
    """Whole numbers are numbers, so that 1 is the same object here and in a file."""
    if not written:
        return None
    return int(written) if written.isascii() and written.isdigit() else written


# --- the file's form -----------------------------------------------------------


def _entry(entry: Any, at: tuple, folder: Path) -> PromptSpec:
    if not isinstance(entry, Mapping):
        raise BadValue(at, "must be an object")
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise BadValue((*at, unknown[0]), f"is not known, must be one of {sorted(_KEYS)}")
    box, points, mask = entry.get("box"), entry.get("points"), entry.get("mask")
    if box is None and points is None and mask is None:
        raise BadValue(at, "must have a box, points or a mask")
    if mask is not None and (box is not None or points is not None):
        raise BadValue(at, "a mask stands alone, it cannot go with a box or points")
    object_id, label = entry.get("object"), entry.get("label")
    return PromptSpec(
        whole(entry.get("frame"), (*at, "frame")),
        None if object_id is None else identifier(object_id, (*at, "object")),
        None if label is None else text(label, (*at, "label")),
        box=None if box is None else _file_box(box, (*at, "box")),
        points=() if points is None else _file_points(points, (*at, "points")),
        mask_file=None if mask is None else folder / text(mask, (*at, "mask")),
    )


def _file_box(value: Any, at: tuple) -> Box:
    numbers = [finite(number, (*at, i)) for i, number in enumerate(array(value, at))]
    if len(numbers) != 4:
        raise BadValue(at, f"has {len(numbers)} numbers, must have 4")
    try:
        return _box(numbers)
    except ValueError as error:
        raise BadValue(at, str(error)) from None


def _file_points(value: Any, at: tuple) -> tuple[PointSpec, ...]:
    points = []
    for index, item in enumerate(array(value, at)):
        place = (*at, index)
        numbers = [finite(number, (*place, i)) for i, number in enumerate(array(item, place))]
        if len(numbers) not in (2, 3) or numbers[2:] not in ([], [0], [1]):
            raise BadValue(place, "must be [x, y], or [x, y, 1 or 0]")
        points.append(PointSpec(numbers[0], numbers[1], numbers[2:] != [0]))
    if not points:
        raise BadValue(at, "must hold at least one point")
    return tuple(points)
