"""Area, score and overlap of each object over time, the doubtful stretches shaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Collection, Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

from backend.preview.frame_range import checked_range
from backend.preview.colours import Colour, object_styles
from backend.preview.doubt import (
    Doubt,
    DoubtfulStretch,
    DoubtLimits,
    TrackCurve,
    doubtful_stretches,
    frame_doubts,
    track_curve,
)
from backend.preview.text import Lettering, object_caption
from converters.types import ObjectId, Track, VideoInfo

_SMOOTH = 2  # drawn this much larger, then made smaller: Pillow's lines have no smooth edges
_LEFT, _RIGHT = 78, 20
_TITLE, _WORDS, _AREA, _SCORE, _OVERLAP, _SPACE, _FRAMES = 30, 16, 84, 60, 46, 8, 40
_INK, _FAINT = (20, 20, 20), (110, 110, 110)
_DOUBTFUL, _BLAMED = 0.1, 0.28  # how much darker
_FILL = 0.75  # of the object's colour, the rest white
_SCORE_RANGE = (-12.0, 12.0)
"""Logits beyond it are drawn at its ends: they are as good as certain."""
_LEAST_STRETCH = 3
"""Pixels: a single frame of ten thousand is still to be seen."""

PANEL_HEIGHT = _TITLE + _WORDS + _AREA + _SCORE + _OVERLAP + 2 * _SPACE + _FRAMES
"""Pixels an object takes in the picture."""


@dataclass(frozen=True)
class _Strip:
    """One of an object's curves: where it is drawn, and from which to which value."""

    top: int
    height: int
    low: float
    high: float

    def y(self, values: np.ndarray | float) -> np.ndarray:
        part = (np.asarray(values, float) - self.low) / (self.high - self.low)
        return self.top + self.height * (1 - np.clip(part, 0, 1))


def plot_tracks(
    tracks: Sequence[Track],
    info: VideoInfo,
    *,
    shown: Collection[ObjectId] | None = None,
    frames: range | None = None,
    limits: DoubtLimits = DoubtLimits(),
    width: int = 1100,
    lettering: Lettering | None = None,
) -> Image.Image:
    """A panel for each object, one below the other; RGB, `width` pixels wide.

    A panel has the object's area as a share of the frame, its presence score
    (a logit, above 0 means present) and the IoU with the frame before, over
    the video's frames. Stretches that `doubtful_stretches` lists are shaded
    and named, and darker in the curve that they come from.

    Args:
        tracks: All objects of the video; they decide the colours.
        shown: Ids of the objects to plot, None for all.
        frames: Consecutive frame indices to show, default all of the video.

    Raises:
        ValueError: no object to plot, a bad range, a width below 300 pixels.
    """
    if width < 300:
        raise ValueError(f"width={width} must be at least 300 pixels")
    chosen = [track for track in tracks if shown is None or track.object_id in shown]
    if not chosen:
        raise ValueError("tracks holds no object to plot")
    axis = checked_range(frames, info)
    styles = object_styles(track.object_id for track in tracks)
    lettering = lettering or Lettering()
    picture = Image.new("RGB", (width, PANEL_HEIGHT * len(chosen)), (255, 255, 255))
    for place, track in enumerate(chosen):
        colour = styles[track.object_id].colour
        panel = _Panel(track, info, axis, limits, colour, width, lettering)
        picture.paste(panel.draw(), (0, place * PANEL_HEIGHT))
    return picture


