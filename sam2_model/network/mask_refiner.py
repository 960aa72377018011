"""A given mask beside the features of every stride: how a small network draws outlines."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sam2_model.network.layers import LayerNorm2d


class MaskRefiner(nn.Module):
    """A small U-Net (https://arxiv.org/abs/1505.04597) from a given mask to finest features.

    The official mask decoder sees a given mask at a sixteenth of the image's
    size only, and mixes neighbouring cells by attention alone; both take more
    training than a small model gets. Here convolutions see the mask (drawn
    prompts, an earlier answer, the frame before) at full size of the logits,
    together with the image, and what they find is added to the decoder's
    finest features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        fine, middle, coarse = dim // 4, dim * 3 // 8, dim * 3 // 4
        self.at4 = nn.Conv2d(dim // 8 + 1, fine, 3, padding=1)
        self.to8 = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.at8 = _Stage(middle + dim // 4, middle)
        self.to16 = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.at16 = nn.Sequential(_Stage(coarse + dim, coarse), _Stage(coarse, coarse))
        self.back8 = _Stage(coarse + middle, middle)
        self.back4 = nn.Conv2d(middle + fine, fine, 3, padding=1)
        self.out = nn.Conv2d(fine, dim // 8, 3, padding=1)
        # At first it adds nothing: weights trained without it go on as they were.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        top: torch.Tensor,
        high_res: tuple[torch.Tensor, torch.Tensor],
        mask_logits: torch.Tensor,
    ) -> torch.Tensor:
        """Features and a mask -> the stride-4 features with something added.

        Args:
            top: (1 or B, C, H, W), conditioned on memory where there is one.
            high_res: stride 4 (1 or B, C / 8, 4H, 4W) and stride 8 (1 or B, C / 4, 2H, 2W).
            mask_logits: (B, 1, 4H, 4W).

        Returns:
            (B, C / 8, 4H, 4W).
        """
        batch = len(mask_logits)
        stride4, stride8, top = (
            x.expand(batch, -1, -1, -1) for x in (*high_res, top)
        )
        mask = torch.tanh(mask_logits / 4).to(stride4.dtype)
        at4 = F.gelu(self.at4(torch.cat((stride4, mask), dim=1)))
        at8 = self.at8(torch.cat((self.to8(at4), stride8), dim=1))
        at16 = self.at16(torch.cat((self.to16(at8), top), dim=1))
        back8 = self.back8(torch.cat((_double(at16), at8), dim=1))
        back4 = F.gelu(self.back4(torch.cat((_double(back8), at4), dim=1)))
        return stride4 + self.out(back4)


class _Stage(nn.Sequential):
    """A 3x3 convolution, a norm and a nonlinearity."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1), LayerNorm2d(outputs), nn.GELU()
        )


def _double(x: torch.Tensor) -> torch.Tensor:
    # Mixed precision would widen it to float32 and back: more time than the doubling.
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, scale_factor=2.0, mode="bilinear")
