"""Masks <-> the points of PolygonLabels, VectorLabels and VideoVector regions.

A mask's outline runs along pixel edges. All its parts and holes go into one
closed line: between two loops the line goes over and back on the same way,
which encloses nothing. Filled by the nonzero rule, as the editor's canvas
does, with a pixel in when its centre is, that line gives the very mask again.

With a tolerance the staircase is smoothed: points closer than that to the
line through their neighbours are left out, and the mask comes back nearly.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np

from converters.label_studio.keyframes import MAX_COORDINATE, is_number
from converters.label_studio.paths import InputError, at
from converters.outlines import mask_loops

Outline = Sequence[tuple[float, float]]

_DECIMALS = 6
_CURVE_STEPS = 16


def mask_outline(
    mask: np.ndarray, *, tolerance_pixels: float = 0.0
) -> list[tuple[float, float]]:
    """(H, W) bool -> the corners (x, y) of one closed line around it, in pixels.

    Empty for an empty mask. With tolerance 0 `outline_mask` gives the same
    mask back. Pixels that touch at a corner only are parts of their own.
    """
    if not tolerance_pixels >= 0:
        raise ValueError(f"tolerance_pixels={tolerance_pixels!r} must be >= 0")
    loops = mask_loops(mask)
    if tolerance_pixels:
        loops = [smoothed for loop in loops if (smoothed := _smooth(loop, tolerance_pixels))]
    return [(float(x), float(y)) for x, y in _joined(loops)]


def outline_mask(points_xy: Outline, size_hw: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre lies within a closed line, (H, W) bool.

    Filled by the nonzero rule. `points_xy` are corners in pixels; what lies
    outside the frame is cut off.
    """
    height, width = size_hw
    mask = np.zeros((height, width), bool)
    points = np.asarray(points_xy, np.float64).reshape(-1, 2)
    if len(points) == 0:
        return mask
    # Only the pixels within the line's own box can be in.
    left, right = (_first_centre_from(x, width) for x in (points[:, 0].min(), points[:, 0].max()))
    top, bottom = (_first_centre_from(y, height) for y in (points[:, 1].min(), points[:, 1].max()))
    winding = np.zeros((bottom - top, right - left + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0)):
        turn = 1 if y1 > y0 else -1
        if turn < 0:
            # A way over and back must cross each row at the very same place.
            x0, y0, x1, y1 = x1, y1, x0, y0
        first, stop = _first_centre_from(y0, height), _first_centre_from(y1, height)
        if first >= stop:
            continue
        centres = np.arange(first, stop) + 0.5
        crossings = x0 + (x1 - x0) * ((centres - y0) / (y1 - y0))
        columns = np.clip(np.ceil(crossings - 0.5), left, right).astype(np.int64)
        winding[np.arange(first, stop) - top, columns - left] += turn
    mask[top:bottom, left:right] = np.cumsum(winding, axis=1)[:, :-1] != 0
    return mask


def _first_centre_from(place: float, count: int) -> int:
    """The first of `count` pixels whose centre is not before a place; `count` for none."""
    return int(np.clip(np.ceil(place - 0.5), 0, count))


def to_percent(points_xy: Outline, size_hw: tuple[int, int]) -> list[tuple[float, float]]:
    """Pixels -> percent of the frame."""
    height, width = size_hw
    return [
        (round(100 * x / width, _DECIMALS), round(100 * y / height, _DECIMALS))
        for x, y in points_xy
    ]


def vertices_of(points_percent: Outline) -> list[dict[str, Any]]:
    """Points -> the `vertices` of a closed vector, each linked to the one before."""
    count = len(points_percent)
    return [
        {
            "id": f"p{number}",
            "prevPointId": f"p{(number - 1) % count}",
            "x": x,
            "y": y,
            "isBezier": False,
        }
        for number, (x, y) in enumerate(points_percent)
    ]


def read_points(value: Mapping[str, Any], size_hw: tuple[int, int]) -> np.ndarray:
    """`points` of a PolygonLabels value -> (N, 2) float64 corners in pixels.

    Raises InputError naming the point for one that is not two finite numbers,
    and for fewer than three.
    """
    points = value.get("points")
    if not isinstance(points, list) or len(points) < 3:
        raise InputError("points", f"{_shortened(points)} must be a list of three or more points")
    for number, point in enumerate(points):
        if not isinstance(point, (list, tuple)) or len(point) != 2:
            raise InputError(f"points[{number}]", f"{_shortened(point)} must be [x, y]")
        for axis, coordinate in enumerate(point):
            _check_number(coordinate, f"points[{number}][{axis}]")
    return _to_pixels(points, size_hw)


