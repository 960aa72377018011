"""Clips made on the fly, gathered into the batches a training step takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sam2_model.training.materials import Materials
from sam2_model.training.objective import ClipBatch
from sam2_model.training.synthetic import (
    Clip,
    ClipSettings,
    make_clip,
    make_image_sample,
    make_warped_clip,
)

_MAKERS = {
    "composed": make_clip, "drawn": make_clip, "warped": make_warped_clip,
    "image": make_image_sample,
}
_DRAWN_PER_KIND = 300


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """What one training step sees."""

    image_size: int
    frame_count: int
    clip_count: int
    objects_per_clip: int
    mix: tuple[tuple[str, float], ...]
    """Kinds of clip and their weights: "composed", "warped" and "image" of the materials
    given, "drawn" composed of drawn textures and shapes only."""
    least_area: float = 0.002
    """Objects smaller than this share of the first frame are not prompted."""
    leave: float = ClipSettings.leave
    occluder: float = ClipSettings.occluder
    """As `ClipSettings` has them."""
    compose_on: str = "cpu"
    """The device that clips are put together on; batches come on the CPU."""
    encoder_learns: bool = True
    """See `ClipBatch`."""


class StepBatches(Dataset):
    """Item i is the batch of step `start` + i: the same for equal seeds, on any run."""

    def __init__(
        self, materials: Materials, in_turn: Sequence[BatchSettings],
        *, seed: int, start: int, stop: int,
    ) -> None:
        self.materials = materials
        self.drawn = Materials.procedural(0, count_per_kind=_DRAWN_PER_KIND)
        self.in_turn = tuple(in_turn)
        self.seed = seed
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> ClipBatch:
        step = self.start + index
        settings = self.in_turn[step % len(self.in_turn)]
        random = np.random.default_rng((self.seed, step))
        frames, masks, owners = [], [], []
        while len(frames) < settings.clip_count:
            clip = self._clip(settings, random)
            clip_frames, clip_masks = clip.frames, clip.masks
            chosen = _choose_objects(clip_masks, settings, random)
            if not len(chosen):
                continue
            if random.random() < 0.5:
                clip_frames, clip_masks = clip_frames[:, :, ::-1], clip_masks[..., ::-1]
            if random.random() < 0.5:
                clip_frames, clip_masks = clip_frames[::-1], clip_masks[::-1]
                chosen = _choose_objects(clip_masks, settings, random)
                if not len(chosen):
                    continue
            owners += [len(frames)] * len(chosen)
            frames.append(torch.from_numpy(clip_frames.copy()).permute(0, 3, 1, 2))
            masks.append(torch.from_numpy(clip_masks[:, chosen].copy()).transpose(0, 1))
        return ClipBatch(
            torch.stack(frames), torch.cat(masks), torch.tensor(owners), settings.encoder_learns
        )

    def _clip(self, settings: BatchSettings, random: np.random.Generator) -> Clip:
        kinds, weights = zip(*settings.mix)
        kind = kinds[random.choice(len(kinds), p=np.array(weights) / sum(weights))]
        size = settings.image_size
        return _MAKERS[kind](
            self.drawn if kind == "drawn" else self.materials,
            ClipSettings(
                image_size_hw=(size, size), frame_count=settings.frame_count,
                leave=settings.leave, occluder=settings.occluder, device=settings.compose_on,
            ),
            int(random.integers(2**62)),
        )


def _choose_objects(masks: np.ndarray, settings: BatchSettings, random) -> np.ndarray:
    """Indices of objects to follow: large enough on the first frame, at most so many."""
    share = masks[0].mean(axis=(1, 2))
    large = np.flatnonzero(share >= settings.least_area)
    return random.permutation(large)[: settings.objects_per_clip]


def step_batches(
    materials: Materials, in_turn: Sequence[BatchSettings],
    *, seed: int, start: int, stop: int, workers: int = 1,
) -> Iterator[ClipBatch]:
    """The batches of steps [start, stop), by each of the settings in turn.

    They are made in worker processes.
    """
    dataset = StepBatches(materials, in_turn, seed=seed, start=start, stop=stop)
    loader = DataLoader(
        dataset,
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # A forked process cannot use a GPU.
        multiprocessing_context=(
            "spawn" if workers and any(s.compose_on != "cpu" for s in in_turn) else None
        ),
    )
    return iter(loader)
