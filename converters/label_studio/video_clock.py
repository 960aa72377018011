"""When the frames of a video are shown, as its regions tell it where the video is not at hand.

The editor counts frames by the label config's rate, masks are by the video's own. Which frame
a key frame's mask is on is told by the frames' times, which the service notes in its regions
(`noted_clock`). Of regions from before it did, a constant rate is found by which the masks that
ride on key frames lie between them (`inferred_clock`).
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

import numpy as np

from converters.geometry import indices_of_ls_frames, seek_time_seconds
from converters.label_studio.keyframes import (
    Keyframe,
    is_number,
    read_sequence,
    shown_keyframes,
)
from converters.types import VideoInfo

STAMP = "sam2"
"""In a region's `meta`: what the service notes of it (`backend.prompts`)."""
VIDEO = "video"
"""In that, the video's clock."""

_KNOT_SECONDS = 0.0003
"""How far a noted time is from the frame's, at most twice that; the editor looks 2 ms ahead."""
_MOST_KNOTS = 20_000
_MOST_FRAMES = 1_000_000
_LONGEST_SECONDS = 1e7
_COMMON_RATES = (
    24.0, 25.0, 30.0, 50.0, 60.0, 24000 / 1001, 30000 / 1001, 60000 / 1001, 15.0, 10.0, 12.0,
    20.0, 5.0, 48.0, 120.0, 100.0, 240.0,
)  # fmt: skip
_HIGHEST_RATE = 1000.0
_MOST_TRIED = 50


@dataclass(frozen=True)
class VideoClock:
    """Frame count and times of a video."""

    frame_count: int
    fps: float
    duration_seconds: float
    knots: tuple[tuple[int, float], ...]
    """(frame index, time in seconds), the first and the last frame among them; between two,
    times are on a straight line."""

    def times_seconds(self) -> np.ndarray:
        """(frame_count,) float64."""
        indices, times = zip(*self.knots)
        return np.interp(np.arange(self.frame_count), indices, times)

    def info(self, size_hw: tuple[int, int]) -> VideoInfo:
        return VideoInfo(
            width=size_hw[1],
            height=size_hw[0],
            frame_count=self.frame_count,
            fps=self.fps,
            frame_times_seconds=tuple(self.times_seconds().tolist()),
            duration_seconds=self.duration_seconds,
        )


# --- what the service notes ----------------------------------------------------


@functools.lru_cache(maxsize=16)
def _knots(info: VideoInfo) -> tuple[tuple[int, float], ...]:
    """As few as keep all times: two of a constant rate."""
    times = info.frame_times_seconds
    last = len(times) - 1
    even = np.linspace(times[0], times[-1], len(times))
    if np.abs(even - np.asarray(times)).max() <= _KNOT_SECONDS:
        kept = sorted({0, last})
    else:
        kept, low, high = [0], -math.inf, math.inf
        for index in range(1, last + 1):
            start = kept[-1]
            rise, run = times[index] - times[start], index - start
            low = max(low, (rise - _KNOT_SECONDS) / run)
            high = min(high, (rise + _KNOT_SECONDS) / run)
            if low > high:
                start = index - 1
                kept.append(start)
                rise = times[index] - times[start]
                low, high = rise - _KNOT_SECONDS, rise + _KNOT_SECONDS
        kept.append(last)
    return tuple((index, round(times[index], 6)) for index in kept)


def noted_clock(info: VideoInfo) -> dict[str, Any]:
    """For the stamp of a region on the video, as JSON; empty for one that is too uneven."""
    if not info.frame_count or len(_knots(info)) > _MOST_KNOTS:
        return {}
    return {
        VIDEO: {
            "frames": info.frame_count,
            "fps": info.fps,
            "duration": info.duration_seconds,
            "times": [list(knot) for knot in _knots(info)],
        }
    }


