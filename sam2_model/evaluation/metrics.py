"""The two measures of video object segmentation, as DAVIS defines them.

J is the region's intersection over union; F the F1 of the contour, where a
contour pixel counts as found within a small distance (Perazzi et al., "A
Benchmark Dataset and Evaluation Methodology for Video Object Segmentation",
CVPR 2016, sections 4.1 and 4.2).
"""

from __future__ import annotations

import math

import numpy as np

CONTOUR_TOLERANCE = 0.008
"""How far a contour pixel may be off, as a share of the image's diagonal."""


def region_similarity(predicted: np.ndarray, true: np.ndarray) -> float:
    """J of one mask: (H, W) bool both -> [0, 1]; 1 when both are empty.

    Raises:
        ValueError: the two differ in shape or are not bool.
    """
    _check_pair(predicted, true)
    union = np.count_nonzero(predicted | true)
    return np.count_nonzero(predicted & true) / union if union else 1.0


def contour_accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """F of one mask: (H, W) bool both -> [0, 1]; 1 when neither has a contour.

    Raises:
        ValueError: the two differ in shape or are not bool.
    """
    _check_pair(predicted, true)
    radius = math.ceil(CONTOUR_TOLERANCE * math.hypot(*true.shape))
    window = _around(predicted | true, radius + 1)
    found, wanted = contour(predicted)[window], contour(true)[window]
    found_count, wanted_count = np.count_nonzero(found), np.count_nonzero(wanted)
    if not found_count and not wanted_count:
        return 1.0
    if not found_count or not wanted_count:
        return 0.0
    precision = np.count_nonzero(found & dilate(wanted, radius)) / found_count
    recall = np.count_nonzero(wanted & dilate(found, radius)) / wanted_count
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def contour(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool -> (H, W) bool: pixels unlike one to the right, below, or both.

    Pixels of the last row are compared with their right neighbour alone, those
    of the last column with the one below, as DAVIS's own code does: the
    picture's edge is no contour.
    """
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    edge[:-1, :] |= mask[:-1, :] ^ mask[1:, :]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """(H, W) bool -> (H, W) bool: every pixel within `radius` of a set one."""
    height, width = mask.shape
    out = np.zeros_like(mask)
    counted = np.zeros((height, width + 2 * radius + 1), dtype=np.int32)
    np.cumsum(mask, axis=1, out=counted[:, radius + 1 : radius + 1 + width])
    counted[:, radius + 1 + width :] = counted[:, radius + width, None]
    for shift in range(-radius, radius + 1):
        reach = math.isqrt(radius * radius - shift * shift)
        # The set pixels within `reach` of each column, by a difference of sums.
        right = counted[:, radius + reach + 1 : radius + reach + 1 + width]
        left = counted[:, radius - reach : radius - reach + width]
        near = right > left
        to, source = _shifted(shift, height)
        out[to] |= near[source]
    return out


def _shifted(shift: int, height: int) -> tuple[slice, slice]:
    """Rows to write and rows to read for a shift downwards."""
    if shift >= 0:
        return slice(min(shift, height), height), slice(0, max(0, height - shift))
    return slice(0, max(0, height + shift)), slice(min(-shift, height), height)


def _around(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The part of the image that holds the mask, with a margin."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 1), slice(0, 1)
    return (
        slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
        slice(max(0, columns[0] - margin), columns[-1] + margin + 1),
    )


def _check_pair(predicted: np.ndarray, true: np.ndarray) -> None:
    if predicted.shape != true.shape or predicted.ndim != 2:
        raise ValueError(
            f"predicted mask has shape {predicted.shape}, true mask {true.shape}: both "
            "must be the same (H, W)"
        )
    if predicted.dtype != np.bool_ or true.dtype != np.bool_:
        raise ValueError(
            f"masks have dtypes {predicted.dtype} and {true.dtype}, must be bool"
        )
