"""Prompts as people would give them, sampled from true masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_PEELED_CELL = 4


def sample_points(region: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One random point in each region: (B, H, W) bool -> (B, 2) x, y float32.

    An empty region gives a point anywhere.
    """
    batch, height, width = region.shape
    noise = torch.rand(region.shape, generator=generator) + region
    cell = noise.flatten(1).argmax(dim=1)
    return torch.stack((cell % width, cell // width), dim=1).float()


def central_points(region: torch.Tensor) -> torch.Tensor:
    """A point well inside each region, where people click: (B, H, W) bool -> (B, 2) x, y float32.

    Found on a quarter of the size, where an edge is peeled off until nothing would be left;
    a region too thin for that gives the middle of its fullest cell.
    """
    share = F.avg_pool2d(region[:, None].float(), _PEELED_CELL, ceil_mode=True)
    depth = torch.zeros_like(share)
    inner = (share > 0.99).float()
    while inner.any():
        depth = depth + inner
        inner = -F.max_pool2d(-F.pad(inner, (1, 1, 1, 1)), 3, stride=1)
    cell = (depth + share)[:, 0].flatten(1).argmax(dim=1)
    width = share.shape[-1]
    middle = torch.stack((cell % width, cell // width), dim=1) * _PEELED_CELL + _PEELED_CELL // 2
    limit = torch.tensor([region.shape[2], region.shape[1]]) - 1
    return middle.minimum(limit).float()


def sample_correction(
    true: torch.Tensor, predicted: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A click where the prediction is wrong: positive if missed, negative if too much.

    Args:
        true, predicted: (B, H, W) bool.

    Returns:
        (B, 2) x, y float32 and (B,) int labels. Where the two agree, a positive
        click inside the object.
    """
    wrong = true ^ predicted
    none_wrong = ~wrong.flatten(1).any(dim=1)
    points = sample_points(torch.where(none_wrong[:, None, None], true, wrong), generator)
    rows = torch.arange(len(true))
    labels = true[rows, points[:, 1].long(), points[:, 0].long()].int()
    return points, labels


def boxes_of(masks: torch.Tensor) -> torch.Tensor:
    """(B, H, W) bool -> (B, 4) x_min, y_min, x_max, y_max float32, max inclusive.

    An empty mask gives a box of zeros.
    """
    columns, rows = masks.any(dim=1), masks.any(dim=2)
    x_min, y_min = columns.int().argmax(dim=1), rows.int().argmax(dim=1)
    x_max = columns.shape[1] - 1 - columns.flip(1).int().argmax(dim=1)
    y_max = rows.shape[1] - 1 - rows.flip(1).int().argmax(dim=1)
    boxes = torch.stack((x_min, y_min, x_max, y_max), dim=1).float()
    return boxes * masks.flatten(1).any(dim=1)[:, None]


def sample_boxes(
    masks: torch.Tensor, generator: torch.Generator, *, noise: float = 0.1, bound: float = 20.0
) -> torch.Tensor:
    """Loosely drawn boxes: each side off by up to `noise` of the size, at most `bound`.

    (B, H, W) bool -> (B, 2, 2): the two corners, x and y, inside the image.
    """
    boxes = boxes_of(masks)
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    jitter = 2 * torch.rand(boxes.shape, generator=generator) - 1
    boxes = boxes + jitter * (size * noise).clamp(max=bound)
    limit = torch.tensor([masks.shape[2], masks.shape[1]] * 2) - 1.0
    return boxes.clamp(min=0).minimum(limit).view(-1, 2, 2)
