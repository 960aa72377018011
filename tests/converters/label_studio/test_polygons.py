import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from converters.label_studio.polygons import (
    mask_outline,
    outline_mask,
    read_points,
    read_vertices,
    to_percent,
    vertices_of,
)
from tests.converters.cases import ADVERSARIAL_MASKS, blob


def through_percent(mask, tolerance=0.0):
    points = to_percent(mask_outline(mask, tolerance_pixels=tolerance), mask.shape)
    if not points:
        return np.zeros(mask.shape, bool)
    value = {"points": [list(p) for p in points], "vertices": vertices_of(points)}
    from_points = outline_mask(read_points(value, mask.shape), mask.shape)
    from_vertices = outline_mask(read_vertices(value, mask.shape), mask.shape)
    np.testing.assert_array_equal(from_points, from_vertices)
    return from_points


@pytest.mark.parametrize("mask", ADVERSARIAL_MASKS.values(), ids=ADVERSARIAL_MASKS.keys())
def test_one_exact_outline_holds_all_parts_and_holes(mask):
    np.testing.assert_array_equal(through_percent(mask), mask)


@settings(max_examples=300, deadline=None)
@given(npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_any_mask_survives_its_exact_outline(mask):
    np.testing.assert_array_equal(through_percent(mask), mask)


@pytest.mark.parametrize(
    ("rows", "corners"),
    [
        # Clockwise from the top left, straight runs without points between.
        (["...", ".##", ".##"], [(1, 1), (3, 1), (3, 3), (1, 3)]),
        (["."], []),
        (["#"], [(0, 0), (1, 0), (1, 1), (0, 1)]),
    ],
)
def test_corners(rows, corners):
    mask = np.array([[c == "#" for c in row] for row in rows])
    assert mask_outline(mask) == corners


def test_smoothing_leaves_few_points_and_nearly_the_same_mask():
    mask = blob(360, 640, size=(0.4, 0.4))
    exact, smooth = mask_outline(mask), mask_outline(mask, tolerance_pixels=1.0)
    assert len(smooth) < len(exact) / 4
    back = outline_mask(smooth, mask.shape)
    assert (back & mask).sum() / (back | mask).sum() > 0.98


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        # A pixel is in when its centre is.
        ([(0, 0), (2.4, 0), (2.4, 1), (0, 1)], ["##.."]),
        ([(0, 0), (2.6, 0), (2.6, 1), (0, 1)], ["###."]),
        # The other way round fills the same.
        ([(0, 1), (2.6, 1), (2.6, 0), (0, 0)], ["###."]),
        # Over the frame's edge.
        ([(-9, -9), (2, -9), (2, 9), (-9, 9)], ["##.."]),
        ([(9, 0), (12, 0), (12, 1)], ["...."]),
        # Gone round twice: in, by the nonzero rule of the editor's canvas.
        ([(0, 0), (2, 0), (2, 1), (0, 1)] * 2, ["##.."]),
    ],
)
def test_filling(points, expected):
    mask = outline_mask(points, (1, 4))
    assert ["".join(".#"[pixel] for pixel in row) for row in mask.astype(int)] == expected


def test_curves_of_a_vector_are_followed():
    # Four curves that draw a circle, as drawing programs do.
    k, r = 4 / 3 * math.tan(math.pi / 8), 40
    around = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    vertices = [
        {
            "id": str(n), "isBezier": True, "x": 50 + r * x, "y": 50 + r * y,
            "controlPoint1": {"x": 50 + r * (x + k * y), "y": 50 + r * (y - k * x)},
            "controlPoint2": {"x": 50 + r * (x - k * y), "y": 50 + r * (y + k * x)},
        }
        for n, (x, y) in enumerate(around)
    ]  # fmt: skip
    mask = outline_mask(read_vertices({"vertices": vertices}, (200, 200)), (200, 200))
    assert mask.sum() == pytest.approx(math.pi * 80**2, rel=0.01)
    straight = [{**vertex, "isBezier": False} for vertex in vertices]
    mask = outline_mask(read_vertices({"vertices": straight}, (200, 200)), (200, 200))
    assert mask.sum() == pytest.approx(2 * 80**2, rel=0.02)


GOOD = [[1, 1], [2, 1], [2, 2]]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (None, "points: None must be a list of three"),
        (GOOD[:2], "points: .* must be a list of three"),
        ([*GOOD, [1]], r"points\[3\]: \[1\] must be \[x, y\]"),
        ([*GOOD, 7], r"points\[3\]: 7 must be \[x, y\]"),
        ([*GOOD, [1, float("nan")]], r"points\[3\]\[1\]: nan must be a finite number"),
        ([*GOOD, [True, 1]], r"points\[3\]\[0\]: True must be a finite"),
        ([*GOOD, ["1", 1]], r"points\[3\]\[0\]: '1' must be a finite"),
        ([*GOOD, [1e300, 1]], r"points\[3\]\[0\]: 1e\+300 must be from -10000 to 10000"),
    ],
)
def test_malformed_points_are_named(points, message):
    with pytest.raises(ValueError, match=message):
        read_points({"points": points}, (10, 10))


@pytest.mark.parametrize(
    ("vertex", "message"),
    [
        (5, r"vertices\[2\]: 5 must be an object"),
        ({"x": 1}, r"vertices\[2\]\.y: None must be a finite"),
        ({"x": float("inf"), "y": 1}, r"vertices\[2\]\.x: inf must be a finite"),
        (
            {"x": 1, "y": 1, "isBezier": True, "controlPoint1": {"x": 1, "y": None}},
            r"vertices\[2\]\.controlPoint1\.y: None",
        ),
    ],
)
def test_malformed_vertices_are_named(vertex, message):
    vertices = [{"x": 1, "y": 1}, {"x": 2, "y": 1}, vertex]
    with pytest.raises(ValueError, match=message):
        read_vertices({"vertices": vertices}, (10, 10))
    with pytest.raises(ValueError, match="vertices: .* three or more"):
        read_vertices({"vertices": vertices[:2]}, (10, 10))


@pytest.mark.parametrize("tolerance", [-1, float("nan")])
def test_a_bad_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance_pixels"):
        mask_outline(np.ones((2, 2), bool), tolerance_pixels=tolerance)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-10_000, 10_000)] * 2), min_size=3, max_size=8))
def test_any_polygon_can_be_filled(points):
    assert outline_mask(points, (13, 17)).shape == (13, 17)
