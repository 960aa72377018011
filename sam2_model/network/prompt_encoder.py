"""Prompt encoder: clicks, box corners and masks as embeddings."""

from __future__ import annotations

import torch
from torch import nn

from sam2_model.configs import ModelConfig
from sam2_model.network.layers import LayerNorm2d
from sam2_model.network.positions import RandomFourierPositions

PADDING_LABEL = -1
"""Point label of "no point here"; 0 background, 1 foreground, 2 and 3 box corners."""


class PromptEncoder(nn.Module):
    """Sparse embeddings of points, dense embeddings of masks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.image_size = config.image_size
        self.feature_size = config.feature_size
        self.mask_input_size = config.low_res_mask_size
        self.draws_prompts = config.draw_prompts
        self.pe_layer = RandomFourierPositions(dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, kernel_size=2, stride=2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, kernel_size=2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    @property
    def dtype(self) -> torch.dtype:
        return self.no_mask_embed.weight.dtype

    def dense_positions(self) -> torch.Tensor:
        """Encoded cell centres of the feature map, (1, C, H, W)."""
        size = self.feature_size
        return self.pe_layer.grid(size, size)[None].to(self.dtype)

    def embed_points(self, points_xy: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(B, P, 2) pixels of the model's image and (B, P) labels -> (B, P + 1, C).

        One padding point is added at the end, as in training.
        """
        points = nn.functional.pad(points_xy.float() + 0.5, (0, 0, 0, 1))
        labels = nn.functional.pad(labels, (0, 1), value=PADDING_LABEL)
        encoded = self.pe_layer.encode(points / self.image_size).to(self.dtype)
        table = torch.cat(
            [self.not_a_point_embed.weight]
            + [embedding.weight for embedding in self.point_embeddings]
        )
        is_point = (labels != PADDING_LABEL)[..., None]
        return encoded * is_point + table[labels.long() + 1]

    def dense_prompt(
        self,
        points_xy: torch.Tensor,
        labels: torch.Tensor,
        mask_logits: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """What is told as a mask: `mask_logits`, with points and boxes drawn into it
        where the model wants that (`ModelConfig.draw_prompts`); (B, 1, S / 4, S / 4)."""
        if not self.draws_prompts or not bool((labels != PADDING_LABEL).any()):
            return mask_logits
        return draw_prompts(
            points_xy / self.image_size, labels, mask_logits, self.mask_input_size
        )

    def embed_masks(self, mask_logits: torch.Tensor | None, batch: int) -> torch.Tensor:
        """(B, 1, S / 4, S / 4) logits, or None for "no mask" -> (B, C, S / 16, S / 16)."""
        if mask_logits is not None:
            return self.mask_downscaling(mask_logits.to(self.dtype))
        size = self.feature_size
        return self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(batch, -1, size, size)


DRAWN_LOGIT = 10.0
"""What drawn prompts say in the mask prompt: plus inside, minus outside, 0 unknown."""
DRAWN_CLICK_RADIUS = 1 / 24
"""A click's disc, as a share of the image's side."""


def draw_prompts(
    points: torch.Tensor, labels: torch.Tensor, mask_logits: torch.Tensor | None, size: int
) -> torch.Tensor:
    """Clicks and boxes as a mask prompt.

    Args:
        points: (B, P, 2) x and y in [0, 1]. labels: (B, P): 1, 0, 2, 3, -1.
        mask_logits: (B, 1, size, size) of an earlier prediction, drawn over by
            clicks; a box then adds nothing to it.

    Returns:
        (B, 1, size, size) logits.
    """
    place = (torch.arange(size, device=points.device) + 0.5) / size
    x, y = place.view(1, 1, 1, -1), place.view(1, 1, -1, 1)
    if mask_logits is None:
        top_left = (points * (labels == 2)[..., None]).sum(dim=1)[:, :, None, None]
        bottom_right = (points * (labels == 3)[..., None]).sum(dim=1)[:, :, None, None]
        inside = (
            (x >= top_left[:, :1]) & (x <= bottom_right[:, :1])
            & (y >= top_left[:, 1:]) & (y <= bottom_right[:, 1:])
        )
        has_box = (labels == 2).any(dim=1)[:, None, None, None]
        drawn = torch.where(inside, DRAWN_LOGIT, -DRAWN_LOGIT) * has_box
    else:
        drawn = mask_logits.float()
    for point, label in zip(points.unbind(1), labels.unbind(1)):
        dx, dy = x - point[:, 0, None, None, None], y - point[:, 1, None, None, None]
        near = dx**2 + dy**2 <= DRAWN_CLICK_RADIUS**2
        label = label[:, None, None, None]
        drawn = torch.where(near & (label == 1), DRAWN_LOGIT, drawn)
        drawn = torch.where(near & (label == 0), -DRAWN_LOGIT, drawn)
    return drawn
