"""What an interactive session is made of: plain values, and their JSON.

Coordinates are pixels of the video, frames 0-based indices, masks COCO run
lengths at the video's size.
"""

from __future__ import annotations

import enum
import math
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Mapping, Sequence

import numpy as np

from backend.errors import BadRequest
from converters.geometry import clip_box
from converters.label_studio.regions import read_stored_mask
from converters.masks import decode_mask
from converters.types import Box, Direction, MaskRLE, Prompt, VideoInfo

if TYPE_CHECKING:
    from sam2_model.interactive import FramePrompt

MAX_POINTS = 200
"""Clicks for one object on one frame."""
MAX_TEXT = 200
"""Characters of an object's id, or of a label."""
MAX_LABELS = 20

Json = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """An object on a frame."""

    mask: MaskRLE | None
    """None: the object is not visible."""
    score: float
    """The logit that the object is there."""
    prompt: Prompts | None = None
    """What a person said that it shows; None: it was tracked."""

    def to_json(self) -> Json:
        return {"mask": mask_to_json(self.mask), "score": self.score}


@dataclass(frozen=True)
class Prompts:
    """What a person said about one object on one frame: a mask, or points and a box."""

    points: tuple[tuple[float, float, bool], ...] = ()
    """x, y, and whether it is on the object."""
    box: Box | None = None
    mask: MaskRLE | None = None
    before: Shown | None = None
    """What tracking had shown there, which the points correct."""

    @classmethod
    def from_json(cls, value: object, info: VideoInfo) -> Prompts:
        """`{"points": [{"x", "y", "positive"}], "box": [x_min, y_min, x_max, y_max],
        "mask": {"size": [height, width], "counts"}}`, each of them optional.

        Raises BadRequest naming the value and the rule.
        """
        value = check_object(value, "prompts", {"points", "box", "mask"})
        points = value.get("points")
        box, mask = value.get("box"), value.get("mask")
        points = () if points is None else _points(points, info)
        if mask is not None and (points or box is not None):
            raise BadRequest("mask stands alone: it cannot go with points or a box")
        if mask is None and box is None and not points:
            raise BadRequest("prompts need points, a box or a mask; DELETE takes them away")
        return cls(
            points,
            None if box is None else _box(box, info),
            None if mask is None else _mask(mask, info),
        )

    def to_json(self) -> Json:
        answer: Json = {}
        if self.points:
            answer["points"] = [
                {"x": x, "y": y, "positive": positive} for x, y, positive in self.points
            ]
        if self.box is not None:
            box = self.box
            answer["box"] = [box.x_min, box.y_min, box.x_max, box.y_max]
        if self.mask is not None:
            answer["mask"] = mask_to_json(self.mask)
        return answer

    def for_model(self, object_id: str, frame_index: int) -> FramePrompt:
        # Imported here: torch takes seconds, and /health answers meanwhile.
        from sam2_model.interactive import FramePrompt

        prompt = Prompt(
            object_id,
            frame_index,
            box=self.box,
            points_xy=np.array([p[:2] for p in self.points], np.float32).reshape(-1, 2),
            point_labels=np.array([p[2] for p in self.points], np.int32),
            mask=None if self.mask is None else decode_mask(self.mask),
        )
        before = None if self.before is None else self.before.mask
        return FramePrompt(prompt, None if before is None else decode_mask(before))


@dataclass(frozen=True)
class SessionObject:
    """One object that a person marks."""

    labels: tuple[str, ...] = ()
    prompts: Mapping[int, Prompts] = field(default_factory=dict)
    """By frame index."""

    def with_prompts(self, frame_index: int, prompts: Prompts | None) -> SessionObject:
        """None takes them away."""
        others = {index: p for index, p in self.prompts.items() if index != frame_index}
        if prompts is not None:
            others[frame_index] = prompts
        return replace(self, prompts=dict(sorted(others.items())))