def told_clock(regions: Iterable[Mapping[str, Any]]) -> VideoClock | None:
    """What most of the regions tell; None where none does. Malformed ones tell nothing."""
    told = Counter(clock for clock in map(_clock_in, regions) if clock is not None)
    return max(told, key=told.__getitem__, default=None)


def _clock_in(region: Mapping[str, Any]) -> VideoClock | None:
    noted: Any = region
    for name in ("meta", STAMP, VIDEO):
        noted = noted.get(name) if isinstance(noted, Mapping) else None
    if not isinstance(noted, Mapping):
        return None
    count, fps, duration = (noted.get(name) for name in ("frames", "fps", "duration"))
    times = noted.get("times")
    if not _is_index(count, _MOST_FRAMES + 1) or count < 1:
        return None
    if not is_number(fps) or fps < 0 or not is_number(duration):
        return None
    if not 0 < duration <= _LONGEST_SECONDS or not isinstance(times, list):
        return None
    if not 1 <= len(times) <= _MOST_KNOTS or not all(_is_knot(item, count) for item in times):
        return None
    knots = tuple((index, float(time)) for index, time in times)
    is_ascending = all(a[0] < b[0] and a[1] <= b[1] for a, b in zip(knots, knots[1:]))
    if not is_ascending or knots[0][0] != 0 or knots[-1][0] != count - 1:
        return None
    return VideoClock(count, float(fps), float(duration), knots)


