"""Seeded weights that make every part of the network matter.

A freshly initialised network hides mistakes: layer scales of 1e-6 silence
whole blocks, position embeddings are zero, the object is absent and all logits
are one constant. These weights are random, but with signals of ordinary size
everywhere, the object present and logits of both signs.
"""

from __future__ import annotations

import torch

from sam2_model.configs import ModelConfig
from sam2_model.network import SAM2Network


def lively_state_dict(
    config: ModelConfig, seed: int = 0, *, sharpened: bool = True
) -> dict[str, torch.Tensor]:
    """A state dict for `config`, equal for equal seeds.

    Unless `sharpened`, what memories and pointers hold hardly moves the masks:
    random ones all look alike to random weights.
    """
    torch.manual_seed(seed)
    network = SAM2Network(config)
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for name, value in state.items():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("gamma"):
            state[name] = 0.3 + 0.05 * noise
        elif name.endswith("positional_encoding_gaussian_matrix"):
            state[name] = noise
        elif "pos_embed" in name or "no_" in name or "tpos_enc" in name:
            state[name] = 0.3 * noise
        elif value.ndim == 1 and "norm" in name and name.endswith("weight"):
            state[name] = 1 + 0.1 * noise
        elif value.ndim == 1:
            state[name] = 0.05 * noise
    score = "sam_mask_decoder.pred_obj_score_head.layers.2"
    state[f"{score}.bias"] = torch.full_like(state[f"{score}.bias"], 3.0)
    for index in range(4):
        last = f"sam_mask_decoder.output_hypernetworks_mlps.{index}.layers.2.weight"
        state[last] = state[last] * 12
    if sharpened:
        for name in state:
            for part, factor in _SHARPENED.items():
                if part in name:
                    state[name] = state[name] * factor
    return state


_SHARPENED = {
    "cross_attn_image.q_proj.weight": 3,
    "cross_attn_image.k_proj.weight": 3,
    "cross_attn_image.v_proj.weight": 4,
    "cross_attn_image.out_proj.weight": 4,
    "obj_ptr_proj.layers.2.weight": 6,
    "obj_ptr_tpos_proj.weight": 5,
}