@dataclass(frozen=True)
class FrameResult:
    """What is known of a frame."""

    serial: int
    """Grows with each change of any frame of the session."""
    frame_index: int
    shown: Mapping[str, Shown]
    """By object id."""

    def to_json(self) -> Json:
        return {
            "serial": self.serial,
            "frame_index": self.frame_index,
            "objects": {object_id: shown.to_json() for object_id, shown in self.shown.items()},
        }


class PropagationState(enum.StrEnum):
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    """By a person."""
    INTERRUPTED = "interrupted"
    """By the end of the process or of the session's time; it can be resumed."""
    FAILED = "failed"


@dataclass(frozen=True)
class Propagation:
    """Tracking from the prompts over frames, as far as it has come."""

    direction: Direction
    passes: tuple[range, ...]
    """The frames, in the order in which they are tracked."""
    state: PropagationState = PropagationState.RUNNING
    done_frames: int = 0
    last_frame_index: int | None = None
    error: str | None = None
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    """The same when it is resumed: the model goes on with what it remembers of it."""

    @property
    def total_frames(self) -> int:
        return sum(map(len, self.passes))

    @property
    def is_running(self) -> bool:
        return self.state is PropagationState.RUNNING

    def after(self, frame_index: int) -> Propagation:
        return replace(self, done_frames=self.done_frames + 1, last_frame_index=frame_index)

    @property
    def rest(self) -> tuple[range, ...]:
        """The passes that are still to do."""
        if self.last_frame_index is None:
            return self.passes
        for number, order in enumerate(self.passes):
            if self.last_frame_index in order:
                left = order[order.index(self.last_frame_index) + 1 :]
                return tuple(r for r in (left, *self.passes[number + 1 :]) if r)
        return self.passes

    def to_json(self) -> Json:
        return {
            "state": str(self.state),
            "direction": str(self.direction),
            "done_frames": self.done_frames,
            "total_frames": self.total_frames,
            "error": self.error,
        }

    def to_stored(self) -> Json:
        """Reads back as `from_stored`."""
        return {
            **self.to_json(),
            "passes": [[order.start, order.stop, order.step] for order in self.passes],
            "last_frame_index": self.last_frame_index,
            "name": self.name,
        }

    @classmethod
    def from_stored(cls, value: Mapping[str, Any]) -> Propagation:
        """One that ran when it was stored was interrupted, unless it had just come to its end."""
        stored = cls(
            direction=Direction(value["direction"]),
            passes=tuple(range(*order) for order in value["passes"]),
            state=PropagationState(value["state"]),
            done_frames=value["done_frames"],
            last_frame_index=value["last_frame_index"],
            error=value["error"],
            name=value.get("name", ""),  # older ones had none
        )
        if not stored.is_running:
            return stored
        ended = PropagationState.INTERRUPTED if stored.rest else PropagationState.DONE
        return replace(stored, state=ended)


