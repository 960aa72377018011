"""The interactive events of Label Studio Enterprise's editor, over sessions.

Its SmartTool sends prompts as they are drawn and asks for the mask of one frame, or
has the object tracked and polls for the masks. Each event comes to /predict in
`params.context`; each answer is one result item. Nothing an event asks for is
another way to the model: `predict` looks through a session of the task that keeps
no prompts, `track` makes a stored session of its own.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import uuid
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, Sequence

import numpy as np

from backend.deadlines import Deadline
from backend.errors import BadRequest, Conflict, NotFound, ServiceError, TooManySessions
from backend.left_out import LeftOut, sentence
from backend.session_media import SessionOrigin
from backend.session_values import (
    FrameResult,
    Json,
    PropagationRequest,
    PropagationState,
    Prompts,
    Shown,
    check_direction,
    check_number,
    check_object,
    check_whole,
)
from backend.sessions import Session
from converters import bitmask_png
from converters.geometry import percent_to_pixel_box
from converters.label_studio.config import LabelConfig, UnsupportedConfigError, parse_label_config
from converters.masks import decode_mask
from converters.types import Box, Direction, MaskRLE, VideoInfo

if TYPE_CHECKING:
    from backend.service import TrackingService

logger = logging.getLogger(__name__)

_FIRST_FRAME_SECONDS = 5.0
_GATHER_SECONDS = 0.25
_FRAMES_AT_ONCE = 32
_PREWARM_WINDOW = 8
_MAX_PREWARM_WINDOW = 200
_MAX_PROMPTS = 500
_MAX_REMEMBERED = 1000
_MAX_DURATION_MS = 1e9
_TIME_TOLERANCE_SECONDS = 1e-6
_ONLY_OBJECT = "object"

_OVER = (PropagationState.DONE, PropagationState.STOPPED, PropagationState.FAILED)
"""What is interrupted goes on, with the next question or the next process."""
_NEVER_BEGUN = "the session has tracked nothing: ask for it again"

_TARGETS: tuple[Json, ...] = (
    {"tag": "BitmaskLabels", "output": "mask"},
    {"tag": "RectangleLabels", "output": "bbox"},
    {"tag": "PolygonLabels", "output": "polygon"},
    {"tag": "VectorLabels", "output": "polygon"},
    {"tag": "VideoRectangle", "output": "bbox", "features": ["track"]},
    {"tag": "VideoVectorLabels", "output": "polygon", "features": ["track"]},
)


def event_of(body: object) -> str | None:
    """The event that a body of /predict is; None for the calls of open-source Label Studio.

    An event without a name is "predict": it then tells a frame or a time, which no
    other call does. Raises BadRequest for a name that is no text.
    """
    context = _context_of(body)
    event = context.get("event")
    if event is None:
        return "predict" if "frame" in context or "time_ms" in context else None
    if not isinstance(event, str):
        raise BadRequest(f"params.context.event {event!r:.80} must be a text")
    return event


class EnterpriseEvents:
    """Answers events. Any thread may call `answer`."""

    def __init__(self, service: TrackingService) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._looking: OrderedDict[str, str] = OrderedDict()
        """Task -> the session through which its frames are looked at."""
        self._read: OrderedDict[str, int] = OrderedDict()
        """Tracking session -> the serial up to which its frames have been sent."""
        self._answers: Mapping[str, Callable[[_Call], Json]] = {
            "capabilities": self._capabilities,
            "prewarm": self._prewarm,
            "predict": self._predict,
            "track": self._track,
            "track_progress": self._track_progress,
            "track_cancel": self._track_cancel,
            "release": self._release,
        }

    def answer(
        self, event: str, body: Mapping[str, Any], deadline: Deadline, *, may_wait: bool = True
    ) -> Json:
        """The body of the answer.

        Args:
            may_wait: False: `track_progress` answers at once with what there is.

        Raises BadRequest for an unknown event or bad prompts, ServiceError and ValueError
        for a task that cannot be served; `track` and `prewarm` answer with the error.
        """
        answer = self._answers.get(event)
        if answer is None:
            raise BadRequest(
                f"params.context.event {event!r:.80} must be one of {list(self._answers)}"
            )
        item = answer(_Call(body, _context_of(body), deadline, may_wait))
        result = [item] if item else []
        version = self._service.settings.model_version
        return {"results": [{"result": result, "model_version": version}]}

    # --- one frame -----------------------------------------------------------

    def _capabilities(self, call: _Call) -> Json:
        settings = self._service.settings
        value = {
            "prompts": ["point", "box"],
            "targets": [dict(target) for target in _TARGETS],
            "model_info": {"name": settings.model, "version": settings.model_version},
        }
        return call.item("capabilities", value)

    def _prewarm(self, call: _Call) -> Json:
        try:
            with self._looking_session(call) as session:
                frames = _frames_to_prewarm(call.context, session.info)
                cached, pending = session.prewarm(frames)
                count = session.info.frame_count
        except (ServiceError, ValueError) as error:
            logger.warning("prewarm of task %r refused: %s", call.task_id, error)
            return call.item("prewarm_ack", {"status": "error", "error": str(error)})
        value = {
            "status": "ok", "cached": sorted(cached), "pending": sorted(pending),
            "frame_count": count,
        }
        return call.item("prewarm_ack", value)

    def _predict(self, call: _Call) -> Json | None:
        if not call.items:
            return None
        with self._looking_session(call) as session:
            here = _frame_index(call.context, session.info)
            asked, left_out = _objects_asked(call, session.info)
            shown = {
                item.object_id: session.look_at(item.prompts[here], here)
                for item in asked
                if here in item.prompts
            }
            if not shown:
                return None
            return call.item("bitmask", {**_picture(shown, session.info), **left_out})

    @contextlib.contextmanager
    def _looking_session(self, call: _Call) -> Iterator[Session]:
        """The session that looks at the task's frames; it holds features, but no prompts."""
        origin = call.origin()
        with self._lock:
            known = self._looking.get(origin.key)
        sessions = self._service.sessions
        if known is not None:
            with contextlib.ExitStack() as stack:
                try:
                    session = stack.enter_context(sessions.using(known))
                except NotFound:  # closed meanwhile: it was never stored
                    session = None
                if session is not None:
                    yield session
                    return
        with sessions.created(origin, is_stored=False, deadline=call.deadline) as session:
            self._remember(self._looking, origin.key, session.id)
            yield session

    # --- tracking ------------------------------------------------------------

    def _track(self, call: _Call) -> Json:
        sessions = self._service.sessions
        try:
            request = _tracking_request(call.context)
            with sessions.created(call.origin(), deadline=call.deadline) as session:
                try:
                    total_frames, left_out = self._start(call, session, request)
                except BaseException:
                    sessions.delete(session.id)
                    raise
                info = session.info
        except TooManySessions as error:
            value = {
                "error": str(error),
                "active_or_queued": sessions.propagating_count,
                "resident_sessions": sessions.open_count,
                "max_sessions": self._service.settings.max_sessions,
            }
            return call.item("track_busy", value)
        except (ServiceError, ValueError) as error:
            logger.warning("tracking task %r refused: %s", call.task_id, error)
            return call.item("track_error", {"error": str(error), "done": True})
        value = {
            "session_id": session.id,
            "total_frames": total_frames,
            "fps": info.fps,
            "duration_ms": round(info.duration_seconds * 1000),
            **left_out,
        }
        return call.item("track_started", value)

    def _start(
        self, call: _Call, session: Session, request: _TrackingRequest
    ) -> tuple[int, Json]:
        """Gives the session its prompts and lets it go; how many frames it will track, and
        what of the prompts is left out."""
        asked, left_out = _objects_asked(call, session.info)
        if not asked:
            raise BadRequest("there is nothing to track: draw a point or a box first")
        for item in asked:
            session.set_object(item.object_id, ())
            for frame_index, prompts in item.prompts.items():
                session.set_prompts(item.object_id, frame_index, prompts)
        limit = request.frame_limit(session.info)
        way = PropagationRequest(direction=request.direction, frame_limit=limit)
        return session.propagate(way).total_frames, left_out

    def _track_progress(self, call: _Call) -> Json:
        session_id = call.session_id()
        try:
            with self._service.sessions.using(session_id) as session:
                value = self._new_frames(session, call.may_wait)
        except NotFound as error:
            value = {"frames": [], "produced": 0, "total": 0, "done": True, "error": str(error)}
        return call.item("track_progress", value)

    def _new_frames(self, session: Session, may_wait: bool) -> Json:
        _resume_interrupted(session)
        with self._lock:
            serial = self._read.get(session.id, 0)
        frames = session.frames_since(
            serial,
            timeout_seconds=_FIRST_FRAME_SECONDS if may_wait else 0.0,
            gather_seconds=_GATHER_SECONDS if may_wait else 0.0,
            limit=_FRAMES_AT_ONCE,
        )
        if frames:
            self._remember(self._read, session.id, frames[-1].serial)
            serial = frames[-1].serial
        # Read after the frames: done is said only once the last of them is sent.
        propagation = session.propagation
        is_over = propagation is None or propagation.state in _OVER
        has_more = bool(session.frames_since(serial, limit=1))
        pictures = [_frame(frame, session.info) for frame in frames]
        return {
            "frames": [picture for picture in pictures if picture is not None],
            "produced": 0 if propagation is None else propagation.done_frames,
            "total": 0 if propagation is None else propagation.total_frames,
            "done": is_over and not has_more,
            "error": _NEVER_BEGUN if propagation is None else propagation.error,
        }

    def _track_cancel(self, call: _Call) -> Json:
        try:
            with self._service.sessions.using(call.session_id()) as session:
                session.stop()
        except NotFound:
            return call.item("track_cancel_ack", {"status": "not_found"})
        return call.item("track_cancel_ack", {"status": "cancelled"})

    def _release(self, call: _Call) -> Json:
        """Frees the task's frames; what is being tracked on it goes on, maybe for another."""
        with contextlib.suppress(ServiceError, ValueError):
            key = call.origin().key
            with self._lock:
                known = self._looking.pop(key, None)
            if known is not None:
                self._service.sessions.close(known)
        return call.item("release_ack", {"status": "released"})

    def _remember(self, known: OrderedDict[str, Any], key: str, value: Any) -> None:
        with self._lock:
            known[key] = value
            known.move_to_end(key)
            while len(known) > _MAX_REMEMBERED:
                known.popitem(last=False)


