"""`/api/sessions` (docs/sessions-api.md)."""

from __future__ import annotations

from typing import Any, Sequence

from backend.openapi.parts import (
    BOOLEAN,
    JSON,
    KEYED,
    MEDIA_ERRORS,
    NUMBER,
    TEXT,
    Json,
    answer_obj,
    array,
    binary_answer,
    body,
    enum,
    json_answer,
    nullable,
    obj,
    operation,
    path_parameter,
    query,
    ref,
    whole,
)

_TAG = "sessions"
_SESSION = path_parameter("session_id", TEXT, "The session's id.")
_OBJECT = path_parameter("object_id", TEXT, "1 to 200 printable characters.")
_FRAME = path_parameter("frame_index", whole(), "0-based.")
_ERRORS = (404, 409, *MEDIA_ERRORS)
"""A session that was closed is opened again, media and all, by whoever asks for it."""
_CHANGE_ERRORS = (*_ERRORS, 415)
_STATE = {200: json_answer(ref("Session"), "The session's state.")}
_EMPTY = body(obj(), required=False)
_SHORT_TEXT = {**TEXT, "minLength": 1, "maxLength": 200}


def _read(name: str, summary: str, answers: dict[int, Json], **more: Any) -> Json:
    return operation(
        name, summary, answers, tag=_TAG, errors=_ERRORS, security=KEYED, **more
    )


def _change(
    name: str, summary: str, answers: dict[int, Json] = _STATE, request: Json = _EMPTY
) -> Json:
    return operation(
        name, summary, answers, tag=_TAG, errors=_CHANGE_ERRORS, request=request, security=KEYED
    )


def _path(parameters: Sequence[Json] = (), **operations: Json) -> Json:
    return {"parameters": [_SESSION, *parameters], **operations}


_ONE = "/api/sessions/{session_id}"
_ONE_OBJECT = f"{_ONE}/objects/{{object_id}}"
_SAVE_AS = enum("annotation", "draft", "prediction")
_BEGUN = {202: json_answer(ref("Propagation"), "It has begun.")}

PATHS: Json = {
    "/api/sessions": {
        "post": _change(
            "createSession", "Open a session on a task, on task data, or on a video",
            {
                201: json_answer(
                    ref("Session"), "The session.",
                    {"Location": {"description": "Its address.", "schema": TEXT}},
                )
            },
            body(ref("SessionRequest")),
        ),
        "get": _read(
            "listSessions", "Those on a task or a video, the last used first",
            {200: json_answer(ref("Sessions"), "Sessions.")},
            parameters=[
                query("task_id", whole(1), "On this task; or:"),
                query("video", TEXT, "on this video, without a task."),
            ],
        ),
    },
    _ONE: _path(
        get=_read("showSession", "Its state", _STATE),
        delete=_change("deleteSession", "Stop and forget it", {204: {"description": "Gone."}}),
    ),
    f"{_ONE}/frames/{{frame_index}}.jpg": _path(
        [_FRAME],
        get=_read(
            "frame", "The exact frame",
            {
                200: binary_answer("image/jpeg", "The picture."),
                304: {"description": "As the If-None-Match has it."},
            },
            parameters=[query("width", whole(16), "At most so wide.")],
        ),
    ),
    f"{_ONE}/frames/{{frame_index}}/masks": _path(
        [_FRAME],
        get=_read(
            "frameMasks", "What is known of a frame",
            {200: json_answer(ref("FrameMasks"), "The objects on it.")},
        ),
    ),
    _ONE_OBJECT: _path(
        [_OBJECT],
        put=_change(
            "setObject", "Make an object, or label it",
            request=body(obj({"labels": array(_SHORT_TEXT, maxItems=20)}), required=False),
        ),
        delete=_change("removeObject", "Take it away"),
    ),
    f"{_ONE_OBJECT}/prompts/{{frame_index}}": _path(
        [_OBJECT, _FRAME],
        put=_change(
            "setPrompts", "What an object is on a frame",
            {200: json_answer(ref("PromptedMask"), "The object's mask.")},
            body(ref("Prompts")),
        ),
        delete=_change("removePrompts", "Take that back"),
    ),
    f"{_ONE_OBJECT}/masks/{{frame_index}}": _path(
        [_OBJECT, _FRAME],
        get=_read(
            "objectMask", "An object on a frame as its prompts are now",
            {200: json_answer(ref("ObjectMask"), "Its mask.")},
        ),
    ),
    f"{_ONE}/prewarm": _path(
        post=_change(
            "prewarm", "Encode frames ahead",
            {
                200: json_answer(
                    answer_obj(cached=array(whole()), pending=array(whole())), "What is there."
                )
            },
            body(obj({"frames": array(whole(), maxItems=200)}, ["frames"])),
        )
    ),
    f"{_ONE}/propagate": _path(
        post=_change(
            "propagate", "Track all objects", _BEGUN,
            body(
                obj(
                    {
                        "direction": enum("forward", "backward", "both"),
                        "start_frame": nullable(whole()),
                        "to_frame": nullable(whole()),
                        "frame_limit": nullable(whole(1)),
                    }
                ),
                required=False,
            ),
        )
    ),
    f"{_ONE}/resume": _path(post=_change("resume", "Go on with one that ended early", _BEGUN)),
    f"{_ONE}/stop": _path(
        post=_change(
            "stop", "End after the frame it is at",
            {200: json_answer(answer_obj(was_running=BOOLEAN), "It has ended.")},
        )
    ),
    f"{_ONE}/undo": _path(post=_change("undo", "Take the last change back")),
    f"{_ONE}/redo": _path(post=_change("redo", "Make it again")),
    f"{_ONE}/events": _path(
        get=_read(
            "events", "Frames and changes as they come",
            {
                200: {
                    "description": "A JSON object a line, or server-sent events.",
                    "content": {
                        "application/x-ndjson": {"schema": {}},
                        "text/event-stream": {"schema": {}},
                    },
                }
            },
            parameters=[
                query("since", whole(), "The serial that is known."),
                query("until", enum("done"), "End when nothing is tracked."),
            ],
        )
    ),
    f"{_ONE}/regions": _path(
        get=_read(
            "sessionRegions", "Label Studio results",
            {200: json_answer(ref("SessionRegions"), "The regions.")},
            parameters=[
                query(
                    "frames", {**TEXT, "pattern": "^[0-9]+-[0-9]+$"}, "First and last, on images."
                )
            ],
        )
    ),
    f"{_ONE}/tracks.json": _path(
        get=_read(
            "sessionTracks", "The masks in the project's own format",
            {200: {"description": "tracks.json", "content": {JSON: {"schema": obj(others=True)}}}},
        )
    ),
    f"{_ONE}/save": _path(
        post=_change(
            "saveSession", "Store it in Label Studio",
            {200: json_answer(ref("SavedSession"), "What it is there.")},
            body(
                obj(
                    {
                        "as": _SAVE_AS,
                        "version": {"type": ["string", "null"]},
                        "overwrite": {"type": ["boolean", "null"]},
                    },
                    ["as"],
                )
            ),
        )
    ),
    f"{_ONE}/export": _path(
        get=_read(
            "exportSession", "A data set in a file",
            {
                200: {
                    "description": "A file; a zip where the format is a folder.",
                    "content": {JSON: {"schema": {}}, "application/zip": {"schema": {}}},
                    "headers": {
                        "X-SAM2-Report": {
                            "description": "What was left out, a JSON list.", "schema": TEXT
                        }
                    },
                }
            },
            parameters=[
                query(
                    "format", enum("coco", "youtube_vis", "sav", "davis", "tracks"),
                    "Which one.", required=True,
                )
            ],
        )
    ),
}

