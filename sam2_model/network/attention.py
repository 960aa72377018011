"""Attention layers of the mask decoder and of the memory attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sam2_model.network.positions import rotate

_QUERY_BLOCK, _KEY_BLOCK = 1024, 4096
"""How much of the score matrix is held at once on a CPU: 16 MiB, a cache's worth."""


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
        attended = F.scaled_dot_product_attention(
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
            x: (B, N, C) queries, N = cells of one map.
            memory: (B, M, memory_dim), `map_count` maps of N cells, then pointers.
            memory_position: (B, M, memory_dim), added to the memory for the keys only.
            rotations: (N, C // 2) complex, `positions.axial_rotations`.
            map_count: how many maps `memory` starts with.

        Returns:
            (B, N, C).
        """
        query = rotate(self.q_proj(x), rotations)
        key = self.k_proj(memory + memory_position)
        cells = map_count * rotations.shape[0]
        maps = key[:, :cells].unflatten(1, (map_count, -1))
        key = torch.cat((rotate(maps, rotations).flatten(1, 2), key[:, cells:]), dim=1)
        if memory.shape[-1] < query.shape[-1] and _uses_blocks(query):
            # Values are a linear map of the memory and the weights of one
            # query sum to one, so mapping after the sum is the same number for
            # a fraction of the work. The fused kernels want keys and values
            # equally wide, so it pays only where they are not used.
            attended = self.v_proj(attend_one_head(query, key, memory))
        else:
            attended = attend_one_head(query, key, self.v_proj(memory))
        return self.out_proj(attended)


def _uses_blocks(query: torch.Tensor) -> bool:
    return (
        query.device.type == "cpu"
        and query.dtype == torch.float32
        and not torch.is_grad_enabled()
    )


def attend_one_head(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """softmax(query key^T / sqrt(C)) value, for one head.

    Args:
        query: (B, N, C). key: (B, M, C). value: (B, M, D); D may differ from C.

    Returns:
        (B, N, D).
    """
    if not _uses_blocks(query):
        return F.scaled_dot_product_attention(
            query[:, None], key[:, None], value[:, None]
        )[:, 0]
    return _attend_in_blocks(query, key, value)


def _attend_in_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """`attend_one_head` in blocks of queries and keys, without a gradient.

    On a CPU in float32 this beats the fused kernel: its matrix products are
    the library's own on blocks that fit the cache, and values may be narrow.
    The softmax is kept up from block to block (online softmax,
    https://arxiv.org/abs/1805.02867).
    """
    query = query * query.shape[-1] ** -0.5
    out = query.new_empty(*query.shape[:2], value.shape[-1])
    scores = query.new_empty(
        min(query.shape[1], _QUERY_BLOCK) * min(key.shape[1], _KEY_BLOCK)
    )
    for rows, keys, values, answer in zip(query, key, value, out):
        for start in range(0, len(rows), _QUERY_BLOCK):
            stop = start + _QUERY_BLOCK
            answer[start:stop] = _attend_rows(rows[start:stop], keys, values, scores)
    return out


def _attend_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: torch.Tensor
) -> torch.Tensor:
    """One block of scaled queries (n, C) over all keys (M, C) and values (M, D) -> (n, D)."""
    highest = total = summed = None
    for start in range(0, len(key), _KEY_BLOCK):
        keys, values = key[start : start + _KEY_BLOCK], value[start : start + _KEY_BLOCK]
        part = scores[: len(query) * len(keys)].view(len(query), len(keys))
        torch.mm(query, keys.t(), out=part)
        block_highest = part.amax(dim=1, keepdim=True)
        if highest is not None:
            block_highest = torch.maximum(highest, block_highest)
        part.sub_(block_highest).exp_()
        block_total = part.sum(dim=1, keepdim=True)
        if highest is None:
            total, summed = block_total, part @ values
        else:
            shrink = torch.exp(highest - block_highest)
            total = total * shrink + block_total
            summed = torch.addmm(summed.mul_(shrink), part, values)
        highest = block_highest
    return summed / total
