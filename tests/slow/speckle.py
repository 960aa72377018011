"""Videos of a kind the embedded model has not seen: dark bodies in ultrasound-like speckle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageFilter

SIZE_HW = (180, 240)
LENGTH = 10


@dataclass(frozen=True)
class SpeckleVideo:
    """One or two bodies, a little darker than the grain around them, that swim and swell.

    Their edges are told by the grain's mean alone; bands of shadow are darker than they.
    """

    name: str
    seed: int

    @cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """((T, H, W, 3) uint8, (T, N, H, W) bool)."""
        random = np.random.default_rng(self.seed)
        height, width = SIZE_HW
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        count = int(random.integers(1, 3))
        bodies = [self._body(random, number, count) for number in range(count)]
        shadow = 1 - 0.5 * np.exp(-(((columns - random.uniform(0, width)) / 14) ** 2))
        brightness = 105 + 25 * np.sin(columns / random.uniform(30, 60) + random.uniform(0, 6))
        frames, masks = [], []
        for time in range(LENGTH):
            mean = brightness * shadow
            of_frame = []
            for body in bodies:
                inside = body(rows, columns, time)
                mean = np.where(inside, 0.62 * mean, mean)
                of_frame.append(inside)
            # Later bodies lie over earlier ones.
            for index in range(count - 1):
                of_frame[index] = of_frame[index] & ~of_frame[index + 1]
            grain = random.rayleigh(0.8, SIZE_HW).astype(np.float32)
            picture = Image.fromarray(np.clip(mean * grain, 0, 255).astype(np.uint8))
            picture = picture.filter(ImageFilter.GaussianBlur(1.0))
            frames.append(np.repeat(np.asarray(picture)[..., None], 3, axis=2))
            masks.append(np.stack(of_frame))
        return np.stack(frames), np.stack(masks)

    @staticmethod
    def _body(random: np.random.Generator, number: int, count: int):
        height, width = SIZE_HW
        x = width * (number + random.uniform(0.35, 0.65)) / count
        y = height * random.uniform(0.35, 0.65)
        radius = random.uniform(22, 38)
        lobes, phase = random.uniform(0.05, 0.2, 4), random.uniform(0, 6.3, 4)
        velocity = random.uniform(-2.5, 2.5, 2)
        swelling = random.uniform(0.05, 0.2)

        def inside(rows, columns, time):
            dy = rows - (y + velocity[0] * time)
            dx = columns - (x + velocity[1] * time)
            angle = np.arctan2(dy, dx)
            reach = radius * (1 + swelling * np.sin(0.7 * time + phase[0]))
            for order in range(4):
                reach = reach * (1 + lobes[order] * np.cos((order + 2) * angle + phase[order]))
            return np.hypot(dx, dy) < reach

        return inside

    @property
    def source(self) -> list[Image.Image]:
        return [Image.fromarray(frame) for frame in self._drawn[0]]

    @property
    def frame_count(self) -> int:
        return LENGTH

    @property
    def annotations(self) -> range:
        return range(LENGTH)

    def masks(self, frame_index: int) -> dict[int, np.ndarray]:
        planes = self._drawn[1][frame_index]
        return {number: mask for number, mask in enumerate(planes, start=1) if mask.any()}

    def picture(self, frame_index: int) -> np.ndarray:
        return self._drawn[0][frame_index]
