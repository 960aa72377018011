"""The order of frames by their files' names: by the numbers in them."""

from __future__ import annotations

import itertools
import re
from decimal import Decimal
from pathlib import PurePath
from typing import Iterable, Sequence

# A number may have decimals (2.75, but not 1.2.3, which is a date or a version) and, where
# it does not follow a letter or digit (frame-2, 2024-01-05), a sign.
_NUMBER = re.compile(
    r"((?:(?<![^_=/])[+-])?"
    r"(?:(?<![0-9])(?<![0-9]\.)[0-9]+\.[0-9]+(?!\.?[0-9])|[0-9]+))"
)
_NUMBER_ALONE = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_MASK_WORDS = "masks?|seg|segmentation|labels?|gt|annotations?|annotated|matte|instances?"
_MASK_OF = re.compile(
    rf"(?:(?:{_MASK_WORDS})[-_. ]+)?(.+?)(?:[-_. ]+(?:{_MASK_WORDS})(?:[-_. ]*[0-9]+)?)?",
    re.IGNORECASE,
)


class SameNumber(ValueError):
    """Two files of one number: any order of them would be wrong."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(
            f"{one} and {other} have the same frame number: a folder of frames must hold one "
            "picture a frame; put masks and others into a folder of their own"
        )


def natural_order(name: str) -> tuple:
    """Sort key that puts `9.jpg` before `10.jpg`, `0.05.jpg` before `0.5.jpg`, `-2` before `-1`."""
    parts = _NUMBER.split(name)
    # Texts and numbers take turns, so that names always compare.
    return tuple(Decimal(p) if i % 2 else p for i, p in enumerate(parts)), name


def in_frame_order(names: Iterable[str]) -> list[str]:
    """Names of a folder's pictures, each that of a frame, in the frames' order.

    By number where all are numbers without anything else, also as 1e-05; else in
    `natural_order`. Raises SameNumber where two have the same numbers, as a picture
    and its mask do, in different texts or with different suffixes.
    """
    stems = {name: PurePath(name).stem for name in sorted(names)}
    if all(_NUMBER_ALONE.fullmatch(stem) for stem in stems.values()):
        numbers = {name: (Decimal(stem),) for name, stem in stems.items()}
        ordered = sorted(stems, key=numbers.__getitem__)
    else:
        numbers = {name: _numbers(stem) for name, stem in stems.items()}
        ordered = sorted(stems, key=lambda name: (natural_order(stems[name]), name))
    _check_one_each(ordered, numbers, stems)
    return ordered


def masks_beside(names: Iterable[str]) -> list[str]:
    """Those named as the mask of another: `00000_mask.png` beside `00000.jpg`."""
    stems = {name: PurePath(name).stem for name in sorted(names)}
    pictures = set(stems.values())
    return [name for name, stem in stems.items() if (of := _picture_of(stem)) != stem and of in pictures]


def _picture_of(stem: str) -> str:
    found = _MASK_OF.fullmatch(stem)
    return stem if found is None else found[1]


def _numbers(stem: str) -> tuple[Decimal, ...]:
    return tuple(Decimal(part) for part in _NUMBER.split(stem)[1::2])


def _check_one_each(
    ordered: Sequence[str], numbers: dict[str, tuple[Decimal, ...]], stems: dict[str, str]
) -> None:
    by_number = sorted(ordered, key=lambda name: (numbers[name], stems[name]))
    for one, other in itertools.pairwise(by_number):
        is_same = numbers[one] == numbers[other] and bool(numbers[one])
        if is_same or stems[one] == stems[other] or _is_beside(stems[one], stems[other]):
            raise SameNumber(one, other)


def _is_beside(stem: str, other: str) -> bool:
    """Whether the other is named after it, as `00000_1` or `shot1_0001_mask_2`."""
    rest = other.removeprefix(stem)
    if not stem or rest == other or not re.match("[^0-9.]", rest):
        return False
    has_word = re.search("[^\\W0-9_]", rest) is not None
    return bool(_NUMBER_ALONE.fullmatch(stem)) or (has_word and bool(_numbers(stem)))
