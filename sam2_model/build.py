"""From a model's name to a predictor that is ready to use."""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import Mapping, Sequence

import torch

from sam2_model.checkpoints import fetch_from_hub, load_into, resolve_checkpoint
from sam2_model.checkpoints.finetuned import finetuned_names, finetuned_path, network_of
from sam2_model.configs import ALIASES, CONFIGS, ModelConfig, model_config, resolve_model_name
from sam2_model.meta_overrides import Overrides, read_overrides
from sam2_model.network import SAM2Network
from sam2_model.session import StateLimits
from sam2_model.video_predictor import PredictorOptions, SAM2VideoPredictor

logger = logging.getLogger(__name__)

VIDEO_POSTPROCESSING = {
    "dynamic_multimask_via_stability": True,
    "binarize_mask_from_pts_for_mem_enc": True,
    "fill_hole_area": 8,
}
"""What Meta's builder switches on for the video predictor."""
_STABILITY_FALLBACK = "dynamic_multimask_via_stability"
"""The one option of image prediction too."""

FINETUNED_FILE_NAME = "model.safetensors"
"""What fine-tuning calls the weights in the folder it writes."""
DOWNLOAD = "download"
"""Value of `ckpt_path` that means: the model's own official checkpoint."""


def default_device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"):
            return torch.bfloat16
    return torch.float32


@dataclasses.dataclass(frozen=True)
class NamedModel:
    """What a model's name stands for."""

    config: ModelConfig
    weights: Path | None
    """The file that comes with the name; None: the config's published weights."""


def find_model(model: str | os.PathLike[str] | ModelConfig) -> NamedModel:
    """The network, and where its weights are, of whatever a model may be called.

    Args:
        model: a name `configs.resolve_model_name` knows; the name of a
            fine-tuned model; its file, or the folder `finetune` wrote; a config.

    Raises:
        ValueError: nothing goes by that name; the message lists what does.
        CheckpointFileError: a file that does not say which network it is for.
    """
    if isinstance(model, ModelConfig):
        return NamedModel(model, None)
    name = os.fspath(model)
    if name in CONFIGS or name in ALIASES:
        return NamedModel(model_config(name), None)
    for path in (Path(name), Path(name) / FINETUNED_FILE_NAME):
        if path.is_file():
            return NamedModel(CONFIGS[network_of(path)], path)
    known = finetuned_names()
    if name in known:
        path = finetuned_path(name)
        return NamedModel(CONFIGS[network_of(path)], path)
    try:
        resolve_model_name(name)
    except ValueError as error:
        tuned = f"; fine-tuned models here: {', '.join(known)}" if known else ""
        raise ValueError(f"{error}{tuned}") from None
    raise AssertionError("resolve_model_name knows a name that CONFIGS and ALIASES do not")


def build_network(
    model: str | ModelConfig,
    checkpoint: str | Path | None = DOWNLOAD,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    mode: str = "eval",
    config_changes: Mapping[str, object] = {},
) -> SAM2Network:
    """A network with its weights, on its device.

    Args:
        model: see `find_model`.
        checkpoint: a file; `DOWNLOAD` for the named model's own; None for
            random weights.
        device: default `default_device()`.
        dtype: default `default_dtype(device)`, float32 for training.
        mode: "eval" or "train".
        config_changes: fields of `ModelConfig` that shall be other than the model's.

    Raises:
        ValueError: unknown name, device or mode, a checkpoint of another model, or a
            config that cannot be.
        CheckpointError: the weights cannot be had; see `checkpoints`.
    """
    if mode not in ("eval", "train"):
        raise ValueError(f"mode={mode!r} must be 'eval' or 'train'")
    named = find_model(model)
    config = named.config
    device = _checked_device(device)
    if dtype is None:
        # Weights in bfloat16 would swallow small training steps.
        dtype = torch.float32 if mode == "train" else default_dtype(device)
    if checkpoint == DOWNLOAD:
        checkpoint = named.weights or resolve_checkpoint(config.name)
    network = SAM2Network(dataclasses.replace(config, **config_changes))
    if checkpoint is not None:
        load_into(network, Path(checkpoint), model_name=config.name)
    network = network.to(device=device, dtype=dtype)
    return network.train(mode == "train")


def _checked_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return default_device()
    try:
        checked = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is not a device: {error}") from error
    if checked.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r} was asked for, but no GPU can be used here")
    return checked


