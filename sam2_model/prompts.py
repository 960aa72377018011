"""Checked prompts: what people hand over, as tensors of known shape."""

from __future__ import annotations

import numpy as np
import torch

POINT_LABELS = {-1, 0, 1, 2, 3}
"""1 inside the object, 0 outside, -1 ignored, 2 and 3 a box's first and last corner."""
PREVIOUS_LOGIT_BOUND = 32.0
"""Logits of an earlier prediction are clamped to this before they are fed back."""


def as_cpu_tensor(values, dtype: torch.dtype | None = None) -> torch.Tensor:
    """An array, list or tensor of any device as a tensor in main memory."""
    if isinstance(values, torch.Tensor):
        return values.detach().to("cpu", dtype)
    # A copy: PIL and read-only arrays cannot be shared.
    return torch.as_tensor(np.array(values), dtype=dtype)


def points_and_labels(points, labels) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and labels of B objects: (B, P, 2) float32 and (B, P) int32.

    Args:
        points: (P, 2) or (B, P, 2), x then y.
        labels: (P,) or (B, P), of `POINT_LABELS`.

    Raises:
        ValueError: another shape, a coordinate that is not finite, an unknown label.
    """
    coords = as_cpu_tensor(points, torch.float32)
    point_labels = as_cpu_tensor(labels)
    coords = coords[None] if coords.dim() == 2 else coords
    point_labels = point_labels[None] if point_labels.dim() == 1 else point_labels
    if coords.dim() != 3 or coords.shape[2] != 2:
        raise ValueError(
            f"points have shape {tuple(coords.shape)}, must be (P, 2), x then y, "
            "or (B, P, 2) for B objects"
        )
    if point_labels.shape != coords.shape[:2]:
        raise ValueError(
            f"labels have shape {tuple(point_labels.shape)}, must be one a point: "
            f"{tuple(coords.shape[:2])}"
        )
    if not torch.isfinite(coords).all():
        raise ValueError(f"points {coords.tolist()} must be finite")
    unknown = sorted(set(point_labels.flatten().tolist()) - POINT_LABELS)
    if unknown:
        raise ValueError(
            f"labels {unknown} are not known: 1 inside, 0 outside, 2 and 3 box corners, "
            "-1 ignored"
        )
    return coords, point_labels.to(torch.int32)


def box_corners(boxes) -> torch.Tensor:
    """x_min, y_min, x_max, y_max of B boxes, any shape of 4 B numbers -> (B, 2, 2) float32.

    Raises:
        ValueError: not four numbers a box, one that is not finite, or a
            maximum under its minimum.
    """
    corners = as_cpu_tensor(boxes, torch.float32)
    if corners.numel() == 0 or corners.numel() % 4:
        raise ValueError(
            f"box has {corners.numel()} numbers, must have 4: x_min, y_min, x_max, y_max"
        )
    corners = corners.reshape(-1, 2, 2)
    if not torch.isfinite(corners).all():
        raise ValueError(f"box {corners.flatten().tolist()} must be finite")
    reversed_boxes = corners[(corners[:, 1] < corners[:, 0]).any(dim=1)]
    if len(reversed_boxes):
        raise ValueError(
            f"box {reversed_boxes[0].flatten().tolist()} must have x_min <= x_max "
            "and y_min <= y_max"
        )
    return corners


def check_inside(points: torch.Tensor, labels: torch.Tensor, size_wh: torch.Tensor) -> None:
    """Clicks, (B, P, 2) with labels (B, P) of 0 or 1, must lie in the picture.

    A box may touch or cross the border: people draw them so. A click on
    nothing is a mistake of the caller's units.

    Raises:
        ValueError: a click lies outside.
    """
    clicks = points[(labels == 0) | (labels == 1)]
    outside = (clicks < 0).any(dim=1) | (clicks > size_wh).any(dim=1)
    if outside.any():
        raise ValueError(
            f"points {clicks[outside].tolist()} must be inside the frame: "
            f"x in [0, {size_wh[0]:g}], y in [0, {size_wh[1]:g}]"
        )
