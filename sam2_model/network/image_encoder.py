"""The image encoder: a trunk (Hiera, or a convolutional one) and a feature-pyramid neck."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sam2_model.configs import ModelConfig
from sam2_model.network.efficientnet_lite import EfficientNetLite0
from sam2_model.network.hiera import Hiera


class FpnNeck(nn.Module):
    """1x1 convolutions to `hidden_dim`, the coarsest level added into the next."""

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

    def merge(self, stride16: torch.Tensor, stride32: torch.Tensor) -> torch.Tensor:
        """The stride-16 features (B, H, W, hidden_dim), with the coarser level added."""
        merged = convolve_1x1(self.lateral(2), stride16)
        if 2 in self.top_down_levels:
            merged = merged + _double(convolve_1x1(self.lateral(3), stride32))
        return merged

    def project_fine(
        self, level: int, features: torch.Tensor, conv: nn.Conv2d
    ) -> torch.Tensor:
        """A fine level's features (B, H, W, C_l) through the neck and one more 1x1 conv.

        Two linear maps with nothing added between are one map, which never
        makes the wide features at full resolution.
        """
        lateral = self.lateral(level)
        weight = conv.weight.flatten(1) @ lateral.weight.flatten(1)
        bias = conv.weight.flatten(1) @ lateral.bias + conv.bias
        return F.linear(features, weight, bias)


def _double(x: torch.Tensor) -> torch.Tensor:
    """(B, H, W, C) -> (B, 2H, 2W, C), each cell repeated."""
    return x.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


def convolve_1x1(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A 1x1 convolution of channels-last (B, H, W, C) -> (B, H, W, C').

    The trunk's levels lie channels last; a matrix product on them as they are
    takes a tenth of the time of a convolution that reorders them first.
    """
    return F.linear(x, conv.weight.flatten(1), conv.bias)


class ImageEncoder(nn.Module):
    """Frames in, feature pyramid out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = Hiera(config) if config.trunk == "hiera" else EfficientNetLite0()
        self.neck = FpnNeck(config, self.trunk.channels)

    def forward(
        self, images: torch.Tensor, stride4_conv: nn.Conv2d, stride8_conv: nn.Conv2d
    ) -> list[torch.Tensor]:
        """Encode frames.

        Args:
            images: (B, 3, S, S), normalised.
            stride4_conv, stride8_conv: the mask decoder's 1x1 convolutions for
                the two finest levels. They are applied here, once a frame.

        Returns:
            Stride 4 (B, C / 8, S / 4, S / 4), stride 8 (B, C / 4, S / 8, S / 8),
            stride 16 (B, C, S / 16, S / 16). The level at stride 32 only feeds
            the one above it.
        """
        levels = self.trunk(images)
        stride4 = self.neck.project_fine(0, levels[0], stride4_conv)
        stride8 = self.neck.project_fine(1, levels[1], stride8_conv)
        stride16 = self.neck.merge(levels[2], levels[3])
        return [x.permute(0, 3, 1, 2).contiguous() for x in (stride4, stride8, stride16)]
