"""What the pixels of a video's mask files mean, decided for the video as a whole.

DAVIS means whole numbers: 0 background, 1..N objects, 255 void; or one white
object (DAVIS 2016). Tools of others write the same as gray or RGB pictures,
and smooth the edge of a single object where they resize. A frame alone does
not tell which it is, and read frame by frame an object would change its id:
so all files of a video are looked through before any is read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable, Mapping

import numpy as np
from PIL import Image

from converters.indexed_png import MAX_OBJECTS, VOID, davis_palette
from converters.malformed import MalformedValue
from converters.mask_pictures import MaskPicture, colour_codes, read_mask_picture
from converters.report import Report

_MOST_VALUES = 4096
"""Of one picture: more are no masks of objects."""
_LEAST_WHITE = 64
"""A gray picture that is nowhere brighter holds indices."""
_LEAST_SHADE = 32
"""Objects' indices begin lower, and shades of gray that stand for objects do not."""
_GRAY = 0x010101
_ADVICE = "write one index an object (mode P), and resize with nearest neighbour"


@dataclass(frozen=True)
class VideoMasks:
    """The mask files of a video, and how to read them."""

    files: frozenset[Path]
    """Those that can be read."""
    size_hw: tuple[int, int]
    """Their (height, width)."""
    void: int | None = None
    """The id of what belongs to no object for certain."""
    threshold: int | None = None
    """There is one object, where a picture has this gray value or more."""
    ids: Mapping[int, int] = field(default_factory=dict)
    """Colour, 0xRRGGBB -> object id."""
    by_colour: bool = False
    """Whether objects are told by colour even where a picture has indices."""
    has_own_ids: bool = True
    """Whether the ids are those that the data set's other files know."""

    def objects(self, path: Path) -> np.ndarray:
        """(H, W) whole numbers: the object of each pixel, 0 for none.

        Raises MalformedValue for a colour that no other file explains.
        """
        picture = read_mask_picture(path)
        if self.by_colour or picture.is_coloured:
            return self._objects_by_colour(picture, path)
        if self.threshold is not None:
            return (picture.values >= self.threshold).astype(np.uint8)
        return picture.values

    def _objects_by_colour(self, picture: MaskPicture, path: Path) -> np.ndarray:
        colours = picture.colours()
        objects = np.zeros(colours.shape, np.int32)
        for colour in np.unique(colours[colours != 0]).tolist():
            if colour not in self.ids:
                raise MalformedValue(
                    str(path), f"has the colour '#{colour:06x}', the video's other masks indices"
                )
            objects[colours == colour] = self.ids[colour]
        return objects


def survey_masks(paths: Iterable[Path], folder: Path, report: Report) -> VideoMasks:
    """Looks through the mask files of one video.

    Those that cannot be read, or are of another size than most, are left out
    and counted in `report`; so is what is read otherwise than DAVIS means.

    Raises MalformedValue, with the folder as its place, when no file can be
    read, or their objects cannot be told apart.
    """
    surveys: dict[tuple[int, int], _Survey] = defaultdict(_Survey)
    for path in paths:
        with report.leaving_out("masks"):
            picture = read_mask_picture(path)
            surveys[picture.values.shape].add(picture, path)
    # Of sizes that equally many have, the first's.
    sizes = sorted(surveys, key=lambda size: -len(surveys[size].files))
    if not sizes or not surveys[sizes[0]].files:
        raise MalformedValue(str(folder), "has no mask that can be read")
    for size in sizes[1:]:
        for path in surveys[size].files:
            with report.leaving_out("masks"):
                raise MalformedValue(
                    str(path), f"has {size[0]} x {size[1]} pixels, most masks of the video "
                    f"{sizes[0][0]} x {sizes[0][1]}",
                )
    try:
        return surveys[sizes[0]].reading(sizes[0], report)
    except ValueError as error:
        raise MalformedValue(str(folder), str(error)) from None


