"""Binary masks as COCO run-length encoding, and what can be read off the runs.

A `MaskRLE` holds the compressed `counts` string of COCO (column-major runs,
background first). pycocotools reads past the end of a malformed string, so
it only encodes here; strings are parsed and checked by this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from converters.types import Box, MaskRLE

_MAX_PIXELS = 2**31 - 1
_MAX_CHARACTERS_PER_RUN = 7  # 35 bits: more than any run within _MAX_PIXELS needs


def check_mask(mask: np.ndarray) -> np.ndarray:
    """The mask itself when it is a non-empty (H, W) bool array.

    Raises ValueError otherwise. 0/1 integers are refused, not guessed at:
    0/255 or a logit would be taken as happily.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {mask.shape}, must be (H, W)")
    if mask.dtype != np.bool_:
        raise ValueError(f"mask has dtype {mask.dtype}, must be bool")
    if mask.size == 0:
        raise ValueError(f"mask has shape {mask.shape}, must have at least one pixel")
    return mask


def encode_mask(mask: np.ndarray) -> MaskRLE:
    """(H, W) bool -> COCO compressed RLE."""
    mask = check_mask(mask)
    encoded = coco_mask.encode(np.asfortranarray(mask).view(np.uint8))
    return MaskRLE(mask.shape[0], mask.shape[1], encoded["counts"].decode("ascii"))


def decode_mask(rle: MaskRLE) -> np.ndarray:
    """COCO compressed RLE -> (H, W) bool, C-contiguous.

    Raises ValueError when `counts` is malformed or does not cover H * W pixels.
    """
    runs = mask_runs(rle)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(columns.reshape(rle.width, rle.height).T)


def mask_runs(rle: MaskRLE) -> np.ndarray:
    """(R,) int64 run lengths in column-major order, background first.

    These are COCO's uncompressed counts. Raises ValueError naming the field
    when the size is not positive, or `counts` is malformed or does not sum to
    height * width.
    """
    for name, value in (("height", rle.height), ("width", rle.width)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"mask {name}={value!r} must be an integer >= 1")
    if rle.height * rle.width > _MAX_PIXELS:
        raise ValueError(
            f"mask size {rle.height} x {rle.width} must be at most {_MAX_PIXELS} pixels"
        )
    runs = _undo_differences(_parse_numbers(rle.counts))
    if (runs < 0).any():
        raise ValueError(f"mask counts {_shortened(rle.counts)} hold a negative run")
    if runs.sum() != rle.height * rle.width:
        raise ValueError(
            f"mask counts {_shortened(rle.counts)} cover {runs.sum()} pixels, must "
            f"cover height * width = {rle.height} * {rle.width}"
        )
    return runs


def encode_runs(runs: Sequence[int], height: int, width: int) -> MaskRLE:
    """COCO's uncompressed counts (column-major, background first) -> `MaskRLE`.

    Nothing of the declared size is allocated. Raises ValueError when a run is
    not a whole number >= 0, or the runs do not sum to height * width.
    """
    if height * width > _MAX_PIXELS:
        raise ValueError(f"mask size {height} x {width} must be at most {_MAX_PIXELS} pixels")
    if not all(type(run) is int and 0 <= run <= _MAX_PIXELS for run in runs):
        bad = next(r for r in runs if type(r) is not int or not 0 <= r <= _MAX_PIXELS)
        raise ValueError(f"mask counts hold {bad!r}, must be whole numbers from 0 to the size")
    if sum(runs) != height * width:
        raise ValueError(
            f"mask counts cover {sum(runs)} pixels, must cover height * width = "
            f"{height} * {width}"
        )
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": list(runs)}, height, width)
    return MaskRLE(height, width, encoded["counts"].decode("ascii"))


def box_mask(box: Box, height: int, width: int) -> MaskRLE | None:
    """The pixels whose centres lie in a box, as much of it as lies in the picture.

    Written as runs: an object's course is thousands of boxes. None for no pixel.
    """
    left, right = (min(max(math.ceil(x - 0.5), 0), width) for x in (box.x_min, box.x_max))
    top, bottom = (min(max(math.ceil(y - 0.5), 0), height) for y in (box.y_min, box.y_max))
    if left >= right or top >= bottom:
        return None
    inside = bottom - top
    runs = [left * height + top, inside] + [height - inside, inside] * (right - left - 1)
    if inside == height:
        runs = [left * height, height * (right - left)]
    after = height * width - sum(runs)
    return encode_runs(runs + [after] if after else runs, height, width)


def mask_area(rle: MaskRLE) -> int:
    """Number of pixels in the mask."""
    return int(mask_runs(rle)[1::2].sum())


def mask_box(rle: MaskRLE) -> Box | None:
    """The half-open pixel box around the mask; None when it is empty."""
    ends = np.cumsum(mask_runs(rle))
    first, last = ends[:-1:2], ends[1::2] - 1
    filled = last >= first
    first, last = first[filled], last[filled]
    if len(first) == 0:
        return None
    columns_first, columns_last = first // rle.height, last // rle.height
    if (columns_last > columns_first).any():
        # A run that goes on into the next column touches bottom and top.
        y_min, y_max = 0, rle.height
    else:
        y_min = int((first % rle.height).min())
        y_max = int((last % rle.height).max()) + 1
    return Box(int(columns_first[0]), y_min, int(columns_last[-1]) + 1, y_max)


