"""A colour for each object: told apart with any colour vision, the same everywhere."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Iterable

from converters.types import ObjectId

Colour = tuple[int, int, int]

# Okabe and Ito, "Color Universal Design" (2008), less black, in an order that
# gives the first few objects the colours that are furthest apart.
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),  # orange
    (0, 114, 178),  # blue
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (86, 180, 233),  # sky blue
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermillion
)


@dataclass(frozen=True)
class Style:
    """How an object is drawn."""

    colour: Colour
    """RGB, 0 to 255."""
    dashed: bool = False
    """The outline is broken by white: an object that shares another one's colour."""


def object_styles(object_ids: Iterable[ObjectId]) -> dict[ObjectId, Style]:
    """A style for each object of a video, in the order given.

    An object's id decides its style, not its place: give all objects of the
    video, also for a picture of one, and it looks the same in every picture.
    Numbers (or their text) take the palette in turn, other ids a place by their checksum; a
    place that is taken passes the object on to the next. All styles differ up
    to 14 objects (7 colours, solid then dashed); after that they repeat.
    """
    given = list(dict.fromkeys(object_ids))
    taken: dict[int, int] = dict.fromkeys(range(2 * len(PALETTE)), 0)
    styles = {}
    for object_id in sorted(given, key=_order):
        place = _free_place(taken, _preferred_place(object_id))
        taken[place] += 1
        styles[object_id] = Style(PALETTE[place % len(PALETTE)], place >= len(PALETTE))
    return {object_id: styles[object_id] for object_id in given}


def _order(object_id: ObjectId) -> tuple[bool, int, str]:
    number = _number(object_id)
    return (number is None, number or 0, str(object_id))


def _preferred_place(object_id: ObjectId) -> int:
    number = _number(object_id)
    # Not hash(): that of a str differs from run to run.
    place = zlib.crc32(str(object_id).encode()) if number is None else number - 1
    return place % len(PALETTE)


def _number(object_id: ObjectId) -> int | None:
    """Formats that know text alone, such as Label Studio's, turn object 1 into "1"."""
    if isinstance(object_id, int):
        return object_id
    is_number = isinstance(object_id, str) and re.fullmatch(r"[1-9][0-9]{0,17}", object_id)
    return int(object_id) if is_number else None


def _free_place(taken: dict[int, int], preferred: int) -> int:
    """The least taken place: solid before dashed, then the nearest after the preferred."""
    count = len(PALETTE)
    return min(
        taken,
        key=lambda place: (taken[place], place >= count, (place - preferred) % count),
    )


def readable_on(colour: Colour) -> Colour:
    """Black or white: whichever has more contrast (WCAG 2) on the colour."""
    luminance = relative_luminance(colour)
    white, black = 1.05 / (luminance + 0.05), (luminance + 0.05) / 0.05
    return (255, 255, 255) if white > black else (0, 0, 0)


def relative_luminance(colour: Colour) -> float:
    """0 (black) to 1 (white), as WCAG 2 defines it for sRGB."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
