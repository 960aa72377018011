"""Mask decoder: prompts and features through a two-way transformer to masks."""

from __future__ import annotations

import torch
from torch import nn

from sam2_model.configs import ModelConfig
from sam2_model.network.attention import Attention
from sam2_model.network.layers import MLP, LayerNorm2d

MULTIMASK_COUNT = 3


class TwoWayBlock(nn.Module):
    """Tokens attend to tokens, then to the image; then the image to the tokens."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, *, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.self_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample_rate=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, mlp_dim, dim, layer_count=2)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, num_heads, downsample_rate=2)

    def forward(
        self,
        tokens: torch.Tensor,
        image: torch.Tensor,
        token_position: torch.Tensor,
        image_position: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (B, T, C) and image (B, H * W, C) -> both, updated."""
        if self.is_first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + token_position
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        placed_image = image + image_position
        tokens = self.norm2(
            tokens
            + self.cross_attn_token_to_image(tokens + token_position, placed_image, image)
        )
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(
            image
            + self.cross_attn_image_to_token(placed_image, tokens + token_position, tokens)
        )
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Blocks in a row, and one last look of the tokens at the image."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, heads = config.hidden_dim, config.decoder_num_heads
        self.layers = nn.ModuleList(
            TwoWayBlock(dim, heads, config.decoder_mlp_dim, is_first=index == 0)
            for index in range(config.decoder_depth)
        )
        self.final_attn_token_to_image = Attention(dim, heads, downsample_rate=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self, image: torch.Tensor, image_position: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (B, C, H, W), its positions (1, C, H, W), tokens (B, T, C).

        Returns:
            Tokens (B, T, C) and image (B, H * W, C).
        """
        image = image.flatten(2).transpose(1, 2)
        image_position = image_position.flatten(2).transpose(1, 2)
        token_position = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_position, image_position)
        attended = self.final_attn_token_to_image(
            tokens + token_position, image + image_position, image
        )
        return self.norm_final_attn(tokens + attended), image


class MaskDecoder(nn.Module):
    """Masks, their expected IoU, the mask tokens and the object-presence logit."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        token_count = MULTIMASK_COUNT + 1
        self.transformer = TwoWayTransformer(config)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(token_count, dim)
        self.obj_score_token = nn.Embedding(1, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.conv_s0 = nn.Conv2d(dim, dim // 8, kernel_size=1)
        self.conv_s1 = nn.Conv2d(dim, dim // 4, kernel_size=1)
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(dim, dim, dim // 8, layer_count=3) for _ in range(token_count)
        )
        self.iou_prediction_head = MLP(
            dim, config.iou_head_hidden_dim, token_count, layer_count=3, sigmoid_output=True
        )
        self.pred_obj_score_head = MLP(dim, dim, 1, layer_count=3)

    def forward(
        self,
        features: torch.Tensor,
        high_res: tuple[torch.Tensor, torch.Tensor],
        position: torch.Tensor,
        sparse: torch.Tensor,
        dense: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Predict every mask the decoder knows: the single one, then the three.

        Args:
            features: (B or 1, C, H, W), conditioned on memory where there is one.
            high_res: the frame's stride-4 (B or 1, C / 8, 4H, 4W) and stride-8
                (B or 1, C / 4, 2H, 2W) features.
            position: (1, C, H, W), `PromptEncoder.dense_positions`.
            sparse: (B, P, C) prompt tokens. dense: (B, C, H, W) mask embedding.

        Returns:
            Logits (B, 4, 4H, 4W), IoUs (B, 4), mask tokens (B, 4, C),
            object-presence logits (B, 1).
        """
        batch, (height, width) = sparse.shape[0], features.shape[-2:]
        own = (self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight)
        own = torch.cat(own)[None].expand(batch, -1, -1)
        image = (features + dense).expand(batch, -1, -1, -1)
        tokens, image = self.transformer(image, position, torch.cat((own, sparse), dim=1))
        mask_tokens = tokens[:, 2 : 2 + MULTIMASK_COUNT + 1]

        up1, norm, act1, up2, act2 = self.output_upscaling
        stride4, stride8 = high_res
        image = image.transpose(1, 2).unflatten(2, (height, width))
        image = act1(norm(up1(image) + stride8))
        image = act2(up2(image) + stride4)
        weights = torch.stack(
            [mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)],
            dim=1,
        )
        logits = (weights @ image.flatten(2)).unflatten(2, image.shape[-2:])
        ious = self.iou_prediction_head(tokens[:, 1])
        return logits, ious, mask_tokens, self.pred_obj_score_head(tokens[:, 0])




def stable_single_mask(
    logits: torch.Tensor, ious: torch.Tensor, *, delta: float = 0.05, threshold: float = 0.98
) -> tuple[torch.Tensor, torch.Tensor]:
    """The single mask, or the best of the three where the single one is unstable.

    Stability is the IoU of the mask thresholded at +delta and at -delta.

    Args:
        logits: (B, 4, H, W), the single mask first. ious: (B, 4).

    Returns:
        (B, 1, H, W) and (B, 1).
    """
    single = logits[:, 0].flatten(1)
    inner = (single > delta).sum(dim=1).float()
    outer = (single > -delta).sum(dim=1).float()
    stable = torch.where(outer > 0, inner / outer, 1.0) >= threshold
    best = 1 + ious[:, 1:].argmax(dim=1)
    chosen = torch.where(stable, 0, best)
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, chosen][:, None], ious[rows, chosen][:, None]
