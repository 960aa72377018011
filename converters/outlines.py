"""Masks -> outlines along pixel edges: the corners of their parts and holes, and COCO's polygons."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from converters.masks import check_mask, decode_mask, mask_box, mask_iou
from converters.types import MaskRLE

_MAX_EDGES = 200_000
_MIN_IOU = 0.95
# East, south, west, north: each is the right turn of the one before.
_DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def mask_loops(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """(H, W) bool -> the corners (x, y) of each closed loop along pixel edges.

    The mask is on a loop's right hand as it is walked, in pictures (y down):
    clockwise round a part, the other way round a hole. Pixels that touch at a
    corner only are parts of their own.
    """
    mask = check_mask(mask)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    mask = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    steps = _steps(mask)
    stride = mask.shape[1] + 1
    to_walk = [bytearray(direction.astype(np.uint8).tobytes()) for direction in steps]
    offsets = [x + y * stride for x, y in _DIRECTIONS]
    loops = []
    for start in np.flatnonzero(steps[0]).tolist():
        if to_walk[0][start]:
            corners = _walk(to_walk, offsets, start)
            loops.append([(left + at % stride, top + at // stride) for at in corners])
    return loops


def mask_outlines(rle: MaskRLE) -> tuple[list[list[float]], str]:
    """(polygons, what hinders them): `[[x, y, x, y, ...], ...]`, one a 4-connected part.

    Corners are pixel corners. The polygons are empty and the second is not for
    a mask that outlines do not hold: with a hole, with an outline of more than
    200,000 pixel edges, or one that pycocotools draws back with an IoU below
    0.95 (some parts of one pixel).
    """
    box = mask_box(rle)
    if box is None:
        return [], "empty"
    left, top = int(box.x_min), int(box.y_min)
    mask = decode_mask(rle)[top : int(box.y_max), left : int(box.x_max)]
    if np.count_nonzero(_steps(mask)) > _MAX_EDGES:
        return [], "outline too long"
    loops = [np.array(loop) + (left, top) for loop in mask_loops(mask)]
    if any(_signed_area(loop) < 0 for loop in loops):
        return [], "with a hole"
    polygons = [loop.astype(float).ravel().tolist() for loop in loops]
    if mask_iou(rle, _drawn(polygons, rle)) < _MIN_IOU:
        return [], "not held by a polygon"
    return polygons, ""


def _steps(mask: np.ndarray) -> np.ndarray:
    """(4, H + 1, W + 1) bool: whether a unit step leaves each corner in each direction."""
    padded = np.pad(mask, 1)
    up_left, up_right = padded[:-1, :-1], padded[:-1, 1:]
    down_left, down_right = padded[1:, :-1], padded[1:, 1:]
    return np.stack(
        [
            down_right & ~up_right,
            down_left & ~down_right,
            up_left & ~down_left,
            up_right & ~up_left,
        ]
    )


def _walk(to_walk: list[bytearray], offsets: list[int], start: int) -> list[int]:
    """The corners of the loop that goes east from `start`; takes its steps away."""
    corners: list[int] = []
    position, direction = start, 0
    while to_walk[direction][position]:
        to_walk[direction][position] = 0
        position += offsets[direction]
        # Right first: where two pixels touch at a corner, stay with one's own.
        for turned in ((direction + 1) % 4, direction, (direction + 3) % 4):
            if to_walk[turned][position]:
                break
        else:
            turned = 0 if position == start else direction
        if turned != direction:
            corners.append(position)
        direction = turned
    if corners[-1] == start:
        return [start, *corners[:-1]]
    is_straight = _is_straight(corners[-1], start, corners[0], offsets)
    return corners if is_straight else [start, *corners]


def _is_straight(before: int, middle: int, after: int, offsets: list[int]) -> bool:
    stride = offsets[1]
    points = [(corner % stride, corner // stride) for corner in (before, middle, after)]
    return len({x for x, _ in points}) == 1 or len({y for _, y in points}) == 1


def _signed_area(corners: np.ndarray) -> int:
    """Positive round a part, negative round a hole."""
    (x, y), (next_x, next_y) = corners.T, np.roll(corners, -1, axis=0).T
    return int((x * next_y - next_x * y).sum())


def _drawn(polygons: list[list[float]], like: MaskRLE) -> MaskRLE:
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, like.height, like.width))
    return MaskRLE(like.height, like.width, merged["counts"].decode("ascii"))
