"""Fine-tuning on a handful of videos of an unseen kind helps there and harms little elsewhere.

Minutes on two cores: `make test-slow`.
"""

from __future__ import annotations

import numpy as np
import torch

from sam2_model import build_sam2_video_predictor
from sam2_model.build import build_network
from sam2_model.evaluation.semi_supervised import PromptKind, evaluate
from sam2_model.evaluation.synthetic_clips import held_out_clips
from sam2_model.training.finetune import FinetuneSettings, finetune
from tests.slow.speckle import SpeckleVideo

HANDFUL = [SpeckleVideo(f"seen-{seed}", seed) for seed in range(8)]
GENERAL_FIRST = 12
"""On the clips before, earlier weights were chosen. The present ones were chosen on 30 to 53:
what they do well there by chance is lost first, so the bar is no easier for it."""
HELD_OUT = [SpeckleVideo(f"held-out-{seed}", 1000 + seed) for seed in range(8)]


def mean_j(checkpoint: str | None, videos) -> float:
    predictor = build_sam2_video_predictor("demo", checkpoint)
    return float(np.mean([r.region for r in evaluate(predictor, videos, PromptKind.BOX)]))


def test_j_rises_on_the_new_kind_and_stays_on_the_general_set(tmp_path):
    general = list(held_out_clips(40, first=GENERAL_FIRST))
    before, general_before = mean_j(None, HELD_OUT), mean_j(None, general)
    network = build_network("demo", dtype=torch.float32, mode="train")
    report = finetune(
        network, HANDFUL, tmp_path, FinetuneSettings(steps=150, evaluate_every=50)
    )
    after, general_after = mean_j(report.weights, HELD_OUT), mean_j(report.weights, general)
    print(f"speckle: J {before:.3f} -> {after:.3f}; general: {general_before:.3f} -> {general_after:.3f}")
    assert after >= before + 0.05
    assert general_after >= general_before - 0.02
