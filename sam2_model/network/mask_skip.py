"""A given mask, beside the finest image features: how an outline survives a small network."""

from __future__ import annotations

import torch
from torch import nn


class MaskSkip(nn.Module):
    """Adds what a mask and the image say together to the finest features.

    The official mask decoder sees a given mask at a sixteenth of the image's
    size only, in as many channels as it takes to describe each cell's outline;
    a small network would spend its training on learning to copy it.
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels + 1, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, channels, 3, padding=1),
        )
        # At first it adds nothing: weights trained without it go on as they were.
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, finest: torch.Tensor, mask_logits: torch.Tensor) -> torch.Tensor:
        """(1 or B, C, H, W) features and (B, 1, H, W) logits -> (B, C, H, W)."""
        mask = torch.tanh(mask_logits / 4).to(finest.dtype)
        finest = finest.expand(len(mask), -1, -1, -1)
        return finest + self.layers(torch.cat((finest, mask), dim=1))
