"""Interactive sessions: one person's work on one video, and the only way to the model
for all who click: the Enterprise editor's events and the API of `sessions_api`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Callable, ContextManager, Iterable, Iterator, Mapping, Sequence

import numpy as np

from backend.errors import (
    BadRequest,
    Conflict,
    NotFound,
    OverLimit,
    ServiceError,
    StorageFull,
)
from backend.log_context import carried, working_for
from backend.scheduler import DeviceScheduler, Priority, in_turns
from backend.session_media import SessionOrigin
from backend.session_memories import SessionMemories
from backend.session_store import SessionStore, StoredFrame, StoredSession
from backend.session_values import (
    FrameResult,
    Json,
    Prompts,
    Propagation,
    PropagationRequest,
    PropagationState,
    Saved,
    SessionObject,
    Shown,
    check_labels,
    check_text,
    check_whole,
    mask_from_json,
    object_from_stored,
    object_to_stored,
)
from converters.masks import decode_mask, encode_mask
from converters.types import Direction, FrameMasks, Track, VideoInfo
from sam2_model.errors import DeviceMemoryError
from sam2_model.video.errors import VideoDecodeError

if TYPE_CHECKING:
    from backend.session_start import KnownObject
    from sam2_model.interactive import FramePrompt, InteractiveVideo

logger = logging.getLogger(__name__)

_UNDO_STEPS = 200
_MAX_PROMPTED = 2000
"""Prompted frames of a session, all objects counted: each is kept in memory."""
_THREAD_END_SECONDS = 60.0
"""A cancelled propagation ends within a frame."""
_SAVING_SHARE = 0.05
"""Of the time of a propagation, for keeping what the model remembers."""

Objects = Mapping[str, SessionObject]


class Session:
    """Prompts of several objects on several frames, and the masks they lead to.

    Any thread may call any method. Those that need the device take turns on it:
    a click waits for one frame of whatever else runs, this session's own
    propagation included.
    """

    def __init__(
        self,
        session_id: str,
        origin: SessionOrigin,
        video: InteractiveVideo,
        scheduler: DeviceScheduler,
        *,
        content: str,
        max_objects: int,
        store: SessionStore | None,
        memories: SessionMemories | None = None,
        save_seconds: float = 20.0,
    ) -> None:
        """
        Args:
            content: names the frames.
            store: without one nothing outlives the session.
            memories: without them tracking goes on from the masks once it is opened again.
            save_seconds: how often those of a running propagation are kept.
        """
        self.id = session_id
        self.origin = origin
        self.content = content
        self._video = video
        self._scheduler = scheduler
        self._max_objects = max_objects
        self._store = store
        self._memories = memories
        self._save_seconds = save_seconds
        self._condition = threading.Condition()
        self._objects: Objects = {}
        self._undo: list[Objects] = []
        self._redo: list[Objects] = []
        self._frames: OrderedDict[int, FrameResult] = OrderedDict()
        """By frame index, in the order of their serials."""
        self._serial = 0
        self._revision = 0
        self._items: dict[tuple[str, int], tuple[Prompts, FramePrompt]] = {}
        """Prompts as the model takes them: the same object as long as nothing changes."""
        self._propagation: Propagation | None = None
        self._thread: threading.Thread | None = None
        self._stop_asked = threading.Event()
        self._stop_as = PropagationState.STOPPED
        """What a propagation that is asked to stop has become."""
        self._prewarming = 0
        self._saved: Saved | None = None
        self._left_as: Propagation | None = None
        """How an earlier opening left it, until what the model remembered then is read."""
        self._memories_lost = False
        self._memories_due = 0.0
        """When they are to be kept next, by `time.monotonic`."""
        self._is_closed = False
        self.saving = threading.Lock()
        """Held while it is stored in Label Studio: two who save must not make two of it."""

    @classmethod
    def restored(cls, stored: StoredSession, *arguments, **options) -> Session:
        """A session as it was stored; the rest is the constructor's."""
        session = cls(stored.session_id, *arguments, **options)
        session._objects = {
            object_id: object_from_stored(item)
            for object_id, item in stored.body["objects"].items()
        }
        session._revision = stored.body["revision"]
        saved = stored.body.get("saved")
        session._saved = None if saved is None else Saved.from_json(saved)
        for frame in stored.frames:
            session._frames[frame.frame_index] = session._frame_from_stored(frame)
            session._serial = max(session._serial, frame.serial)
        if stored.propagation is not None:
            session._propagation = Propagation.from_stored(stored.propagation)
            # One more, as the propagation may have become an interrupted one.
            revision = stored.propagation.get("revision", 0) + 1
            session._revision = max(session._revision, revision)
            session._left_as = session._propagation
            has_memories = session._memories is not None and session._memories.has(session.id)
            session._memories_lost = session._propagation.done_frames > 0 and not has_memories
        return session

    @property
    def is_stored(self) -> bool:
        """Whether it outlives the process."""
        return self._store is not None

    # --- what there is -------------------------------------------------------

    @property
    def info(self) -> VideoInfo:
        return self._video.info

    @property
    def objects(self) -> Objects:
        with self._condition:
            return self._objects

    @property
    def propagation(self) -> Propagation | None:
        """The latest one."""
        with self._condition:
            return self._propagation

    @property
    def is_propagating(self) -> bool:
        propagation = self.propagation
        return propagation is not None and propagation.is_running

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def state_revision(self) -> int:
        """Changes with every change of prompts, objects or the propagation."""
        with self._condition:
            return self._revision

    @property
    def serial(self) -> int:
        """Changes with every change of a frame's masks."""
        with self._condition:
            return self._serial

    @property
    def saved(self) -> Saved | None:
        """When it was last stored in Label Studio."""
        with self._condition:
            return self._saved

    def summary(self) -> Json:
        """What may change while somebody watches: `state` without objects and video."""
        with self._condition:
            return {
                "revision": self._revision,
                "propagation": None if self._propagation is None else self._propagation.to_json(),
                "can_undo": bool(self._undo),
                "can_redo": bool(self._redo),
            }

    def state(self) -> Json:
        """All but the masks, as JSON."""
        info = self.info
        with self._condition:
            return {
                "id": self.id,
                "task_id": self.origin.task_id,
                "project_id": self.origin.project_id,
                "video": {
                    "width": info.width,
                    "height": info.height,
                    "frame_count": info.frame_count,
                    "fps": info.fps,
                    "start_seconds": info.start_seconds,
                    "duration_seconds": info.duration_seconds,
                },
                "objects": [
                    {
                        "id": object_id,
                        "labels": list(item.labels),
                        "prompts": {str(i): p.to_json() for i, p in item.prompts.items()},
                        "scores": self._scores(object_id),
                    }
                    for object_id, item in self._objects.items()
                ],
                "serial": self._serial,
                "saved": None if self._saved is None else self._saved.to_json(),
                "memories_lost": self._memories_lost,
                **self.summary(),
            }

    def _scores(self, object_id: str) -> list[list[float]]:
        return [
            [index, round(shown.score, 4)]
            for index, frame in sorted(self._frames.items())
            if (shown := frame.shown.get(object_id)) is not None
        ]

    def frame_picture(self, frame_index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. Raises BadRequest, VideoDecodeError."""
        return self._video.source.frame(self.checked_frame(frame_index))

    def frame_result(self, frame_index: int) -> FrameResult | None:
        """What is known of a frame's objects, without asking the model."""
        frame_index = self.checked_frame(frame_index)
        with self._condition:
            found = self._frames.get(frame_index)
            return None if found is None else self._of_present_objects(found)

    def frames_since(
        self,
        serial: int,
        *,
        timeout_seconds: float = 0.0,
        gather_seconds: float = 0.0,
        limit: int | None = None,
    ) -> list[FrameResult]:
        """Frames changed after that serial, in the order of their changes.

        Waits for the first until the timeout, or until nothing is being propagated
        any more; then gathers what comes, until there are `limit`.
        """

        def has_ended() -> bool:
            running = self._propagation is not None and self._propagation.is_running
            return self._is_closed or not running

        def has(count: int) -> Callable[[], bool]:
            return lambda: has_ended() or self._has_changed(serial, count)

        with self._condition:
            self._condition.wait_for(has(1), timeout_seconds)
            if gather_seconds:
                self._condition.wait_for(has(limit or self.info.frame_count), gather_seconds)
            found = self._changed_since(serial, limit)
            return [self._of_present_objects(frame) for frame in found]

    def wait_for_change(self, revision: int, serial: int, timeout_seconds: float) -> bool:
        """Until prompts, frames or the propagation are no longer as they were known;
        False when the time is over before."""
        with self._condition:
            return self._condition.wait_for(
                lambda: self._is_closed
                or self._revision != revision
                or self._serial > serial,
                timeout_seconds,
            )

    def _has_changed(self, serial: int, count: int) -> bool:
        newest = itertools.islice(reversed(self._frames.values()), count)
        return sum(frame.serial > serial for frame in newest) >= count

    def _changed_since(self, serial: int, limit: int | None) -> list[FrameResult]:
        found: list[FrameResult] = []
        for frame in reversed(self._frames.values()):
            if frame.serial <= serial:
                break
            found.append(frame)
        found.reverse()
        return found[:limit]

    def _of_present_objects(self, frame: FrameResult) -> FrameResult:
        shown = {key: value for key, value in frame.shown.items() if key in self._objects}
        return replace(frame, shown=shown)

    def tracks(self) -> tuple[Track, ...]:
        """The objects with all that is known of them, in the order they were made."""
        with self._condition:
            frames = sorted(self._frames.values(), key=lambda frame: frame.frame_index)
            objects = self._objects
        tracks = []
        for object_id, item in objects.items():
            known = {f.frame_index: f.shown[object_id] for f in frames if object_id in f.shown}
            masks = {index: s.mask for index, s in known.items() if s.mask is not None}
            scores = {index: shown.score for index, shown in known.items()}
            tracks.append(Track(object_id, item.labels, masks, scores))
        return tuple(tracks)

    def checked_frame(self, frame_index: object) -> int:
        """Raises BadRequest unless it is one of the video's frames."""
        return check_whole(frame_index, "frame_index", stop=self.info.frame_count)

    # --- changing ------------------------------------------------------------

    def begin_with(self, known: Sequence[KnownObject]) -> None:
        """Objects that there are already; before anything else is done, and no undo takes
        them away. Raises BadRequest."""
        if len(known) > self._max_objects:
            raise OverLimit(f"there are {len(known)} objects, may be {self._max_objects}")
        count = sum(len(item.prompts) for item in known)
        if count > _MAX_PROMPTED:
            raise OverLimit(f"prompts are on {count} frames, may be on {_MAX_PROMPTED}")
        objects: dict[str, SessionObject] = {}
        frames: dict[int, dict[str, Shown]] = {}
        for item in known:
            object_id = check_text(item.object_id, "object id")
            labels = check_labels(list(item.labels))
            self._check_labels(labels)
            objects[object_id] = SessionObject(labels, dict(sorted(item.prompts.items())))
            for index, shown in item.shown.items():
                frames.setdefault(index, {})[object_id] = shown
        with self._condition:
            self._objects = objects
            self._put_frames(
                FrameResult(serial, index, frames[index])
                for serial, index in enumerate(sorted(frames), start=1)
            )

    def set_object(self, object_id: object, labels: object = ()) -> None:
        """Make an object, or give it other labels. Raises BadRequest, ValueError, Conflict."""
        object_id = check_text(object_id, "object id")
        labels = check_labels(list(labels) if isinstance(labels, tuple) else labels)
        self._check_labels(labels)
        with self._condition:
            item = self._objects.get(object_id)
            changed = self._new_object(labels) if item is None else replace(item, labels=labels)
            made = object_id if item is None else None
            self._change({**self._objects, object_id: changed}, made=made)

    def _new_object(self, labels: tuple[str, ...] = ()) -> SessionObject:
        if len(self._objects) >= self._max_objects:
            raise OverLimit(
                f"the session has {len(self._objects)} objects, may have {self._max_objects}"
            )
        return SessionObject(labels)

    def _check_labels(self, labels: tuple[str, ...]) -> None:
        config = self.origin.config
        if config is None or not labels:
            return
        controls = [
            control
            for control in (
                *config.video_rectangles, *config.video_vectors, *config.image_controls
            )
            if self.origin.tag_name in control.to_names
        ]
        known = {label for control in controls for label in control.labels}
        if any(control.has_dynamic_labels for control in controls):
            return
        for label in labels:
            if label not in known:
                raise BadRequest(f"label {label!r:.80} must be one of {sorted(known)}")

    def remove_object(self, object_id: str) -> None:
        """Raises NotFound. Undo brings it back with its masks."""
        with self._condition:
            self._object(object_id)
            self._change({k: v for k, v in self._objects.items() if k != object_id})

    def set_prompts(
        self, object_id: str, frame_index: object, prompts: Prompts, *, makes_object: bool = False
    ) -> None:
        """What a person now says of an object on a frame, in place of what was said before.

        Args:
            makes_object: one that is not there is made, which is a step of its own to undo.

        Raises NotFound for an unknown object, BadRequest for a frame outside.
        """
        frame_index = self.checked_frame(frame_index)
        with self._condition:
            steps = []
            if makes_object and object_id not in self._objects:
                item = self._new_object()
                steps.append({**self._objects, check_text(object_id, "object id"): item})
            else:
                item = self._object(object_id)
            self._check_room(item, frame_index)
            before = None if steps else self._shown_before(object_id, frame_index, prompts)
            changed = item.with_prompts(frame_index, replace(prompts, before=before))
            made = object_id if steps else None
            self._change(*steps, {**self._objects, object_id: changed}, made=made)

    def _check_room(self, item: SessionObject, frame_index: int) -> None:
        count = sum(len(other.prompts) for other in self._objects.values())
        if frame_index not in item.prompts and count >= _MAX_PROMPTED:
            raise OverLimit(
                f"the session has prompts on {count} frames, all objects counted; it may "
                f"have {_MAX_PROMPTED}"
            )

    def _shown_before(self, object_id: str, frame_index: int, prompts: Prompts) -> Shown | None:
        """What the points correct; a box or a mask begins anew, but keeps it for an undo."""
        old = self._objects[object_id].prompts.get(frame_index)
        if old is not None:
            return old.before
        frame = self._frames.get(frame_index)
        shown = None if frame is None else frame.shown.get(object_id)
        return shown if shown is not None and shown.prompt is None else None

    def remove_prompts(self, object_id: str, frame_index: object) -> None:
        """Raises NotFound for an object without prompts there."""
        frame_index = self.checked_frame(frame_index)
        with self._condition:
            item = self._object(object_id)
            if frame_index not in item.prompts:
                raise NotFound(f"object {object_id!r} has no prompts on frame {frame_index}")
            self._change({**self._objects, object_id: item.with_prompts(frame_index, None)})

    def undo(self) -> None:
        """Take back the last change of objects or prompts. Raises Conflict without one."""
        self._step(self._undo, self._redo, "undo")

    def redo(self) -> None:
        self._step(self._redo, self._undo, "redo")

    def _step(self, source: list[Objects], target: list[Objects], name: str) -> None:
        with self._condition:
            if not source:
                raise Conflict(f"there is nothing to {name}")
            before = self._objects
            self._install(source[-1])
            source.pop()
            target.append(before)

    def _object(self, object_id: str) -> SessionObject:
        item = self._objects.get(object_id)
        if item is None:
            raise NotFound(f"object {object_id!r:.80}: the session has {list(self._objects)}")
        return item

    def _change(self, *steps: Objects, made: str | None = None) -> None:
        """Each of the steps can be undone; all of them are kept, or none.

        Args:
            made: the object that they make; what a removed one of its id showed must not
                come up under it.
        """
        undo = [*self._undo, self._objects, *steps[:-1]]
        frames = self._frames.values()
        forgotten = [(made, f.frame_index, None) for f in frames if made in f.shown]
        self._install(steps[-1], forgotten)
        self._undo[:] = undo[-_UNDO_STEPS:]
        self._redo.clear()

    def _install(
        self, objects: Objects, forgotten: Iterable[tuple[str, int, None]] = ()
    ) -> None:
        """Keep these objects, and have them from then on: what cannot be kept has not happened."""
        self._check_open()
        changed = self._frames_with(
            (
                *forgotten,
                *(
                    (object_id, index, _shown_after(object_id, index, self._objects, objects))
                    for object_id, index in _changed_prompts(self._objects, objects)
                ),
            )
        )
        revision = self._revision + 1
        self._store_change(body=self._body(objects, self._saved, revision), frames=changed)
        self._objects, self._revision = objects, revision
        self._put_frames(changed)
        self._items = {
            (object_id, index): known
            for (object_id, index), known in self._items.items()
            if object_id in objects and objects[object_id].prompts.get(index) is known[0]
        }
        self._condition.notify_all()

    def _frames_with(
        self, changes: Iterable[tuple[str, int, Shown | None]]
    ) -> list[FrameResult]:
        """The frames that differ once an object shows something else on a frame; not in
        place yet."""
        changed: dict[int, dict[str, Shown]] = {}
        for object_id, index, shown in changes:
            frame = self._frames.get(index)
            known = changed.get(index, {} if frame is None else frame.shown)
            if known.get(object_id) == shown:
                continue
            changed[index] = {key: value for key, value in known.items() if key != object_id}
            if shown is not None:
                changed[index][object_id] = shown
        return [
            FrameResult(serial, index, shown)
            for serial, (index, shown) in enumerate(changed.items(), start=self._serial + 1)
        ]

    def _put_frames(self, frames: Iterable[FrameResult]) -> None:
        for frame in frames:
            self._serial = frame.serial
            self._frames[frame.frame_index] = frame
            self._frames.move_to_end(frame.frame_index)

    # --- looking -------------------------------------------------------------

    def preview_mask(self, object_id: str, frame_index: object) -> Shown | None:
        """An object on a frame as its prompts are now; what was tracked where it has none.

        The decoder alone runs when the frame's features are there. None: nothing is
        known yet. Raises NotFound, BadRequest, ValueError.
        """
        frame_index = self.checked_frame(frame_index)
        with self._condition:
            prompts = self._object(object_id).prompts.get(frame_index)
            frame = self._frames.get(frame_index)
            shown = None if frame is None else frame.shown.get(object_id)
            if prompts is None or (shown is not None and shown.prompt is prompts):
                return shown
            item = self._item(object_id, frame_index, prompts)
        looked = replace(self._look(item), prompt=prompts)
        with self._condition:
            now = self._objects.get(object_id)
            if now is not None and now.prompts.get(frame_index) is prompts and not self._is_closed:
                changed = self._frames_with([(object_id, frame_index, looked)])
                with self._if_possible():  # the prompts are kept, and show it again
                    self._store_change(frames=changed)
                self._put_frames(changed)
                self._condition.notify_all()
        return looked

    def look_at(self, prompts: Prompts, frame_index: object) -> Shown:
        """What prompts that are not the session's would show."""
        frame_index = self.checked_frame(frame_index)
        return self._look(prompts.for_model("", frame_index))

    def _look(self, item: FramePrompt) -> Shown:
        with self._working(), self._scheduler.turn(Priority.INTERACTIVE):
            self._check_open()
            mask, score = self._video.look(item)
        return Shown(encode_mask(mask) if mask.any() else None, score)

    def _item(self, object_id: str, frame_index: int, prompts: Prompts) -> FramePrompt:
        key = (object_id, frame_index)
        known = self._items.get(key)
        if known is None or known[0] is not prompts:
            begins_anew = prompts.box is not None or prompts.mask is not None
            asked = replace(prompts, before=None) if begins_anew else prompts
            known = self._items[key] = (prompts, asked.for_model(object_id, frame_index))
        return known[1]

    def prewarm(self, frame_indices: Sequence[int]) -> tuple[list[int], list[int]]:
        """Encode frames in the background, the first ones first; earlier calls are given up.

        Returns those whose features are there, and those that are to come.
        """
        with self._condition:
            self._check_open()
            self._prewarming += 1
            number = self._prewarming
        cached = [index for index in frame_indices if self._video.has_features(index)]
        pending = [index for index in frame_indices if index not in cached]
        if pending:
            threading.Thread(
                target=carried(self._prewarm), args=(number, pending), name="prewarm", daemon=True
            ).start()
        return cached, pending

    def _prewarm(self, number: int, frame_indices: Sequence[int]) -> None:
        for count, index in enumerate(frame_indices, start=1):
            room = self._video.feature_room
            if room is not None and count > room:
                return
            with self._scheduler.turn(Priority.BATCH):
                if self._is_closed or number != self._prewarming:
                    return
                try:
                    self._video.encode(index)
                except (VideoDecodeError, DeviceMemoryError) as error:
                    logger.warning("session %s: frame %d: %s", self.id, index, error)
                    return

    # --- propagating ---------------------------------------------------------

    def propagate(self, request: PropagationRequest) -> Propagation:
        """Track all objects in the background, from their prompts as they are now.

        Raises BadRequest, and Conflict while it is propagating already.
        """
        with self._condition:
            frames = [i for item in self._objects.values() for i in item.prompts]
            self._start(request.plan(frames, self.info.frame_count))
            return self._propagation

    def resume(self) -> Propagation:
        """Go on with what was stopped or interrupted. Raises Conflict when nothing was."""
        states = (PropagationState.STOPPED, PropagationState.INTERRUPTED, PropagationState.FAILED)
        with self._condition:
            known = self._propagation
            if known is None or known.state not in states or not known.rest:
                raise Conflict("there is no propagation to resume")
            self._start(replace(known, state=PropagationState.RUNNING, error=None))
            return self._propagation

    def _start(self, propagation: Propagation) -> None:
        self._check_open()
        if self._thread is not None:
            raise Conflict("the session is propagating: stop it first")
        # Kept before it begins: a process that dies at its first frame must not forget it.
        revision = self._revision + 1
        self._store_change(propagation=propagation, revision=revision)
        self._stop_asked.clear()
        self._prewarming += 1  # the frames it had in mind may not be the next ones
        self._propagation = propagation
        self._thread = threading.Thread(
            target=carried(self._propagate),
            args=(self._objects, propagation),
            name=f"session-{self.id[:8]}",
            daemon=True,
        )
        self._thread.start()
        self._revision = revision
        self._condition.notify_all()

    def stop(self) -> bool:
        """End the propagation after the frame it is at; False when none was running."""
        return self._ask_to_stop(PropagationState.STOPPED)

    def interrupt(self) -> bool:
        """The same where no person wants it to end: it is to be resumed."""
        return self._ask_to_stop(PropagationState.INTERRUPTED)

    def _ask_to_stop(self, stop_as: PropagationState) -> bool:
        with self._condition:
            was_running = self._propagation is not None and self._propagation.is_running
            if not self._stop_asked.is_set():
                self._stop_as = stop_as
            self._stop_asked.set()
        return was_running

    @property
    def _is_interrupted(self) -> bool:
        return self._stop_asked.is_set() and self._stop_as is PropagationState.INTERRUPTED

    def wait_until_still(self, timeout_seconds: float) -> bool:
        """Wait until nothing is being propagated; False when the time is over before."""
        with self._condition:
            return self._condition.wait_for(lambda: self._thread is None, timeout_seconds)

    def _working(self) -> ContextManager[None]:
        return working_for(task=self.origin.task_id, project=self.origin.project_id)

    def _propagate(self, objects: Objects, propagation: Propagation) -> None:
        with self._working():
            self._propagate_to_the_end(objects, propagation)

    def _propagate_to_the_end(self, objects: Objects, propagation: Propagation) -> None:
        end, error = PropagationState.DONE, None
        try:
            try:
                self._recall()
                self._track(objects, propagation)
            finally:
                self._keep_memories()
            if self._stop_asked.is_set() and self._propagation.rest:
                end = self._stop_as
        except (ServiceError, ValueError) as problem:  # what people can mend: no traceback
            logger.warning("session %s: propagation failed: %s", self.id, problem)
            end, error = PropagationState.FAILED, str(problem)
        except Exception as problem:  # the boundary of the thread
            logger.exception("session %s: propagation failed", self.id)
            end = PropagationState.FAILED
            error = f"{type(problem).__name__}; the server's log has the traceback"
        with self._condition:
            if error is not None and self._is_interrupted:
                # The stop may well be the reason; if not, the failure comes again.
                end, error = PropagationState.INTERRUPTED, None
            self._propagation = replace(self._propagation, state=end, error=error)
            self._thread = None
            self._revision += 1
            self._condition.notify_all()
            with self._if_possible():
                self._store_change(propagation=self._propagation)

    def _recall(self) -> None:
        """Have the model remember what it did when the session was closed."""
        left_as, self._left_as, memories = self._left_as, None, self._memories
        if left_as is None or memories is None:
            return
        # Imported here: torch takes seconds, and /health answers meanwhile.
        from sam2_model.kept_state import KeptState

        try:
            body = memories.load(self.id)
            if body is None:
                is_lost = left_as.done_frames > 0
            else:
                kept = KeptState.parse(body)
                is_same = self._video.run_of(kept) == left_as.name
                if not is_same and left_as.done_frames:
                    raise ValueError("it is of an earlier propagation")
                self._video.restore(kept, left_as.rest if is_same else None)
                is_lost = False
        except (OSError, ValueError) as error:
            logger.warning("session %s: what the model remembered is of no use: %s", self.id, error)
            is_lost = True
        if is_lost:
            logger.warning("session %s: tracking goes on from the masks alone", self.id)
        with self._condition:
            self._memories_lost = is_lost

    def _keep_memories(self) -> None:
        """What the model remembers now. Between the steps of the propagation."""
        memories = self._memories  # a deletion takes them away
        if memories is None:
            return
        begun = time.monotonic()
        memories.save(self.id, self._video.save())
        ended = time.monotonic()
        self._memories_due = ended + max(self._save_seconds, (ended - begun) / _SAVING_SHARE)

    def _track(self, objects: Objects, propagation: Propagation) -> None:
        self._memories_due = 0.0
        with self._condition:
            items = [
                self._item(object_id, index, prompts)
                for object_id, item in objects.items()
                for index, prompts in item.prompts.items()
            ]
        frames = self._video.follow(
            items,
            propagation.rest,
            name=propagation.name,
            known_mask=self._known_mask,
            is_cancelled=self._stop_asked.is_set,
        )
        steps = in_turns(frames, lambda: self._scheduler.turn(Priority.INTERACTIVE))
        with contextlib.closing(steps):
            for frame_masks in steps:
                if frame_masks is not None:
                    # Before the frame: what is remembered may be ahead of what is shown, and
                    # when it is behind, that is made up for.
                    if time.monotonic() >= self._memories_due:
                        self._keep_memories()
                    self._keep(frame_masks, objects, propagation.direction)
                if self._stop_asked.is_set():
                    return

    def _known_mask(self, object_id: str, frame_index: int) -> np.ndarray | None:
        with self._condition:
            frame = self._frames.get(frame_index)
        shown = None if frame is None else frame.shown.get(object_id)
        return None if shown is None or shown.mask is None else decode_mask(shown.mask)

    def _keep(self, frame_masks: FrameMasks, objects: Objects, direction: Direction) -> None:
        index = frame_masks.frame_index
        found = {
            object_id: Shown(
                encode_mask(mask) if mask.any() else None,
                float(score),
                objects[object_id].prompts.get(index),
            )
            for object_id, mask, score in zip(
                frame_masks.object_ids, frame_masks.masks, frame_masks.scores
            )
            if _may_show(objects[object_id], index, direction)
        }
        with self._condition:
            old = self._frames.get(index)
            shown = {} if old is None else dict(old.shown)
            for object_id, value in found.items():
                now = self._objects.get(object_id)
                # What a person has changed there meanwhile stays as it is.
                if now is not None and now.prompts.get(index) is value.prompt:
                    shown[object_id] = value
            frames = [FrameResult(self._serial + 1, index, shown)]
            propagation = self._propagation.after(index)
            self._store_change(propagation=propagation, frames=frames)
            self._put_frames(frames)
            self._propagation = propagation
            self._condition.notify_all()

    # --- keeping and closing -------------------------------------------------

    def note_saved(self, saved: Saved) -> None:
        """It has been stored in Label Studio, whatever becomes of the session meanwhile."""
        with self._condition:
            if self._is_closed:  # what was stored is found by its regions' stamp
                return
            self._saved = saved
            with self._if_possible():
                self._store_change(body=self._body(self._objects, saved, self._revision))

    def create(self) -> None:
        """Keep a new session, with the frames that it began with."""
        if self._store is None:
            return
        with self._condition:
            body = self._body(self._objects, self._saved, self._revision)
            frames = [_frame_to_stored(frame) for frame in self._frames.values()]
            self._store.create(self.id, body, frames, task_id=self.origin.task_id)

    def _body(self, objects: Objects, saved: Saved | None, revision: int) -> Json:
        return {
            "origin": self.origin.to_json(),
            "content": self.content,
            "revision": revision,
            "saved": None if saved is None else saved.to_json(),
            "objects": {key: object_to_stored(item) for key, item in objects.items()},
        }

    def _store_change(
        self,
        *,
        body: Json | None = None,
        propagation: Propagation | None = None,
        revision: int | None = None,
        frames: Iterable[FrameResult] = (),
    ) -> None:
        """Keep what is about to be, before it is. Raises StorageFull, and NotFound when the
        session has just been deleted."""
        if self._store is None:
            return
        if propagation is not None:
            revision = self._revision if revision is None else revision
            stored = {**propagation.to_stored(), "revision": revision}
        is_kept = self._store.save(
            self.id,
            body=body,
            propagation=None if propagation is None else stored,
            frames=[_frame_to_stored(frame) for frame in frames],
        )
        if not is_kept:
            raise NotFound(f"session {self.id} has just been deleted")

    @contextlib.contextmanager
    def _if_possible(self) -> Iterator[None]:
        """For what is so whether it can be kept or not."""
        try:
            yield
        except StorageFull as full:
            logger.error("session %s: %s", self.id, full)
        except NotFound as gone:
            logger.info("session %s: %s", self.id, gone)

    def _frame_from_stored(self, frame: StoredFrame) -> FrameResult:
        shown = {}
        for object_id, (mask, score, is_prompted) in frame.body.items():
            item = self._objects.get(object_id)
            prompts = item.prompts.get(frame.frame_index) if item and is_prompted else None
            shown[object_id] = Shown(mask_from_json(mask), score, prompts)
        return FrameResult(frame.serial, frame.frame_index, shown)

    def _check_open(self) -> None:
        if self._is_closed:
            raise Conflict(f"session {self.id} has just been closed: ask again")

    def close(self, *, is_deleted: bool = False) -> None:
        """Stop, and let go of the video. What is stored stays; from now on nothing that
        people ask for changes it.

        Args:
            is_deleted: nothing is stored any more, and nothing is to be.
        """
        with self._condition:
            if self._is_closed:
                return
            self._is_closed = True
            if is_deleted:
                self._memories = None
            self._ask_to_stop(PropagationState.INTERRUPTED)
            self._condition.notify_all()
        if not self.wait_until_still(_THREAD_END_SECONDS):
            logger.warning("session %s: its propagation does not end", self.id)
        with self._scheduler.turn(Priority.INTERACTIVE):
            self._video.close()


def _changed_prompts(old: Objects, new: Objects) -> Iterator[tuple[str, int]]:
    """(object id, frame) of each prompt that differs; those of removed objects stay as they are."""
    for object_id, item in new.items():
        before = old[object_id].prompts if object_id in old else {}
        for index in {*item.prompts, *before}:
            if item.prompts.get(index) is not before.get(index) and object_id in old:
                yield object_id, index


def _shown_after(object_id: str, frame_index: int, old: Objects, new: Objects) -> Shown | None:
    """What a frame shows once its prompts have changed, before the model is asked."""
    said = [
        objects[object_id].prompts.get(frame_index)
        for objects in (new, old)
        if object_id in objects
    ]
    kept = [prompts.before for prompts in said if prompts is not None]
    return kept[0] if kept else None


def _may_show(item: SessionObject, frame_index: int, direction: Direction) -> bool:
    """Forward an object begins at its own first prompt, backward it ends at its last."""
    if direction is Direction.FORWARD:
        return frame_index >= min(item.prompts)
    return direction is Direction.BOTH or frame_index <= max(item.prompts)


def _frame_to_stored(frame: FrameResult) -> StoredFrame:
    body = {
        object_id: [
            None
            if shown.mask is None
            else {"size": [shown.mask.height, shown.mask.width], "counts": shown.mask.counts},
            shown.score,
            shown.prompt is not None,
        ]
        for object_id, shown in frame.shown.items()
    }
    return StoredFrame(frame.frame_index, frame.serial, body)
