"""The whole network: encode a frame, look at memories, decode masks, remember.

Sizes in the docstrings: S the model's image size, (H, W) = S / 16 the feature
map, C the hidden width, B objects. Every step takes objects as the batch and
the frame's features once, with a batch of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from sam2_model.configs import ModelConfig
from sam2_model.masks import without_refused_ground, without_unclicked_pieces
from sam2_model.network.image_encoder import ImageEncoder
from sam2_model.network.layers import MLP
from sam2_model.network.mask_decoder import MaskDecoder, stable_single_mask
from sam2_model.network.mask_refiner import MaskRefiner
from sam2_model.network.memory_attention import MemoryAttention
from sam2_model.network.memory_encoder import MemoryEncoder
from sam2_model.network.memory_matching import MemoryMatcher
from sam2_model.network.positions import sine_position_grid, sine_time_encoding
from sam2_model.network.prompt_encoder import PADDING_LABEL, PromptEncoder

NO_OBJECT_LOGIT = -1024.0
"""Mask logit of every pixel when the object is not in the frame."""
MASK_PROMPT_LOGIT = 10.0
"""Mask prompts are stored as logits of plus or minus this."""


@dataclass(frozen=True)
class ImageFeatures:
    """What the image encoder made of frames, a batch of N."""

    top: torch.Tensor
    """(N, C, H, W), stride 16."""
    high_res: tuple[torch.Tensor, torch.Tensor]
    """Stride 4 (N, C / 8, 4H, 4W) and stride 8 (N, C / 4, 2H, 2W)."""

    def __getitem__(self, index) -> ImageFeatures:
        """Those of some frames: a slice or an (M,) int tensor of frames."""
        stride4, stride8 = self.high_res
        return ImageFeatures(self.top[index], (stride4[index], stride8[index]))

    @property
    def byte_count(self) -> int:
        tensors = (self.top, *self.high_res)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True)
class MaskPrediction:
    """What the decoder says of B objects on one frame."""

    raw_logits: torch.Tensor
    """(B, M, S / 4, S / 4), M masks each (1 or 3), whether the object is there or not."""
    multimask_logits: torch.Tensor
    """The same, float32, NO_OBJECT_LOGIT everywhere where the object is absent."""
    ious: torch.Tensor
    """(B, M) expected IoU of each."""
    mask_logits: torch.Tensor
    """(B, 1, S / 4, S / 4) float32, the best of them."""
    object_pointer: torch.Tensor
    """(B, C)."""
    object_score_logits: torch.Tensor
    """(B, 1); > 0 means the object is in the frame."""


@dataclass(frozen=True)
class MemoryTokens:
    """Memories in the form the memory attention reads, for B objects."""

    maps: tuple[torch.Tensor, ...]
    """Memories of whole frames, each (B, H * W, D) of `encode_memory`."""
    map_recency: tuple[int, ...]
    """For each map 0 if prompted, else num_maskmem - (frames ago)."""
    pointers: tuple[torch.Tensor, ...]
    """Object pointers, each (B, C)."""
    pointer_offsets: tuple[int, ...]
    """For each pointer how many frames it lies back (negative: ahead)."""
    pointer_offset_scale: int
    """What offsets are divided by: the most pointers in use, less one."""
    nearest_prompted: int = 0
    """Which of the maps is the nearest prompted frame's: what `MemoryMatcher` compares with."""


