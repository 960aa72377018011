"""Mask logits after the network: small holes and specks, overlaps, video size."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

_REFUSED_CELLS = 6.0
"""The most around a negative click that is surely not the object, in cells of the
low-resolution mask, of which the embedded model has 88 a side."""

HOLE_FILL_LOGIT = 0.1
"""What a filled hole's pixels become: just foreground."""


def small_components(mask: torch.Tensor, max_area: int) -> torch.Tensor:
    """Pixels of connected components of at most `max_area` pixels, 8-connected.

    Args:
        mask: (..., H, W) bool.
        max_area: pixels; a component this large still counts.

    Returns:
        (..., H, W) bool, a part of `mask`. Runs on any device without kernels
        of our own: a component of n pixels is at most n steps long, so n
        rounds in which each pixel takes the largest label around it give every
        small component one label; those of large ones meet another label at
        their edge.
    """
    height, width = mask.shape[-2:]
    planes = mask.reshape(-1, 1, height, width)
    own = torch.arange(1, height * width + 1, dtype=torch.float64, device=mask.device)
    # float32 counts exactly up to 2**24 pixels and is the faster one to pool.
    own = own.to(torch.float32 if height * width < 2**24 else torch.float64)
    own = own.view(1, 1, height, width)
    inside = planes.to(own.dtype)
    labels = own * inside
    for _ in range(max_area):
        spread = F.max_pool2d(labels, 3, stride=1, padding=1) * inside
        if torch.equal(spread, labels):
            break
        labels = spread
    # A label with a different one beside it belongs to a component that is
    # still being labelled, hence too large.
    around = F.max_pool2d(labels, 3, stride=1, padding=1)
    outside = labels.new_tensor(2.0 * height * width)
    least = -F.max_pool2d(-torch.where(planes, labels, outside), 3, stride=1, padding=1)
    meets_other = planes & ((around != labels) | (least != labels))
    index = labels.flatten(1).long()
    area = torch.zeros(len(index), height * width + 1, device=mask.device)
    area.scatter_add_(1, index, torch.ones_like(index, dtype=area.dtype))
    open_labels = torch.zeros_like(area)
    open_labels.scatter_add_(1, index, meets_other.flatten(1).to(area.dtype))
    is_small = (area <= max_area) & (open_labels == 0)
    small = is_small.gather(1, index).view_as(planes) & planes
    return small.view_as(mask)


def fill_holes(
    logits: torch.Tensor,
    max_area: int,
    *,
    threshold: float = 0.0,
    value: float = HOLE_FILL_LOGIT,
) -> torch.Tensor:
    """Background components of at most `max_area` pixels become foreground (`value`).

    (..., H, W) logits -> the same shape. `max_area` 0 changes nothing.
    """
    if max_area <= 0:
        return logits
    return torch.where(small_components(logits <= threshold, max_area), value, logits)


def remove_specks(
    logits: torch.Tensor, max_area: int, *, threshold: float = 0.0, value: float = -10.0
) -> torch.Tensor:
    """Foreground components of at most `max_area` pixels become background (`value`)."""
    if max_area <= 0:
        return logits
    return torch.where(small_components(logits > threshold, max_area), value, logits)


def without_ghosts(
    logits: torch.Tensor, previous_logits: torch.Tensor, *, reach: int = 2
) -> torch.Tensor:
    """Only what hangs together with where the object was on the frame before.

    A piece of the mask that lies nowhere within `reach` pixels of the previous
    mask falls to -10 at most. Where no piece does, or the object was not there
    before, all stay: it may have jumped, or come back.

    Args:
        logits, previous_logits: (B, 1, h, w).

    Returns:
        (B, 1, h, w).
    """
    mask = logits > 0
    before = (previous_logits > 0).float()
    near = F.max_pool2d(before, 2 * reach + 1, stride=1, padding=reach) > 0
    return _only_pieces_at(logits, mask & near)


def without_unclicked_pieces(
    logits: torch.Tensor, points_xy: torch.Tensor, point_labels: torch.Tensor
) -> torch.Tensor:
    """Once a click is corrected, only the pieces of the mask that were clicked.

    A piece without a click inside falls to -10 at most. All stay where there is
    one click alone, a box, or no piece that was clicked.

    Args:
        logits: (B, M, h, w).
        points_xy: (B, P, 2) in cells of `logits`. point_labels: (B, P), as
            `SAM2Network.predict_masks` has them.
    """
    height, width = logits.shape[-2:]
    is_click = (point_labels == 0) | (point_labels == 1)
    is_box = (point_labels == 2) | (point_labels == 3)
    counts = (is_click.sum(dim=1) > 1) & ~is_box.any(dim=1)
    inside = torch.zeros(len(logits), 1, height, width, dtype=torch.bool, device=logits.device)
    for row, column in ((point_labels == 1) & counts[:, None]).nonzero().tolist():
        x, y = points_xy[row, column].long().tolist()
        inside[row, 0, min(max(y, 0), height - 1), min(max(x, 0), width - 1)] = True
    return _only_pieces_at(logits, (logits > 0) & inside)


