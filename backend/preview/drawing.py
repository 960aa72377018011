"""One frame with its objects drawn in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Collection, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from backend.preview.colours import Colour, Style, object_styles
from backend.preview.text import Lettering, object_caption
from converters.masks import decode_mask
from converters.types import ObjectId, Prompt, Track, VideoInfo

_FILL = 102  # of 255: the share of the colour in the fill
_FOREGROUND, _BACKGROUND = (255, 255, 255), (0, 0, 0)
_BOX = (255, 255, 255)
_HEADER = (0, 0, 0)

_Area = tuple[int, int, int, int]  # left, top, right, bottom; half-open


@dataclass(frozen=True)
class _Shape:
    """A mask in its surroundings: the box around it with room for the outline."""

    object_id: ObjectId
    rows: slice
    columns: slice
    inside: np.ndarray
    """(h, w) bool over rows and columns."""
    area: int
    box: _Area
    """Around the mask itself."""


class FramePainter:
    """Draws the objects of a video on its frames, at one picture size.

    Args:
        tracks: All objects of the video: they decide the colours.
        info: The video's; masks must have its size.
        size_wh: Of the pictures, pixels.
        shown: Ids of the objects to draw; None is all.

    Raises:
        ValueError: a mask has another size than the video, or lies outside it.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        info: VideoInfo,
        size_wh: tuple[int, int],
        *,
        lettering: Lettering | None = None,
        shown: Collection[ObjectId] | None = None,
    ) -> None:
        check_tracks(tracks, info)
        self._styles = object_styles(track.object_id for track in tracks)
        self._tracks = [track for track in tracks if shown is None or track.object_id in shown]
        self._info = info
        self.size_wh = size_wh
        self._lettering = lettering or Lettering()
        self._letter_size = max(11, round(size_wh[1] / 45))

    def paint(
        self, pixels: np.ndarray, frame_index: int, prompts: Sequence[Prompt] = ()
    ) -> Image.Image:
        """The frame, RGB, at `size_wh`.

        `pixels` is the (H, W, 3) uint8 picture at video size; `prompts` those
        of this frame, if they are to be shown.
        """
        picture = Image.fromarray(pixels)
        if picture.size != self.size_wh:
            picture = picture.resize(self.size_wh, Image.Resampling.BICUBIC, reducing_gap=2)
        visible = [track for track in self._tracks if frame_index in track.masks]
        shapes = _shapes(
            {track.object_id: decode_mask(track.masks[frame_index]) for track in visible},
            self.size_wh,
        )
        picture = _draw_shapes(picture, shapes, self._styles)
        boxes = {shape.object_id: self._ring_if_tiny(picture, shape) for shape in shapes}
        draw_prompts(picture, prompts, self.size_wh[0] / self._info.width)
        occupied = [self._draw_header(picture, frame_index, bool(prompts))]
        for track in visible:
            if track.object_id in boxes:
                self._draw_caption(
                    picture, track, frame_index, boxes[track.object_id], occupied
                )
        return picture

    def _ring_if_tiny(self, picture: Image.Image, shape: _Shape) -> _Area:
        """A ring around an object of a few pixels, which nobody would find; what it takes up."""
        line, casing = _widths(picture.height)
        left, top, right, bottom = shape.box
        if max(right - left, bottom - top) > 4 * line:
            return shape.box
        radius = max(6, picture.height // 40)
        x, y = (left + right - 1) / 2, (top + bottom - 1) / 2
        pen = ImageDraw.Draw(picture)
        for wider, width, colour in (
            (casing, line + 2 * casing, (0, 0, 0)),
            (0, line, self._styles[shape.object_id].colour),
        ):
            reach = radius + wider
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=width)
        room = radius + casing
        return left - room, top - room, right + room, bottom + room

    def _draw_header(self, picture: Image.Image, frame_index: int, prompted: bool) -> _Area:
        text = f"frame {frame_index}"
        if self._info.fps:  # of images no one knows the time
            text += f" · {self._info.frame_times_seconds[frame_index]:.2f} s"
        text += " · prompt" if prompted else ""
        self._lettering.chip(picture, (0, 0), text, self._letter_size, _HEADER)
        return (0, 0, *self._lettering.size(text, self._letter_size))

    def _draw_caption(
        self,
        picture: Image.Image,
        track: Track,
        frame_index: int,
        box: _Area,
        occupied: list[_Area],
    ) -> None:
        text = object_caption(track, frame_index)
        size_wh = self._lettering.size(text, self._letter_size)
        x, y = _free_spot(size_wh, box, picture.size, occupied)
        occupied.append((x, y, x + size_wh[0], y + size_wh[1]))
        colour = self._styles[track.object_id].colour
        self._lettering.chip(picture, (x, y), text, self._letter_size, colour)


