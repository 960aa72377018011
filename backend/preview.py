"""Pictures of tracks: masks drawn over the frames."""

from __future__ import annotations

from typing import Collection, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from converters.masks import decode_mask
from converters.types import Prompt, Track
from sam2_model.video import FrameSource

_COLOURS = ((255, 64, 64), (64, 160, 255), (64, 220, 96), (255, 190, 40), (200, 96, 255))
_FILL_SHARE = 0.4
_FOREGROUND, _BACKGROUND, _BOX = (40, 255, 40), (255, 40, 40), (255, 255, 0)
_GAP = 4


def sheet_frames(start: int, stop: int, count: int, always: Collection[int] = ()) -> list[int]:
    """About `count` frame indices spread evenly over [start, stop), and those of `always`."""
    spread = np.linspace(start, stop - 1, min(count, stop - start)).round().astype(int)
    return sorted({*spread.tolist(), *always})


def contact_sheet(
    source: FrameSource,
    tracks: Sequence[Track],
    frame_indices: Sequence[int],
    *,
    prompts: Sequence[Prompt] = (),
    columns: int = 4,
    picture_width: int = 400,
) -> Image.Image:
    """The frames in a grid, each with its number, masks and prompts; RGB."""
    if not frame_indices:
        raise ValueError("frame_indices is empty: a contact sheet needs at least one frame")
    info = source.info
    scale = picture_width / info.width
    size = (picture_width, max(1, round(info.height * scale)))
    columns = min(columns, len(frame_indices))
    rows = -(-len(frame_indices) // columns)
    cell = (size[0] + _GAP, size[1] + _GAP)
    sheet = Image.new("RGB", (columns * cell[0] - _GAP, rows * cell[1] - _GAP))
    for place, frame_index in enumerate(frame_indices):
        picture = Image.fromarray(source.frame(frame_index)).resize(size)
        picture = draw_masks(picture, _masks_on(tracks, frame_index))
        shown = [prompt for prompt in prompts if prompt.frame_index == frame_index]
        draw_prompts(picture, shown, scale)
        _draw_label(picture, f"frame {frame_index}" + (" (prompt)" if shown else ""))
        sheet.paste(picture, (place % columns * cell[0], place // columns * cell[1]))
    return sheet


def draw_masks(picture: Image.Image, masks: Mapping[int, np.ndarray]) -> Image.Image:
    """The picture with translucent masks and their outlines.

    `masks`: object number -> (H, W) bool of any size; the number gives the colour.
    """
    pixels = np.asarray(picture.convert("RGB")).astype(np.float32)
    for number, mask in masks.items():
        inside = np.asarray(Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST))
        colour = np.array(_COLOURS[number % len(_COLOURS)], np.float32)
        pixels[inside] = (1 - _FILL_SHARE) * pixels[inside] + _FILL_SHARE * colour
        pixels[outline(inside)] = colour
    return Image.fromarray(pixels.round().astype(np.uint8))


def outline(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: the mask's pixels that have a neighbour outside it, or lie on the border."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def draw_prompts(picture: Image.Image, prompts: Sequence[Prompt], scale: float) -> None:
    """Boxes yellow, clicks green inside and red outside the object; changes the picture."""
    pen = ImageDraw.Draw(picture)
    for prompt in prompts:
        if prompt.box is not None:
            box = prompt.box
            corners = (box.x_min, box.y_min, box.x_max - 1, box.y_max - 1)
            pen.rectangle([value * scale for value in corners], outline=_BOX, width=2)
        for (x, y), label in zip(prompt.points_xy * scale, prompt.point_labels):
            colour = _FOREGROUND if label == 1 else _BACKGROUND
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour, outline=(0, 0, 0))


def _masks_on(tracks: Sequence[Track], frame_index: int) -> dict[int, np.ndarray]:
    return {
        number: decode_mask(track.masks[frame_index])
        for number, track in enumerate(tracks)
        if frame_index in track.masks
    }


def _draw_label(picture: Image.Image, text: str) -> None:
    pen = ImageDraw.Draw(picture)
    box = pen.textbbox((5, 4), text)
    pen.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), fill=(0, 0, 0))
    pen.text((5, 4), text, fill=(255, 255, 255))
