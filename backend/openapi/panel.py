"""`/panel` and `/api/panel`: the page that people click on, and what it asks."""

from __future__ import annotations

from backend.openapi.pages import ELSEWHERE, FILE, NOT_MODIFIED
from backend.openapi.parts import (
    TEXT,
    Json,
    answer_obj,
    array,
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

_TAG = "panel"
_ERRORS = (404, 422, 429, 502)
_PROJECT = query("project", whole(1), "Where to look; with a key its own.")
_OPEN: list[Json] = [{}]
"""For the page's files: a frame in another page can send no password."""

PATHS: Json = {
    "/panel": {
        "get": operation(
            "panel", "The panel", {200: FILE, 304: NOT_MODIFIED}, tag=_TAG, security=_OPEN
        )
    },
    "/panel/": {
        "get": operation("panelFolder", "The same", {308: ELSEWHERE}, tag=_TAG, security=_OPEN)
    },
    "/panel/{name}": {
        "parameters": [path_parameter("name", TEXT, "A file's name.")],
        "get": operation(
            "panelFile", "A file of the page", {200: FILE, 304: NOT_MODIFIED}, tag=_TAG,
            errors=(404,), security=_OPEN,
        ),
    },
    "/api/panel/tasks": {
        "get": operation(
            "panelTasks", "The tasks on a video, or a page of a project's",
            {200: json_answer(ref("PanelTasks"), "The tasks.")},
            tag=_TAG, errors=_ERRORS,
            parameters=[
                query("video", {**TEXT, "maxLength": 4096}, "As the editor fills it in."),
                _PROJECT,
                query("page", whole(1), "Of a project's tasks; the first is 1."),
            ],
        )
    },
    "/api/panel/tasks/{task_id}": {
        "parameters": [path_parameter("task_id", whole(1), "The task's number.")],
        "get": operation(
            "panelTask", "What must be known to work on a task",
            {200: json_answer(ref("PanelTask"), "The task.")},
            tag=_TAG, errors=_ERRORS, parameters=[_PROJECT],
        ),
    },
}

_TASK: Json = {
    "id": whole(1),
    "project_id": whole(1),
    "project_title": TEXT,
    "shown": {**TEXT, "description": "A short name of its data."},
    "annotations": whole(),
    "predictions": whole(),
    "url": {**TEXT, "description": "Label Studio's page for it."},
}

SCHEMAS: Json = {
    "PanelTasks": obj(
        {"tasks": array(answer_obj(**_TASK)), "total": whole(), "page": whole(1)}, ["tasks"]
    ),
    "PanelTask": answer_obj(
        **_TASK,
        labels=array(answer_obj(value=TEXT, color={**TEXT, "pattern": "^#[0-9a-f]{6}$"})),
        can_save=array(enum("annotation", "draft", "prediction")),
        saves=TEXT,
        version={**TEXT, "description": "Another one when the task has been worked on."},
    ),
    "SaveRequest": obj(
        {
            "as": enum("annotation", "draft", "prediction"),
            "version": nullable(TEXT),
            "overwrite": {"type": ["boolean", "null"]},
        },
        ["as"],
    ),
    "SavedSession": answer_obj(
        **{"as": enum("annotation", "draft", "prediction")},
        id=whole(1),
        url=TEXT,
        left_out=array(answer_obj(object={"type": ["string", "null"]}, reason=TEXT)),
        version=nullable(TEXT),
    ),
}
