"""One training step: clips through the network, prompts simulated, losses summed.

All objects of all clips are one batch: every clip has as many frames, and
every object is prompted on the first. The memory of each frame is what the
model itself predicted, as when it is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch

from sam2_model.frames import normalise
from sam2_model.network import MaskPrediction, SAM2Network
from sam2_model.network.sam2 import MemoryTokens
from sam2_model.training.losses import LossWeights, mask_iou, prediction_loss
from sam2_model.training.prompt_sampling import (
    sample_boxes,
    sample_correction,
    sample_points,
)

_SURE = 10.0
"""A logit no one doubts."""


@dataclass(frozen=True)
class ClipBatch:
    """Clips of one length, with the objects to follow in each."""

    frames: torch.Tensor
    """(clips, T, 3, S, S) uint8."""
    masks: torch.Tensor
    """(B, T, S, S) bool: the visible part of each object."""
    clip_of_object: torch.Tensor
    """(B,) int64: the clip each object is in."""

    def to(self, device: torch.device) -> ClipBatch:
        """The same on a device."""
        return ClipBatch(
            self.frames.to(device), self.masks.to(device), self.clip_of_object.to(device)
        )


@dataclass(frozen=True)
class PromptMix:
    """How often the first prompt is what; the rest is a mask."""

    box: float = 0.5
    point: float = 0.3
    correction_clicks: int = 1
    """Corrections after the first prompt, in half of the steps."""


@dataclass
class StepResult:
    loss: torch.Tensor
    prompt_iou: list[float] = field(default_factory=list)
    """IoU after each round of prompts on the first frame."""
    track_iou: list[float] = field(default_factory=list)
    """IoU on each later frame, over objects that are there."""
    presence_accuracy: list[float] = field(default_factory=list)


def run_clips(
    network: SAM2Network,
    batch: ClipBatch,
    generator: torch.Generator,
    *,
    prompt_mix: PromptMix = PromptMix(),
    weights: LossWeights = LossWeights(),
    spoiled_share: float = 0.0,
) -> StepResult:
    """The loss of a batch of clips, differentiable, and how well it went.

    Args:
        spoiled_share: how many of the tracked masks are spoiled (`spoil`) before
            they are remembered: a model that sees only its own small mistakes
            never learns to come back from a large one.
    """
    clips, frame_count = batch.frames.shape[:2]
    features = network.encode_image(normalise(batch.frames).flatten(0, 1))
    result = StepResult(loss=features.top.new_zeros(()))
    memories: list[torch.Tensor] = []
    pointers: list[torch.Tensor] = []
    for t in range(frame_count):
        frame = features[batch.clip_of_object * frame_count + t]
        target = batch.masks[:, t]
        if t == 0:
            prediction = _prompted_frame(
                network, frame, target, generator, prompt_mix, weights, result
            )
        else:
            prediction = _tracked_frame(
                network, frame, target, memories, pointers, prediction.mask_logits, weights,
                result,
            )
        if t and spoiled_share:
            spoiled = spoil(prediction.mask_logits, spoiled_share, generator)
            prediction = replace(prediction, mask_logits=spoiled)
        if t + 1 < frame_count:
            memories.append(
                network.encode_memory(
                    frame.top, prediction.mask_logits, prediction.object_score_logits
                )
            )
            pointers.append(prediction.object_pointer)
    result.loss = result.loss / (len(result.prompt_iou) + len(result.track_iou) or 1)
    return result


def spoil(
    mask_logits: torch.Tensor, share: float, generator: torch.Generator
) -> torch.Tensor:
    """Some of the masks with a ghost beside the object, a part cut off, or forgotten.

    (B, 1, h, w) logits -> the same shape; ghosts and cuts as sure as the model ever is.
    """
    height, width = mask_logits.shape[-2:]
    rows = torch.arange(height, device=mask_logits.device)[:, None]
    columns = torch.arange(width, device=mask_logits.device)[None, :]
    spoiled = []
    for logits in mask_logits.detach():
        draw = torch.rand(6, generator=generator).tolist()
        if draw[0] >= share:
            spoiled.append(logits)
        elif draw[1] < 0.45:
            shift = (int((draw[2] - 0.5) * height), int((draw[3] - 0.5) * width))
            spoiled.append(torch.maximum(logits, logits.roll(shift, dims=(-2, -1))))
        elif draw[1] < 0.8:
            # A line through the mask's own ground, or there would be nothing to cut.
            inside = (logits[0] > 0).nonzero()
            centre = inside[int(draw[2] * len(inside))] if len(inside) else (0, 0)
            angle = 2 * torch.pi * draw[3]
            side = (rows - centre[0]) * math.sin(angle) + (columns - centre[1]) * math.cos(angle)
            spoiled.append(torch.where(side > 0, -_SURE, logits))
        else:
            spoiled.append(torch.zeros_like(logits))
    # Where nothing was done the gradient still flows.
    result = torch.stack(spoiled)
    untouched = (result == mask_logits).flatten(1).all(dim=1)[:, None, None, None]
    return torch.where(untouched, mask_logits, result)


def _prompted_frame(
    network, frame, target, generator, prompt_mix, weights, result
) -> MaskPrediction:
    choice = torch.rand((), generator=generator).item()
    if choice >= prompt_mix.box + prompt_mix.point:
        return network.mask_as_prediction(
            network.without_memory(frame.top), frame.high_res, target[:, None].float()
        )
    device = target.device
    if choice < prompt_mix.box:
        points = sample_boxes(target.cpu(), generator)
        labels = torch.tensor([2, 3]).expand(len(target), 2)
    else:
        points = sample_points(target.cpu(), generator)[:, None]
        labels = torch.ones(len(target), 1, dtype=torch.int64)
    rounds = 1
    if torch.rand((), generator=generator).item() < 0.5:
        rounds += prompt_mix.correction_clicks
    conditioned = network.without_memory(frame.top)
    mask_logits = None
    for _ in range(rounds):
        prediction = network.predict_masks(
            conditioned,
            frame.high_res,
            points_xy=points.to(device),
            point_labels=labels.to(device),
            mask_logits=mask_logits,
            multimask=points.shape[1] == 1,
        )
        _add_loss(prediction, target, weights, result)
        result.prompt_iou.append(_present_iou(prediction, target))
        mask_logits = prediction.mask_logits.detach().clamp(-32, 32)
        guess = torch.nn.functional.interpolate(
            mask_logits, size=target.shape[-2:], mode="bilinear"
        )[:, 0]
        click, label = sample_correction(target.cpu(), (guess > 0).cpu(), generator)
        points = torch.cat((points, click[:, None]), dim=1)
        labels = torch.cat((labels, label[:, None].long()), dim=1)
    return prediction


def _tracked_frame(
    network, frame, target, memories, pointers, previous_logits, weights, result
) -> MaskPrediction:
    recent = network.config.num_maskmem - 1
    kept = [0, *range(max(1, len(memories) - recent), len(memories))]
    now = len(memories)
    tokens = MemoryTokens(
        maps=tuple(memories[t] for t in kept),
        map_recency=tuple(0 if t == 0 else recent + 1 - (now - t) for t in kept),
        pointers=tuple(pointers),
        pointer_offsets=tuple(now - t for t in range(now)),
        pointer_offset_scale=network.config.max_object_pointers - 1,
    )
    prediction = network.predict_masks(
        network.condition_on_memory(frame.top, tokens),
        frame.high_res,
        mask_logits=network.carried_mask(previous_logits),
        multimask=True,
    )
    _add_loss(prediction, target, weights, result)
    result.track_iou.append(_present_iou(prediction, target))
    present = target.flatten(1).any(dim=1)
    seen = prediction.object_score_logits[:, 0] > 0
    result.presence_accuracy.append((present == seen).float().mean().item())
    return prediction


def _add_loss(prediction: MaskPrediction, target, weights, result) -> None:
    loss, _ = prediction_loss(
        prediction.raw_logits,
        prediction.ious,
        prediction.object_score_logits,
        target[:, None].float(),
        weights,
    )
    result.loss = result.loss + loss


def _present_iou(prediction: MaskPrediction, target: torch.Tensor) -> float:
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(
            prediction.mask_logits, size=target.shape[-2:], mode="bilinear"
        )
        present = target.flatten(1).any(dim=1)
        iou = mask_iou(logits, target[:, None].float())[:, 0]
        return (iou * present).sum().item() / max(1, present.sum().item())
