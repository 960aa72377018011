"""SAM 2 and its predictors: PyTorch, no Label Studio.

The names people know from Meta's package are here; they are imported on first
use, so that `import sam2_model` alone loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_HOME = {
    "build_sam2": "build",
    "build_sam2_hf": "build",
    "build_sam2_video_predictor": "build",
    "build_sam2_video_predictor_hf": "build",
    "ModelConfig": "configs",
    "model_config": "configs",
    "SAM2ImagePredictor": "image_predictor",
    "SAM2VideoPredictor": "video_predictor",
    "StateLimits": "session",
    "StopRules": "tracker",
    "track": "tracker",
    "VideoDecodeError": "video",
    "open_frame_source": "video",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from sam2_model.build import (
        build_sam2,
        build_sam2_hf,
        build_sam2_video_predictor,
        build_sam2_video_predictor_hf,
    )
    from sam2_model.configs import ModelConfig, model_config
    from sam2_model.image_predictor import SAM2ImagePredictor
    from sam2_model.session import StateLimits
    from sam2_model.tracker import StopRules, track
    from sam2_model.video import VideoDecodeError, open_frame_source
    from sam2_model.video_predictor import SAM2VideoPredictor


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
