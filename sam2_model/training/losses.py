"""SAM 2's losses: focal and dice on masks, IoU, object presence.

SAM 2 paper (https://arxiv.org/abs/2408.00714), appendix D.2.2: weights 20, 1, 1, 1;
of several candidate masks only the best is supervised, every IoU guess is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class LossWeights:
    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    presence: float = 1.0
    absent: float = 1.0
    """How much more an absent object counts for presence: there are few in a clip."""
    cross_entropy: float = 0.0
    """Plain cross-entropy beside focal: it teaches a network from scratch sooner."""
    matching: float = 0.0
    """Of `matching_loss`, for a network with `match_memories`."""


def focal_loss(logits: torch.Tensor, targets: torch.Tensor, *, alpha: float = 0.25) -> torch.Tensor:
    """Per mask sigmoid focal loss, gamma 2: (B, M, H, W) both -> (B, M)."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    miss = (logits.sigmoid() - targets).abs()
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    return (balance * cross_entropy * miss.square()).mean(dim=(-2, -1))


def dice_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Per mask dice loss with +1 smoothing: (B, M, H, W) both -> (B, M)."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * targets).sum(dim=(-2, -1))
    total = probability.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1))
    return 1 - (overlap + 1) / (total + 1)


def mask_iou(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """IoU of the thresholded masks: (B, M, H, W) both -> (B, M); 1 when both are empty."""
    predicted, true = logits > 0, targets > 0.5
    union = (predicted | true).sum(dim=(-2, -1))
    overlap = (predicted & true).sum(dim=(-2, -1))
    return torch.where(union > 0, overlap / union.clamp(min=1), 1.0)


def matching_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of cells, object and ground alike in weight however small the object is.

    (B, N) logits, (B, N) shares of the object in [0, 1] -> (B,).
    """
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    inside = targets / targets.sum(dim=1, keepdim=True).clamp(min=1)
    outside = (1 - targets) / (1 - targets).sum(dim=1, keepdim=True).clamp(min=1)
    return (each * (inside + outside)).sum(dim=1) / 2


def prediction_loss(
    logits: torch.Tensor,
    ious: torch.Tensor,
    score_logits: torch.Tensor,
    targets: torch.Tensor,
    weights: LossWeights = LossWeights(),
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of one frame's predictions.

    Args:
        logits: (B, M, h, w) candidates, before absent objects are blanked.
        ious: (B, M) their expected IoUs. score_logits: (B, 1).
        targets: (B, 1, H, W) float 0 or 1. The logits are judged at their own size,
            by what share of each of their cells is the object's: resizing them to the
            frame would cost more time than the whole decoder.

    Returns:
        The mean loss (scalar) and the IoU of the supervised candidate, (B,).
        Objects that are not in the frame count for presence only.
    """
    present = targets[:, 0].flatten(1).any(dim=1).float()
    logits = logits.float()
    targets = F.adaptive_avg_pool2d(targets, logits.shape[-2:]).expand_as(logits)
    mask_loss = weights.focal * focal_loss(logits, targets) if weights.focal else 0.0
    mask_loss = mask_loss + weights.dice * dice_loss(logits, targets)
    if weights.cross_entropy:
        entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        mask_loss = mask_loss + weights.cross_entropy * entropy.mean(dim=(-2, -1))
    best = mask_loss.detach().argmin(dim=1)
    rows = torch.arange(len(best), device=best.device)
    with torch.no_grad():
        true_iou = mask_iou(logits, targets)
    iou_loss = (ious.float() - true_iou).abs().mean(dim=1)
    presence = F.binary_cross_entropy_with_logits(
        score_logits.float()[:, 0], present, reduction="none"
    )
    per_object = present * (mask_loss[rows, best] + weights.iou * iou_loss)
    presence = presence * torch.where(present > 0, 1.0, weights.absent)
    return (per_object + weights.presence * presence).mean(), true_iou[rows, best]