def _resume_interrupted(session: Session) -> None:
    """Go on with what the end of a process has interrupted."""
    propagation = session.propagation
    if propagation is not None and propagation.state is PropagationState.INTERRUPTED:
        # Another question has resumed it just now, or this process is ending as well.
        with contextlib.suppress(Conflict):
            session.resume()


# --- what is asked -----------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    body: Mapping[str, Any]
    context: Mapping[str, Any]
    deadline: Deadline
    may_wait: bool

    @property
    def task(self) -> Mapping[str, Any]:
        """Raises BadRequest unless there is one task."""
        tasks = self.body.get("tasks")
        if not isinstance(tasks, list) or len(tasks) != 1:
            raise BadRequest(f"tasks {tasks!r:.80} must be a list of one task")
        return check_object(tasks[0], "tasks[0]")

    @property
    def task_id(self) -> object:
        """For the log."""
        tasks = self.body.get("tasks")
        is_one = isinstance(tasks, list) and len(tasks) == 1 and isinstance(tasks[0], Mapping)
        return tasks[0].get("id") if is_one else None

    @property
    def label_config(self) -> str:
        config = self.body.get("label_config")
        if not isinstance(config, str) or not config.strip():
            raise BadRequest(f"label_config {config!r:.80} must be the project's labeling config")
        return config

    @property
    def items(self) -> Sequence[Mapping[str, Any]]:
        """What is drawn. Raises BadRequest."""
        items = self.context.get("result")
        items = [] if items is None else items
        if not isinstance(items, list) or len(items) > _MAX_PROMPTS:
            raise BadRequest(f"result {items!r:.80} must be a list of at most {_MAX_PROMPTS} items")
        return [check_object(item, f"result[{i}]") for i, item in enumerate(items)]

    def origin(self) -> SessionOrigin:
        to_names = {item.get("to_name") for item in self.items} - {None}
        tag_name = to_names.pop() if len(to_names) == 1 else None
        return SessionOrigin.of_task(self.task, self.label_config, tag_name=tag_name)

    def session_id(self) -> str:
        session_id = self.context.get("session_id")
        if not isinstance(session_id, str):
            raise BadRequest(f"session_id {session_id!r:.80} must be a text")
        return session_id

    def item(self, kind: str, value: Json) -> Json:
        """One result, under the names of the control that it answers."""
        from_name, to_name = self._names()
        return {
            "id": uuid.uuid4().hex[:10],
            "from_name": from_name,
            "to_name": to_name,
            "type": kind,
            "origin": "manual",
            "value": value,
        }

    def _names(self) -> tuple[str, str]:
        """The first control of the config that takes masks; of a bad config none."""
        try:
            config = parse_label_config(self.label_config)
        except (BadRequest, UnsupportedConfigError, ValueError):
            return "", ""
        controls = _controls(config)
        return (controls[0].name, controls[0].to_name) if controls else ("", "")


