"""Values out of JSON files, checked: what each must be, and where it stands."""

from __future__ import annotations

import contextlib
import math
import os
import re
from typing import Any, Iterator, Mapping, Sequence

from converters.json_stream import Location, location_text
from converters.malformed import MalformedValue
from converters.masks import encode_runs, mask_runs
from converters.types import MaskRLE

_MAX_WHOLE = 2**53
_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,14}")


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


def data_set_id(value: Any, location: Location) -> int | str:
    """An id of a data set: 7, 7.0 and "7" are the same, as tools disagree on which they write."""
    return identifier(unquoted(value), location)


def unquoted(value: Any) -> Any:
    """A text that is a whole number as that number; anything else as it is."""
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    return value


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

    Runs may be written as 10.0. Nothing of the declared size is allocated.
    Raises BadValue when counts do not cover exactly height * width pixels, or
    are no RLE at all.
    """
    size = array(member(value, "size", location), (*location, "size"))
    if len(size) != 2:
        raise BadValue((*location, "size"), f"must be [height, width], is {_shown(size)}")
    height, width = (whole(n, (*location, "size", i), minimum=1) for i, n in enumerate(size))
    counts = member(value, "counts", location)
    try:
        if isinstance(counts, list):
            if any(type(run) is float for run in counts):
                counts = [int(run) if type(run) is float and run % 1 == 0 else run for run in counts]
            return encode_runs(counts, height, width)
        mask = MaskRLE(height, width, counts)
        mask_runs(mask)
        return mask
    except ValueError as error:
        raise BadValue((*location, "counts"), str(error)) from None


def _shown(value: Any) -> str:
    if value is None:
        # NaN is read as null: see json_stream.
        return "null or NaN"
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