def build_sam2(
    config_file: str | ModelConfig,
    ckpt_path: str | Path | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    *,
    dtype: torch.dtype | None = None,
) -> SAM2Network:
    """The network for `SAM2ImagePredictor`, with the arguments of Meta's builder.

    Args:
        config_file: `sam2.1_hiera_tiny`, Meta's config path, a hub id, `demo`,
            or a fine-tuned model (`find_model`).
        ckpt_path: a checkpoint file; None gives random weights, as Meta's
            does, except for `demo`, whose weights are in the package, and
            for fine-tuned models.
        device: default the GPU if there is one.
        hydra_overrides_extra: see `meta_overrides`.
        apply_postprocessing: fall back to the best of three masks where the
            single one is unstable.
        dtype: default bfloat16 where it is fast, else float32.

    Raises:
        ValueError: as `build_network`, or an override that is refused.
    """
    asked = _overrides(hydra_overrides_extra, config_file)
    if of_video := sorted(set(asked.options) - {_STABILITY_FALLBACK}):
        raise ValueError(
            f"hydra_overrides_extra: {of_video} are options of build_sam2_video_predictor"
        )
    network = build_network(
        config_file, _default_checkpoint(config_file, ckpt_path),
        device=device, dtype=dtype, mode=mode, config_changes=asked.config_changes,
    )
    network.stability_fallback = asked.options.get(_STABILITY_FALLBACK, apply_postprocessing)
    return network


def build_sam2_video_predictor(
    config_file: str | ModelConfig,
    ckpt_path: str | Path | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    *,
    dtype: torch.dtype | None = None,
    limits: StateLimits = StateLimits(),
    **options,
) -> SAM2VideoPredictor:
    """The video predictor, with the arguments of Meta's builder.

    Args:
        config_file, ckpt_path, device, dtype: as `build_sam2`.
        hydra_overrides_extra: `["++model.non_overlap_masks=true"]` and the like; what
            names something we have is taken as that option (`meta_overrides`).
        apply_postprocessing: Meta's defaults: fill holes of up to 8 pixels,
            remember prompted frames as people saw them, fall back to the best
            of three masks where the single one is unstable.
        vos_optimized: Meta's compiled predictor, for speed alone; nothing is compiled
            here, the masks are the same, and the log says so.
        limits: what an inference state may hold.
        options: fields of `PredictorOptions`, which win over overrides, and those
            over the defaults.

    Raises:
        ValueError: as `build_network`, an option that does not exist, or an override
            that is refused.
    """
    known = {field.name for field in dataclasses.fields(PredictorOptions)}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"options {unknown} are not known: use {sorted(known)}")
    asked = _overrides(hydra_overrides_extra, config_file, is_compiled=vos_optimized)
    defaults = VIDEO_POSTPROCESSING if apply_postprocessing else {}
    for name in defaults.keys() & asked.options.keys():
        if asked.options[name] != defaults[name]:
            # Meta's builder lets its own defaults win, and does not say so.
            logger.warning(
                "hydra_overrides_extra asks for %s=%s, apply_postprocessing for %s: the override "
                "is taken", name, asked.options[name], defaults[name],
            )
    network = build_network(
        config_file, _default_checkpoint(config_file, ckpt_path),
        device=device, dtype=dtype, mode=mode, config_changes=asked.config_changes,
    )
    return SAM2VideoPredictor(
        network, PredictorOptions(**{**defaults, **asked.options, **options}), limits=limits
    )


def _overrides(
    overrides: Sequence[str], model: str | ModelConfig, *, is_compiled: bool = False
) -> Overrides:
    asked = read_overrides(overrides, find_model(model).config)
    if is_compiled or asked.is_compiled:
        logger.warning(
            "vos_optimized or compile_image_encoder: nothing is compiled here; the masks are "
            "the same, and speed is as ever"
        )
    return asked


def build_sam2_hf(model_id: str, **kwargs) -> SAM2Network:
    """`build_sam2` with a checkpoint from the Hugging Face hub."""
    return build_sam2(model_id, _checkpoint_of_hub_model(model_id), **kwargs)


def build_sam2_video_predictor_hf(model_id: str, **kwargs) -> SAM2VideoPredictor:
    """`build_sam2_video_predictor` with a checkpoint from the Hugging Face hub."""
    return build_sam2_video_predictor(model_id, _checkpoint_of_hub_model(model_id), **kwargs)


def _default_checkpoint(config_file, ckpt_path):
    """Weights that are at hand are taken unasked: the embedded model's, a fine-tuned one's."""
    if ckpt_path is not None or isinstance(config_file, ModelConfig):
        return ckpt_path
    named = find_model(config_file)
    return DOWNLOAD if named.weights or named.config.name == "demo" else None


def _checkpoint_of_hub_model(model_id: str) -> Path:
    resolve_model_name(model_id)
    return fetch_from_hub(model_id)