@dataclass
class _Level:
    """A gray value or colour: in how many pixels, and where those lie."""

    pixels: int = 0
    flat: int = 0
    """Of them, with all eight neighbours of the same value: inside of something."""
    slope: int = 0
    """Of them, with a lower and a higher neighbour."""

    @property
    def is_edge(self) -> bool:
        """Hardly ever the inside of anything: an edge's, or a very small object's."""
        return self.flat * 10 < self.pixels


@dataclass
class _Survey:
    """What the pictures of one size hold, counted; then how they are to be read."""

    files: list[Path] = field(default_factory=list)
    values: Counter[int] = field(default_factory=Counter)
    """Gray value or index, not 0 -> number of pixels."""
    grays: dict[int, _Level] = field(default_factory=dict)
    """Gray value in 8 bits."""
    colours: dict[int, _Level] = field(default_factory=dict)
    """0xRRGGBB, in the order of first appearance."""
    indices: dict[int, int] = field(default_factory=dict)
    """Colour, 0xRRGGBB -> the index that a palette of the video gives it."""
    pixels: int = 0
    """Of all gray pictures."""
    coloured_files: int = 0
    other_files: int = 0
    """Files without colours that show something."""
    is_lossy: bool = False

    def add(self, picture: MaskPicture, path: Path) -> None:
        """Raises MalformedValue for a picture that no masks of objects make."""
        values, counts = distinct(picture.values)
        if len(values) > _MOST_VALUES:
            raise MalformedValue(
                str(path), f"has {len(values)} different values, must have one an object"
            )
        self.files.append(path)
        self.is_lossy |= picture.is_lossy
        if picture.is_coloured:
            self.coloured_files += 1
            _add_levels(self.colours, picture.values)
            return
        self.other_files += bool(values.any())
        self.values.update({v: n for v, n in zip(values.tolist(), counts.tolist()) if v})
        if picture.palette is None:
            colours = np.minimum(values, 255) * _GRAY
            self._add_grays(picture.in_8_bits(), set(values.tolist()))
        else:
            colours = picture.palette[values]
            self.indices.update(zip(colours.tolist(), values.tolist()))
        for colour, count in zip(colours.tolist(), counts.tolist()):
            level = self.colours.setdefault(colour, _Level())
            level.pixels += count
            level.flat += count

    def _add_grays(self, grays: np.ndarray, values: set[int]) -> None:
        highest = int(grays.max())
        if highest < _LEAST_WHITE or values <= {0, VOID}:
            # Nothing to be told apart: spares the look at the neighbours.
            self.grays.setdefault(highest, _Level())
        else:
            if len(values) > 5:
                grays = _without_blocks(grays)
            _add_levels(self.grays, grays)
        self.pixels += grays.size

    def reading(self, size_hw: tuple[int, int], report: Report) -> VideoMasks:
        """Raises ValueError when objects cannot be told apart."""
        files = frozenset(self.files)
        if self.coloured_files > self.other_files:
            return self._by_colours(files, size_hw, report)
        known = _davis_colours() | self.indices
        if self._is_soft():
            report.change(
                "gray masks with soft edges, read as one object at half of its white", len(files)
            )
            threshold = max([*self.values, 2 * _LEAST_WHITE]) // 2 + 1
            return VideoMasks(files, size_hw, threshold=threshold, ids=known)
        if set(self.values) in ({VOID}, {65535}):
            return VideoMasks(files, size_hw, threshold=VOID, ids=known)
        return VideoMasks(files, size_hw, void=self._void(), ids=known)

    def _void(self) -> int | None:
        """What DAVIS' void is in these indices."""
        lowest, highest = min(self.values, default=0), max(self.values, default=0)
        if highest > VOID:
            # With so many objects 255 is one of them.
            return 65535
        # Objects as shades of gray (127 and 255) leave no room for a void.
        return None if lowest >= _LEAST_SHADE and not self.indices else VOID

    def _is_soft(self) -> bool:
        """Whether gray values are the smoothed edge of one white object.

        Then nothing but background and white is the inside of anything, and
        what is between lies on the way from one to the other. Raises
        ValueError for such edges of several objects, and for photographs.
        """
        highest = max(self.grays, default=0)
        if highest < _LEAST_WHITE:
            if self.is_lossy and highest > _LEAST_SHADE:
                raise ValueError(f"JPEG changes indices, and there is no white: {_ADVICE}")
            return self.is_lossy
        low, high = highest // 8, highest - highest // 8
        between = {v: level for v, level in self.grays.items() if low <= v < high}
        if not between:
            return self.is_lossy or sum(high <= v < highest for v in self.grays) > 3
        pixels = sum(level.pixels for level in between.values())
        flat = sum(level.flat for level in between.values())
        slope = sum(level.slope for level in between.values())
        is_edge = 2 * slope >= pixels and 10 * flat < pixels
        if is_edge and 2 * pixels < self.pixels:
            return True
        if is_edge or self.is_lossy or _are_smoothed(between):
            raise ValueError(
                f"{len(between)} gray values, as of smoothed edges between several objects or "
                f"of a photograph, tell no objects apart: {_ADVICE}"
            )
        return False

    def _by_colours(
        self, files: frozenset[Path], size_hw: tuple[int, int], report: Report
    ) -> VideoMasks:
        colours = {c: level for c, level in self.colours.items() if c}
        if self.is_lossy or len(colours) > MAX_OBJECTS or _are_smoothed(colours):
            raise ValueError(
                f"{len(colours)} colours, as of smoothed edges, JPEG or a photograph, "
                f"tell no objects apart: {_ADVICE}"
            )
        known = _davis_colours() | self.indices
        is_known = known.keys() >= colours.keys()
        if is_known:
            report.change("masks in colours, read by the palette", len(files))
        else:
            report.change("masks in colours of no known palette, an object each", len(files))
            known = {colour: number for number, colour in enumerate(colours, start=1)}
        return VideoMasks(
            files, size_hw, ids=known, by_colour=True,
            void=VOID if is_known else None, has_own_ids=is_known,
        )


