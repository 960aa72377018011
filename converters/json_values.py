"""Values out of JSON files, checked: what each must be, and where it stands."""

from __future__ import annotations

import contextlib
import math
import os
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from converters.json_stream import Location, location_text
from converters.malformed import MalformedValue
from converters.masks import encode_runs, mask_runs
from converters.types import MaskRLE

_MAX_WHOLE = 2**53


class BadValue(MalformedValue):
    """A value that breaks a rule, and its place in the file."""

    def __init__(self, location: Location, message: str) -> None:
        super().__init__(location_text(location), message)


@contextlib.contextmanager
def naming_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Puts the file's name before what a `BadValue` says."""
    try:
        yield
    except BadValue as error:
        name = os.fspath(path)
        place = f"{name}: {error.place}" if error.place else name
        raise MalformedValue(place, error.rule) from None


def member(value: Any, key: str, location: Location) -> Any:
    """value[key]; BadValue when value is no object or lacks the key."""
    if not isinstance(value, Mapping):
        raise BadValue(location, f"must be an object, is {_shown(value)}")
    if key not in value:
        raise BadValue(location, f"has no {key!r}")
    return value[key]


def whole(value: Any, location: Location, *, minimum: int = 0) -> int:
    """A whole number of at least `minimum`; 3.0 counts as 3, True does not."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) <= _MAX_WHOLE or value != int(value):
        raise BadValue(location, f"must be a whole number, is {_shown(value)}")
    if value < minimum:
        raise BadValue(location, f"must be >= {minimum}, is {_shown(value)}")
    return int(value)


def finite(value: Any, location: Location) -> float:
    """A finite number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise BadValue(location, f"must be a finite number, is {_shown(value)}")
    return float(value)


def text(value: Any, location: Location) -> str:
    """A string of at least one character."""
    if not isinstance(value, str) or not value:
        raise BadValue(location, f"must be a text, is {_shown(value)}")
    return value


def identifier(value: Any, location: Location) -> int | str:
    """An id: a whole number or a text."""
    if isinstance(value, str) and value:
        return value
    return whole(value, location, minimum=-_MAX_WHOLE)


def texts(value: Any, location: Location) -> tuple[str, ...]:
    """An array of strings."""
    return tuple(text(item, (*location, i)) for i, item in enumerate(array(value, location)))


def array(value: Any, location: Location) -> Sequence[Any]:
    """A list."""
    if not isinstance(value, list):
        raise BadValue(location, f"must be an array, is {_shown(value)}")
    return value


def run_length_mask(value: Any, location: Location) -> MaskRLE:
    """`{size: [height, width], counts}`, counts a string or a list of runs.

    Nothing of the declared size is allocated. Raises BadValue when counts do
    not cover exactly height * width pixels, or are no RLE at all.
    """
    size = array(member(value, "size", location), (*location, "size"))
    if len(size) != 2:
        raise BadValue((*location, "size"), f"must be [height, width], is {_shown(size)}")
    height, width = (whole(n, (*location, "size", i), minimum=1) for i, n in enumerate(size))
    counts = member(value, "counts", location)
    try:
        if isinstance(counts, list):
            return encode_runs(counts, height, width)
        mask = MaskRLE(height, width, counts)
        mask_runs(mask)
        return mask
    except ValueError as error:
        raise BadValue((*location, "counts"), str(error)) from None


def polygon_mask(value: Any, height: int, width: int, location: Location) -> MaskRLE:
    """The union of `[[x, y, x, y, ...], ...]` in pixels, as pycocotools draws it.

    A corner may lie outside the picture, but by no more than its size.
    Raises BadValue for fewer than three corners and for odd or unbounded numbers.
    """
    polygons = []
    for position, polygon in enumerate(array(value, location)):
        place = (*location, position)
        numbers = [finite(number, (*place, i)) for i, number in enumerate(array(polygon, place))]
        if len(numbers) < 6 or len(numbers) % 2:
            raise BadValue(
                place, f"has {len(numbers)} numbers, must be x, y of three corners or more"
            )
        _check_bounds(numbers, height, width, place)
        polygons.append(numbers)
    if not polygons:
        return encode_runs([height * width], height, width)
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return MaskRLE(height, width, merged["counts"].decode("ascii"))


def _check_bounds(numbers: Sequence[float], height: int, width: int, place: Location) -> None:
    # pycocotools walks along every edge: one of a billion pixels takes gigabytes.
    xy = np.asarray(numbers).reshape(-1, 2)
    size = np.array([width, height])
    outside = np.flatnonzero(((xy < -size) | (xy > 2 * size)).ravel())
    if len(outside):
        position = int(outside[0])
        raise BadValue(
            (*place, position),
            f"is {numbers[position]}, too far outside the picture of {width} x {height} pixels",
        )


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
