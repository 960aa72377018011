"""The image encoder: Hiera trunk and feature-pyramid neck."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sam2_model.configs import ModelConfig
from sam2_model.network.hiera import Hiera


class FpnNeck(nn.Module):
    """1x1 convolutions to `hidden_dim`, coarse levels added into chosen finer ones."""

    def __init__(self, config: ModelConfig, trunk_channels: list[int]) -> None:
        super().__init__()
        self.top_down_levels = config.top_down_levels
        # Stored coarsest first, as in the checkpoints; "conv" is part of the key.
        self.convs = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv2d(channels, config.hidden_dim, 1)})
            for channels in reversed(trunk_channels)
        )

    def lateral(self, level: int) -> nn.Conv2d:
        """The 1x1 convolution of a pyramid level, 0 the finest."""
        return self.convs[len(self.convs) - 1 - level]["conv"]

    def forward(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        """Levels (B, C_l, H_l, W_l), finest first -> the same, each of hidden_dim channels."""
        merged: list[torch.Tensor] = [None] * len(levels)
        coarser = None
        for level in reversed(range(len(levels))):
            lateral = self.lateral(level)(levels[level])
            if coarser is not None and level in self.top_down_levels:
                upsampled = F.interpolate(coarser.float(), scale_factor=2.0, mode="nearest")
                lateral = lateral + upsampled.to(lateral.dtype)
            merged[level] = coarser = lateral
        return merged


class ImageEncoder(nn.Module):
    """Frames in, feature pyramid out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = Hiera(config)
        self.neck = FpnNeck(config, self.trunk.channels)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, S, S) -> levels at stride 4, 8, 16, each (B, hidden_dim, S_l, S_l).

        The level at stride 32 only feeds the one above it and is dropped.
        """
        levels = [level.permute(0, 3, 1, 2) for level in self.trunk(images)]
        return self.neck(levels)[:-1]
