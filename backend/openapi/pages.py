"""Pages for people, previews, metrics, and this document."""

from __future__ import annotations

from backend.openapi.parts import (
    TEXT,
    Json,
    binary_answer,
    json_answer,
    obj,
    operation,
    path_parameter,
    query,
)

_TAG = "pages"
_CONTENT = ("text/html", "text/css", "text/javascript", "image/svg+xml")
FILE: Json = {"description": "A file.", "content": {kind: {"schema": {}} for kind in _CONTENT}}
NOT_MODIFIED: Json = {"description": "As the If-None-Match has it."}
ELSEWHERE: Json = {
    "description": "Where it is.",
    "headers": {"Location": {"description": "The address.", "schema": TEXT}},
}

PATHS: Json = {
    "/ui": {
        "get": operation(
            "ui", "The jobs, for people", {200: FILE, 304: NOT_MODIFIED}, tag=_TAG
        )
    },
    "/ui/": {"get": operation("uiFolder", "The same", {308: ELSEWHERE}, tag=_TAG)},
    "/ui/{name}": {
        "parameters": [path_parameter("name", TEXT, "A file's name.")],
        "get": operation(
            "uiFile", "A file of the page", {200: FILE, 304: NOT_MODIFIED}, tag=_TAG,
            errors=(404,),
        ),
    },
    "/preview.mp4": {
        "get": operation(
            "preview", "Masks on the video itself, for a second <Video>",
            {
                200: binary_answer("video/mp4", "The video."),
                206: binary_answer("video/mp4", "A range of it."),
                302: ELSEWHERE,
                304: NOT_MODIFIED,
            },
            tag=_TAG, errors=(416, 503), security=[{"link": []}],
            parameters=[
                query("src", TEXT, "The video, as the task names it."),
                query("version", TEXT, "Of a preview that was given before."),
            ],
        )
    },
    "/metrics": {
        "get": operation(
            "metrics", "For Prometheus",
            {200: binary_answer("text/plain", "Prometheus' text format.")}, tag=_TAG,
        )
    },
    "/api/openapi.json": {
        "get": operation(
            "openapi", "This document",
            {200: json_answer(obj(others=True), "OpenAPI 3.1.")}, tag=_TAG,
        )
    },
}

SCHEMAS: Json = {}