def _controls(config: LabelConfig) -> list[Any]:
    return [*config.video_rectangles, *config.video_vectors, *config.image_controls]


@dataclass(frozen=True)
class _AskedObject:
    object_id: str
    prompts: Mapping[int, Prompts]
    """By frame index."""


@dataclass(frozen=True)
class _TrackingRequest:
    direction: Direction
    max_frames: int | None
    max_duration_ms: float | None

    def frame_limit(self, info: VideoInfo) -> int | None:
        """Frames beside the prompted ones; the nearer of the two limits, at least one."""
        limits = [] if self.max_frames is None else [self.max_frames]
        if self.max_duration_ms is not None:
            seconds = self.max_duration_ms / 1000
            shown_seconds = info.duration_seconds - info.start_seconds
            per_second = info.frame_count / shown_seconds if shown_seconds else 1.0
            limits.append(max(1, math.floor(seconds * per_second + _TIME_TOLERANCE_SECONDS)))
        return min(limits, default=None)


def _tracking_request(context: Mapping[str, Any]) -> _TrackingRequest:
    direction = context.get("direction")
    frames, duration = context.get("max_frames"), context.get("max_duration_ms")
    return _TrackingRequest(
        check_direction("forward" if direction is None else direction),
        None if frames is None else check_whole(frames, "max_frames", minimum=1),
        None
        if duration is None
        else check_number(duration, "max_duration_ms", maximum=_MAX_DURATION_MS),
    )


