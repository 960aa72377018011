"""Which tasks of Label Studio there are on a video, without any model being asked."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Mapping
from urllib.parse import unquote

from backend.errors import BadRequest, NotFound, UnusableTask
from backend.label_configs import media_videos
from backend.media_references import meant_by, spellings
from converters.label_studio.config import parse_label_config

if TYPE_CHECKING:
    from backend.label_studio_client import LabelStudioClient
    from backend.service import TrackingService

logger = logging.getLogger(__name__)

PAGE_SIZE = 50
_MAX_REFERENCE_CHARACTERS = 4096
"""Longer ones fit into no request to Label Studio."""
_MOST_PROJECTS = 200
_MOST_KEPT = 10_000
_MUTE_SECONDS = 60.0
_WORD = re.compile(r"\$(\w+)")

Json = Mapping[str, Any]


@dataclass(frozen=True)
class FoundTask:
    """A task with its project, as Label Studio has them."""

    task: Json
    project: Json


class TaskLookup:
    """Thread safe. What it raises is NotFound, UnusableTask without a Label Studio in the
    settings, and LabelStudioError."""

    def __init__(self, service: TrackingService) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._projects: OrderedDict[int, int] = OrderedDict()
        """Task id -> project id: tasks stay where they are."""
        self._mute_until = 0.0
        """Of `time.monotonic()`: Label Studio did not answer `check`."""
        self._videos: OrderedDict[tuple[int, str], None] = OrderedDict()

    def one(self, task_id: int, project_id: int | None = None) -> FoundTask:
        """The task, of that project or of any; the search through many takes long."""
        client = self.client()
        for project in self._candidates(client, task_id, project_id):
            tasks, _ = client.find_tasks(project["id"], [("id", task_id)], page_size=1)
            found = [task for task in tasks if task.get("id") == task_id]
            if found:
                with self._lock:
                    _keep(self._projects, task_id, project["id"])
                return FoundTask(found[0], project)
        where = "" if project_id is None else f" in project {project_id}"
        raise NotFound(f"task {task_id}: there is none of this id{where}")

    def check(self, task_id: int, project_id: int) -> None:
        """Raises NotFound for a task that the project does not have, or that has no project.

        What was found is not asked for again. Where Label Studio cannot tell now, nothing
        is said, and it is not asked for a while.
        """
        from backend.label_studio_client import LabelStudioError

        with self._lock:
            is_known = self._projects.get(task_id) == project_id
            if is_known or time.monotonic() < self._mute_until:
                return
        try:
            self.one(task_id, project_id)
        except LabelStudioError as error:
            logger.warning("task %d is taken to be there: %s", task_id, error)
            with self._lock:
                self._mute_until = time.monotonic() + _MUTE_SECONDS

    def with_video(
        self, address: str, project_id: int | None = None, *, is_exact: bool = False
    ) -> list[FoundTask]:
        """The tasks that have a video as a browser names it, of that project or of all.

        Args:
            is_exact: False: it may be escaped too.
        """
        if len(address) > _MAX_REFERENCE_CHARACTERS:
            raise BadRequest(
                f"video has {len(address)} characters, may have {_MAX_REFERENCE_CHARACTERS}"
            )
        client = self.client()
        base = self._service.settings.label_studio_url
        meant = meant_by(address, base)
        if meant.task_id is not None:
            found = self.one(meant.task_id, project_id)
            return [found] if _has(found, [meant.reference]) else []
        readings = [address] if is_exact else dict.fromkeys((address, unquote(address)))
        values = [text for reading in readings for text in spellings(reading, base)]
        return [
            found
            for project in self._searched(client, project_id)
            for found in _with_value(client, project, values)
        ]

    def has_video(self, address: str, project_id: int) -> bool:
        """Whether a task of the project has a video; what was found is remembered."""
        key = (project_id, address)
        with self._lock:
            if key in self._videos:
                return True
        is_there = bool(self.with_video(address, project_id, is_exact=True))
        if is_there:
            with self._lock:
                _keep(self._videos, key, None)
        return is_there

    def page(self, project_id: int, page: int) -> tuple[list[FoundTask], int]:
        """`PAGE_SIZE` tasks of the project, by id, and how many it has."""
        client = self.client()
        project = self._project(client, project_id)
        tasks, total = client.find_tasks(project_id, page=page, page_size=PAGE_SIZE)
        return [FoundTask(task, project) for task in tasks], total

    def client(self) -> LabelStudioClient:
        """Label Studio's API."""
        if not self._service.can_post:
            raise UnusableTask(
                "tasks are Label Studio's: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
            )
        return self._service.label_studio()

    def _project(self, client: LabelStudioClient, project_id: int) -> Json:
        from backend.label_studio_client import LabelStudioError, LabelStudioFailure

        try:
            return client.project(project_id)
        except LabelStudioError as error:
            if error.failure is LabelStudioFailure.NOT_FOUND:
                raise NotFound(f"project {project_id}: there is none of this id") from None
            raise

    def _candidates(
        self, client: LabelStudioClient, task_id: int, project_id: int | None
    ) -> Iterable[Json]:
        with self._lock:
            known = self._projects.get(task_id) if project_id is None else project_id
        return self._searched(client, known)

    def _searched(self, client: LabelStudioClient, project_id: int | None) -> Iterable[Json]:
        if project_id is not None:
            yield self._project(client, project_id)
            return
        for number, project in enumerate(client.projects()):
            if number >= _MOST_PROJECTS:
                raise UnusableTask(
                    f"there are more than {_MOST_PROJECTS} projects to look through: give "
                    "project_id too"
                )
            yield project


def _keep(kept: OrderedDict[Any, Any], key: object, value: object) -> None:
    kept[key] = value
    if len(kept) > _MOST_KEPT:
        kept.popitem(last=False)


def _with_value(client: LabelStudioClient, project: Json, values: list[str]) -> list[FoundTask]:
    fields = _video_fields(project)
    conditions = [(f"data.{name}", value) for name in fields for value in values]
    if not conditions:
        return []
    tasks, _ = client.find_tasks(project["id"], conditions)
    found = [FoundTask(task, project) for task in tasks]
    # Label Studio's database may compare otherwise than letter by letter.
    return [item for item in found if _has(item, values)]


def _video_fields(project: Json) -> list[str]:
    """The fields of the tasks' data that its config shows as videos; none of a config that
    cannot be served."""
    try:
        config = parse_label_config(project.get("label_config") or "")
    except ValueError:
        return []
    matches = [_WORD.fullmatch(tag.value) for tag in media_videos(config)]
    return list(dict.fromkeys(match[1] for match in matches if match))


def _has(found: FoundTask, values: Iterable[str]) -> bool:
    data = found.task.get("data")
    fields = _video_fields(found.project)
    return isinstance(data, Mapping) and any(data.get(name) in values for name in fields)
