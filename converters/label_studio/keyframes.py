"""Keyframes of a VideoRectangle: reading them, and what the editor makes of them.

Every keyframe is either a person's or ours, and the editor tells no one
which: it keeps extra fields when a box is moved, and a new keyframe can
inherit the next one's. So what we write into a keyframe names the frame and
box it was written for:

    "mask":   {"frame", "box": [x, y, w, h], "size": [H, W], "counts"}
              the mask on this very frame: the keyframe is ours
    "prompt": {"frame", "box": [x, y, w, h, rotation]}
              a person's keyframe that has been answered
    "masks":  {"<frame index>": {"size", "counts", "score"}}
              masks of frames without a keyframe of their own; they belong to
              the keyframe that `mask` or `prompt` names
    "score":  probability in (0, 1) that the object is on this frame

When `mask` names another frame or box, or is missing, the keyframe is a
person's prompt and the fields above are out of date.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from converters.geometry import clip_box, percent_to_pixel_box
from converters.label_studio.paths import InputError, at
from converters.types import Box

OWN_FIELDS = ("mask", "prompt", "masks", "score")
MAX_LS_FRAME = 10_000_000  # four days; keeps a damaged number from filling the memory
MAX_COORDINATE = 10_000  # percent: a hundred frames away; degrees: many turns
BOX_FIELDS = ("x", "y", "width", "height")
_BOX_TOLERANCE_PERCENT = 1e-3  # 0.04 pixels at 4K; no person moves a box by less


@dataclass(frozen=True)
class PercentBox:
    """A box in percent of the frame, turned clockwise about its top-left corner."""

    x_percent: float
    y_percent: float
    width_percent: float
    height_percent: float
    rotation_degrees: float = 0.0

    def to_pixels(self, size_hw: tuple[int, int]) -> Box:
        """The axis-aligned pixel box around it, not clipped."""
        return percent_to_pixel_box(
            self.x_percent,
            self.y_percent,
            self.width_percent,
            self.height_percent,
            size_hw=size_hw,
            rotation_degrees=self.rotation_degrees,
        )

    def corners(self, size_hw: tuple[int, int]) -> list[tuple[float, float]]:
        """Its four corners (x, y) in pixels, clockwise from the top left, not clipped."""
        height, width = size_hw
        left, top = self.x_percent * width / 100, self.y_percent * height / 100
        across = self.width_percent * width / 100
        down = self.height_percent * height / 100
        cosine = math.cos(math.radians(self.rotation_degrees))
        sine = math.sin(math.radians(self.rotation_degrees))
        return [
            (left + x * cosine - y * sine, top + x * sine + y * cosine)
            for x, y in ((0.0, 0.0), (across, 0.0), (across, down), (0.0, down))
        ]


@dataclass(frozen=True, eq=False)
class Keyframe:
    """One checked entry of a `sequence`."""

    ls_frame: int
    """1-based."""
    enabled: bool
    box: PercentBox
    fields: Mapping[str, Any]
    """The entry as it was stored."""
    position: int = 0
    """Its place in the stored sequence."""

    @property
    def carries_own_mask(self) -> bool:
        """We wrote it, and no one has touched its frame or box since."""
        return self._was_written_for(self.fields.get("mask"))

    @property
    def carries_own_masks(self) -> bool:
        """Its `masks` were written for this frame and box."""
        return self.carries_own_mask or self._was_written_for(self.fields.get("prompt"))

    @property
    def is_prompt(self) -> bool:
        """A person drew or moved it."""
        return not self.carries_own_mask

    def _was_written_for(self, stamp: object) -> bool:
        if not isinstance(stamp, Mapping) or stamp.get("frame") != self.ls_frame:
            return False
        box = stamp.get("box")
        if not isinstance(box, Sequence) or not all(map(is_number, box)):
            return False
        # A prompt's stamp holds the rotation too; our own boxes are upright.
        stamped = [*box, 0.0] if len(box) == 4 else list(box)
        if len(stamped) != 5:
            return False
        now = [float(self.fields[name]) for name in BOX_FIELDS]
        turn = (self.box.rotation_degrees - stamped[4] + 180) % 360 - 180
        return abs(turn) <= _BOX_TOLERANCE_PERCENT and all(
            abs(a - b) <= _BOX_TOLERANCE_PERCENT for a, b in zip(now, stamped)
        )


def read_sequence(region: Mapping[str, Any]) -> tuple[Keyframe, ...]:
    """The keyframes of a VideoRectangle result, in stored order.

    An export with "interpolate key frames" holds a copy of the keyframe
    before on every frame, marked `auto`; where it has the interpolated box it
    is passed over, as it says nothing.

    Raises InputError naming the value ("value.sequence[7].x") and the rule
    when the sequence or a keyframe is malformed. `enabled` and `rotation` may
    be missing; the editor takes them as false and 0.
    """
    keyframes = []
    for position, item in enumerate(sequence_of(region)):
        with at(f"value.sequence[{position}]"):
            keyframes.append(read_keyframe(item, position))
    return _without_interpolated(keyframes)


def _without_interpolated(keyframes: list[Keyframe]) -> tuple[Keyframe, ...]:
    drawn = [keyframe for keyframe in keyframes if keyframe.fields.get("auto") is not True]
    if len(drawn) == len(keyframes) or not drawn:
        return tuple(keyframes)
    boxes = editor_boxes(drawn, max(keyframe.ls_frame for keyframe in keyframes))
    return tuple(
        keyframe
        for keyframe in keyframes
        if keyframe.fields.get("auto") is not True
        or keyframe.ls_frame not in boxes
        or not _have_one_place(keyframe.box, boxes[keyframe.ls_frame])
    )


def _have_one_place(first: PercentBox, second: PercentBox) -> bool:
    """But for the rotation, which Label Studio's exporter interpolates in its own way."""
    return all(
        abs(getattr(first, name) - getattr(second, name)) <= _BOX_TOLERANCE_PERCENT
        for name in ("x_percent", "y_percent", "width_percent", "height_percent")
    )


