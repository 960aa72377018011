"""Which cells of a frame look like the object remembered, and which like its surroundings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from sam2_model.network.layers import LayerNorm2d

KEY_DIM = 32
"""Channels that cells are compared by."""
_CHANNELS = 8
_SHARPEST = 30.0
_LEAST_SHARE = 1e-3
"""Nothing is surely the object's, or surely not: the logarithm stays finite."""


class MemoryMatcher(nn.Module):
    """Compares each cell of a frame with all cells remembered, by the angle of their keys.

    What space-time memory networks do (https://arxiv.org/abs/1904.00607), with the
    best match of the object and of its surroundings apart, as in FEELVOS
    (https://arxiv.org/abs/1902.09513). Memory attention can learn the same, but a
    network trained briefly does not: it follows what hides the object, and says
    of an object that is gone that it is there.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.key = nn.Conv2d(dim, KEY_DIM, kernel_size=1)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(10.0)))
        self.mix = nn.Sequential(
            nn.Conv2d(_CHANNELS, dim // 2, 3, padding=1), LayerNorm2d(dim // 2), nn.GELU(),
            nn.Conv2d(dim // 2, dim, 3, padding=1),
        )
        # At first it adds nothing: weights trained without it go on as they were.
        nn.init.zeros_(self.mix[-1].weight)
        nn.init.zeros_(self.mix[-1].bias)

    @property
    def sharpness(self) -> torch.Tensor:
        """What cosines are multiplied by; bounded, for their exponentials' sake."""
        return self.log_sharpness.exp().clamp(max=_SHARPEST)

    def keys(self, top: torch.Tensor) -> torch.Tensor:
        """Features (N, C, H, W) -> unit vectors (N, H * W, KEY_DIM), float32."""
        return F.normalize(self.key(top).float().flatten(2).transpose(1, 2), dim=-1)

    def remember(self, top: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """What to keep of a frame: keys, and how much of each cell is the object's.

        Features (1 or B, C, H, W) and masks (B, 1, h, w) in [0, 1] -> (B, H * W, KEY_DIM + 1).
        """
        shares = F.adaptive_avg_pool2d(masks.float(), top.shape[-2:]).flatten(2)
        keys = self.keys(top).expand(len(masks), -1, -1)
        return torch.cat((keys, shares.transpose(1, 2)), dim=-1)

    def compare(
        self, keys: torch.Tensor, remembered: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """How well each cell matches the object, and how well what is around it.

        Args:
            keys: (1 or B, N, KEY_DIM) of this frame.
            remembered: (B, M, KEY_DIM + 1), cells of one or more frames.

        Returns:
            Two (B, N): soft maxima over the remembered cells, times the sharpness; the
            sigmoid of their difference is the share of the object's among what matches.
        """
        # Ordinary precision: what is summed differs by many orders of magnitude.
        with torch.autocast(keys.device.type, enabled=False):
            sharpness = self.sharpness
            known, shares = remembered[..., :-1].float(), remembered[..., -1].float()
            likeness = keys.expand(len(known), -1, -1) @ known.transpose(1, 2)
            closeness = torch.exp((likeness - 1) * sharpness)
            weights = torch.stack((shares, 1 - shares), dim=-1).clamp(min=_LEAST_SHARE)
            frames = max(1, remembered.shape[1] // keys.shape[1])
            sums = torch.log(closeness @ weights / frames) + sharpness
        return sums[..., 0], sums[..., 1]

    def forward(
        self, top: torch.Tensor, prompted: torch.Tensor | None, recent: torch.Tensor | None
    ) -> torch.Tensor:
        """What to add to a frame's features conditioned on memory.

        Args:
            top: (1 or B, C, H, W), not conditioned on memory.
            prompted: (B, M, KEY_DIM + 1) cells of prompted frames; None: there are none.
            recent: the same of the frames just before.

        Returns:
            (B, C, H, W).
        """
        height, width = top.shape[-2:]
        keys = self.keys(top)
        sharpness = self.sharpness
        batch = len(recent if prompted is None else prompted)
        channels = []
        for remembered in (prompted, recent):
            if remembered is None:
                channels.append(keys.new_zeros(batch, _CHANNELS // 2, keys.shape[1]))
                continue
            object_match, other_match = self.compare(keys, remembered)
            best = object_match.amax(dim=1, keepdim=True).expand_as(object_match)
            channels.append(torch.stack(
                (
                    object_match / sharpness,
                    other_match / sharpness,
                    torch.tanh((object_match - other_match) / 2),
                    best / sharpness,
                ),
                dim=1,
            ))
        matches = torch.cat(channels, dim=1).unflatten(2, (height, width))
        return self.mix(matches.to(top.dtype))