_POINT = obj({"x": NUMBER, "y": NUMBER, "positive": BOOLEAN}, ["x", "y"])
_SHOWN: Json = {"mask": nullable(ref("Mask")), "score": {"type": ["number", "null"]}}
_LEFT_OUT = array(answer_obj(object={"type": ["string", "null"]}, reason=TEXT))
_OBJECT_MASK: Json = {"object": TEXT, "frame_index": whole(), **_SHOWN}

SCHEMAS: Json = {
    "SessionRequest": obj(
        {
            "task_id": nullable(whole(1)),
            "project_id": nullable(whole(1)),
            "data": {"type": ["object", "null"]},
            "label_config": {"type": ["string", "null"]},
            "to_name": {"type": ["string", "null"]},
            "video": {"type": ["string", "null"]},
            "results": nullable(array(ref("Region"))),
        },
        description="One of task_id, data with label_config, or video.",
    ),
    "Prompts": obj(
        {
            "points": nullable(array(_POINT, maxItems=200)),
            "box": nullable(array(NUMBER, minItems=4, maxItems=4)),
            "mask": nullable(ref("Mask")),
        },
        description="Points and a box together, or a mask alone; pixels.",
    ),
    "Session": answer_obj(
        id=TEXT,
        task_id={"type": ["integer", "null"]},
        project_id={"type": ["integer", "null"]},
        others_on_task=whole(),
        video=answer_obj(
            width=whole(1), height=whole(1), frame_count=whole(1), fps=NUMBER,
            start_seconds=NUMBER, duration_seconds=NUMBER,
        ),
        objects=array(
            answer_obj(
                id=TEXT, labels=array(TEXT), prompts=obj(others=True),
                scores=array(array(NUMBER, minItems=2, maxItems=2)),
            )
        ),
        propagation=nullable(ref("Propagation")),
        revision=whole(),
        serial=whole(),
        saved=nullable(
            answer_obj(
                id=whole(), at=NUMBER, revision=whole(), serial=whole(), **{"as": _SAVE_AS}
            )
        ),
        memories_lost=BOOLEAN,
        can_undo=BOOLEAN,
        can_redo=BOOLEAN,
    ),
    "Propagation": answer_obj(
        state=enum("running", "done", "stopped", "interrupted", "failed"),
        direction=enum("forward", "backward", "both"),
        done_frames=whole(),
        total_frames=whole(),
        error={"type": ["string", "null"]},
    ),
    "FrameMasks": answer_obj(
        serial=whole(),
        frame_index=whole(),
        objects={"type": "object", "additionalProperties": answer_obj(**_SHOWN)},
    ),
    "ObjectMask": answer_obj(**_OBJECT_MASK),
    "PromptedMask": answer_obj(**_OBJECT_MASK, revision=whole()),
    "SessionRegions": answer_obj(
        result=array(ref("Region")), left_out=_LEFT_OUT, model_version=TEXT
    ),
    "SavedSession": answer_obj(
        id=whole(), url={"type": ["string", "null"]}, left_out=_LEFT_OUT, version=TEXT,
        **{"as": _SAVE_AS},
    ),
    "Sessions": answer_obj(
        sessions=array(
            answer_obj(
                id=TEXT, task_id={"type": ["integer", "null"]}, created_at=NUMBER, used_at=NUMBER
            )
        )
    ),
}