def sequence_of(region: Mapping[str, Any]) -> list[Any]:
    """`value.sequence` as it is; raises InputError when it is no list."""
    value = region.get("value")
    if not isinstance(value, Mapping):
        raise InputError("value", f"{value!r} must be an object")
    if not isinstance(value.get("sequence"), list):
        raise InputError("value.sequence", "must be a list of keyframes")
    return value["sequence"]


def read_keyframe(item: object, position: int = 0) -> Keyframe:
    """One checked entry of a sequence.

    Raises InputError naming the field and the rule.
    """
    if not isinstance(item, Mapping):
        raise InputError("", f"{item!r} must be an object")
    frame = read_ls_frame(item)
    for name in (*BOX_FIELDS, "rotation"):
        if name == "rotation" and item.get(name) is None:
            continue
        if not is_number(item.get(name)):
            raise InputError(name, f"{name} {item.get(name)!r}, must be a finite number")
        if abs(item[name]) > MAX_COORDINATE:
            rule = f"must be from -{MAX_COORDINATE} to {MAX_COORDINATE}"
            raise InputError(name, f"{item[name]!r} {rule}")
    return Keyframe(
        ls_frame=frame,
        enabled=bool(item.get("enabled")),
        box=PercentBox(
            *(float(item[name]) for name in BOX_FIELDS),
            rotation_degrees=float(item.get("rotation") or 0.0),
        ),
        fields=item,
        position=position,
    )


def read_ls_frame(item: Mapping[str, Any]) -> int:
    """`frame` of a keyframe; raises InputError when it is no integer from 1 up."""
    frame = item.get("frame")
    if not is_number(frame) or frame != int(frame) or not 1 <= frame <= MAX_LS_FRAME:
        raise InputError("frame", f"{frame!r} must be an integer from 1 to {MAX_LS_FRAME}")
    return int(frame)


