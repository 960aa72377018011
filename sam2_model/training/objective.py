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
from sam2_model.training.losses import LossWeights, mask_iou, matching_loss, prediction_loss
from sam2_model.training.prompt_sampling import (
    central_points,
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
    encoder_learns: bool = True
    """False: the image encoder is only used, which costs much less time."""

    def to(self, device: torch.device) -> ClipBatch:
        """The same on a device."""
        return replace(
            self, frames=self.frames.to(device), masks=self.masks.to(device),
            clip_of_object=self.clip_of_object.to(device),
        )

    def split(self, parts: int) -> list[ClipBatch]:
        """At most so many batches, each of some of the clips, with their objects."""
        owner, batches = self.clip_of_object, []
        for clips in torch.arange(len(self.frames), device=owner.device).tensor_split(parts):
            if len(clips):
                inside = (owner >= clips[0]) & (owner <= clips[-1])
                part = replace(
                    self, frames=self.frames[clips], masks=self.masks[inside],
                    clip_of_object=owner[inside] - clips[0],
                )
                batches.append(part)
        return batches


@dataclass(frozen=True)
class PromptMix:
    """How often the first prompt is what; the rest is a mask.

    A clip of one frame never gets a mask, which would leave nothing to predict.
    """

    box: float = 0.5
    point: float = 0.3
    central: float = 0.0
    """How many of the points are in the object's middle; the rest is anywhere on it."""
    correction_clicks: int = 1
    """Corrections after the first prompt, in half of the steps."""

    def without_masks(self) -> PromptMix:
        """The same proportion of boxes and points, and nothing else."""
        total = self.box + self.point
        return replace(self, box=self.box / total, point=self.point / total) if total else self


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
    with torch.set_grad_enabled(torch.is_grad_enabled() and batch.encoder_learns):
        features = network.encode_image(normalise(batch.frames).flatten(0, 1))
    if frame_count == 1:
        prompt_mix = prompt_mix.without_masks()
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
        if prompt_mix.central:
            central = torch.rand(len(points), generator=generator) < prompt_mix.central
            points[central] = central_points(target.cpu()[central])[:, None]
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
    if weights.matching:
        result.loss = result.loss + weights.matching * _matching(network, frame, target, tokens)
    result.track_iou.append(_present_iou(prediction, target))
    present = target.flatten(1).any(dim=1)
    seen = prediction.object_score_logits[:, 0] > 0
    result.presence_accuracy.append((present == seen).float().mean().item())
    return prediction


def _matching(network, frame, target, tokens) -> torch.Tensor:
    """How well what memories match tells where the object is, by itself."""
    matcher = network.memory_matcher
    keys = matcher.keys(frame.top)
    shares = torch.nn.functional.adaptive_avg_pool2d(
        target[:, None].float(), frame.top.shape[-2:]
    ).flatten(1)
    losses = []
    for remembered in network.to_compare(tokens):
        if remembered is not None:
            object_match, other_match = matcher.compare(keys, remembered)
            losses.append(matching_loss(object_match - other_match, shares).mean())
    return torch.stack(losses).mean()


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