def check_tracks(tracks: Sequence[Track], info: VideoInfo) -> None:
    """Raises ValueError for a mask of another size than the video, or outside it."""
    for track in tracks:
        for frame_index, mask in track.masks.items():
            where = f"object {track.object_id!r}, frame {frame_index}"
            if not 0 <= frame_index < info.frame_count:
                raise ValueError(
                    f"{where}: the video has frames [0, {info.frame_count}); is it the "
                    "video that was annotated?"
                )
            if (mask.width, mask.height) != (info.width, info.height):
                raise ValueError(
                    f"{where}: the mask is {mask.width} x {mask.height}, the video "
                    f"{info.width} x {info.height}, must be the same"
                )


def draw_masks(
    picture: Image.Image,
    masks: Mapping[ObjectId, np.ndarray],
    styles: Mapping[ObjectId, Style] | None = None,
) -> Image.Image:
    """The picture with translucent masks and their outlines, RGB.

    `masks`: object id -> (H, W) bool of any size; `styles` defaults to those of
    these ids. Smaller objects lie on top.
    """
    shapes = _shapes(masks, picture.size)
    return _draw_shapes(picture, shapes, styles or object_styles(masks))


def outline(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """(H, W) bool: the mask's pixels within `thickness` of one outside it.

    Pixels count as neighbours by their sides; beyond the border is outside.
    """
    inner = mask
    for _ in range(thickness):
        padded = np.pad(inner, 1)
        inner = (
            inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        )
    return mask & ~inner


def draw_prompts(picture: Image.Image, prompts: Sequence[Prompt], scale: float) -> None:
    """Boxes white, clicks white (+, inside the object) or black (-, outside).

    Changes the picture; `scale` is picture pixels a video pixel. Signs rather
    than colours alone tell the clicks apart.
    """
    pen = ImageDraw.Draw(picture)
    radius = max(5, round(picture.height / 90))
    for prompt in prompts:
        if prompt.box is not None:
            box = prompt.box
            corners = [v * scale for v in (box.x_min, box.y_min, box.x_max, box.y_max)]
            left, top, right, bottom = corners[0], corners[1], corners[2] - 1, corners[3] - 1
            right, bottom = max(left, right), max(top, bottom)
            pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0), width=4)
            pen.rectangle((left, top, right, bottom), outline=_BOX, width=2)
        for (x, y), label in zip(prompt.points_xy * scale, prompt.point_labels):
            _draw_click(pen, float(x), float(y), radius, inside=label == 1)


def _draw_click(
    pen: ImageDraw.ImageDraw, x: float, y: float, radius: int, *, inside: bool
) -> None:
    fill, edge = (_FOREGROUND, _BACKGROUND) if inside else (_BACKGROUND, _FOREGROUND)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=edge, width=2)
    arm = radius // 2
    pen.line((x - arm, y, x + arm, y), fill=edge, width=2)
    if inside:
        pen.line((x, y - arm, x, y + arm), fill=edge, width=2)


