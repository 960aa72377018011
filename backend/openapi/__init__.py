"""What the service answers, as an OpenAPI 3.1 document at `/api/openapi.json`.

A route is described where its kind is: `label_studio`, `jobs`, `sessions`, `panel`, `pages`.
For a new kind, add a module with `PATHS` and `SCHEMAS` and name it in `_PARTS`. A test
compares the document with the app's routes, another one asks the service everything
that the document allows.
"""

from __future__ import annotations

from importlib.metadata import version
from types import ModuleType
from typing import Any

from flask import Blueprint, Response, jsonify

from backend.openapi import jobs, label_studio, pages, panel, parts, sessions

_PARTS: tuple[ModuleType, ...] = (label_studio, jobs, sessions, panel, pages)
_ABOUT = (
    "SAM 2 video annotation for Label Studio. Coordinates are pixels, frames are 0-based "
    "indices. Errors are JSON with a short name and what is wrong. Requests that change "
    "something must be JSON; those of other sites' pages are refused."
)


def openapi_document() -> dict[str, Any]:
    """The document, as JSON."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = dict(parts.SCHEMAS)
    for part in _PARTS:
        paths |= part.PATHS
        schemas |= part.SCHEMAS
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sam2-label-studio",
            "version": version("sam2-label-studio"),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": parts.CREDENTIALS,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": parts.RESPONSES,
            "securitySchemes": {
                "password": {"type": "http", "scheme": "basic"},
                "token": {"type": "http", "scheme": "bearer"},
                "link": {"type": "apiKey", "in": "query", "name": "key"},
                "panel": {"type": "apiKey", "in": "header", "name": "X-SAM2-Key"},
            },
        },
    }


def openapi_routes() -> Blueprint:
    """`GET /api/openapi.json`."""
    routes = Blueprint("openapi", __name__, url_prefix="/api")
    document = openapi_document()

    @routes.get("/openapi.json")
    def describe() -> Response:
        return jsonify(document)

    return routes
