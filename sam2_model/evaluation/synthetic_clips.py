"""Held-out synthetic clips: what the embedded model was taught, with nothing it has seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np
from PIL import Image

from sam2_model.training.materials import Materials
from sam2_model.training.synthetic import Clip, ClipSettings, make_clip

_SEED = 20_000_000
"""Far from any seed that training takes."""
_SETTINGS = ClipSettings(
    image_size_hw=(360, 480), frame_count=24, max_objects=3, min_area_fraction=0.01
)


@dataclass(frozen=True)
class SyntheticVideo:
    """A clip of the generator, as a video with true masks on every frame."""

    name: str
    clip: Clip

    @property
    def source(self) -> Sequence[Image.Image]:
        return [Image.fromarray(frame) for frame in self.clip.frames]

    @property
    def frame_count(self) -> int:
        return len(self.clip.frames)

    @property
    def annotations(self) -> range:
        return range(self.frame_count)

    def masks(self, frame_index: int) -> dict[int, np.ndarray]:
        """Object number -> (H, W) bool, of those that can be seen."""
        planes = self.clip.masks[frame_index]
        return {number: mask for number, mask in enumerate(planes) if mask.any()}

    def picture(self, frame_index: int) -> np.ndarray:
        return self.clip.frames[frame_index]


def held_out_clips(
    count: int, materials_folder: Path | None = None, *, first: int = 0
) -> Iterator[SyntheticVideo]:
    """`count` clips of 24 frames: one to three objects, look-alikes, occluders.

    Args:
        first: the number of the first one; a clip is the same whichever it begins with.
        materials_folder: made by `training.materials`; its "val" part was never
            trained on. None: drawn textures and shapes only.
    """
    if materials_folder is None:
        materials = Materials.procedural(_SEED)
    else:
        materials = Materials.load(materials_folder, "val")
    for number in range(first, first + count):
        yield SyntheticVideo(f"clip-{number:04d}", make_clip(materials, _SETTINGS, _SEED + number))
