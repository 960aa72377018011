"""`/api/sessions`: interactive sessions over HTTP. docs/sessions-api.md has all of it.

Changes must be said to be JSON and there are no cookies, so that no page of another
site can make them; nothing here answers to another origin.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import threading
import time
from collections import OrderedDict
from typing import Any, Iterator, Mapping

import numpy as np
from flask import Blueprint, Response, current_app, jsonify, request
from PIL import Image

from backend.access import project_of_key
from backend.deadlines import Deadline
from backend.errors import BadRequest, NotJson, TooManyRequests, TooManySessions
from backend.json_body import json_body
from backend.service import TrackingService
from backend.session_exports import export_of
from backend.session_opening import OPENING_MEMBERS, SessionOpening
from backend.session_results import frames_asked, regions_of, tracks_json
from backend.session_saving import SaveOrder, save_session
from backend.session_values import PropagationRequest, Prompts, check_object
from backend.sessions import Session

_MAX_BODY_BYTES = 32 * 2**20
_STREAM_SECONDS = 240.0
"""A stream ends after this; the client asks again from the serial it has."""
_HEARTBEAT_SECONDS = 15.0
_FRAMES_A_STEP = 64
_PICTURE_CACHE_BYTES = 64 * 2**20
_JPEG_QUALITY = 88
_MIN_PICTURE_WIDTH = 16
_SSE = "text/event-stream"
_NDJSON = "application/x-ndjson"

Json = dict[str, Any]


def sessions_blueprint(service: TrackingService) -> Blueprint:
    """The routes."""
    api = _SessionsApi(service)
    blueprint = Blueprint("sessions", __name__, url_prefix="/api/sessions")
    blueprint.before_request(_check_change)
    blueprint.after_request(_never_stored)
    one = "/<session_id>"
    prompts = f"{one}/objects/<object_id>/prompts/<int:frame_index>"
    for rule, method, view in (
        ("", "POST", api.create),
        ("", "GET", api.list),
        (one, "GET", api.state),
        (one, "DELETE", api.delete),
        (f"{one}/frames/<int:frame_index>.jpg", "GET", api.picture),
        (f"{one}/frames/<int:frame_index>/masks", "GET", api.masks),
        (f"{one}/objects/<object_id>", "PUT", api.set_object),
        (f"{one}/objects/<object_id>", "DELETE", api.remove_object),
        (prompts, "PUT", api.set_prompts),
        (prompts, "DELETE", api.remove_prompts),
        (f"{one}/objects/<object_id>/masks/<int:frame_index>", "GET", api.mask),
        (f"{one}/prewarm", "POST", api.prewarm),
        (f"{one}/propagate", "POST", api.propagate),
        (f"{one}/resume", "POST", api.resume),
        (f"{one}/stop", "POST", api.stop),
        (f"{one}/undo", "POST", api.undo),
        (f"{one}/redo", "POST", api.redo),
        (f"{one}/events", "GET", api.events),
        (f"{one}/regions", "GET", api.regions),
        (f"{one}/tracks.json", "GET", api.tracks),
        (f"{one}/save", "POST", api.save),
        (f"{one}/export", "GET", api.export),
    ):
        blueprint.add_url_rule(rule, view.__name__, view, methods=[method])
    return blueprint


def _check_change() -> None:
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    request.max_content_length = min(_MAX_BODY_BYTES, limit or _MAX_BODY_BYTES)
    if request.mimetype != "application/json":
        raise NotJson(
            f"Content-Type {request.content_type!r:.80} must be application/json, also "
            "without a body"
        )


def _never_stored(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    return response


class _SessionsApi:
    """The views and what they share."""

    def __init__(self, service: TrackingService) -> None:
        self._service = service
        self._sessions = service.sessions
        settings = service.settings
        self._places = threading.BoundedSemaphore(settings.max_waiting_requests)
        self._streams = threading.BoundedSemaphore(settings.max_session_streams)
        self._pictures = _Pictures(_PICTURE_CACHE_BYTES)
        self._opening = SessionOpening(service)

    # --- sessions ------------------------------------------------------------

    def create(self) -> tuple[Response, int]:
        origin, known = self._opening.read(_body(OPENING_MEMBERS), project_of_key())
        deadline = Deadline(self._service.settings.answer_seconds)
        with self._place(), self._sessions.created(
            origin, deadline=deadline, known=known
        ) as session:
            answer = jsonify(self._state_of(session))
            answer.headers["Location"] = f"{request.path}/{session.id}"
            return answer, 201

    def list(self) -> Json:
        """The sessions on a task, or on a video without one, the last used first."""
        task_id, reference = request.args.get("task_id"), request.args.get("video")
        if (task_id is None) == (reference is None):
            raise BadRequest("give task_id or video, to say whose sessions are wanted")
        project_id = project_of_key()
        if reference is None:
            number = _query_whole("task_id", 0, 1)
            found = self._sessions.of_task(number, project_id=project_id)
        else:
            found = self._sessions.of_video(reference, project_id=project_id)
        return {
            "sessions": [
                {
                    "id": known.session_id,
                    "task_id": known.origin["task_id"],
                    "created_at": known.created_at,
                    "used_at": known.used_at,
                }
                for known in found
            ]
        }

    def _using(self, session_id: str) -> contextlib.AbstractContextManager[Session]:
        """The session, if it is the request's key's; another is not found."""
        return self._sessions.using(session_id, project_id=project_of_key())

    def state(self, session_id: str) -> Json:
        with self._using(session_id) as session:
            return self._state_of(session)

    def _state_of(self, session: Session) -> Json:
        """`others_on_task` is for a warning: what others do does not show here."""
        return {**session.state(), "others_on_task": self._sessions.others_on_task(session)}

    def delete(self, session_id: str) -> tuple[str, int]:
        _body(set())
        self._sessions.delete(session_id, project_id=project_of_key())
        return "", 204

    # --- frames and masks ----------------------------------------------------

    def picture(self, session_id: str, frame_index: int) -> Response:
        """JPEG, as wide as the video, or as `width` if that is less."""
        with self._using(session_id) as session:
            info = session.info
            session.checked_frame(frame_index)
            width = min(_query_whole("width", info.width, _MIN_PICTURE_WIDTH), info.width)
            key = hashlib.sha256(f"{session.content}/{frame_index}/{width}".encode()).hexdigest()
            if key[:32] in request.if_none_match:
                response = Response(status=304)
            else:
                picture = self._pictures.get(key)
                if picture is None:
                    picture = _jpeg(session.frame_picture(frame_index), width)
                    self._pictures.put(key, picture)
                response = Response(picture, mimetype="image/jpeg")
        response.set_etag(key[:32])
        response.headers["Cache-Control"] = "private, max-age=3600"
        return response

    def masks(self, session_id: str, frame_index: int) -> Json:
        """What is known of a frame, without asking the model."""
        with self._using(session_id) as session:
            found = session.frame_result(frame_index)
        if found is None:
            return {"serial": 0, "frame_index": frame_index, "objects": {}}
        return found.to_json()

    def mask(self, session_id: str, object_id: str, frame_index: int) -> Json:
        """An object on a frame as its prompts are now."""
        with self._using(session_id) as session:
            return self._mask_of(session, object_id, frame_index)

    def _mask_of(self, session: Session, object_id: str, frame_index: int) -> Json:
        with self._place():
            shown = session.preview_mask(object_id, frame_index)
        known = {"mask": None, "score": None} if shown is None else shown.to_json()
        return {"object": object_id, "frame_index": frame_index, **known}

    # --- objects and prompts -------------------------------------------------

    def set_object(self, session_id: str, object_id: str) -> Json:
        labels = _body({"labels"}).get("labels", [])
        with self._using(session_id) as session:
            session.set_object(object_id, labels)
            return self._state_of(session)

    def remove_object(self, session_id: str, object_id: str) -> Json:
        _body(set())
        with self._using(session_id) as session:
            session.remove_object(object_id)
            return self._state_of(session)

    def set_prompts(self, session_id: str, object_id: str, frame_index: int) -> Json:
        """Keeps the prompts, makes the object if there is none, and answers its mask."""
        body = _body({"points", "box", "mask"})
        with self._using(session_id) as session:
            session.checked_frame(frame_index)
            prompts = Prompts.from_json(body, session.info)
            session.set_prompts(object_id, frame_index, prompts, makes_object=True)
            answer = self._mask_of(session, object_id, frame_index)
            return {**answer, "revision": session.state_revision}

    def remove_prompts(self, session_id: str, object_id: str, frame_index: int) -> Json:
        _body(set())
        with self._using(session_id) as session:
            session.remove_prompts(object_id, frame_index)
            return self._state_of(session)

    def undo(self, session_id: str) -> Json:
        _body(set())
        with self._using(session_id) as session:
            session.undo()
            return self._state_of(session)

    def redo(self, session_id: str) -> Json:
        _body(set())
        with self._using(session_id) as session:
            session.redo()
            return self._state_of(session)

    # --- tracking ------------------------------------------------------------

    def prewarm(self, session_id: str) -> Json:
        frames = _body({"frames"}).get("frames")
        if not isinstance(frames, list) or len(frames) > 200:
            raise BadRequest(f"frames {frames!r:.80} must be a list of at most 200 frame indices")
        with self._using(session_id) as session:
            cached, pending = session.prewarm([session.checked_frame(i) for i in frames])
        return {"cached": cached, "pending": pending}

    def propagate(self, session_id: str) -> tuple[Json, int]:
        asked = PropagationRequest.from_json(_body())
        with self._using(session_id) as session:
            return session.propagate(asked).to_json(), 202

    def resume(self, session_id: str) -> tuple[Json, int]:
        _body(set())
        with self._using(session_id) as session:
            return session.resume().to_json(), 202

    def stop(self, session_id: str) -> Json:
        _body(set())
        with self._using(session_id) as session:
            return {"was_running": session.stop()}

    def events(self, session_id: str) -> Response:
        """Frames and changes as they come: server-sent events, or a JSON object a line."""
        is_sse = request.accept_mimetypes.best_match([_NDJSON, _SSE]) == _SSE
        since = _query_whole("since", _last_event_id(), 0)
        until_done = request.args.get("until") == "done"
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(self._using(session_id))
            if not self._streams.acquire(blocking=False):
                raise TooManySessions(
                    f"{self._service.settings.max_session_streams} streams are open, no more can be"
                )
            stack.callback(self._streams.release)
            write = _as_sse if is_sse else _as_line
            lines = (write(event) for event in _events(session, since, until_done))
            response = Response(lines, mimetype=_SSE if is_sse else _NDJSON)
            response.call_on_close(stack.pop_all().close)
        response.headers["X-Accel-Buffering"] = "no"  # or nginx keeps them together
        return response

    # --- results -------------------------------------------------------------

    def regions(self, session_id: str) -> Json:
        service = self._service
        with self._using(session_id) as session:
            found = regions_of(
                session,
                settings=service.settings,
                media=service.media,
                frame_indices=frames_asked(request.args.get("frames"), session.info.frame_count),
            )
        return {
            "result": list(found.regions),
            "left_out": list(found.left_out),
            "model_version": service.settings.model_version,
        }

    def tracks(self, session_id: str) -> Response:
        with self._using(session_id) as session:
            return Response(tracks_json(session), mimetype="application/json")

    def save(self, session_id: str) -> Json:
        """Into Label Studio; docs/sessions-api.md says what becomes of what is there."""
        order = SaveOrder.from_json(_body({"as", "version", "overwrite"}))
        with self._using(session_id) as session:
            if project_of_key() is not None and order.version is None:
                raise BadRequest(
                    "version must be that of the task as it was seen (GET /api/panel/tasks/ID): "
                    "whoever has a panel's key alone overwrites nothing unseen"
                )
            return save_session(session, order, self._service)

    def export(self, session_id: str) -> Response:
        """A data set in a file."""
        with self._using(session_id) as session:
            found = export_of(session, request.args.get("format", ""))
        answer = Response(found.content, mimetype=found.mime_type)
        answer.headers["Content-Disposition"] = f'attachment; filename="{found.file_name}"'
        answer.headers["X-SAM2-Report"] = json.dumps(found.remarks)
        return answer

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """For what waits for the device: threads must be left for what does not."""
        if not self._places.acquire(blocking=False):
            raise TooManyRequests("too many requests are waiting for the model; try again later")
        try:
            yield
        finally:
            self._places.release()


# --- reading requests --------------------------------------------------------


def _body(members: set[str] | None = None) -> Mapping[str, Any]:
    """The JSON object of the request; none is an empty one. Raises BadRequest."""
    return check_object(json_body(default={}), "the body", members)


def _query_whole(name: str, default: int, minimum: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 15) or int(text) < minimum:
        raise BadRequest(f"{name} {text!r:.80} must be a whole number >= {minimum}")
    return int(text)


def _last_event_id() -> int:
    """Where an EventSource that connects again has left off."""
    text = request.headers.get("Last-Event-ID", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 0


# --- writing answers ---------------------------------------------------------


def _events(session: Session, since: int, until_done: bool) -> Iterator[Json | None]:
    """The state, then frames and states as they change; None when nothing has for a while."""
    serial, revision, told = since, -1, None
    end = time.monotonic() + _STREAM_SECONDS
    while time.monotonic() < end:
        state = session.summary()
        if state != told:  # also when tracking has come further
            revision, told = state["revision"], state
            yield {"type": "state", **state}
        frames = session.frames_since(serial, limit=_FRAMES_A_STEP)
        for frame in frames:
            serial = frame.serial
            yield {"type": "frame", **frame.to_json()}
        if frames:
            continue
        if session.is_closed or (until_done and not session.is_propagating):
            if session.summary()["revision"] == revision:
                return
            continue
        if not session.wait_for_change(revision, serial, _HEARTBEAT_SECONDS):
            yield None


def _as_sse(event: Json | None) -> str:
    if event is None:
        return ": still here\n\n"
    number = f"id: {event['serial']}\n" if event["type"] == "frame" else ""
    return f"{number}event: {event['type']}\ndata: {_json(event)}\n\n"


def _as_line(event: Json | None) -> str:
    return "\n" if event is None else _json(event) + "\n"


def _json(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _jpeg(picture: np.ndarray, width: int) -> bytes:
    image = Image.fromarray(picture)
    if width < image.width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


class _Pictures:
    """The last used pictures, within so many bytes."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._byte_count = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, key: str, picture: bytes) -> None:
        with self._lock:
            self._byte_count += len(picture) - len(self._entries.pop(key, b""))
            self._entries[key] = picture
            while self._byte_count > self._budget_bytes:
                self._byte_count -= len(self._entries.popitem(last=False)[1])