def _is_index(value: object, stop: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < stop


def _is_knot(item: object, count: int) -> bool:
    return (
        isinstance(item, list) and len(item) == 2 and _is_index(item[0], count)
        and is_number(item[1]) and abs(item[1]) <= _LONGEST_SECONDS
    )


# --- what key frames tell ------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Frames that a key frame of ours can be on: its masks and its neighbours' tell."""

    ls_frame: int
    first: int
    last: int | None
    """Inclusive; None: no end is known."""
    ls_before: int | None = None
    most_after: int = 0
    """How many frames it is after that of `ls_before`, at most."""


def inferred_clock(
    regions: Sequence[Mapping[str, Any]], framerate: float
) -> VideoClock | None:
    """A constant rate by which all masks of VideoRectangles lie between their key frames.

    `framerate` is the editor's. None where the video can have that, and where no rate will do.
    """
    exact = [place for region in regions for place in _places(region, is_exact=True)]
    loose = [place for region in regions for place in _places(region, is_exact=False)]
    duration = _duration(regions, framerate)
    if not exact or duration is None:
        return None
    last_frame = max(place.ls_frame for place in exact)
    editors = _even_clock(max(round(duration * framerate), last_frame), framerate)
    if _fits(exact, editors, framerate):
        return None
    highest = max((key for region in regions for key in _riding_keys(region)), default=-1)
    common = [count for count in _common_counts(duration) if count > highest]
    if found := _first_that_fits(exact, common, duration, framerate):
        return found
    if _fits(loose, editors, framerate):
        return None  # a person may have deleted key frames
    for places in (exact, loose):
        counts = [*common, *_counts(places, highest, duration, framerate)]
        if found := _first_that_fits(places, counts, duration, framerate):
            return found
    return None


def _first_that_fits(
    places: Sequence[_Place], counts: Iterable[int], duration: float, framerate: float
) -> VideoClock | None:
    clocks = (_even_clock(count, count / duration) for count in counts)
    return next((clock for clock in clocks if _fits(places, clock, framerate)), None)


def _places(region: Mapping[str, Any], *, is_exact: bool) -> list[_Place]:
    """`is_exact`: as of a region that nobody has changed: no mask is missing in between."""
    if region.get("type") != "videorectangle":
        return []
    places, before = [], None
    for keyframe in shown_keyframes(read_sequence(region)):
        place = None
        if keyframe.carries_own_masks:
            if before is not None:
                place = _place_after(before, keyframe, is_exact)
            elif is_exact:
                place = _place_of_first(keyframe)
        if place is not None:
            places.append(place)
        before = keyframe if keyframe.carries_own_masks else None
    return places


def _place_after(before: Keyframe, keyframe: Keyframe, is_exact: bool) -> _Place | None:
    earlier, own = _keys(before), _keys(keyframe)
    first = max(earlier) + 1 if earlier else 0
    last = min(own) - keyframe.carries_own_mask if own else None
    if is_exact and before.enabled:
        last = first if earlier else last
        return _Place(keyframe.ls_frame, first, last, before.ls_frame, len(earlier) + 1)
    return _Place(keyframe.ls_frame, first, last) if earlier or own else None


def _place_of_first(keyframe: Keyframe) -> _Place | None:
    """Masks of frames before it may ride on it, too."""
    keys = _keys(keyframe)
    if not keys:
        return None
    if not keyframe.carries_own_mask:
        return _Place(keyframe.ls_frame, min(keys), max(keys))
    gaps = sorted(set(range(min(keys), max(keys))) - set(keys))
    first = gaps[0] if gaps else max(min(keys) - 1, 0)
    return _Place(keyframe.ls_frame, first, first)


def _riding_keys(region: Mapping[str, Any]) -> list[int]:
    if region.get("type") != "videorectangle":
        return []
    return [key for k in read_sequence(region) if k.carries_own_masks for key in _keys(k)]


def _keys(keyframe: Keyframe) -> list[int]:
    """The frames whose masks ride on it."""
    riding = keyframe.fields.get("masks")
    keys = riding if isinstance(riding, Mapping) else ()
    return [int(k) for k in keys if k.isascii() and k.isdigit() and len(k) < 9]


def _duration(regions: Iterable[Mapping[str, Any]], framerate: float) -> float | None:
    """What most regions say, or the editor's frames come to."""
    said: Counter[float] = Counter()
    for region in regions:
        value = region["value"]
        duration, count = value.get("duration"), value.get("framesCount")
        if not is_number(duration) or duration <= 0:
            duration = count / framerate if is_number(count) else 0
        if 0 < duration <= _LONGEST_SECONDS:
            said[float(duration)] += 1
    return max(said, key=said.__getitem__, default=None)


def _common_counts(duration: float) -> list[int]:
    """Of a video that has one of the common rates."""
    counts = [(rate * duration, round(rate * duration)) for rate in _COMMON_RATES]
    return [
        count for exact, count in counts
        if abs(exact - count) <= 0.05 and 1 <= count <= _MOST_FRAMES
    ]


def _counts(
    places: Sequence[_Place], highest: int, duration: float, framerate: float
) -> list[int]:
    """All that may fit, or those in the middle, that first."""
    low, high = 0.0, _HIGHEST_RATE
    for place in places:
        seconds = seek_time_seconds(place.ls_frame, framerate)
        low = max(low, place.first / seconds)
        if place.last is not None:
            high = min(high, (place.last + 1) / seconds)
    first = max(math.ceil(low * duration - 1), highest + 1, 1)
    last = min(math.floor(high * duration + 1), _MOST_FRAMES)
    middle = (first + last) // 2
    near = range(max(first, middle - _MOST_TRIED), min(last, middle + _MOST_TRIED) + 1)
    return sorted(near, key=lambda count: abs(count - middle))


def _even_clock(count: int, fps: float) -> VideoClock:
    knots = tuple((index, index / fps) for index in sorted({0, count - 1}))
    return VideoClock(count, fps, count / fps, knots)


def _fits(places: Sequence[_Place], clock: VideoClock, framerate: float) -> bool:
    times = clock.times_seconds()
    if not places:
        return True
    ls_frames = [(p.ls_frame, p.ls_before or p.ls_frame) for p in places]
    found = indices_of_ls_frames(np.reshape(ls_frames, -1), framerate, times).reshape(-1, 2)
    return all(
        place.first <= index
        and (place.last is None or index <= place.last)
        and (place.ls_before is None or index - before <= place.most_after)
        for place, (index, before) in zip(places, found.tolist())
    )