def _context_of(body: object) -> Mapping[str, Any]:
    """Empty for a body that is no event's; `parse_predict` says what is wrong with it."""
    params = body.get("params") if isinstance(body, Mapping) else None
    context = params.get("context") if isinstance(params, Mapping) else None
    return context if isinstance(context, Mapping) else {}


def _frame_index(place: Mapping[str, Any], info: VideoInfo) -> int:
    """Of `time_ms`, else of the 1-based `frame`, else the first. Raises BadRequest."""
    time_ms, frame = place.get("time_ms"), place.get("frame")
    if time_ms is not None:
        longest = max(info.duration_seconds, info.frame_times_seconds[-1])
        seconds = check_number(time_ms, "time_ms", maximum=longest * 1000 + 1) / 1000
        # The first picture is shown before its time as well.
        shown_until = seconds + _TIME_TOLERANCE_SECONDS
        return max(0, bisect_right(info.frame_times_seconds, shown_until) - 1)
    if frame is None:
        return 0
    return check_whole(frame, "frame", minimum=1, stop=info.frame_count + 1) - 1


def _frames_to_prewarm(context: Mapping[str, Any], info: VideoInfo) -> list[int]:
    """The current frame, then those next to it, the nearest first."""
    here = _frame_index(context, info)
    window, direction = context.get("window"), context.get("direction")
    window = _PREWARM_WINDOW if window is None else check_whole(window, "window")
    window = min(window, _MAX_PREWARM_WINDOW)
    direction = check_direction("forward" if direction is None else direction)
    steps = {Direction.FORWARD: (1,), Direction.BACKWARD: (-1,), Direction.BOTH: (1, -1)}
    near = [here + step * away for away in range(1, window + 1) for step in steps[direction]]
    return [here, *(index for index in near if 0 <= index < info.frame_count)]


def _objects_asked(call: _Call, info: VideoInfo) -> tuple[list[_AskedObject], Json]:
    """What is drawn, by object and frame; and `left_out`, if anything is malformed.

    An item is of the object that its `meta.track` names, else of the one of its
    label. A second box on a frame is a second object; a point goes to the object
    whose box on that frame holds it, else to the first; but where another box is
    left out it goes with that one. Raises BadRequest when no item can be read.
    """
    here = _frame_index(call.context, info)
    left_out = LeftOut()
    boxes: dict[tuple[str, int], Box] = {}
    lost: set[tuple[str, int]] = set()
    points: list[tuple[str, int, tuple[float, float, bool], object]] = []
    for number, item in enumerate(call.items):
        with left_out.region(item.get("id")):
            value = check_object(item.get("value"), f"result[{number}].value")
            has_place = value.get("frame") is not None or value.get("time_ms") is not None
            frame_index = _frame_index(value, info) if has_place else here
            name = _object_name(item, value)
            if item.get("type") == "keypointlabels":
                points.append((name, frame_index, _point(value, number, info), item.get("id")))
            elif item.get("type") == "rectanglelabels":
                lost.add((name, frame_index))
                box = _box(value, number, info)
                lost.discard((name, frame_index))
                boxes[_free_name(name, frame_index, boxes), frame_index] = box
            else:
                raise BadRequest(
                    f"result[{number}].type {item.get('type')!r:.80} must be 'keypointlabels' "
                    "or 'rectanglelabels'"
                )
    clicks: dict[tuple[str, int], list[tuple[float, float, bool]]] = {}
    for name, frame_index, point, region_id in points:
        with left_out.region(region_id):
            owner = _owner(name, frame_index, point, boxes)
            if owner is None and {(name, frame_index)} <= lost & {*boxes}:
                raise BadRequest("it may belong to a box of its object that is left out")
            clicks.setdefault((owner or name, frame_index), []).append(point)
    left_out.check_rest(bool(boxes or clicks))
    if (said := left_out.to_json()) is not None:
        logger.warning("task %r: %s", call.task_id, sentence(said))
    asked: dict[str, dict[int, Prompts]] = {}
    for name, frame_index in sorted({*boxes, *clicks}):
        prompts = _checked_prompts(
            clicks.get((name, frame_index), []), boxes.get((name, frame_index)), info
        )
        asked.setdefault(name, {})[frame_index] = prompts
    objects = [_AskedObject(name, prompts) for name, prompts in asked.items()]
    return objects, {} if said is None else {"left_out": said}


