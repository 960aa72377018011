"""Where things are, as vectors: sine grids, random Fourier features, rotations.

All grids are computed in float32 whatever the network's dtype, then cast: a
position in bfloat16 would be off by whole cells.
"""

from __future__ import annotations

import math

import torch
from torch import nn


def sine_position_grid(
    channels: int, height: int, width: int, device: torch.device
) -> torch.Tensor:
    """The 2-D sine encoding of a feature map, (channels, height, width) float32.

    The first half of the channels encodes y, the second x, each position
    scaled to (0, 2 pi] (DETR, https://arxiv.org/abs/2005.12872, appendix A.4).
    """
    half = channels // 2
    rows = torch.arange(1, height + 1, dtype=torch.float32, device=device)
    columns = torch.arange(1, width + 1, dtype=torch.float32, device=device)
    rows = rows / (rows[-1] + 1e-6) * 2 * math.pi
    columns = columns / (columns[-1] + 1e-6) * 2 * math.pi
    index = torch.arange(half, dtype=torch.float32, device=device)
    period = 10000 ** (2 * (index // 2) / half)

    def interleaved(values: torch.Tensor) -> torch.Tensor:
        angle = values[:, None] / period
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    y_part = interleaved(rows).t()[:, :, None].expand(half, height, width)
    x_part = interleaved(columns).t()[:, None, :].expand(half, height, width)
    return torch.cat((y_part, x_part), dim=0)


def sine_time_encoding(offsets: torch.Tensor, channels: int) -> torch.Tensor:
    """(N,) relative times -> (N, channels) float32, sines first, then cosines."""
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=offsets.device)
    period = 10000 ** (2 * (index // 2) / half)
    angle = offsets.float()[:, None] / period
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


class RandomFourierPositions(nn.Module):
    """Positions in the unit square as sines and cosines of random projections."""

    def __init__(self, feature_count: int) -> None:
        super().__init__()
        self.register_buffer(
            "positional_encoding_gaussian_matrix", torch.randn(2, feature_count)
        )

    def _apply(self, fn, recurse=True):
        # A cast network keeps these frequencies exact: rounded to bfloat16
        # they would place a point several pixels off.
        exact = self.positional_encoding_gaussian_matrix
        super()._apply(fn, recurse)
        moved = self.positional_encoding_gaussian_matrix
        self.positional_encoding_gaussian_matrix = exact.to(moved.device)
        return self

    def encode(self, points_xy: torch.Tensor) -> torch.Tensor:
        """(..., 2) in [0, 1], x then y -> (..., 2 * feature_count) float32."""
        angle = 2 * points_xy.float() - 1
        angle = 2 * math.pi * (angle @ self.positional_encoding_gaussian_matrix)
        return torch.cat((angle.sin(), angle.cos()), dim=-1)

    def grid(self, height: int, width: int) -> torch.Tensor:
        """Encodings of the cell centres, (2 * feature_count, height, width) float32."""
        device = self.positional_encoding_gaussian_matrix.device
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        return self.encode(points).permute(2, 0, 1)


def axial_rotations(
    channels: int, height: int, width: int, device: torch.device
) -> torch.Tensor:
    """RoPE's rotations of a feature map, (height * width, channels // 2) complex64.

    The first half of the channel pairs turns with x, the second with y
    (axial RoPE, https://arxiv.org/abs/2403.13298).
    """
    quarter = channels // 4
    exponent = torch.arange(0, channels, 4, device=device)[:quarter].float() / channels
    frequency = 1.0 / (10000.0**exponent)
    cell = torch.arange(height * width, dtype=torch.float32, device=device)
    x = cell % width
    y = torch.div(cell, width, rounding_mode="floor")
    angle = torch.cat((torch.outer(x, frequency), torch.outer(y, frequency)), dim=-1)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Turn neighbouring channel pairs of (..., N, C) by (N, C // 2) rotations."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotations).flatten(-2).to(x.dtype)
