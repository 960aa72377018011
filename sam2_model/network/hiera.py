"""Hiera: the hierarchical vision transformer that reads each frame.

Hiera, https://arxiv.org/abs/2306.00989, with the windowed position embedding
of https://arxiv.org/abs/2311.05613, as SAM 2 uses it. Channels-last inside:
(B, H, W, C).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sam2_model.configs import ModelConfig
from sam2_model.network.blocked_attention import attend
from sam2_model.network.layers import MLP


_STRIP_VALUES = 2**19
"""Values of a block's input to work on at once on a CPU: intermediates are four times that."""


class PatchEmbed(nn.Module):
    """Overlapping 7x7 patches, one every 4 pixels."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=7, stride=4, padding=3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, H / 4, W / 4, C)."""
        return self.proj(images).permute(0, 2, 3, 1)


def partition_windows(x: torch.Tensor, size: int) -> torch.Tensor:
    """(B, H, W, C) -> (B * windows, size, size, C), zero-padded right and below."""
    batch, height, width, channels = x.shape
    pad_bottom, pad_right = -height % size, -width % size
    if pad_bottom or pad_right:
        x = F.pad(x, (0, 0, 0, pad_right, 0, pad_bottom))
    rows, columns = x.shape[1] // size, x.shape[2] // size
    x = x.view(batch, rows, size, columns, size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size, size, channels)


def join_windows(windows: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B * windows, size, size, C) -> (B, height, width, C), the padding cut off."""
    size, channels = windows.shape[1], windows.shape[3]
    rows, columns = -(-height // size), -(-width // size)
    x = windows.view(-1, rows, columns, size, size, channels)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, rows * size, columns * size, channels)
    return x[:, :height, :width]


def max_pool_2x2(x: torch.Tensor) -> torch.Tensor:
    """(B, H, W, C) -> (B, H // 2, W // 2, C)."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class MultiScaleAttention(nn.Module):
    """Self-attention whose queries may be pooled 2x2, which halves the output's size."""

    def __init__(self, dim: int, dim_out: int, num_heads: int, pool_queries: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.pool_queries = pool_queries
        self.qkv = nn.Linear(dim, dim_out * 3)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, dim) -> (B, H', W', dim_out)."""
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        query, key, value = qkv.unbind(2)
        if self.pool_queries:
            query = max_pool_2x2(query.reshape(batch, height, width, -1))
            height, width = query.shape[1:3]
            query = query.reshape(batch, height * width, self.num_heads, -1)
        attended = attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return self.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))


class MultiScaleBlock(nn.Module):
    """One transformer block, over windows (window_size > 0) or the whole image."""

    def __init__(
        self, dim: int, dim_out: int, num_heads: int, *, pool: bool, window_size: int
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.pool = pool
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MultiScaleAttention(dim, dim_out, num_heads, pool)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = MLP(dim_out, 4 * dim_out, dim_out, layer_count=2, activation=nn.GELU)
        if dim != dim_out:
            self.proj = nn.Linear(dim, dim_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, dim) -> (B, H', W', dim_out), halved in size when it pools."""
        rows = self._strip_rows(x)
        if not rows:
            return self._transform(x)
        return torch.cat([self._transform(strip) for strip in x.split(rows, dim=1)], dim=1)

    def _strip_rows(self, x: torch.Tensor) -> int:
        """How many rows to take at a time; 0: all of them.

        Windows do not see each other, so a strip of whole windows can go
        through all of the block before the next one starts. On a CPU the wide
        intermediate values then stay in cache: a third less time where maps
        are large.
        """
        size, (height, width, channels) = self.window_size, x.shape[1:]
        if not size or height % size or torch.is_grad_enabled() or x.device.type != "cpu":
            return 0
        rows = max(1, _STRIP_VALUES // (size * width * channels)) * size
        return rows if rows < height else 0

    def _transform(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = self.norm1(x)
        if hasattr(self, "proj"):
            shortcut = self.proj(x)
            shortcut = max_pool_2x2(shortcut) if self.pool else shortcut
        height, width = shortcut.shape[1:3]
        if self.window_size:
            # Padding comes after the norm and is seen by the attention, as in
            # the original: padded cells have keys and values of their own.
            x = self.attn(partition_windows(x, self.window_size))
            x = join_windows(x, height, width)
        else:
            x = self.attn(x)
        x = shortcut + x
        return x + self.mlp(self.norm2(x))


class Hiera(nn.Module):
    """Four stages of blocks; each stage's result is a level of the pyramid."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, heads = config.trunk_embed_dim, config.trunk_num_heads
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, *config.trunk_position_grid))
        window = config.trunk_window_sizes[0]
        self.pos_embed_window = nn.Parameter(torch.zeros(1, dim, window, window))
        self._kept_position: tuple[tuple, torch.Tensor] | None = None
        self.blocks = nn.ModuleList()
        self.stage_ends: list[int] = []
        self.channels: list[int] = []
        for stage, block_count in enumerate(config.trunk_stages):
            for index_in_stage in range(block_count):
                pool = stage > 0 and index_in_stage == 0
                dim_out = dim * 2 if pool else dim
                heads = heads * 2 if pool else heads
                # The block that pools still works on the finer stage's cells,
                # so it keeps that stage's window.
                window = config.trunk_window_sizes[stage - 1 if pool else stage]
                if len(self.blocks) in config.trunk_global_attention_blocks:
                    window = 0
                self.blocks.append(
                    MultiScaleBlock(dim, dim_out, heads, pool=pool, window_size=window)
                )
                dim = dim_out
            self.stage_ends.append(len(self.blocks) - 1)
            self.channels.append(dim)

    def position_embedding(self, height: int, width: int) -> torch.Tensor:
        """(1, height, width, C): the global part resized, the window part tiled."""
        if torch.is_grad_enabled():
            return self._make_position_embedding(height, width)
        # The same for every frame, until the parameters change or move.
        parts = (self.pos_embed, self.pos_embed_window)
        key = (height, width, *((part.data_ptr(), part._version) for part in parts))
        if self._kept_position is None or self._kept_position[0] != key:
            self._kept_position = (key, self._make_position_embedding(height, width))
        return self._kept_position[1]

    def _make_position_embedding(self, height: int, width: int) -> torch.Tensor:
        # Bicubic resizing has no bfloat16 kernel on every device.
        dtype = self.pos_embed.dtype
        spread = F.interpolate(self.pos_embed.float(), size=(height, width), mode="bicubic")
        window = self.pos_embed_window
        tiles = (1, 1, height // window.shape[2], width // window.shape[3])
        return (spread + window.float().tile(tiles)).to(dtype).permute(0, 2, 3, 1)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) -> four levels, finest first, each (B, H_l, W_l, C_l)."""
        x = self.patch_embed(images)
        x = x + self.position_embedding(*x.shape[1:3])
        levels = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stage_ends:
                levels.append(x)
        return levels