class _Panel:
    """One object's curves. Coordinates are those of the finished picture."""

    def __init__(
        self,
        track: Track,
        info: VideoInfo,
        axis: range,
        limits: DoubtLimits,
        colour: Colour,
        width: int,
        lettering: Lettering,
    ) -> None:
        self._track, self._info, self._axis = track, info, axis
        self._colour, self._width, self._lettering = colour, width, lettering
        # What is doubtful is decided on the whole track, also where a part is shown.
        whole = track_curve(track)
        seen = (whole.frame_indices >= axis.start) & (whole.frame_indices < axis.stop)
        self._doubts = {reason: on[seen] for reason, on in frame_doubts(whole, limits).items()}
        self._curve = TrackCurve(
            *(values[seen] for values in (
                whole.frame_indices, whole.areas, whole.scores, whole.overlaps
            ))
        )
        self._stretches = [
            replace(
                stretch, start=max(stretch.start, axis.start), stop=min(stretch.stop, axis.stop)
            )
            for stretch in doubtful_stretches(whole, limits)
            if stretch.start < axis.stop and stretch.stop > axis.start
        ]
        shares = self._curve.areas / (info.width * info.height)
        self._shares = np.where(self._curve.areas > 0, shares, np.nan)
        scores = np.clip(self._curve.scores, *_SCORE_RANGE)
        known = scores[np.isfinite(scores)]
        top = _TITLE + _WORDS
        highest = float(shares.max()) if len(shares) and shares.max() > 0 else 1.0
        self._area = _Strip(top, _AREA, 0.0, 1.05 * highest)
        low = min([-1.0, *known]) * 1.1
        self._score = _Strip(
            top + _AREA + _SPACE, _SCORE, low, max([limits.low_score, 1.0, *known]) * 1.1
        )
        self._overlap = _Strip(top + _AREA + _SCORE + 2 * _SPACE, _OVERLAP, 0.0, 1.05)
        self._scores = scores

    def draw(self) -> Image.Image:
        size = (self._width * _SMOOTH, PANEL_HEIGHT * _SMOOTH)
        large = Image.new("RGB", size, (255, 255, 255))
        self._pen = ImageDraw.Draw(large)
        self._fill(self._area, self._shares)
        large.paste((0, 0, 0), mask=self._shade(size))
        self._ground()
        self._line(self._area, self._shares)
        self._line(self._score, self._scores)
        self._line(self._overlap, self._curve.overlaps)
        self._draw_ticks()
        picture = large.resize((self._width, PANEL_HEIGHT), Image.Resampling.BOX)
        self._write(picture)
        return picture

    def _x(self, frame_index: np.ndarray | float) -> np.ndarray:
        """Frame i takes up [i, i + 1) of the axis."""
        span = self._width - _LEFT - _RIGHT
        return _LEFT + span * (np.asarray(frame_index, float) - self._axis.start) / len(self._axis)

    def _rectangle(
        self, pen: ImageDraw.ImageDraw, start: int, stop: int, strip: _Strip, darker: float
    ) -> None:
        left, right = float(self._x(start)), float(self._x(stop))
        if right - left < _LEAST_STRETCH:
            middle = (left + right) / 2
            left, right = middle - _LEAST_STRETCH / 2, middle + _LEAST_STRETCH / 2
        corners = (left, strip.top, right, strip.top + strip.height)
        pen.rectangle([v * _SMOOTH for v in corners], fill=round(255 * darker))

    def _shade(self, size: tuple[int, int]) -> Image.Image:
        """How much darker each pixel becomes, over the fill too: 0 to 255."""
        pen = ImageDraw.Draw(shade := Image.new("L", size, 0))
        strips = (self._area, self._score, self._overlap)
        for stretch in self._stretches:
            for strip in strips:
                self._rectangle(pen, stretch.start, stretch.stop, strip, _DOUBTFUL)
        blamed = {
            Doubt.AREA_JUMP: self._area,
            Doubt.ABSENT: self._area,
            Doubt.LOW_SCORE: self._score,
            Doubt.OVERLAP_JUMP: self._overlap,
        }
        for reason, holds in self._doubts.items():
            for start, stop in _runs(self._curve, holds):
                self._rectangle(pen, start, stop, blamed[reason], _BLAMED)
        return shade

    def _ground(self) -> None:
        left, right = _LEFT * _SMOOTH, (self._width - _RIGHT) * _SMOOTH
        for strip in (self._area, self._score, self._overlap):
            bottom = (strip.top + strip.height) * _SMOOTH
            self._pen.line((left, bottom, right, bottom), fill=_FAINT, width=_SMOOTH)
            self._pen.line((left, strip.top * _SMOOTH, left, bottom), fill=_FAINT, width=_SMOOTH)
        zero = float(self._score.y(0.0)) * _SMOOTH
        for x in range(left, right, 12 * _SMOOTH):
            self._pen.line((x, zero, min(x + 6 * _SMOOTH, right), zero), fill=_FAINT, width=_SMOOTH)

    def _points(
        self, strip: _Strip, values: np.ndarray
    ) -> Iterator[list[tuple[float, float]]]:
        """Where to draw each run of known values."""
        for start, stop in _runs(self._curve, np.isfinite(values)):
            places = np.searchsorted(self._curve.frame_indices, [start, stop])
            run = slice(int(places[0]), int(places[1]))
            x = self._x(self._curve.frame_indices[run] + 0.5) * _SMOOTH
            y = strip.y(values[run]) * _SMOOTH
            yield list(zip(x.tolist(), y.tolist()))

    def _line(self, strip: _Strip, values: np.ndarray) -> None:
        """A line through neighbouring known values, a dot where one stands alone."""
        for points in self._points(strip, values):
            if len(points) > 1:
                self._pen.line(points, fill=_INK, width=3 * _SMOOTH // 2, joint="curve")
            else:
                (px, py), r = points[0], 1.5 * _SMOOTH
                self._pen.ellipse((px - r, py - r, px + r, py + r), fill=_INK)

    def _fill(self, strip: _Strip, values: np.ndarray) -> None:
        bottom = (strip.top + strip.height) * _SMOOTH
        colour = tuple(round(_FILL * part + (1 - _FILL) * 255) for part in self._colour)
        for points in self._points(strip, values):
            if len(points) > 1:
                corners = [(points[0][0], bottom), *points, (points[-1][0], bottom)]
                self._pen.polygon(corners, fill=colour)

    def _draw_ticks(self) -> None:
        bottom = (self._overlap.top + self._overlap.height) * _SMOOTH
        for tick in self._ticks():
            x = float(self._x(tick + 0.5)) * _SMOOTH
            self._pen.line((x, bottom, x, bottom + 4 * _SMOOTH), fill=_FAINT, width=_SMOOTH)

    def _ticks(self) -> list[int]:
        axis = self._axis
        step = _nice_step(len(axis) / max(1, (self._width - _LEFT - _RIGHT) // 110))
        return list(range(-(-axis.start // step) * step, axis.stop, step))

    def _write(self, picture: Image.Image) -> None:
        pen, letters = ImageDraw.Draw(picture), self._lettering
        caption = object_caption(self._track)
        letters.chip(picture, (_LEFT, 5), caption, 15, self._colour)
        used = _LEFT + letters.size(caption, 15)[0] + 12
        letters.text(pen, (used, 9), self._summary(), 13, _INK)
        highest = self._area.high / 1.05
        for strip, name, ticks in (
            (self._area, "area", [(0.0, "0"), (highest, f"{100 * highest:.3g}%")]),
            (self._score, "score", [(0.0, "0")]),
            (self._overlap, "overlap", [(0.0, "0"), (1.0, "1")]),
        ):
            middle = strip.top + strip.height / 2
            letters.text(pen, (6, middle), name, 12, _INK, "lm")
            for value, text in ticks:
                if abs(float(strip.y(value)) - middle) > 12 or name == "score":
                    letters.text(pen, (_LEFT - 5, float(strip.y(value))), text, 11, _FAINT, "rm")
        if not np.isfinite(self._scores).any():
            place = (_LEFT + 8, float(self._score.y(0.0)) - 10)
            letters.text(pen, place, "the annotations have no scores", 11, _FAINT, "lm")
        self._write_ticks(pen)
        self._write_reasons(pen)

    def _summary(self) -> str:
        visible = int((self._curve.areas > 0).sum())
        doubtful = sum(stretch.stop - stretch.start for stretch in self._stretches)
        count = len(self._stretches)
        if not count:
            return f"seen on {visible} frames, none doubtful"
        return (
            f"seen on {visible} frames; {doubtful} doubtful in {count} "
            f"stretch{'es' if count > 1 else ''}"
        )

    def _write_ticks(self, pen: ImageDraw.ImageDraw) -> None:
        y = self._overlap.top + self._overlap.height + 5
        for place, tick in enumerate(self._ticks()):
            x = float(self._x(tick + 0.5))
            seconds = self._info.frame_times_seconds[tick]
            text = f"{tick}" if place else f"frame {tick}"
            self._lettering.text(pen, (x, y), text, 11, _FAINT, "ma")
            self._lettering.text(pen, (x, y + 13), _clock(seconds), 11, _FAINT, "ma")

    def _write_reasons(self, pen: ImageDraw.ImageDraw) -> None:
        """Above each stretch what is wrong with it, where there is room for the words."""
        free_from = float(_LEFT)
        for stretch in self._stretches:
            text = ", ".join(stretch.reasons)
            length = self._lettering.prepare(text, 11)[1].getlength(text)
            middle = float(self._x((stretch.start + stretch.stop) / 2))
            left = min(middle - length / 2, self._width - 4 - length)
            left = max(left, _LEFT)
            if left >= free_from:
                self._lettering.text(pen, (left, _TITLE + 1), text, 11, _INK)
                free_from = left + length + 8


def _runs(curve: TrackCurve, holds: np.ndarray) -> list[tuple[int, int]]:
    """Half-open frame ranges over which the curve's frames hold without a break."""
    places = np.flatnonzero(holds)
    if len(places) == 0:
        return []
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    frames = curve.frame_indices
    return [(int(frames[run[0]]), int(frames[run[-1]]) + 1) for run in runs]


def _nice_step(least: float) -> int:
    """1, 2 or 5 times a power of ten, at least `least`."""
    scale = 1
    while True:
        for factor in (1, 2, 5):
            if factor * scale >= least:
                return factor * scale
        scale *= 10


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}" if minutes else f"{rest:.1f} s"


def stretch_lines(track: Track, stretches: Sequence[DoubtfulStretch]) -> list[str]:
    """A line of text for each stretch, with its first and last frame."""
    who = object_caption(track)
    return [
        f"{who}: frame {item.start}: {', '.join(item.reasons)}"
        if item.stop == item.start + 1
        else f"{who}: frames {item.start} to {item.stop - 1}: {', '.join(item.reasons)}"
        for item in stretches
    ]