def _shapes(
    masks: Mapping[ObjectId, np.ndarray], size_wh: tuple[int, int]
) -> list[_Shape]:
    """The masks that have a pixel, at picture size, largest first."""
    room = sum(_widths(size_wh[1])) + 1
    shapes = []
    for object_id, mask in masks.items():
        mask = _resized(np.asarray(mask, bool), size_wh)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            continue
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        around_y = slice(max(0, box[1] - room), box[3] + room)
        around_x = slice(max(0, box[0] - room), box[2] + room)
        inside = np.ascontiguousarray(mask[around_y, around_x])
        shapes.append(_Shape(object_id, around_y, around_x, inside, int(inside.sum()), box))
    return sorted(shapes, key=lambda shape: -shape.area)


def _resized(mask: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    if mask.shape == (size_wh[1], size_wh[0]):
        return mask
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    if size_wh[0] >= mask.shape[1] and size_wh[1] >= mask.shape[0]:
        return np.asarray(picture.resize(size_wh, Image.Resampling.NEAREST)) > 0
    cover = np.asarray(picture.resize(size_wh, Image.Resampling.BOX))
    # A mask that is nowhere half of a smaller pixel would be lost altogether.
    return cover >= 128 if (cover >= 128).any() else cover > 0


def _draw_shapes(
    picture: Image.Image, shapes: Sequence[_Shape], styles: Mapping[ObjectId, Style]
) -> Image.Image:
    picture = picture.convert("RGB")  # a copy
    for shape in shapes:
        _paint(picture, shape, shape.inside, styles[shape.object_id].colour, _FILL)
    for shape in shapes:
        _edge(picture, shape, styles[shape.object_id])
    return picture


def _paint(
    picture: Image.Image, shape: _Shape, where: np.ndarray, colour: Colour, opacity: int = 255
) -> None:
    """`where`: (h, w) bool over the shape's rows and columns."""
    # Pillow does it several times faster than numpy's indexing by a bool array.
    opacities = Image.fromarray(where.view(np.uint8) * np.uint8(opacity))
    picture.paste(colour, (shape.columns.start, shape.rows.start), opacities)


def _edge(picture: Image.Image, shape: _Shape, style: Style) -> None:
    """A line in the object's colour inside its edge, a black one outside.

    The black one keeps it visible on a ground of the object's own colour.
    """
    line, casing = _widths(picture.height)
    _paint(picture, shape, _grown(shape.inside, casing) & ~shape.inside, (0, 0, 0))
    edge = outline(shape.inside, line)
    _paint(picture, shape, edge, style.colour)
    if style.dashed:
        height, width = edge.shape
        y = np.arange(height)[:, None] + shape.rows.start
        x = np.arange(width) + shape.columns.start
        _paint(picture, shape, edge & ((x + y) // (4 * line + 2) % 2 == 1), (255, 255, 255))


def _grown(mask: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    return mask


def _widths(height: int) -> tuple[int, int]:
    """Of the outline and of its casing, pixels."""
    return max(1, round(height / 300)), max(1, round(height / 900))


def _free_spot(
    size_wh: tuple[int, int],
    box: _Area,
    picture_wh: tuple[int, int],
    occupied: Sequence[_Area],
) -> tuple[int, int]:
    """Top left corner for a caption: by its object, in the picture, on no other one.

    When the picture is too full for that, the first choice is taken.
    """
    width, height = size_wh
    left, top, right, bottom = box
    x = max(0, min(left, picture_wh[0] - width))
    last_y = max(0, picture_wh[1] - height)
    choices = [(x, top - height - 2), (x, bottom + 2), (x, top + 2), (right + 2, top)]
    choices += [(x, y) for y in range(top + 2, last_y, height + 1)]
    choices += [(x, y) for y in range(top - height - 2, 0, -height - 1)]
    inside = [
        (at_x, at_y)
        for at_x, at_y in choices
        if 0 <= at_x <= max(0, picture_wh[0] - width) and 0 <= at_y <= last_y
    ]
    for at_x, at_y in inside:
        if not any(_overlap((at_x, at_y, at_x + width, at_y + height), o) for o in occupied):
            return at_x, at_y
    return inside[0] if inside else (x, min(max(0, top), last_y))


def _overlap(first: _Area, second: _Area) -> bool:
    return (
        first[0] < second[2]
        and second[0] < first[2]
        and first[1] < second[3]
        and second[1] < first[3]
    )
