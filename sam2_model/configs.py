"""Which SAM 2 networks exist, and by what names people ask for them.

A `ModelConfig` says everything that decides the shapes of a network and the
arithmetic it does. The eight official variants differ in few places (Hiera
size, and what SAM 2.1 changed about object pointers and occlusion); the
embedded `demo` model is the same network scaled down, on a convolutional trunk.

Source of the official values: the configs published with SAM 2
(https://github.com/facebookresearch/sam2, Apache-2.0).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import MappingProxyType
from typing import Mapping


TRUNKS = ("hiera", "efficientnet_lite0")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One SAM 2 network. Widths in channels, sizes in pixels or feature cells."""

    name: str
    image_size: int = 1024
    """Frames are resized to image_size x image_size; a multiple of 32."""

    trunk: str = "hiera"
    """"hiera", or "efficientnet_lite0" (the embedded model's), which has no settings:
    the other `trunk_` fields are then without meaning."""
    trunk_embed_dim: int = 96
    """Hiera's channels in its first stage; doubled from stage to stage."""
    trunk_num_heads: int = 1
    """Attention heads in the first stage; doubled from stage to stage."""
    trunk_stages: tuple[int, int, int, int] = (1, 2, 7, 2)
    """Blocks in each of the four stages."""
    trunk_global_attention_blocks: tuple[int, ...] = (5, 7, 9)
    """Blocks (counted through all stages) that attend over the whole image."""
    trunk_window_sizes: tuple[int, int, int, int] = (8, 4, 14, 7)
    """Side of the attention window in each stage, in cells of that stage."""
    trunk_position_grid: tuple[int, int] = (7, 7)
    """Size of the learned global position embedding before it is resized."""

    hidden_dim: int = 256
    """Channels of image features, prompts and object pointers."""
    top_down_levels: tuple[int, ...] = (2, 3)
    """Pyramid levels (0 the finest) that receive the coarser level's features; 2 or 3."""

    memory_attention_layers: int = 4
    memory_attention_feedforward_dim: int = 2048
    memory_dim: int = 64
    """Channels of a frame's memory; must divide hidden_dim."""
    memory_fuser_layers: int = 2
    num_maskmem: int = 7
    """Memories a frame can attend to: the prompted ones and num_maskmem - 1 recent ones."""
    max_object_pointers: int = 16
    """Object pointers a frame can attend to."""
    max_cond_frames_in_attn: int = -1
    """Prompted frames a frame attends to, the nearest first; -1: all of them."""
    memory_mask_scale: float = 20.0
    memory_mask_bias: float = -10.0
    """The memory encoder sees sigmoid(mask logits) * scale + bias."""

    decoder_depth: int = 2
    decoder_num_heads: int = 8
    decoder_mlp_dim: int = 2048
    iou_head_hidden_dim: int = 256

    draw_prompts: bool = False
    """Clicks and boxes are also drawn into the mask prompt, as discs and rectangles,
    pieces that no click is on go once a click is corrected, and a negative click
    takes away the ground around it and adds none.

    The official models tell a prompt's place from its embedding alone, which
    takes long to learn; a small model learns it from the picture in minutes.
    """

    carry_masks: bool = False
    """A tracked frame starts from the mask of the frame before, as a mask prompt,
    and a small U-Net sees given masks beside the features (`MaskRefiner`).

    The official models find the object by their memory alone, at a sixteenth of
    the image's size; on a small image that is too coarse for an outline.
    """

    match_memories: bool = False
    """A tracked frame's features are also compared with those remembered, cell by cell
    (`MemoryMatcher`); memories then carry what is compared, beside `memory_dim`.

    The official models learn it in their memory attention.
    """

    memory_of_absence: bool = True
    """SAM 2.1: the memory of a frame without the object carries a learned mark."""
    pointer_time_encoding: bool = True
    """SAM 2.1: object pointers carry how many frames away they are, signed."""

    backbone_stride: int = dataclasses.field(default=16, init=False)

    def __post_init__(self) -> None:
        rules = (
            (self.trunk in TRUNKS, f"trunk={self.trunk!r} must be one of {TRUNKS}"),
            (self.image_size > 0 and self.image_size % 32 == 0,
             f"image_size={self.image_size} must be a positive multiple of 32"),
            (self.hidden_dim % self.memory_dim == 0,
             f"memory_dim={self.memory_dim} must divide hidden_dim={self.hidden_dim}"),
            (self.hidden_dim % 8 == 0 and self.hidden_dim % (2 * self.decoder_num_heads) == 0,
             f"hidden_dim={self.hidden_dim} must be a multiple of 8 and of twice "
             f"decoder_num_heads={self.decoder_num_heads}"),
            (set(self.top_down_levels) <= {2, 3},
             f"top_down_levels={self.top_down_levels} must be among 2 and 3"),
            (self.memory_dim % 4 == 0,
             f"memory_dim={self.memory_dim} must be a multiple of 4"),
            (len(self.trunk_stages) == 4 and min(self.trunk_stages) > 0,
             f"trunk_stages={self.trunk_stages} must be four positive numbers"),
            (len(self.trunk_window_sizes) == 4 and min(self.trunk_window_sizes) > 0,
             f"trunk_window_sizes={self.trunk_window_sizes} must be four positive numbers"),
            ((self.image_size // 4) % self.trunk_window_sizes[0] == 0,
             f"trunk_window_sizes[0]={self.trunk_window_sizes[0]} must divide "
             f"image_size / 4 = {self.image_size // 4}"),
            # A block that pools its queries does so inside its windows, and it
            # still uses the window of the stage before.
            (all(size % 2 == 0 for size in self.trunk_window_sizes[:3]),
             f"the first three of trunk_window_sizes={self.trunk_window_sizes} must be even"),
            (self.trunk_embed_dim % self.trunk_num_heads == 0,
             f"trunk_num_heads={self.trunk_num_heads} must divide "
             f"trunk_embed_dim={self.trunk_embed_dim}"),
            (self.num_maskmem >= 1, f"num_maskmem={self.num_maskmem} must be >= 1"),
            (self.max_object_pointers >= 1,
             f"max_object_pointers={self.max_object_pointers} must be >= 1"),
            (self.max_cond_frames_in_attn == -1 or self.max_cond_frames_in_attn >= 2,
             f"max_cond_frames_in_attn={self.max_cond_frames_in_attn} must be -1 or >= 2"),
        )
        for holds, message in rules:
            if not holds:
                raise ValueError(f"ModelConfig {self.name!r}: {message}")

    @property
    def feature_size(self) -> int:
        """Side of the square feature map that memories and prompts live on."""
        return self.image_size // self.backbone_stride

    @property
    def low_res_mask_size(self) -> int:
        """Side of the mask logits as the decoder makes them."""
        return self.image_size // 4


_TRUNKS: Mapping[str, dict] = {
    "tiny": {},
    "small": {
        "trunk_stages": (1, 2, 11, 2),
        "trunk_global_attention_blocks": (7, 10, 13),
    },
    "base_plus": {
        "trunk_embed_dim": 112,
        "trunk_num_heads": 2,
        "trunk_stages": (2, 3, 16, 3),
        "trunk_global_attention_blocks": (12, 16, 20),
        "trunk_position_grid": (14, 14),
    },
    "large": {
        "trunk_embed_dim": 144,
        "trunk_num_heads": 2,
        "trunk_stages": (2, 6, 36, 4),
        "trunk_global_attention_blocks": (23, 33, 43),
        "trunk_window_sizes": (8, 4, 16, 8),
    },
}
_GENERATIONS: Mapping[str, dict] = {
    "sam2": {"memory_of_absence": False, "pointer_time_encoding": False},
    "sam2.1": {},
}
_CONFIG_FILE_LETTERS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}