def as_keyframes(sequence: Sequence[Mapping[str, Any] | Keyframe]) -> tuple[Keyframe, ...]:
    return tuple(
        item if isinstance(item, Keyframe) else read_keyframe(item) for item in sequence
    )


def editor_box(
    sequence: Sequence[Mapping[str, Any] | Keyframe], ls_frame: int
) -> PercentBox | None:
    """The box that the editor shows on a 1-based frame; None when it shows none.

    Follows the editor also on unsorted and duplicate keyframes: the box comes
    from the first match in stored order, visibility from the last. FORMATS
    section 3.
    """
    keyframes = as_keyframes(sequence)
    before = [keyframe for keyframe in keyframes if keyframe.ls_frame <= ls_frame]
    if not before or not (before[-1].enabled or before[-1].ls_frame == ls_frame):
        return None
    previous = None
    for keyframe in keyframes:
        if keyframe.ls_frame == ls_frame:
            return keyframe.box
        if keyframe.ls_frame > ls_frame:
            return _between(previous, keyframe, ls_frame) if previous else None
        previous = keyframe
    return previous.box if previous else None


def editor_boxes(
    sequence: Sequence[Mapping[str, Any] | Keyframe], last_ls_frame: int
) -> dict[int, PercentBox]:
    """LS frame -> the box that `editor_box` gives, for all frames that show one.

    In one pass over the keyframes where they are sorted and unique, as all
    but a damaged region's are.
    """
    keyframes = as_keyframes(sequence)
    frames = [keyframe.ls_frame for keyframe in keyframes]
    if any(second <= first for first, second in zip(frames, frames[1:])):
        found = ((f, editor_box(keyframes, f)) for f in range(min(frames), last_ls_frame + 1))
        return {ls_frame: box for ls_frame, box in found if box is not None}
    boxes: dict[int, PercentBox] = {}
    for keyframe, following in zip(keyframes, (*keyframes[1:], None)):
        if keyframe.ls_frame > last_ls_frame:
            break
        boxes[keyframe.ls_frame] = keyframe.box
        stop = min(following.ls_frame if following else last_ls_frame + 1, last_ls_frame + 1)
        for ls_frame in range(keyframe.ls_frame + 1, stop if keyframe.enabled else 0):
            boxes[ls_frame] = (
                _between(keyframe, following, ls_frame) if following else keyframe.box
            )
    return boxes


def shown_keyframes(sequence: Sequence[Keyframe]) -> tuple[Keyframe, ...]:
    """Sorted by frame, one a frame: of duplicates the one whose box is shown."""
    first: dict[int, Keyframe] = {}
    for keyframe in sequence:
        first.setdefault(keyframe.ls_frame, keyframe)
    return tuple(first[frame] for frame in sorted(first))


def prompt_box(keyframe: Keyframe, size_hw: tuple[int, int]) -> Box | None:
    """The pixel box a keyframe prompts with, clipped to the frame; None if empty."""
    if keyframe.box.width_percent < 0 or keyframe.box.height_percent < 0:
        return None
    return clip_box(keyframe.box.to_pixels(size_hw), size_hw)


def _between(first: Keyframe, second: Keyframe, ls_frame: int) -> PercentBox:
    ratio = (ls_frame - first.ls_frame) / (second.ls_frame - first.ls_frame)
    a, b = first.box, second.box
    turn = _normalised_degrees(b.rotation_degrees - a.rotation_degrees)
    return PercentBox(
        a.x_percent + (b.x_percent - a.x_percent) * ratio,
        a.y_percent + (b.y_percent - a.y_percent) * ratio,
        a.width_percent + (b.width_percent - a.width_percent) * ratio,
        a.height_percent + (b.height_percent - a.height_percent) * ratio,
        _normalised_degrees(a.rotation_degrees + turn * ratio),
    )


def _normalised_degrees(degrees: float) -> float:
    """The same angle in (-180, 180]."""
    return 180 - (180 - degrees) % 360


def is_number(value: object) -> bool:
    """Whether it is a finite number that a float can hold; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