def mask_iou(first: MaskRLE, second: MaskRLE) -> float:
    """Intersection over union in [0, 1]; 1.0 when both are empty (DAVIS' J).

    Raises ValueError when the sizes differ.
    """
    if (first.height, first.width) != (second.height, second.width):
        raise ValueError(
            f"masks have sizes {first.height} x {first.width} and "
            f"{second.height} x {second.width}, must have the same"
        )
    ends_first, ends_second = np.cumsum(mask_runs(first)), np.cumsum(mask_runs(second))
    ends = np.union1d(ends_first, ends_second)
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    in_first = np.searchsorted(ends_first, starts, side="right") % 2 == 1
    in_second = np.searchsorted(ends_second, starts, side="right") % 2 == 1
    union = int(lengths[in_first | in_second].sum())
    return int(lengths[in_first & in_second].sum()) / union if union else 1.0


@dataclass(frozen=True)
class Component:
    """One connected part of a mask."""

    mask: MaskRLE
    """Of the whole mask's size."""
    area: int
    """Number of pixels, at least 1."""


def components(mask: MaskRLE | np.ndarray, *, connectivity: int = 8) -> tuple[Component, ...]:
    """The connected parts of a mask, the largest first; none of an empty one.

    With `connectivity` 8 pixels that touch at a corner are connected, as in
    SAM's own cleaning of masks; with 4 only those that share a side. Of equal
    parts the one that begins further left, then further up, comes first.

    Raises ValueError for another connectivity, and as `check_mask` and
    `mask_runs` do.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity={connectivity!r} must be 4 or 8")
    rle = mask if isinstance(mask, MaskRLE) else encode_mask(mask)
    starts, ends = _column_runs(rle)
    if len(starts) == 0:
        return ()
    roots = _roots(len(starts), *_touching(starts, ends, rle.height, corners=connectivity == 8))
    firsts, numbers = np.unique(roots, return_inverse=True)
    areas = np.bincount(numbers, ends - starts).astype(np.int64)
    by_component = np.argsort(numbers, kind="stable")
    stops = np.cumsum(np.bincount(numbers))
    found = []
    for number in np.lexsort((firsts, -areas)).tolist():
        runs = by_component[stops[number - 1] if number else 0 : stops[number]]
        counts = _counts(starts[runs], ends[runs], rle.height * rle.width)
        found.append(Component(encode_runs(counts, rle.height, rle.width), int(areas[number])))
    return tuple(found)


def _column_runs(rle: MaskRLE) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the filled runs, (R,) int64, each within one column."""
    ends = np.cumsum(mask_runs(rle))
    first, last = ends[:-1:2], ends[1::2]
    filled = last > first
    # A background run of length 0 parts what is one.
    first, last = _joined(first[filled], last[filled])
    columns = first // rle.height
    counts = (last - 1) // rle.height - columns + 1
    column = np.repeat(columns, counts) + _places(counts)
    starts = np.maximum(np.repeat(first, counts), column * rle.height)
    return starts, np.minimum(np.repeat(last, counts), (column + 1) * rle.height)


def _touching(
    starts: np.ndarray, ends: np.ndarray, height: int, *, corners: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of each pair of runs that touch across two columns."""
    following = (starts // height + 1) * height
    low = np.maximum(starts + height - corners, following)
    high = np.minimum(ends + height + corners, following + height)
    first = np.searchsorted(ends, low, side="right")
    counts = np.searchsorted(starts, high, side="left") - first
    return np.repeat(np.arange(len(starts)), counts), np.repeat(first, counts) + _places(counts)


def _roots(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(count,) int64: the lowest number that each is connected with, by pairs of them."""
    roots = np.arange(count)
    while len(first):
        one, other = roots[first], roots[second]
        np.minimum.at(roots, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(further := roots[roots], roots):
            roots = further
        apart = roots[first] != roots[second]
        first, second = first[apart], second[apart]
    return roots


def _counts(starts: np.ndarray, ends: np.ndarray, pixels: int) -> list[int]:
    """Sorted filled runs -> COCO's counts, background first."""
    edges = np.stack(_joined(starts, ends), axis=1).ravel()
    lengths = np.diff(edges, prepend=0, append=pixels).tolist()
    return lengths if lengths[-1] else lengths[:-1]


def _joined(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of sorted runs, with those made one that follow without a gap."""
    is_apart = starts[1:] != ends[:-1]
    return (
        np.concatenate([starts[:1], starts[1:][is_apart]]),
        np.concatenate([ends[:-1][is_apart], ends[-1:]]),
    )


def _places(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... within each of so many repeats."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _parse_numbers(counts: str) -> np.ndarray:
    """The signed numbers of a compressed counts string, (R,) int64.

    Each number is written five bits a character, low bits first, from "0"
    up; bit 5 says that another character follows, bit 4 of the last one is
    the sign.
    """
    if not isinstance(counts, str):
        raise ValueError(
            f"mask counts of type {type(counts).__name__} must be a str "
            "(COCO compressed RLE)"
        )
    try:
        codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        codes = np.array([-1])
    if len(codes) == 0 or codes.min() < 0 or codes.max() > 63:
        raise ValueError(
            f"mask counts {_shortened(counts)} must be one or more characters "
            "from '0' to 'o'"
        )
    ends = np.flatnonzero(codes & 32 == 0)
    if len(ends) == 0 or ends[-1] != len(codes) - 1:
        raise ValueError(f"mask counts {_shortened(counts)} end inside a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS_PER_RUN:
        raise ValueError(f"mask counts {_shortened(counts)} hold a number too large")
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 31) << (5 * places), starts)
    negative = codes[ends] & 16 != 0
    return numbers - np.where(negative, np.int64(1) << (5 * lengths), 0)


def _undo_differences(numbers: np.ndarray) -> np.ndarray:
    """From the third on, each number is a difference to the run two before it."""
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    return runs


def _shortened(counts: str) -> str:
    return repr(counts if len(counts) <= 40 else counts[:37] + "...")
