"""Attention layers of the mask decoder and of the memory attention."""

from __future__ import annotations

import torch
from torch import nn

from sam2_model.network.blocked_attention import attend, attend_one_head, takes_narrow_values
from sam2_model.network.positions import rotate

class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than its embedding."""

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        *,
        downsample_rate: int = 1,
        key_value_dim: int | None = None,
    ) -> None:
        super().__init__()
        inner = embedding_dim // downsample_rate
        key_value_dim = embedding_dim if key_value_dim is None else key_value_dim
        self.num_heads = num_heads
        self.q_proj = nn.Linear(embedding_dim, inner)
        self.k_proj = nn.Linear(key_value_dim, inner)
        self.v_proj = nn.Linear(key_value_dim, inner)
        self.out_proj = nn.Linear(inner, embedding_dim)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """(B, N, embedding_dim), (B, M, kv), (B, M, kv) -> (B, N, embedding_dim)."""
        attended = attend(
            self._heads(self.q_proj(query)),
            self._heads(self.k_proj(key)),
            self._heads(self.v_proj(value)),
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class RotarySelfAttention(Attention):
    """One head of self-attention over a feature map, positions as rotations."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__(embedding_dim, 1)

    def forward(self, x: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
        """(B, N, C) with (N, C // 2) rotations -> (B, N, C)."""
        query = rotate(self.q_proj(x), rotations)
        key = rotate(self.k_proj(x), rotations)
        attended = attend_one_head(query, key, self.v_proj(x))
        return self.out_proj(attended)


class RotaryMemoryAttention(Attention):
    """One head of attention from a feature map to memories of earlier frames.

    The keys of memory maps are rotated by their place in the map; object
    pointers have no place and are left as they are.
    """

    def __init__(self, embedding_dim: int, memory_dim: int) -> None:
        super().__init__(embedding_dim, 1, key_value_dim=memory_dim)

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        memory_position: torch.Tensor,
        rotations: torch.Tensor,
        map_count: int,
    ) -> torch.Tensor:
        """Attend from a feature map to memory tokens.

        Args:
            x: (1 or B, N, C) queries, N = cells of one map.
            memory: (B, M, memory_dim), `map_count` maps of N cells, then pointers.
            memory_position: (B, M, memory_dim), added to the memory for the keys only.
            rotations: (N, C // 2) complex, `positions.axial_rotations`.
            map_count: how many maps `memory` starts with.

        Returns:
            (B, N, C).
        """
        query = rotate(self.q_proj(x), rotations).expand(len(memory), -1, -1)
        key = self.k_proj(memory + memory_position)
        cells = map_count * rotations.shape[0]
        # Map by map: the temporaries of all maps together would leave the cache.
        maps = key[:, :cells].unflatten(1, (map_count, -1)).unbind(1)
        rotated = [rotate(one, rotations) for one in maps]
        key = torch.cat((*rotated, key[:, cells:]), dim=1)
        if memory.shape[-1] < query.shape[-1] and takes_narrow_values(query):
            # Values are a linear map of the memory and the weights of one
            # query sum to one, so mapping after the sum is the same number for
            # a fraction of the work.
            attended = self.v_proj(attend_one_head(query, key, memory))
        else:
            attended = attend_one_head(query, key, self.v_proj(memory))
        return self.out_proj(attended)
