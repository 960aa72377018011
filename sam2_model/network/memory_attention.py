"""Memory attention: the current frame's features, conditioned on earlier frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sam2_model.configs import ModelConfig
from sam2_model.network.attention import RotaryMemoryAttention, RotarySelfAttention
from sam2_model.network.positions import axial_rotations


class MemoryAttentionLayer(nn.Module):
    """Self-attention, attention to the memories, feed-forward; normed before each."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.self_attn = RotarySelfAttention(dim)
        self.cross_attn_image = RotaryMemoryAttention(dim, config.memory_dim)
        self.linear1 = nn.Linear(dim, config.memory_attention_feedforward_dim)
        self.linear2 = nn.Linear(config.memory_attention_feedforward_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        memory_position: torch.Tensor,
        rotations: torch.Tensor,
        map_count: int,
    ) -> torch.Tensor:
        """See `RotaryMemoryAttention.forward` for the arguments."""
        x = x + self.self_attn(self.norm1(x), rotations)
        x = x + self.cross_attn_image(
            self.norm2(x), memory, memory_position, rotations, map_count
        )
        return x + self.linear2(F.relu(self.linear1(self.norm3(x))))


class MemoryAttention(nn.Module):
    """A stack of layers and a final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            MemoryAttentionLayer(config) for _ in range(config.memory_attention_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_dim)
        self._rotations: dict[tuple, torch.Tensor] = {}

    def rotations(self, height: int, width: int, channels: int, device: torch.device):
        """The rotations of a map's cells, computed once a size and device."""
        key = (height, width, channels, device)
        if key not in self._rotations:
            # A tensor made in inference mode could not be used in training later.
            with torch.inference_mode(False):
                self._rotations[key] = axial_rotations(channels, height, width, device)
        return self._rotations[key]

    def forward(
        self,
        features: torch.Tensor,
        position: torch.Tensor,
        memory: torch.Tensor,
        memory_position: torch.Tensor,
        map_count: int,
    ) -> torch.Tensor:
        """Condition a frame's features on memories.

        Args:
            features: (1 or B, C, H, W), the frame's coarsest level. With one for
                all objects, what precedes the first look at the memories is
                computed once.
            position: (C, H, W), the sine grid.
            memory: (B, M, memory_dim): `map_count` maps of H * W cells, then pointers.
            memory_position: (B, M, memory_dim).
            map_count: how many maps `memory` starts with.

        Returns:
            (B, C, H, W).
        """
        height, width = features.shape[-2:]
        x = (features + 0.1 * position).flatten(2).transpose(1, 2)
        rotations = self.rotations(height, width, x.shape[-1], x.device)
        for layer in self.layers:
            x = layer(x, memory, memory_position, rotations, map_count)
        return self.norm(x).transpose(1, 2).unflatten(2, (height, width))
