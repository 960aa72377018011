"""The settings of Meta's `SAM2Base`, by their names there, and what each is here.

Read by scripts as attributes of the predictor, and written as hydra overrides. Source: the
constructor and the configs published with SAM 2 (https://github.com/facebookresearch/sam2).
"""

from __future__ import annotations

from sam2_model.configs import ModelConfig

CONFIG_FIELDS = {
    "image_size": "image_size",
    "num_maskmem": "num_maskmem",
    "max_cond_frames_in_attn": "max_cond_frames_in_attn",
    "max_obj_ptrs_in_encoder": "max_object_pointers",
    "sigmoid_scale_for_mem_enc": "memory_mask_scale",
    "sigmoid_bias_for_mem_enc": "memory_mask_bias",
}
"""Settings that a network may have otherwise -> fields of `ModelConfig`."""

SETTABLE = ("max_cond_frames_in_attn", "max_obj_ptrs_in_encoder")
"""Those that a network may get later: how far it looks back, which no weight depends on."""

_OF_THE_WEIGHTS = {
    "hidden_dim": "hidden_dim",
    "mem_dim": "memory_dim",
    "backbone_stride": "backbone_stride",
    # what SAM 2.1 added
    "no_obj_embed_spatial": "memory_of_absence",
    "add_tpos_enc_to_obj_ptrs": "pointer_time_encoding",
    "proj_tpos_enc_in_obj_ptrs": "pointer_time_encoding",
    "use_signed_tpos_enc_to_obj_ptrs": "pointer_time_encoding",
}
"""Settings that a model was trained with -> fields of `ModelConfig`."""

_OF_ALL = {
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "use_high_res_features_in_sam": True,
    "multimask_output_in_sam": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "fixed_no_obj_ptr": True,
    "soft_no_obj_ptr": False,
    "use_mlp_for_obj_ptr_proj": True,
    "num_feature_levels": 3,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta": 0.05,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": 0.98,
}
"""Settings that are the same in all published models, and here not settings at all."""


SETTINGS = frozenset({*CONFIG_FIELDS, *_OF_THE_WEIGHTS, *_OF_ALL})
"""Every setting that `setting` knows."""


def setting(config: ModelConfig, name: str) -> bool | int | float:
    """The setting's value in a network of that config.

    Raises:
        KeyError: no setting has that name.
    """
    if name in _OF_ALL:
        return _OF_ALL[name]
    field = CONFIG_FIELDS.get(name) or _OF_THE_WEIGHTS[name]
    return getattr(config, field)
