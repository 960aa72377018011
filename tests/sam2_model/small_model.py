"""A network of toy size with lively weights, and clips for it: a frame takes milliseconds."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch

from sam2_model.configs import ModelConfig
from sam2_model.network import SAM2Network
from sam2_model.session import StateLimits
from sam2_model.video_predictor import PredictorOptions, SAM2VideoPredictor
from tests.parity.weights import lively_state_dict

SMALL = ModelConfig(
    name="small",
    image_size=128,
    trunk_embed_dim=16,
    trunk_stages=(1, 1, 2, 1),
    trunk_global_attention_blocks=(3,),
    trunk_window_sizes=(8, 4, 8, 4),
    hidden_dim=32,
    memory_attention_layers=2,
    memory_attention_feedforward_dim=64,
    memory_dim=8,
    decoder_num_heads=2,
    decoder_mlp_dim=64,
    iou_head_hidden_dim=32,
)


_SHARPENED = (
    # part of a weight's name, factor
    ("output_hypernetworks_mlps.", 40),
    ("cross_attn_image.q_proj", 3),
    ("cross_attn_image.k_proj", 3),
    ("cross_attn_image.v_proj", 10),
    ("cross_attn_image.out_proj", 10),
    ("obj_ptr_proj.layers.2", 10),
)
"""In so narrow a network the seeded weights alone make objects' memories all but equal."""


def small_state_dict(config: ModelConfig = SMALL, *, score_bias: float = 3.0) -> dict:
    """Weights with which masks depend on prompts and memories, logits of both signs.

    `score_bias` is the bias of the object-presence logit: far below zero and
    every tracked object is absent.
    """
    weights = lively_state_dict(config, sharpened=False)
    for name in weights:
        for part, factor in _SHARPENED:
            is_last = "mlps" not in part or ".layers.2." in name
            if part in name and is_last and name.endswith("weight"):
                weights[name] = weights[name] * factor
    weights["sam_mask_decoder.pred_obj_score_head.layers.2.bias"].fill_(score_bias)
    return weights


@functools.cache
def small_network(
    score_bias: float = 3.0, dtype: torch.dtype = torch.float32, **changes
) -> SAM2Network:
    """`SMALL` with `changes`, equal for equal arguments; shared, so do not change it."""
    config = dataclasses.replace(SMALL, **changes)
    network = SAM2Network(config)
    network.load_state_dict(small_state_dict(config, score_bias=score_bias))
    return network.to(dtype).eval()


def small_predictor(
    network: SAM2Network | None = None, *, limits: StateLimits = StateLimits(), **options
) -> SAM2VideoPredictor:
    return SAM2VideoPredictor(
        network or small_network(), PredictorOptions(**options), limits=limits
    )


def moving_square(count: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """`count` RGB pictures of a bright square crossing a noisy ground."""
    random = np.random.default_rng(7)
    ground = random.integers(0, 120, (height, width, 3), dtype=np.uint8)
    side = max(1, height // 3)
    pictures = []
    for index in range(count):
        picture = ground.copy()
        x = index * 3 % max(1, width - side)
        y = min(height // 3 + index % 5, height - side)
        picture[y : y + side, x : x + side] = (240, 200, 40)
        pictures.append(picture)
    return pictures


def answers_of(propagation) -> dict[int, torch.Tensor]:
    """Logits by frame, each frame once."""
    answers = {}
    for frame_index, _, logits in propagation:
        assert frame_index not in answers
        answers[frame_index] = logits
    return answers