class SAM2Network(nn.Module):
    """SAM 2 with the state-dict keys and shapes of the official checkpoints."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim, memory_dim = config.hidden_dim, config.memory_dim
        self.image_encoder = ImageEncoder(config)
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
        self.memory_attention = MemoryAttention(config)
        self.memory_encoder = MemoryEncoder(config)
        self.maskmem_tpos_enc = _learned(config.num_maskmem, 1, 1, memory_dim)
        self.no_mem_embed = _learned(1, 1, dim)
        self.no_mem_pos_enc = _learned(1, 1, dim)
        self.no_obj_ptr = _learned(1, dim)
        if config.memory_of_absence:
            self.no_obj_embed_spatial = _learned(1, memory_dim)
        self.sam_prompt_encoder = PromptEncoder(config)
        self.sam_mask_decoder = MaskDecoder(config)
        self.mask_refiner = MaskRefiner(dim) if config.carry_masks else None
        self.memory_matcher = MemoryMatcher(dim) if config.match_memories else None
        self.obj_ptr_proj = MLP(dim, dim, dim, layer_count=3)
        if config.pointer_time_encoding:
            self.obj_ptr_tpos_proj = nn.Linear(dim, memory_dim)
        self.stability_fallback = False
        """Image prediction: take the best of three masks where the single one is unstable."""
        self._grids: dict[tuple, torch.Tensor] = {}
        self._times_loaded = 0

    def load_state_dict(self, *args, **kwargs):
        self._times_loaded += 1
        return super().load_state_dict(*args, **kwargs)

    @property
    def condition(self) -> tuple[torch.device, torch.dtype, int]:
        """Where it is, in what dtype, and which weights it was given: what was made by the
        network in another condition is no longer its own."""
        return self.device, self.dtype, self._times_loaded

    @property
    def device(self) -> torch.device:
        return self.no_mem_embed.device

    @property
    def dtype(self) -> torch.dtype:
        return self.no_mem_embed.dtype

    @property
    def image_size(self) -> int:
        return self.config.image_size

    def position_grid(self, channels: int) -> torch.Tensor:
        """The sine grid of the feature map, (channels, H, W), in the network's dtype."""
        key = (channels, self.device, self.dtype)
        if key not in self._grids:
            size = self.config.feature_size
            with torch.inference_mode(False):
                grid = sine_position_grid(channels, size, size, self.device)
                self._grids[key] = grid.to(self.dtype)
        return self._grids[key]

    def encode_image(self, images: torch.Tensor) -> ImageFeatures:
        """Normalised frames (N, 3, S, S) -> their features."""
        decoder = self.sam_mask_decoder
        stride4, stride8, top = self.image_encoder(
            images.to(self.dtype), decoder.conv_s0, decoder.conv_s1
        )
        return ImageFeatures(top, (stride4, stride8))

    def without_memory(self, top: torch.Tensor) -> torch.Tensor:
        """Features (N, C, H, W) of a frame that looks at no memory."""
        return top + self.no_mem_embed.reshape(1, -1, 1, 1)

    def condition_on_memory(self, top: torch.Tensor, tokens: MemoryTokens) -> torch.Tensor:
        """Features (1 or B, C, H, W) of a frame that looks at `tokens` -> (B, C, H, W)."""
        config = self.config
        batch = (tokens.maps or tokens.pointers)[0].shape[0]
        grid = self.position_grid(config.memory_dim).flatten(1).t()
        maps = [memory[..., : config.memory_dim].to(self.dtype) for memory in tokens.maps]
        positions = [
            grid + self.maskmem_tpos_enc[config.num_maskmem - recency - 1, 0]
            for recency in tokens.map_recency
        ]
        if tokens.pointers:
            pointers = torch.stack(tokens.pointers, dim=1).to(self.dtype)
            # A pointer is wider than a memory cell, so it becomes several tokens.
            maps.append(pointers.unflatten(2, (-1, config.memory_dim)).flatten(1, 2))
            positions.append(self._pointer_positions(tokens))
        memory = torch.cat(maps, dim=1)
        position = torch.cat(positions)[None].expand(batch, -1, -1)
        conditioned = self.memory_attention(
            top,
            self.position_grid(config.hidden_dim),
            memory,
            position,
            len(tokens.maps),
        )
        if self.memory_matcher is not None and tokens.maps:
            conditioned = conditioned + self.memory_matcher(top, *self.to_compare(tokens))
        return conditioned

    def to_compare(self, tokens: MemoryTokens) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """What `MemoryMatcher` compares with: the nearest prompted frame's cells and those of
        recent frames.

        Not older prompts too: what a person has corrected since would match by them.
        """
        cells = [memory[..., self.config.memory_dim :] for memory in tokens.maps]
        recent = [cell for cell, recency in zip(cells, tokens.map_recency) if recency]
        nearest = tokens.nearest_prompted
        has_prompted = nearest < len(cells) and tokens.map_recency[nearest] == 0
        return (
            cells[nearest] if has_prompted else None,
            torch.cat(recent, dim=1) if recent else None,
        )

    def _pointer_positions(self, tokens: MemoryTokens) -> torch.Tensor:
        """Time encodings of the pointers' tokens, (pointer tokens, memory_dim)."""
        config = self.config
        each = config.hidden_dim // config.memory_dim
        if not config.pointer_time_encoding:
            count = len(tokens.pointers) * each
            return torch.zeros(count, config.memory_dim, dtype=self.dtype, device=self.device)
        offsets = torch.tensor(tokens.pointer_offsets, device=self.device)
        # One frame in the video: the scale is 0 and so is every offset.
        encoded = sine_time_encoding(
            offsets / max(tokens.pointer_offset_scale, 1), config.hidden_dim
        )
        return self.obj_ptr_tpos_proj(encoded.to(self.dtype)).repeat_interleave(each, dim=0)

    def predict_masks(
        self,
        features: torch.Tensor,
        high_res: tuple[torch.Tensor, torch.Tensor],
        *,
        points_xy: torch.Tensor | None = None,
        point_labels: torch.Tensor | None = None,
        mask_logits: torch.Tensor | None = None,
        batch: int | None = None,
        multimask: bool = False,
        stability_fallback: bool = False,
    ) -> MaskPrediction:
        """Decode B objects' masks from prompts.

        Args:
            features: (1 or B, C, H, W). high_res: `ImageFeatures.high_res`.
            points_xy: (B, P, 2) pixels of the model's image; None: no points.
            point_labels: (B, P) int: 1, 0, 2 and 3 (box corners), -1 (padding).
            mask_logits: (B, 1, h, w) logits of an earlier prediction; resized to
                S / 4 if they are not that size.
            batch: B, when neither prompts nor features tell it.
            multimask: three candidates instead of one.
            stability_fallback: take the best of the three where the one is unstable.
        """
        if batch is None:
            batch = features.shape[0] if points_xy is None else points_xy.shape[0]
        if points_xy is None:
            points_xy = torch.zeros(batch, 1, 2, device=self.device)
            point_labels = torch.full((batch, 1), PADDING_LABEL, device=self.device)
        mask_size = self.sam_prompt_encoder.mask_input_size
        if mask_logits is not None and mask_logits.shape[-1] != mask_size:
            mask_logits = _resize_antialiased(mask_logits, mask_size)
        logits, ious, mask_tokens, score = self.decode(
            features, high_res, points_xy, point_labels, mask_logits
        )
        return self._choose_mask(
            logits, ious, mask_tokens, score, multimask, stability_fallback
        )

    def decode(
        self,
        features: torch.Tensor,
        high_res: tuple[torch.Tensor, torch.Tensor],
        points_xy: torch.Tensor | None,
        point_labels: torch.Tensor | None,
        mask_logits: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Prompts as embeddings, through the mask decoder.

        Args:
            features: (1 or B, C, H, W). high_res: `ImageFeatures.high_res`.
            points_xy: (B, P, 2) pixels of the model's image; None: no clicks, and not
                even the padding point, as Meta's image predictor has it.
            point_labels: (B, P), or None.
            mask_logits: (B, 1, S / 4, S / 4), or None.

        Returns:
            All four masks (B, 4, S / 4, S / 4), their expected IoUs (B, 4), mask
            tokens (B, 4, C) and object score logits (B, 1).
        """
        encoder = self.sam_prompt_encoder
        if points_xy is None:
            batch = 1 if mask_logits is None else len(mask_logits)
            sparse = torch.zeros(
                batch, 0, self.config.hidden_dim, device=self.device, dtype=self.dtype
            )
            dense_prompt = mask_logits
        else:
            batch = len(points_xy)
            sparse = encoder.embed_points(points_xy, point_labels)
            dense_prompt = encoder.dense_prompt(points_xy, point_labels, mask_logits)
        if self.mask_refiner is not None and dense_prompt is not None:
            high_res = (self.mask_refiner(features, high_res, dense_prompt), high_res[1])
        dense = encoder.embed_masks(dense_prompt, batch)
        logits, *others = self.sam_mask_decoder(
            features, high_res, encoder.dense_positions(), sparse, dense
        )
        if self.config.draw_prompts and points_xy is not None and not self.training:
            cells = points_xy * (logits.shape[-1] / self.config.image_size)
            logits = without_refused_ground(logits, mask_logits, cells, point_labels)
            logits = without_unclicked_pieces(logits, cells, point_labels)
        return logits, *others

    def carried_mask(self, previous_logits: torch.Tensor | None) -> torch.Tensor | None:
        """What a tracked frame's decoder is told of the frame before, as `mask_logits`.

        Args:
            previous_logits: (B, 1, h, w) of the frame that was tracked or prompted
                just before this one; None when there is none.

        Returns:
            None for the official models, which are told nothing (`carry_masks`).
        """
        if previous_logits is None or not self.config.carry_masks:
            return None
        # An absent object's logits are far below what the prompt encoder knows.
        return previous_logits.detach().clamp(-MASK_PROMPT_LOGIT, MASK_PROMPT_LOGIT)

    def _choose_mask(
        self, logits, ious, mask_tokens, score, multimask, stability_fallback
    ) -> MaskPrediction:
        rows = torch.arange(len(logits), device=logits.device)
        if multimask:
            logits, ious, tokens = logits[:, 1:], ious[:, 1:], mask_tokens[:, 1:]
            best = ious.argmax(dim=-1)
        else:
            tokens, best = mask_tokens[:, :1], torch.zeros_like(rows)
            if stability_fallback:
                logits, ious = stable_single_mask(logits, ious)
            else:
                logits, ious = logits[:, :1], ious[:, :1]
        present = score > 0
        raw = logits
        logits = torch.where(present[..., None, None], raw.float(), NO_OBJECT_LOGIT)
        pointer = self.obj_ptr_proj(tokens[rows, best])
        return MaskPrediction(
            raw_logits=raw,
            multimask_logits=logits,
            ious=ious,
            mask_logits=logits[rows, best][:, None],
            object_pointer=torch.where(present, pointer, self.no_obj_ptr),
            object_score_logits=score,
        )

    def mask_as_prediction(
        self,
        top: torch.Tensor,
        high_res: tuple[torch.Tensor, torch.Tensor],
        masks: torch.Tensor,
    ) -> MaskPrediction:
        """A mask prompt (B, 1, S, S), 0 or 1, taken as the prediction itself."""
        masks = masks.to(self.dtype)
        logits = masks.float() * (2 * MASK_PROMPT_LOGIT) - MASK_PROMPT_LOGIT
        logits = _resize_antialiased(logits, self.config.low_res_mask_size)
        decoded = self.predict_masks(
            top, high_res, mask_logits=self.mask_downsample(masks), batch=len(masks)
        )
        present = masks.flatten(1).any(dim=1, keepdim=True)
        score = torch.where(present, MASK_PROMPT_LOGIT, -MASK_PROMPT_LOGIT)
        return MaskPrediction(
            raw_logits=logits,
            multimask_logits=logits,
            ious=torch.ones(len(masks), 1, device=logits.device),
            mask_logits=logits,
            object_pointer=torch.where(present, decoded.object_pointer, self.no_obj_ptr),
            object_score_logits=score.float(),
        )

    def encode_memory(
        self,
        top: torch.Tensor,
        mask_logits: torch.Tensor,
        object_score_logits: torch.Tensor,
        *,
        binarize: bool = False,
    ) -> torch.Tensor:
        """What later frames will remember of this one.

        Args:
            top: (1 or B, C, H, W), not conditioned on memory.
            mask_logits: (B, 1, h, w) of any size; resized to S.
            object_score_logits: (B, 1).
            binarize: see the mask as 0 or 1 (frames a person has prompted).

        Returns:
            (B, H * W, D): memory_dim channels, and with `match_memories` those that
            `MemoryMatcher` remembers.
        """
        config = self.config
        size = (config.image_size, config.image_size)
        logits = F.interpolate(mask_logits.float(), size=size, mode="bilinear")
        shares = (logits > 0).float() if binarize else logits.sigmoid()
        masks = shares * config.memory_mask_scale + config.memory_mask_bias
        memory = self.memory_encoder(top, masks.to(self.dtype))
        if config.memory_of_absence:
            absent = (object_score_logits <= 0).to(memory.dtype)
            memory = memory + (absent * self.no_obj_embed_spatial)[..., None, None]
        memory = memory.flatten(2).transpose(1, 2)
        if self.memory_matcher is not None:
            matched = self.memory_matcher.remember(top, shares.detach())
            memory = torch.cat((memory, matched.to(memory.dtype)), dim=-1)
        return memory


def _learned(*shape: int) -> nn.Parameter:
    parameter = nn.Parameter(torch.empty(*shape))
    nn.init.trunc_normal_(parameter, std=0.02)
    return parameter


def _resize_antialiased(x: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(
        x.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
