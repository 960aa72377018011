"""A short clip to compare on: given frames, or a generated one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

SIZE_WH = (320, 180)
ENLARGED = 3
"""The drawn clip's frames are enlarged so that one pixel is well under the bound."""


def write_frames(folder: Path, count: int) -> Path:
    """A folder of `count` JPEG frames.

    From the video that PARITY_CLIP names, if it is set; otherwise drawn: two
    textured discs and a bar crossing a textured ground.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = os.environ.get("PARITY_CLIP")
    pictures = _decoded(Path(source), count) if source else _drawn(count)
    for index, picture in enumerate(pictures):
        frame = Image.fromarray(picture)
        if not source:
            frame = frame.resize([side * ENLARGED for side in SIZE_WH])
        frame.save(folder / f"{index:05d}.jpg", quality=95)
    return folder


def _decoded(path: Path, count: int) -> list[np.ndarray]:
    from sam2_model.video import open_frame_source

    with open_frame_source(path) as source:
        stop = min(count, len(source))
        return [frame for _, frame in source.frames(0, stop)]


def _drawn(count: int) -> list[np.ndarray]:
    width, height = SIZE_WH
    random = np.random.default_rng(5)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    coarse = random.integers(60, 190, (12, 20, 3), dtype=np.uint8)
    ground = np.asarray(
        Image.fromarray(coarse).resize(SIZE_WH, Image.Resampling.BICUBIC), dtype=np.float32
    )
    pictures = []
    for t in range(count):
        picture = ground + 8 * np.sin((x + 3 * t) / 9)[..., None]
        for cx, cy, radius, colour in (
            (90 + 9 * t, 90 + 20 * np.sin(t / 3), 38, (210, 60, 40)),
            (240 - 6 * t, 60 + 4 * t, 28, (40, 90, 220)),
        ):
            inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            stripes = 25 * np.sign(np.sin((x - cx) / 4 + (y - cy) / 7))
            picture[inside] = np.array(colour) + stripes[inside, None]
        picture[:, int(40 + 4 * t) : int(52 + 4 * t)] = (90, 160, 70)
        pictures.append(picture.clip(0, 255).astype(np.uint8))
    return pictures
