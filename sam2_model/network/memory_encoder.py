"""Memory encoder: a frame's features and its mask, fused into a compact memory."""

from __future__ import annotations

import torch
from torch import nn

from sam2_model.configs import ModelConfig
from sam2_model.network.layers import LayerNorm2d


class MaskDownsampler(nn.Module):
    """Four stride-2 convolutions: a mask at image size to one at stride 16."""

    def __init__(self, output_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for _ in range(4):
            layers += [
                nn.Conv2d(channels, channels * 4, kernel_size=3, stride=2, padding=1),
                LayerNorm2d(channels * 4),
                nn.GELU(),
            ]
            channels *= 4
        layers.append(nn.Conv2d(channels, output_dim, kernel_size=1))
        self.encoder = nn.Sequential(*layers)

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        """(B, 1, S, S) -> (B, output_dim, S / 16, S / 16)."""
        return self.encoder(masks)


class FuserBlock(nn.Module):
    """A ConvNeXt block (https://arxiv.org/abs/2201.03545)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(1e-6 * torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same shape."""
        hidden = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        hidden = self.gamma * self.pwconv2(self.act(self.pwconv1(hidden)))
        return x + hidden.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """ConvNeXt blocks one after another."""

    def __init__(self, dim: int, layer_count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FuserBlock(dim) for _ in range(layer_count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """What a later frame will remember of this one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.mask_downsampler = MaskDownsampler(dim)
        self.pix_feat_proj = nn.Conv2d(dim, dim, kernel_size=1)
        self.fuser = Fuser(dim, config.memory_fuser_layers)
        if config.memory_dim != dim:
            self.out_proj = nn.Conv2d(dim, config.memory_dim, kernel_size=1)
        else:
            self.out_proj = nn.Identity()

    def forward(self, features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Features (B or 1, C, H, W) and scaled masks (B, 1, S, S) -> (B, memory_dim, H, W)."""
        fused = self.pix_feat_proj(features) + self.mask_downsampler(masks)
        return self.out_proj(self.fuser(fused))
