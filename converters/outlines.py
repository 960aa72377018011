"""Masks -> polygons along pixel edges, for tools that take no RLE."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from converters.masks import decode_mask, mask_box, mask_iou
from converters.types import MaskRLE

_MAX_EDGES = 200_000
_MIN_IOU = 0.95
_RIGHT, _DOWN, _LEFT, _UP = range(4)
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def mask_outlines(rle: MaskRLE) -> tuple[list[list[float]], str]:
    """(polygons, what hinders them): `[[x, y, x, y, ...], ...]`, one an 4-connected part.

    Corners are pixel corners. The polygons are empty and the second is not for
    a mask that outlines do not hold: with a hole, with an outline of more than
    200,000 pixel edges, or one that pycocotools draws back with an IoU below
    0.95 (some parts of one pixel).
    """
    box = mask_box(rle)
    if box is None:
        return [], "empty"
    x, y = int(box.x_min), int(box.y_min)
    mask = np.pad(decode_mask(rle)[y : int(box.y_max), x : int(box.x_max)], 1)
    edges = _edges(mask)
    if sum(len(leaving) for leaving in edges.values()) > _MAX_EDGES:
        return [], "outline too long"
    polygons = []
    while edges:
        corners = _follow(edges)
        if _signed_area(corners) < 0:
            return [], "with a hole"
        # The padding moved everything by one pixel.
        polygons.append((corners + (x - 1, y - 1)).astype(float).ravel().tolist())
    if mask_iou(rle, _drawn(polygons, rle)) < _MIN_IOU:
        return [], "not held by a polygon"
    return polygons, ""


def _edges(mask: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """Pixel corner (x, y) -> directions of the edges that leave it, the mask on their right."""
    up, down = mask[:-1], mask[1:]
    left, right = mask[:, :-1], mask[:, 1:]
    found = (
        # A pixel below and none above: go right along its top; and so on round.
        (_RIGHT, np.argwhere(~up & down) + (1, 0)),
        (_LEFT, np.argwhere(up & ~down) + (1, 1)),
        (_DOWN, np.argwhere(left & ~right) + (0, 1)),
        (_UP, np.argwhere(~left & right) + (1, 1)),
    )
    edges: dict[tuple[int, int], list[int]] = {}
    for direction, starts in found:
        for y, x in starts.tolist():
            edges.setdefault((x, y), []).append(direction)
    return edges


def _follow(edges: dict[tuple[int, int], list[int]]) -> np.ndarray:
    """Take one closed outline out of the edges; its corners, (N, 2) as x, y."""
    start = next(iter(edges))
    corner, direction = start, edges[start][0]
    first = direction
    corners = [start]
    while True:
        edges[corner].remove(direction)
        if not edges[corner]:
            del edges[corner]
        corner = (corner[0] + _STEPS[direction][0], corner[1] + _STEPS[direction][1])
        # Where two pixels touch at the corner only, a right turn stays with this one.
        right = (direction + 1) % 4
        choices = edges.get(corner, ())
        if corner == start and (right == first or not choices):
            break
        turn = right if right in choices else choices[0]
        if turn != direction:
            corners.append(corner)
        direction = turn
    return np.array(corners[1:] if direction == first else corners)


def _signed_area(corners: np.ndarray) -> int:
    """Positive round a part, negative round a hole."""
    (x, y), (next_x, next_y) = corners.T, np.roll(corners, -1, axis=0).T
    return int((x * next_y - next_x * y).sum())


def _drawn(polygons: list[list[float]], like: MaskRLE) -> MaskRLE:
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, like.height, like.width))
    return MaskRLE(like.height, like.width, merged["counts"].decode("ascii"))
