"""Contact sheets: a few frames of a video, with masks and prompts, in a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Collection, Sequence

import numpy as np
from PIL import Image

from backend.preview.drawing import FramePainter
from backend.preview.text import Lettering
from converters.types import ObjectId, Prompt, Track

if TYPE_CHECKING:
    from sam2_model.video import FrameSource

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
    shown: Collection[ObjectId] | None = None,
    lettering: Lettering | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Image.Image:
    """The frames in a grid, each with its number, masks and prompts; RGB.

    `shown`: ids of the objects to draw, None for all; `progress(done, total)`
    is called after each frame. Raises ValueError without frames, and as
    `FramePainter` does; IndexError for a frame outside the video.
    """
    if not frame_indices:
        raise ValueError("frame_indices is empty: a contact sheet needs at least one frame")
    if columns < 1 or picture_width < 1:
        raise ValueError(f"columns={columns} and picture_width={picture_width} must be >= 1")
    info = source.info
    size = (picture_width, max(1, round(info.height * picture_width / info.width)))
    painter = FramePainter(tracks, info, size, lettering=lettering, shown=shown)
    columns = min(columns, len(frame_indices))
    rows = -(-len(frame_indices) // columns)
    cell = (size[0] + _GAP, size[1] + _GAP)
    sheet = Image.new("RGB", (columns * cell[0] - _GAP, rows * cell[1] - _GAP))
    for place, frame_index in enumerate(frame_indices):
        here = [prompt for prompt in prompts if prompt.frame_index == frame_index]
        picture = painter.paint(source.frame(frame_index), frame_index, here)
        sheet.paste(picture, (place % columns * cell[0], place // columns * cell[1]))
        if progress is not None:
            progress(place + 1, len(frame_indices))
    return sheet
