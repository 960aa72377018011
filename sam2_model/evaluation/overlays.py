"""Pictures of where a model did worst: its mask filled, the true outline drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np
from PIL import Image, ImageDraw

from sam2_model.evaluation.metrics import contour, dilate
from sam2_model.evaluation.semi_supervised import ObjectResult, TrueVideo

_FILL = np.array((230, 97, 1), np.float32)
_OUTLINE = (94, 240, 255)
"""Orange and light blue: told apart with any colour vision."""


def overlay(
    picture: np.ndarray, answered: np.ndarray, true: np.ndarray, caption: str
) -> Image.Image:
    """(H, W, 3) uint8 with the answered mask filled and the true one outlined."""
    pixels = picture.astype(np.float32)
    pixels[answered] = 0.5 * pixels[answered] + 0.5 * _FILL
    # Thicker than it is judged, or it is lost when the picture is seen small.
    pixels[dilate(contour(true), 1)] = _OUTLINE
    image = Image.fromarray(pixels.astype(np.uint8))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 8 + pen.textlength(caption), 16), fill=(0, 0, 0))
    pen.text((4, 2), caption, fill=(255, 255, 255))
    return image


def save_worst(
    results: Sequence[ObjectResult], videos: Sequence[TrueVideo], folder: Path, count: int = 12
) -> list[Path]:
    """The worst frames of the worst objects as PNG files, the worst first in name.

    Returns the files written; the folder is made.
    """
    by_name = {video.name: video for video in videos}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for place, result in enumerate(sorted(results, key=lambda r: r.region)[:count]):
        video, frame = by_name[result.video], result.worst_frame
        answered = result.worst_mask.unpacked()
        true = video.masks(frame).get(result.object_id, np.zeros_like(answered))
        caption = (
            f"{video.name}, object {result.object_id}, frame {frame}: "
            f"mean J {100 * result.region:.1f}"
        )
        # The place first, the name checked: a data set's folder names are not ours.
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in video.name)
        path = folder / f"{place:02d}-{name}-{result.object_id}-{frame:05d}.png"
        overlay(video.picture(frame), answered, true, caption).save(path)
        written.append(path)
    return written