DEMO = ModelConfig(
    name="demo",
    image_size=352,
    trunk="efficientnet_lite0",
    hidden_dim=128,
    memory_attention_layers=2,
    memory_attention_feedforward_dim=512,
    memory_dim=64,
    decoder_mlp_dim=512,
    iou_head_hidden_dim=128,
    draw_prompts=True,
    carry_masks=True,
    match_memories=True,
)
"""The model in the box: small enough to train and to run on two CPU cores."""


def _official_configs() -> dict[str, ModelConfig]:
    return {
        f"{generation}_hiera_{size}": ModelConfig(
            name=f"{generation}_hiera_{size}", **_TRUNKS[size], **changes
        )
        for generation, changes in _GENERATIONS.items()
        for size in _TRUNKS
    }


CONFIGS: Mapping[str, ModelConfig] = MappingProxyType(
    {**_official_configs(), DEMO.name: DEMO}
)
"""Every named network: the eight official variants and `demo`."""


def _aliases() -> dict[str, str]:
    """Meta's config paths and hub ids -> our names."""
    names = {}
    for generation in _GENERATIONS:
        for size, letter in _CONFIG_FILE_LETTERS.items():
            name = f"{generation}_hiera_{size}"
            file_name = f"{generation}_hiera_{letter}"
            names[f"configs/{generation}/{file_name}.yaml"] = name
            names[f"configs/{generation}/{file_name}"] = name
            names[f"{file_name}.yaml"] = name
            names[file_name] = name
            names[f"facebook/{generation}-hiera-{size.replace('_', '-')}"] = name
    return names


ALIASES: Mapping[str, str] = MappingProxyType(_aliases())


def resolve_model_name(name: str) -> str:
    """Our name for a model asked for by our name, Meta's config path or hub id.

    Raises:
        ValueError: no model has that name; the message lists those that exist.
    """
    if name in CONFIGS:
        return name
    if name in ALIASES:
        return ALIASES[name]
    raise ValueError(
        f"model name {name!r} is not known; use one of {', '.join(CONFIGS)}, "
        "a config path such as 'configs/sam2.1/sam2.1_hiera_t.yaml' or a hub id "
        "such as 'facebook/sam2.1-hiera-tiny'"
    )


def model_config(name: str) -> ModelConfig:
    """The config of a model asked for by any of its names (`resolve_model_name`)."""
    return CONFIGS[resolve_model_name(name)]