def read_vertices(value: Mapping[str, Any], size_hw: tuple[int, int]) -> np.ndarray:
    """`vertices` of a vector -> (N, 2) float64 corners in pixels.

    Curves between vertices become short straight lines. A vector that is
    open is closed, as a shape can be filled only so. Raises InputError naming
    the vertex for a coordinate that is no finite number, and for fewer than
    three vertices.
    """
    vertices = value.get("vertices")
    if not isinstance(vertices, list) or len(vertices) < 3:
        raise InputError(
            "vertices", f"{_shortened(vertices)} must be a list of three or more vertices"
        )
    for number, vertex in enumerate(vertices):
        with at(f"vertices[{number}]"):
            _check_vertex(vertex)
    points: list[tuple[float, float]] = []
    for before, vertex in zip([vertices[-1], *vertices], vertices):
        points.extend(_line(before, vertex))
    return _to_pixels(points, size_hw)


# --- one line out of loops ---------------------------------------------------


def _joined(loops: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """One closed line through all loops: out to each from the first's start and back."""
    if not loops:
        return []
    line = list(loops[0])
    home = line[0]
    for loop in loops[1:]:
        line += [home, *loop, loop[0]]
    return line if len(loops) == 1 else [*line, home]


def _smooth(loop: list[tuple[int, int]], tolerance: float) -> list[tuple[int, int]]:
    """The corners that matter (Douglas and Peucker, 1973); empty below three."""
    points = np.array(loop, np.float64)
    far = int(((points - points[0]) ** 2).sum(axis=1).argmax())
    closed = np.concatenate([points, points[:1]])
    keep = {0, far}
    spans = [(0, far), (far, len(points))]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        if distances.max() > tolerance:
            middle = first + 1 + int(distances.argmax())
            keep.add(middle)
            spans += [(first, middle), (middle, last)]
    return [loop[number] for number in sorted(keep)] if len(keep) >= 3 else []


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(N,) from each point to the piece of line between start and end."""
    along = end - start
    length = float(along @ along)
    if length == 0:
        return np.hypot(*(points - start).T)
    parts = np.clip((points - start) @ along / length, 0, 1)
    return np.hypot(*(points - (start + parts[:, None] * along)).T)


# --- reading -----------------------------------------------------------------


def _check_vertex(vertex: object) -> None:
    if not isinstance(vertex, Mapping):
        raise InputError("", f"{_shortened(vertex)} must be an object")
    for name in ("x", "y"):
        _check_number(vertex.get(name), name)
    for handle in ("controlPoint1", "controlPoint2"):
        if isinstance(vertex.get(handle), Mapping):
            for name in ("x", "y"):
                _check_number(vertex[handle].get(name), f"{handle}.{name}")


def _line(before: Mapping[str, Any], vertex: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Points from just after `before` up to `vertex`: one, or those of a curve."""
    start, end = (before["x"], before["y"]), (vertex["x"], vertex["y"])
    out, back = _handle(before, "controlPoint2"), _handle(vertex, "controlPoint1")
    if out is None and back is None:
        return [end]
    out, back = out or start, back or end
    curve = []
    for step in range(1, _CURVE_STEPS + 1):
        t = step / _CURVE_STEPS
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        curve.append(
            tuple(
                sum(w * p[axis] for w, p in zip(weights, (start, out, back, end)))
                for axis in (0, 1)
            )
        )
    return curve


def _handle(vertex: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    handle = vertex.get(name)
    if not vertex.get("isBezier") or not isinstance(handle, Mapping):
        return None
    return handle["x"], handle["y"]


def _to_pixels(points_percent: Outline, size_hw: tuple[int, int]) -> np.ndarray:
    height, width = size_hw
    return np.asarray(points_percent, np.float64) * (width / 100, height / 100)


def _check_number(value: object, path: str) -> None:
    if not is_number(value):
        raise InputError(path, f"{value!r} must be a finite number")
    if abs(value) > MAX_COORDINATE:
        rule = f"must be from -{MAX_COORDINATE} to {MAX_COORDINATE}"
        raise InputError(path, f"{value!r} {rule}")


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
