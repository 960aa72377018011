"""What COCO and YouTube-VIS write for a mask: RLE, polygons, or a box alone."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from converters.json_stream import Location
from converters.json_values import BadValue, array, finite, run_length_mask
from converters.masks import box_mask
from converters.report import Report
from converters.types import Box, MaskRLE

Size = tuple[int, int]
"""(height, width) in pixels."""

BOX_FOR_MASK = "masks missing, written as their box"


def read_mask(
    segmentation: Any,
    bbox: Any,
    size_hw: Size,
    location: Location,
    bbox_location: Location,
    report: Report,
) -> MaskRLE:
    """The mask of one object on one frame; its box where it has no mask, which is counted.

    Polygons of fewer than three corners, and odd ones, are left out of a mask
    that has others. Raises BadValue for what gives no mask.
    """
    if not is_missing(segmentation):
        return _segmentation_mask(segmentation, size_hw, location, report)
    if bbox is None:
        raise BadValue(location[:-1], f"has no {location[-1]!r} and has no {bbox_location[-1]!r}")
    mask = _read_box(bbox, size_hw, bbox_location, report)
    report.change(BOX_FOR_MASK)
    return mask


def is_missing(segmentation: Any) -> bool:
    """Whether it says nothing: null, `[]`, `[[]]`, `{}`."""
    if isinstance(segmentation, list):
        return all(polygon == [] for polygon in segmentation)
    return segmentation is None or segmentation == {}


def _segmentation_mask(value: Any, size_hw: Size, location: Location, report: Report) -> MaskRLE:
    if not isinstance(value, dict):
        return polygon_mask(value, size_hw, location, report)
    mask = run_length_mask(value, location)
    if (mask.height, mask.width) != size_hw:
        raise BadValue(
            (*location, "size"),
            f"is {mask.height} x {mask.width}, its picture has {size_hw[0]} x {size_hw[1]}",
        )
    return mask


def polygon_mask(value: Any, size_hw: Size, location: Location, report: Report) -> MaskRLE:
    """The union of `[[x, y, x, y, ...], ...]` in pixels, as pycocotools draws it.

    One polygon may stand alone, without the list around it. A corner may lie
    outside the picture, but by no more than its size. Raises BadValue where no
    polygon can be drawn.
    """
    polygons, errors = [], []
    for polygon, place in _polygons(array(value, location), location):
        try:
            polygons.append(_corners(polygon, size_hw, place))
        except BadValue as error:
            errors.append(error)
    if not polygons:
        raise errors[0]
    for error in errors:
        report.leave_out("polygons", error)
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, *size_hw))
    return MaskRLE(*size_hw, merged["counts"].decode("ascii"))


def _polygons(value: Sequence[Any], location: Location) -> list[tuple[Any, Location]]:
    if not any(isinstance(item, (list, dict)) for item in value):
        return [(value, location)]
    return [(polygon, (*location, position)) for position, polygon in enumerate(value)]


def _corners(polygon: Any, size_hw: Size, place: Location) -> list[float]:
    """Its numbers, checked: x, y, x, y, ...; corners may be pairs of their own."""
    if isinstance(polygon, list) and all(isinstance(c, list) and len(c) == 2 for c in polygon):
        polygon = [number for corner in polygon for number in corner]
    numbers = [finite(number, (*place, i)) for i, number in enumerate(array(polygon, place))]
    if len(numbers) < 6 or len(numbers) % 2:
        raise BadValue(place, f"has {len(numbers)} numbers, must be x, y of three corners or more")
    # pycocotools walks along every edge: one of a billion pixels takes gigabytes.
    size = np.array(size_hw[::-1])
    xy = np.asarray(numbers).reshape(-1, 2)
    outside = np.flatnonzero(((xy < -size) | (xy > 2 * size)).ravel())
    if len(outside):
        position = int(outside[0])
        raise BadValue(
            (*place, position),
            f"is {numbers[position]}, too far outside the picture of {size[0]} x {size[1]} pixels",
        )
    return numbers


def _read_box(value: Any, size_hw: Size, location: Location, report: Report) -> MaskRLE:
    """`[x, y, width, height]` in pixels -> the pixels whose centres lie in it."""
    numbers = [finite(n, (*location, i)) for i, n in enumerate(array(value, location))]
    if len(numbers) != 4:
        raise BadValue(location, f"has {len(numbers)} numbers, must be [x, y, width, height]")
    x, y, box_width, box_height = numbers
    if not (box_width > 0 and box_height > 0):
        raise BadValue(location, f"must have a width and a height above 0, is {numbers}")
    height, width = size_hw
    mask = box_mask(Box(x, y, x + box_width, y + box_height), height, width)
    if mask is None:
        raise BadValue(
            location, f"is {numbers}, on no pixel of the picture of {width} x {height} pixels"
        )
    # Half a pixel more or less holds the same pixels' centres.
    over = max(-x, -y, x + box_width - width, y + box_height - height)
    report.change("boxes that reach outside the picture, clipped to it", over > 0.5)
    return mask