@dataclass(frozen=True, kw_only=True)
class PropagationRequest:
    """Which way and how far."""

    direction: Direction = Direction.FORWARD
    start_frame: int | None = None
    """Where it begins; None: at the first prompt, backward at the last."""
    to_frame: int | None = None
    """The last frame to be tracked; None: to the end, backward to the start."""
    frame_limit: int | None = None
    """So many frames past the prompts, or past `start_frame`."""

    @classmethod
    def from_json(cls, value: object) -> PropagationRequest:
        names = {"direction", "start_frame", "to_frame", "frame_limit"}
        value = check_object(value, "the body", names)
        given = {}
        for name, least in (("start_frame", 0), ("to_frame", 0), ("frame_limit", 1)):
            if value.get(name) is not None:
                given[name] = check_whole(value[name], name, minimum=least)
        return cls(direction=check_direction(value.get("direction", "forward")), **given)

    def plan(self, prompted_frames: Sequence[int], frame_count: int) -> Propagation:
        """Raises BadRequest for frames outside the video or on the wrong side."""
        if not prompted_frames:
            raise BadRequest("nothing is marked yet: give an object a point, a box or a mask")
        for name in ("start_frame", "to_frame"):
            index = getattr(self, name)
            if index is not None and index >= frame_count:
                raise BadRequest(f"{name} {index} must be in [0, {frame_count})")
        if self.to_frame is not None and self.frame_limit is not None:
            raise BadRequest("to_frame and frame_limit both say how far: give one of them")
        first, last = min(prompted_frames), max(prompted_frames)
        if self.direction is Direction.BOTH:
            passes = self._both_ways(first, last, frame_count)
        elif self.direction is Direction.FORWARD:
            passes = (self._forward(first, last, frame_count),)
        else:
            passes = (self._backward(first, last),)
        return Propagation(self.direction, tuple(order for order in passes if order))

    def _forward(self, first: int, last: int, frame_count: int) -> range:
        start = first if self.start_frame is None else self.start_frame
        if start < first:
            raise BadRequest(f"start_frame {start} lies before the first prompt, frame {first}")
        stop = frame_count if self.to_frame is None else self.to_frame + 1
        if self.frame_limit is not None:
            origin = last if self.start_frame is None else start
            stop = min(frame_count, origin + self.frame_limit + 1)
        if stop <= start:
            raise BadRequest(f"to_frame {self.to_frame} lies before frame {start}, the start")
        return range(start, stop)

    def _backward(self, first: int, last: int) -> range:
        start = last if self.start_frame is None else self.start_frame
        if start > last:
            raise BadRequest(f"start_frame {start} lies after the last prompt, frame {last}")
        end = 0 if self.to_frame is None else self.to_frame
        if self.frame_limit is not None:
            end = max(0, (first if self.start_frame is None else start) - self.frame_limit)
        if end > start:
            raise BadRequest(f"to_frame {self.to_frame} lies after frame {start}, the start")
        return range(start, end - 1, -1)

    def _both_ways(self, first: int, last: int, frame_count: int) -> tuple[range, range]:
        if self.to_frame is not None:
            raise BadRequest("to_frame goes with forward or backward; both can have frame_limit")
        pivot = first if self.start_frame is None else self.start_frame
        reach = frame_count if self.frame_limit is None else self.frame_limit
        origin = last if self.start_frame is None else pivot
        stop = min(frame_count, origin + reach + 1)
        return range(pivot, stop), range(pivot - 1, max(0, pivot - reach) - 1, -1)


# --- checks ------------------------------------------------------------------


@dataclass(frozen=True)
class Saved:
    """When a session was stored in Label Studio, and as what."""

    save_as: str
    """"annotation", "draft" or "prediction"."""
    id: int
    """Label Studio's, of that."""
    at: float
    """Seconds since 1970."""
    revision: int
    serial: int
    """The session's, then: it has changed since where they are others now."""

    def to_json(self) -> Json:
        """Reads back as `from_json`."""
        return {
            "as": self.save_as, "id": self.id, "at": self.at, "revision": self.revision,
            "serial": self.serial,
        }

    @classmethod
    def from_json(cls, value: Json) -> Saved:
        return cls(value["as"], value["id"], value["at"], value["revision"], value["serial"])


def check_object(value: object, name: str, members: set[str] | None = None) -> Mapping[str, Any]:
    """Raises BadRequest unless it is an object with no other members."""
    if not isinstance(value, Mapping):
        raise BadRequest(f"{name} {value!r:.80} must be a JSON object")
    unknown = [] if members is None else sorted(map(str, set(value) - members))
    if unknown:
        raise BadRequest(f"{name} has {unknown[0]!r:.80}, may have {sorted(members or ())}")
    return value