def _checked_prompts(
    points: list[tuple[float, float, bool]], box: Box | None, info: VideoInfo
) -> Prompts:
    said: Json = {"points": [{"x": x, "y": y, "positive": on} for x, y, on in points]}
    if box is not None:
        said["box"] = [box.x_min, box.y_min, box.x_max, box.y_max]
    return Prompts.from_json(said, info)


def _object_name(item: Mapping[str, Any], value: Mapping[str, Any]) -> str:
    meta = item.get("meta")
    track = meta.get("track") if isinstance(meta, Mapping) else None
    if isinstance(track, (str, int)) and not isinstance(track, bool):
        return str(track)
    labels = value.get("keypointlabels") or value.get("rectanglelabels") or value.get("labels")
    if isinstance(labels, list) and labels and all(isinstance(label, str) for label in labels):
        return ", ".join(labels)
    return _ONLY_OBJECT


def _free_name(name: str, frame_index: int, boxes: Mapping[tuple[str, int], Box]) -> str:
    number, free = 1, name
    while (free, frame_index) in boxes:
        number += 1
        free = f"{name} {number}"
    return free


def _owner(
    name: str,
    frame_index: int,
    point: tuple[float, float, bool],
    boxes: Mapping[tuple[str, int], Box],
) -> str | None:
    """The object whose box holds the point; None: no box does."""
    x, y, _ = point
    for (other, index), box in boxes.items():
        is_of_name = other == name or other.startswith(f"{name} ")
        holds = box.x_min <= x < box.x_max and box.y_min <= y < box.y_max
        if is_of_name and index == frame_index and holds:
            return other
    return None


def _point(value: Mapping[str, Any], number: int, info: VideoInfo) -> tuple[float, float, bool]:
    x, y = (
        check_number(value.get(name), f"result[{number}].value.{name}", maximum=100)
        for name in ("x", "y")
    )
    positive = value.get("positive", True)
    if not isinstance(positive, bool):
        raise BadRequest(
            f"result[{number}].value.positive {positive!r:.80} must be true or false"
        )
    return x * info.width / 100, y * info.height / 100, positive


def _box(value: Mapping[str, Any], number: int, info: VideoInfo) -> Box:
    x, y, width, height = (
        check_number(value.get(name), f"result[{number}].value.{name}", maximum=100)
        for name in ("x", "y", "width", "height")
    )
    box = percent_to_pixel_box(x, y, width, height, size_hw=(info.height, info.width))
    _checked_prompts([], box, info)  # raises for one without an area in the picture
    return box


# --- what is answered --------------------------------------------------------


def _picture(shown: Mapping[str, Shown], info: VideoInfo) -> Json:
    """All objects' masks as one; with several, also each by itself."""
    masks = {object_id: item.mask for object_id, item in shown.items()}
    value = {**_data_url(list(masks.values()), info), "width": info.width, "height": info.height}
    if len(masks) > 1:
        value["objects"] = [
            {"id": object_id, **_data_url([mask], info)} for object_id, mask in masks.items()
        ]
    return value


def _data_url(masks: Sequence[MaskRLE | None], info: VideoInfo) -> Json:
    union = np.zeros((info.height, info.width), dtype=bool)
    for mask in masks:
        if mask is not None:
            union |= decode_mask(mask)
    return {"imageDataURL": bitmask_png.encode(union)}


def _frame(frame: FrameResult, info: VideoInfo) -> Json | None:
    """None for a frame that shows nothing: the editor makes shapes of what it gets."""
    shown = {key: item for key, item in frame.shown.items() if item.mask is not None}
    if not shown:
        return None
    time_seconds = info.frame_times_seconds[frame.frame_index]
    return {
        "frame": frame.frame_index,
        "time_ms": round(time_seconds * 1000, 3),
        **_picture(shown, info),
    }