def without_refused_ground(
    logits: torch.Tensor,
    previous_logits: torch.Tensor | None,
    points_xy: torch.Tensor,
    point_labels: torch.Tensor,
) -> torch.Tensor:
    """A click that says "not this" takes away and never adds.

    The ground around each negative click falls to -10 at most: a disc of a third of
    the way to the nearest positive click, `_REFUSED_CELLS` at most. Where a negative
    click is the last one, so does all that the mask before it did not have.

    Args:
        logits: (B, M, h, w). previous_logits: (B, 1, h, w) of the mask that the last
            click corrects, or None.
        points_xy: (B, P, 2) in cells of `logits`. point_labels: (B, P), as
            `SAM2Network.predict_masks` has them.
    """
    refused = torch.zeros_like(logits[:, :1], dtype=torch.bool)
    rows = torch.arange(logits.shape[-2], device=logits.device)[:, None] + 0.5
    columns = torch.arange(logits.shape[-1], device=logits.device) + 0.5
    for index, (places, labels) in enumerate(zip(points_xy.float(), point_labels)):
        inside = places[labels == 1]
        for place in places[labels == 0]:
            gap = (inside - place).norm(dim=1).min() if len(inside) else float("inf")
            radius = min(float(gap) / 3, _REFUSED_CELLS)
            near = (columns - place[0]).square() + (rows - place[1]).square() <= radius**2
            refused[index, 0] |= near
        clicks = labels[(labels == 0) | (labels == 1)]
        if previous_logits is not None and len(clicks) and clicks[-1] == 0:
            refused[index, 0] |= previous_logits[index, 0] <= 0
    return torch.where(refused, logits.clamp(max=-10.0), logits)


def _only_pieces_at(logits: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Pieces of each mask without a seed fall to -10 at most; all stay where it has none.

    (B, M, h, w) logits and bool seeds inside their masks -> the logits' shape.
    """
    mask = logits > 0
    inside, kept = mask.float(), seeds.float()
    # Grow along the mask until all that hangs together is reached.
    while True:
        grown = F.max_pool2d(kept, 3, stride=1, padding=1) * inside
        if torch.equal(grown, kept):
            break
        kept = grown
    has_seed = kept.flatten(2).any(dim=2)[..., None, None]
    return torch.where(mask & (kept == 0) & has_seed, logits.clamp(max=-10.0), logits)


def without_overlaps(logits: torch.Tensor) -> torch.Tensor:
    """Each pixel to the object that claims it most: (B, 1, H, W) -> the same shape.

    The others' logits there fall to -10 at most.
    """
    if len(logits) < 2:
        return logits
    winner = logits.argmax(dim=0, keepdim=True)
    own = torch.arange(len(logits), device=logits.device)[:, None, None, None]
    return torch.where(winner == own, logits, logits.clamp(max=-10.0))


def resize_logits(logits: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    """(B, M, h, w) -> (B, M, H, W), bilinear."""
    if logits.shape[-2:] == tuple(size_hw):
        return logits
    return F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=False)


def masks_at_size(logits: torch.Tensor, size_hw: tuple[int, int]) -> np.ndarray:
    """`resize_logits(...) > 0` for (B, 1, h, w), computed only where a mask can be.

    A pixel can be positive only next to a positive low-resolution logit, so
    the rows and columns around those are enough.

    Returns:
        (B, H, W) bool.
    """
    logits = logits[:, 0].float().cpu()
    height, width = size_hw
    masks = np.zeros((len(logits), height, width), dtype=bool)
    for plane, mask in zip(logits, masks):
        positive = plane > 0
        if not positive.any():
            continue
        rows = _samples_near(positive.any(dim=1), height)
        columns = _samples_near(positive.any(dim=0), width)
        # The same sums in the same order as the full bilinear resize; only
        # where they cancel to the last bit can its fused additions differ.
        (top, bottom, v), (left, right, u) = rows[1:], columns[1:]
        v = v[:, None]
        upper = (1 - u) * plane[top][:, left] + u * plane[top][:, right]
        lower = (1 - u) * plane[bottom][:, left] + u * plane[bottom][:, right]
        part = ((1 - v) * upper + v * lower) > 0
        mask[rows[0], columns[0]] = part.numpy()
    return masks


def _samples_near(positive: torch.Tensor, size: int):
    """The output positions that can see a positive cell along one axis.

    Returns:
        A slice of output positions and, for each of them, the two cells it
        lies between and the second one's weight.
    """
    cells = len(positive)
    place = (torch.arange(size, dtype=torch.float32) + 0.5) * (cells / size) - 0.5
    place = place.clamp(min=0)
    first = place.floor().long().clamp(max=cells - 1)
    second = (first + 1).clamp(max=cells - 1)
    near = (positive[first] | positive[second]).nonzero()[:, 0]
    chosen = slice(int(near[0]), int(near[-1]) + 1) if len(near) else slice(0, 0)
    weight = place - first
    return chosen, first[chosen], second[chosen], weight[chosen]