def _davis_colours() -> dict[int, int]:
    return {colour: index for index, colour in enumerate(colour_codes(davis_palette()).tolist())}


def _are_smoothed(levels: Mapping[int, _Level]) -> bool:
    """Whether far more levels are edges than insides: small objects are some of many."""
    edges = sum(level.is_edge for level in levels.values())
    return edges > 2 * (len(levels) - edges) + 8


def distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, ascending, and how many pixels have each."""
    if values.dtype == np.uint8 and values.size:
        # Several times as fast as numpy's ways.
        counts = np.array(Image.fromarray(np.ascontiguousarray(np.atleast_2d(values))).histogram())
    elif values.dtype == np.uint16:
        counts = np.bincount(values.ravel())
    else:
        return np.unique(values, return_counts=True)
    found = np.flatnonzero(counts)
    return found, counts[found]


def _add_levels(levels: dict[int, _Level], values: np.ndarray) -> None:
    """Count an (H, W) picture."""
    lowest, highest = _around(values, np.minimum), _around(values, np.maximum)
    flat = values[lowest == highest]
    slope = values[(lowest < values) & (values < highest)]
    for key, chosen in (("pixels", values), ("flat", flat), ("slope", slope)):
        for value, count in zip(*(array.tolist() for array in distinct(chosen))):
            level = levels.setdefault(value, _Level())
            setattr(level, key, getattr(level, key) + count)


def _without_blocks(values: np.ndarray) -> np.ndarray:
    """The (H, W) picture before it was made larger by repeating its pixels, if it was.

    Such an edge is smooth in blocks, each of them flat inside.
    """
    edges = [
        np.flatnonzero((np.diff(plane.astype(np.int32), axis=0) != 0).any(axis=1)) + 1
        for plane in (values, values.T)
    ]
    if not all(map(len, edges)):
        return values
    size = int(np.gcd.reduce(np.concatenate([np.diff(places) for places in edges])))
    if size < 3:
        return values
    top, left = (places[0] % size for places in edges)
    return values[top::size, left::size]


def _around(values: np.ndarray, pick: np.ufunc) -> np.ndarray:
    """(H, W): the least or greatest of each pixel and its eight neighbours."""
    padded = np.pad(values, 1, mode="edge")
    rows = pick(pick(padded[:-2], padded[1:-1]), padded[2:])
    return pick(pick(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
