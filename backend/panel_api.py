"""`/api/panel`: what the panel asks about Label Studio's tasks. docs/sessions-api.md has it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request
from PIL import ImageColor

from backend.access import project_of_key
from backend.errors import BadRequest, Forbidden
from backend.link_keys import STAND_ALONE
from backend.media_references import short_name
from backend.preview.colours import PALETTE
from backend.service import TrackingService
from backend.session_saving import SaveAs, task_version
from backend.session_values import check_whole
from backend.task_lookup import FoundTask
from converters.label_studio.config import LabelConfig, parse_label_config

Json = dict[str, Any]

_MAX_ID = 2**63 - 1
_SAVES = "VideoRectangle regions with their masks"
_SAVES_ON_IMAGES = "one region an object and frame"


def panel_api(service: TrackingService) -> Blueprint:
    """The routes."""
    api = _PanelApi(service)
    routes = Blueprint("panel_api", __name__, url_prefix="/api/panel")
    routes.add_url_rule("/tasks", "tasks", api.tasks, methods=["GET"])
    routes.add_url_rule("/tasks/<int:task_id>", "task", api.task, methods=["GET"])
    return routes


class _PanelApi:
    """The views and what they share."""

    def __init__(self, service: TrackingService) -> None:
        self._service = service
        self._lookup = service.tasks

    def tasks(self) -> Json:
        """Those on a video, or a page of a project's."""
        video = request.args.get("video")
        project_id = _allowed_project(_number("project"))
        if video is not None:
            found = self._lookup.with_video(video, project_id) if video else []
            return {"tasks": [self._shown(item) for item in found]}
        if project_id is None:
            raise BadRequest("give video, or project and page")
        page = _number("page") or 1
        found, total = self._lookup.page(project_id, page)
        return {"tasks": [self._shown(item) for item in found], "total": total, "page": page}

    def task(self, task_id: int) -> Json:
        """What the panel must know to work on it."""
        project_id = _allowed_project(_number("project"))
        check_whole(task_id, "task id", minimum=1, stop=_MAX_ID)
        found = self._lookup.one(task_id, project_id)
        config = parse_label_config(found.project["label_config"])
        return {
            **self._shown(found),
            "labels": _labels(config),
            "can_save": [str(way) for way in SaveAs],
            "saves": _SAVES if config.videos else _SAVES_ON_IMAGES,
            "version": task_version(self._lookup.client(), task_id),
        }

    def _shown(self, found: FoundTask) -> Json:
        task, project = found.task, found.project
        return {
            "id": task["id"],
            "project_id": project["id"],
            "project_title": project.get("title") or f"project {project['id']}",
            "shown": _name_of(task),
            "annotations": task.get("total_annotations") or 0,
            "predictions": task.get("total_predictions") or 0,
            "url": self._service.settings.task_page(project["id"], task["id"]),
        }


def _allowed_project(asked: int | None) -> int | None:
    """The project to look in: the key's, where there is one. Raises Forbidden for another."""
    of_key = project_of_key()
    if of_key is None:
        return asked
    if of_key == STAND_ALONE:
        raise Forbidden("the link's key is for videos without a task")
    if asked not in (None, of_key):
        raise Forbidden(f"project {asked}: the link's key is for project {of_key}")
    return of_key


def _labels(config: LabelConfig) -> list[Json]:
    return [
        {"value": label, "color": _hexadecimal(config.label_colours.get(label), number)}
        for number, label in enumerate(config.labels)
    ]


def _hexadecimal(written: str | None, number: int) -> str:
    """#rrggbb of a CSS colour; one of ours for what is none that is known."""
    try:
        colour = ImageColor.getrgb(written or "")[:3]
    except ValueError:
        colour = PALETTE[number % len(PALETTE)]
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _name_of(task: Json) -> str:
    """Of the first thing in its data that looks like a file."""
    data = task.get("data")
    values = list(data.values()) if isinstance(data, dict) else []
    firsts = [value[0] if isinstance(value, list) and value else value for value in values]
    files = [value for value in firsts if isinstance(value, str) and "/" in value]
    return short_name(files[0]) if files else f"task {task['id']}"


def _number(name: str) -> int | None:
    text = request.args.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15) or int(text) < 1:
        raise BadRequest(f"{name} {text!r:.80} must be a whole number >= 1")
    return int(text)
