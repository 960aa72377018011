"""What Meta's video predictor has by being a `torch.nn.Module`, for one that has a network.

Scripts move it (`predictor.to(device)`), look into it (`predictor.image_encoder`), set its
options (`predictor.fill_hole_area = 0`) and call some of its private methods. What they can
do with a network goes to the network; what would mean nothing is refused by name.
docs/meta-scripts.md lists all of it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sam2_model.masks import resize_logits, without_overlaps
from sam2_model.meta_settings import CONFIG_FIELDS, SETTABLE, SETTINGS, setting
from sam2_model.network import ImageFeatures, SAM2Network
from sam2_model.network.positions import sine_position_grid

if TYPE_CHECKING:
    from sam2_model.session import InferenceState, ObjectId

_INSTEAD = {
    **dict.fromkeys(
        ("track_step", "_run_single_frame_inference", "_track_step", "_run_memory_encoder",
         "_encode_new_memory", "_consolidate_temp_output_across_obj"),
        "frames are tracked by propagate_in_video or propagate_low_res",
    ),
    **dict.fromkeys(
        ("_forward_sam_heads", "_prepare_backbone_features"),
        "prompts are answered by add_new_points_or_box and add_new_mask, and features are "
        "predictor._get_image_feature(...)",
    ),
    **dict.fromkeys(
        ("load_first_frame", "add_new_prompt", "add_new_frame", "infer_single_frame", "track"),
        "there is no predictor for cameras; sam2_model.track takes any frame source",
    ),
    "forward": "a video is tracked by propagate_in_video, and fine-tuned by "
    "`sam2-label-studio finetune`",
    "_reset_tracking_results": "use reset_state",
    "clear_all_points_in_video": "use reset_state",
}
"""Names of Meta's class and of predictors made from it that are not answered."""

_NOT_CALLED = {
    *(name for name in _INSTEAD if name.startswith("_")), "track_step", "forward_image",
    "_get_image_feature", "_apply_non_overlapping_constraints", "_get_orig_video_res_output",
}  # fmt: skip
"""Methods that Meta's predictor works by, and this one does not: another one in their place
would never run."""


