"""Meta's `sam2` package on a CPU torch, beside ours in one process.

Needs an environment with sam2 1.1.0 (`make parity` builds it). The package
imports torchvision for image transforms and `nms`; torchvision's compiled
operators do not load beside a CPU torch, but nothing here calls them, so a
declaration is enough.
"""

from __future__ import annotations

import warnings

import torch

_SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


def import_sam2() -> None:
    """Make `import sam2` work; raises ImportError where it is not installed."""
    if not hasattr(import_sam2, "library"):
        # The library lives as long as this reference to it.
        import_sam2.library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            import_sam2.library.define(
                f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sam2.build_sam  # noqa: F401


def config_path(name: str) -> str:
    """`sam2.1_hiera_tiny` -> Meta's config path."""
    generation, size = name.split("_hiera_")
    return f"configs/{generation}/{generation}_hiera_{_SIZES[size]}.yaml"


def video_predictor(name: str, state_dict: dict, **overrides):
    """Meta's video predictor with given weights, float32, on the CPU.

    Postprocessing is Meta's default but for hole filling, which needs its
    CUDA extension.
    """
    import_sam2()
    from sam2.build_sam import build_sam2_video_predictor

    extra = [f"++model.{key}={str(value).lower()}" for key, value in overrides.items()]
    predictor = build_sam2_video_predictor(
        config_path(name), None, device="cpu",
        hydra_overrides_extra=["++model.fill_hole_area=0", *extra],
    )
    predictor.fill_hole_area = 0
    predictor.load_state_dict(state_dict)
    _keep_memory_readable(predictor)
    return predictor


def image_predictor(name: str, state_dict: dict):
    """Meta's image predictor with given weights."""
    import_sam2()
    from sam2.build_sam import build_sam2
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    model = build_sam2(config_path(name), None, device="cpu")
    model.load_state_dict(state_dict)
    return SAM2ImagePredictor(model)


def _keep_memory_readable(predictor) -> None:
    """Cast memories to float32 before attention.

    In float32 Meta's code fails when an object has memories but no pointer to
    look at (prompted only later than the frame): nothing then lifts the
    bfloat16 memories to float32. The numbers are the same.
    """
    attention = predictor.memory_attention
    forward = attention.forward

    def in_float32(curr, memory, **kwargs):
        return forward(curr=curr, memory=memory.float(), **kwargs)

    attention.forward = in_float32
