"""EfficientNet-Lite0: the trunk of the embedded model.

A convolutional trunk whose weights were trained on ImageNet stands in for Hiera
where a model is small and its own training brief. Source: EfficientNet
(https://arxiv.org/abs/1905.11946) in its "Lite" variant for small devices
(https://github.com/tensorflow/tpu, models/official/efficientnet/lite, Apache-2.0):
no squeeze-and-excitation, ReLU6, a stem of fixed width.

Batch norms are not here: they are folded into the convolutions before them when
published weights are converted (`training/pretrained.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class _Group:
    """Blocks of one width, the first of them with the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM_CHANNELS = 32
GROUPS = (
    _Group(1, 3, 1, 1, 16),
    _Group(2, 3, 2, 6, 24),
    _Group(2, 5, 2, 6, 40),
    _Group(3, 3, 2, 6, 80),
    _Group(3, 5, 1, 6, 112),
    _Group(4, 5, 2, 6, 192),
    _Group(1, 3, 1, 6, 320),
)
_LEVEL_ENDS = (1, 2, 4, 6)
"""Groups whose outputs are the pyramid's levels, strides 4, 8, 16 and 32."""


class _SameConv2d(nn.Conv2d):
    """A convolution with the padding the published weights were trained with.

    With stride 2 and an even size, one more row and column at the bottom right.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        total = kernel - stride if stride > 1 else kernel - 1
        before = total // 2
        self._extra = (before, total - before, before, total - before)
        self._uneven = before != total - before
        super().__init__(
            inputs, outputs, kernel, stride, groups=groups, padding=0 if self._uneven else before
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, self._extra) if self._uneven else x)


class InvertedBottleneck(nn.Module):
    """Widen, convolve each channel by itself, narrow; added to the input where it fits."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        width = inputs * expansion
        self.expand = nn.Conv2d(inputs, width, 1) if expansion > 1 else None
        self.depthwise = _SameConv2d(width, width, kernel, stride, groups=width)
        self.project = nn.Conv2d(width, outputs, 1)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        hidden = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        hidden = self.project(F.relu6(self.depthwise(hidden), inplace=True))
        return x + hidden if self.adds_input else hidden


class EfficientNetLite0(nn.Module):
    """Frames to a pyramid of four levels, as `Hiera`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _SameConv2d(3, STEM_CHANNELS, 3, stride=2)
        groups, inputs = [], STEM_CHANNELS
        for group in GROUPS:
            blocks = []
            for index in range(group.blocks):
                stride = group.stride if index == 0 else 1
                blocks.append(
                    InvertedBottleneck(
                        inputs, group.channels, group.kernel, stride, group.expansion
                    )
                )
                inputs = group.channels
            groups.append(nn.Sequential(*blocks))
        self.groups = nn.ModuleList(groups)
        self.channels = [GROUPS[index].channels for index in _LEVEL_ENDS]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, S, S) -> (B, S / 4, S / 4, 24), and at strides 8, 16 and 32 40, 112, 320."""
        x = F.relu6(self.stem(images.contiguous(memory_format=torch.channels_last)), inplace=True)
        levels = []
        for index, group in enumerate(self.groups):
            x = group(x)
            if index in _LEVEL_ENDS:
                levels.append(x.permute(0, 2, 3, 1))
        return levels
