"""J and F on masks whose values can be worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sam2_model.evaluation.metrics import (
    contour,
    contour_accuracy,
    dilate,
    region_similarity,
)

masks = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def square(height, width, top, left, side) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_equal_masks_are_perfect():
    mask = square(100, 100, 10, 20, 30)
    assert region_similarity(mask, mask) == contour_accuracy(mask, mask) == 1.0


def test_two_empty_masks_agree():
    empty = np.zeros((5, 7), dtype=bool)
    assert region_similarity(empty, empty) == contour_accuracy(empty, empty) == 1.0


def test_a_missed_object_scores_nothing():
    empty, mask = np.zeros((50, 50), dtype=bool), square(50, 50, 10, 10, 20)
    assert region_similarity(empty, mask) == contour_accuracy(empty, mask) == 0.0
    assert region_similarity(mask, empty) == contour_accuracy(mask, empty) == 0.0


def test_j_is_overlap_over_union():
    # 10 x 10 squares half over each other: 50 / 150.
    assert region_similarity(
        square(40, 40, 0, 0, 10), square(40, 40, 0, 5, 10)
    ) == pytest.approx(1 / 3)


def test_a_shift_within_the_tolerance_leaves_f_at_one():
    # The diagonal is 141, so contours may be off by ceil(1.13) = 2 pixels.
    mask = square(100, 100, 30, 30, 30)
    assert contour_accuracy(np.roll(mask, 2, axis=1), mask) == 1.0
    assert contour_accuracy(np.roll(mask, 3, axis=1), mask) < 1.0


def test_a_whole_picture_has_no_contour():
    full = np.ones((30, 30), dtype=bool)
    assert not contour(full).any()
    assert contour_accuracy(full, full) == 1.0


def test_the_windowed_f_equals_the_whole_pictures():
    random = np.random.default_rng(0)
    for _ in range(20):
        one = square(200, 300, *random.integers(0, 150, 2), random.integers(5, 90))
        other = square(200, 300, *random.integers(0, 150, 2), random.integers(5, 90))
        radius = math.ceil(0.008 * math.hypot(200, 300))
        a, b = contour(one), contour(other)
        precision = (a & dilate(b, radius)).sum() / a.sum()
        recall = (b & dilate(a, radius)).sum() / b.sum()
        expected = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert contour_accuracy(one, other) == pytest.approx(expected)


@settings(deadline=None)
@given(masks, st.integers(0, 15))
def test_dilation_is_all_pixels_within_the_radius(mask, radius):
    y, x = np.indices(mask.shape)
    expected = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        expected |= (y - row) ** 2 + (x - column) ** 2 <= radius * radius
    np.testing.assert_array_equal(dilate(mask, radius), expected)


@settings(deadline=None)
@given(masks)
def test_contours_are_pixels_unlike_their_next_neighbours(mask):
    height, width = mask.shape
    expected = np.zeros_like(mask)
    for row in range(height):
        for column in range(width):
            for down, right in ((0, 1), (1, 0), (1, 1)):
                r, c = row + down, column + right
                if r < height and c < width and mask[r, c] != mask[row, column]:
                    expected[row, column] = True
    np.testing.assert_array_equal(contour(mask), expected)


@pytest.mark.parametrize("measure", [region_similarity, contour_accuracy])
def test_masks_of_other_shapes_or_types_are_refused(measure):
    mask = np.zeros((4, 5), dtype=bool)
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(5, 4\)"):
        measure(mask, mask.T)
    with pytest.raises(ValueError, match="uint8"):
        measure(mask.astype(np.uint8), mask)