def check_whole(value: object, name: str, *, minimum: int = 0, stop: int | None = None) -> int:
    """Raises BadRequest unless it is a whole number in [minimum, stop)."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < minimum or (stop is not None and value >= stop):
        rule = f">= {minimum}" if stop is None else f"in [{minimum}, {stop})"
        raise BadRequest(f"{name} {value!r:.80} must be a whole number {rule}")
    return value


def check_direction(value: object) -> Direction:
    try:
        return Direction(value)
    except ValueError:
        names = [str(direction) for direction in Direction]
        raise BadRequest(f"direction {value!r:.80} must be one of {names}") from None


def check_text(value: object, name: str) -> str:
    """Raises BadRequest unless it is a short text that can be shown."""
    is_fine = isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()
    if not is_fine:
        raise BadRequest(f"{name} {value!r:.80} must be 1 to {MAX_TEXT} printable characters")
    return value


def check_labels(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_LABELS:
        raise BadRequest(f"labels {value!r:.80} must be a list of at most {MAX_LABELS} texts")
    return tuple(check_text(label, f"labels[{i}]") for i, label in enumerate(value))


def check_number(value: object, name: str, *, maximum: float) -> float:
    """Raises BadRequest unless it is a number in [0, maximum]."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= maximum:  # NaN compares false
        raise BadRequest(f"{name} {value!r:.80} must be a number from 0 to {maximum:g}")
    return float(value)


def _points(value: object, info: VideoInfo) -> tuple[tuple[float, float, bool], ...]:
    if not isinstance(value, list) or len(value) > MAX_POINTS:
        count = f"{len(value)} points" if isinstance(value, list) else f"{value!r:.80}"
        raise BadRequest(f"points ({count}) must be a list of at most {MAX_POINTS} points")
    points = []
    for number, item in enumerate(value):
        name = f"points[{number}]"
        item = check_object(item, name, {"x", "y", "positive"})
        positive = item.get("positive", True)
        if not isinstance(positive, bool):
            raise BadRequest(f"{name}.positive {positive!r:.80} must be true or false")
        x = check_number(item.get("x"), f"{name}.x", maximum=info.width)
        y = check_number(item.get("y"), f"{name}.y", maximum=info.height)
        points.append((x, y, positive))
    return tuple(points)


def _box(value: object, info: VideoInfo) -> Box:
    is_list = isinstance(value, list) and len(value) == 4
    if not is_list or not all(_is_coordinate(number) for number in value):
        raise BadRequest(f"box {value!r:.80} must be four numbers: x_min, y_min, x_max, y_max")
    if value[2] <= value[0] or value[3] <= value[1]:
        raise BadRequest(f"box {value!r:.80} must have x_min < x_max and y_min < y_max")
    box = clip_box(Box(*map(float, value)), (info.height, info.width))
    if box is None:
        raise BadRequest(
            f"box {value!r:.80} must have an area inside the frame, "
            f"{info.width} x {info.height} pixels"
        )
    return box


def _is_coordinate(value: object) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and abs(value) < 1e6


def _mask(value: object, info: VideoInfo) -> MaskRLE:
    value = check_object(value, "mask", {"size", "counts"})
    try:
        return read_stored_mask(value, info)
    except ValueError as error:
        raise BadRequest(f"mask: {error}") from None


def mask_to_json(mask: MaskRLE | None) -> Json | None:
    if mask is None:
        return None
    return {"size": [mask.height, mask.width], "counts": mask.counts}


def mask_from_json(value: Mapping[str, Any] | None) -> MaskRLE | None:
    """One that was stored."""
    return None if value is None else MaskRLE(*value["size"], value["counts"])


def object_to_stored(item: SessionObject) -> Json:
    """Reads back as `object_from_stored`."""
    return {
        "labels": list(item.labels),
        "prompts": {
            str(index): {
                **prompts.to_json(),
                "before": None if prompts.before is None else prompts.before.to_json(),
            }
            for index, prompts in item.prompts.items()
        },
    }


def object_from_stored(value: Mapping[str, Any]) -> SessionObject:
    return SessionObject(
        tuple(value["labels"]),
        {int(index): _prompts_from_stored(item) for index, item in value["prompts"].items()},
    )


def _prompts_from_stored(value: Mapping[str, Any]) -> Prompts:
    box, before = value.get("box"), value["before"]
    return Prompts(
        tuple((p["x"], p["y"], p["positive"]) for p in value.get("points", ())),
        None if box is None else Box(*box),
        mask_from_json(value.get("mask")),
        None if before is None else Shown(mask_from_json(before["mask"]), before["score"]),
    )