class OptionAttribute:
    """A field of `predictor.options`, read and set as an attribute of the predictor."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, predictor: MetaPredictor | None, owner: type):
        return self if predictor is None else getattr(predictor.options, self._name)

    def __set__(self, predictor: MetaPredictor, value) -> None:
        predictor.options = dataclasses.replace(predictor.options, **{self._name: value})


def _on_the_network(name: str):
    def method(self, *args, **kwargs):
        getattr(self.model, name)(*args, **kwargs)
        return self

    method.__name__ = name
    method.__doc__ = f"`torch.nn.Module.{name}` of the network; returns the predictor."
    return method


class MetaPredictor:
    """The part of `SAM2VideoPredictor` that scripts for Meta's rely on."""

    model: SAM2Network

    fill_hole_area = OptionAttribute()
    non_overlap_masks = OptionAttribute()
    non_overlap_masks_for_mem_enc = OptionAttribute()
    clear_non_cond_mem_around_input = OptionAttribute()
    add_all_frames_to_correct_as_cond = OptionAttribute()
    binarize_mask_from_pts_for_mem_enc = OptionAttribute()
    memory_temporal_stride_for_eval = OptionAttribute()

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if never := sorted(_NOT_CALLED & vars(cls).keys()):
            raise TypeError(
                f"{cls.__name__} overrides {', '.join(never)}, which nothing here calls: the "
                "network is made of SAM2Network's methods, tracking of SAM2VideoPredictor's"
            )

    # States keep the features and memories of the device and dtype they were made with.
    to = _on_the_network("to")
    cpu = _on_the_network("cpu")
    cuda = _on_the_network("cuda")
    half = _on_the_network("half")
    bfloat16 = _on_the_network("bfloat16")
    float = _on_the_network("float")
    double = _on_the_network("double")
    type = _on_the_network("type")
    eval = _on_the_network("eval")
    train = _on_the_network("train")
    requires_grad_ = _on_the_network("requires_grad_")
    apply = _on_the_network("apply")
    share_memory = _on_the_network("share_memory")

    @property
    def stability_fallback(self) -> bool:
        """For image prediction with this predictor's network (`SAM2Network.stability_fallback`)."""
        return self.options.dynamic_multimask_via_stability

    def __getattr__(self, name: str) -> Any:
        """The network's parts and what any module has; settings by Meta's names."""
        network = self.__dict__.get("model")
        if network is not None and not name.startswith("__") and name not in _INSTEAD:
            if _is_part(network, name) or hasattr(nn.Module, name) or name == "training":
                return getattr(network, name)
            if name in SETTINGS:
                return setting(network.config, name)
        why = f": {_INSTEAD[name]}" if name in _INSTEAD else ""
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}{why}", name=name, obj=self
        )

    def __setattr__(self, name: str, value: object) -> None:
        network = self.__dict__.get("model")
        if name in _NOT_CALLED:
            raise AttributeError(
                f"{name} cannot be replaced: nothing here calls it", name=name, obj=self
            )
        if network is not None and _is_part(network, name):
            setattr(network, name, value)
        elif network is not None and name in SETTABLE:
            changed = {CONFIG_FIELDS[name]: value}
            network.config = dataclasses.replace(network.config, **changed)
        elif network is not None and name in SETTINGS:
            raise AttributeError(
                f"{name} is the network's, and set when it is built: "
                f"hydra_overrides_extra=['++model.{name}=...'], or a ModelConfig",
                name=name, obj=self,
            )
        else:
            super().__setattr__(name, value)

    # --- what Meta's class does under its breath ---------------------------------

    def propagate_in_video_preflight(self, inference_state: InferenceState) -> None:
        """`finish_prompts`, by its name in Meta's predictor."""
        self.finish_prompts(inference_state)

    def _apply_non_overlapping_constraints(self, pred_masks: torch.Tensor) -> torch.Tensor:
        """(N, 1, H, W) logits -> the same, each pixel with one object at most."""
        return without_overlaps(pred_masks)

    def _get_orig_video_res_output(
        self, inference_state: InferenceState, any_res_masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 1, h, w) logits as they are, and at video size as they would be answered."""
        logits = any_res_masks.to(inference_state.device)
        info = inference_state.info
        masks = resize_logits(logits, (info.height, info.width))
        return logits, without_overlaps(masks) if self.non_overlap_masks else masks

    def _obj_id_to_idx(self, inference_state: InferenceState, obj_id: ObjectId) -> int:
        """An object's place; KeyError if there is none, for only prompts add objects."""
        return inference_state["obj_id_to_idx"][obj_id]

    def _obj_idx_to_id(self, inference_state: InferenceState, obj_idx: int) -> ObjectId:
        return inference_state["obj_idx_to_id"][obj_idx]

    def _get_obj_num(self, inference_state: InferenceState) -> int:
        return len(inference_state.objects)

    @torch.inference_mode()
    def forward_image(self, img_batch: torch.Tensor) -> dict[str, Any]:
        """Normalised pictures (N, 3, S, S) -> their features, in Meta's dict."""
        return self._backbone_out(self.model.encode_image(img_batch))

    def _backbone_out(self, features: ImageFeatures) -> dict[str, Any]:
        levels = [*features.high_res, features.top]
        positions = [
            sine_position_grid(
                self.model.config.hidden_dim, *level.shape[-2:], level.device
            ).to(level.dtype).expand(len(level), -1, -1, -1)
            for level in levels
        ]
        return {
            "vision_features": features.top,
            "vision_pos_enc": positions,
            "backbone_fpn": levels,
        }

    @torch.inference_mode()
    def _get_image_feature(
        self, inference_state: InferenceState, frame_idx: int, batch_size: int
    ) -> tuple[torch.Tensor, dict, list[torch.Tensor], list[torch.Tensor], list[tuple[int, int]]]:
        """A frame's features for `batch_size` objects, from the cache or made now.

        Returns:
            The picture (B, 3, S, S); `forward_image`'s dict; features and position
            encodings of strides 4, 8 and 16, each (h * w, B, C); their sizes (h, w).
        """
        frame_idx = self._checked_frame(inference_state, frame_idx)
        features = inference_state.features(frame_idx, self.model)
        image = inference_state.image(frame_idx)[None].expand(batch_size, -1, -1, -1)
        out = self._backbone_out(features)
        out = {
            "vision_features": features.top.expand(batch_size, -1, -1, -1),
            "vision_pos_enc": [p.expand(batch_size, -1, -1, -1) for p in out["vision_pos_enc"]],
            "backbone_fpn": [f.expand(batch_size, -1, -1, -1) for f in out["backbone_fpn"]],
        }
        sizes = [tuple(level.shape[-2:]) for level in out["backbone_fpn"]]
        flat = [
            [level.flatten(2).permute(2, 0, 1) for level in out[key]]
            for key in ("backbone_fpn", "vision_pos_enc")
        ]
        return image, out, *flat, sizes


def _is_part(network: nn.Module, name: str) -> bool:
    """Whether the network has a module or parameter of that name."""
    return isinstance(getattr(network, name, None), (nn.Module, nn.Parameter))
