"""`/panel` and `/api/panel`."""

from __future__ import annotations

from backend.openapi.pages import ELSEWHERE, FILE, NOT_MODIFIED
from backend.openapi.parts import (
    KEYED,
    TEXT,
    Json,
    answer_obj,
    array,
    enum,
    json_answer,
    obj,
    operation,
    path_parameter,
    query,
    ref,
    whole,
)

_TAG = "panel"
_ID = {"maximum": 2**53}
_PROJECT = query("project", whole(1, **_ID), "Of this project; a link's key allows no other.")
_ERRORS = (404, 422, 429, 502)
_NO_CREDENTIALS: list[Json] = [{}]

PATHS: Json = {
    "/panel": {
        "get": operation(
            "panel", "The page on which people mark and track", {200: FILE, 304: NOT_MODIFIED},
            tag=_TAG, security=_NO_CREDENTIALS,
        )
    },
    "/panel/": {
        "get": operation(
            "panelFolder", "The same", {308: ELSEWHERE}, tag=_TAG, security=_NO_CREDENTIALS
        )
    },
    "/panel/{name}": {
        "parameters": [path_parameter("name", TEXT, "A file's name.")],
        "get": operation(
            "panelFile", "A file of the page", {200: FILE, 304: NOT_MODIFIED}, tag=_TAG,
            errors=(404,), security=_NO_CREDENTIALS,
        ),
    },
    "/api/panel/tasks": {
        "get": operation(
            "panelTasks", "Label Studio's tasks on a video, or a page of a project's",
            {200: json_answer(ref("PanelTasks"), "Tasks.")}, tag=_TAG, errors=_ERRORS,
            security=KEYED,
            parameters=[
                query("video", TEXT, "As the tasks name it."),
                _PROJECT,
                query("page", whole(1, **_ID), "From 1; with project alone."),
            ],
        )
    },
    "/api/panel/tasks/{task_id}": {
        "parameters": [path_parameter("task_id", whole(1), "Label Studio's.")],
        "get": operation(
            "panelTask", "What the panel must know to work on a task",
            {200: json_answer(ref("PanelTask"), "The task.")}, tag=_TAG, errors=_ERRORS,
            security=KEYED, parameters=[_PROJECT],
        ),
    },
}

_TASK: Json = {
    "id": whole(1),
    "project_id": whole(1),
    "project_title": TEXT,
    "shown": {**TEXT, "description": "Its file's name."},
    "annotations": whole(),
    "predictions": whole(),
    "url": {"type": ["string", "null"]},
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
        version=TEXT,
    ),
}
