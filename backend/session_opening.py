"""The body of `POST /api/sessions`: what a session is to be on, and what it begins with."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from backend.errors import BadRequest, Forbidden, UnusableTask
from backend.link_keys import STAND_ALONE
from backend.session_media import SessionOrigin
from backend.session_start import KnownObject, known_objects
from backend.session_values import check_whole
from converters.types import VideoInfo

if TYPE_CHECKING:
    from backend.label_studio_client import LabelStudioClient
    from backend.service import TrackingService

OPENING_MEMBERS = {
    "task_id", "project_id", "data", "label_config", "to_name", "video", "results",
}  # fmt: skip

Body = Mapping[str, Any]
ReadKnown = Callable[[VideoInfo], Sequence[KnownObject]]
"""The objects that there are already, once the video is open."""


class SessionOpening:
    """Reads bodies; Label Studio has the tasks that they name."""

    def __init__(self, service: TrackingService) -> None:
        self._service = service

    def read(self, body: Body, allowed: int | None) -> tuple[SessionOrigin, ReadKnown]:
        """
        Args:
            allowed: the project that it must be a task of (`access.project_of_key`).

        Raises ServiceError, and ValueError for a label config that cannot be served.
        """
        names = [name for name in ("task_id", "data", "video") if body.get(name) is not None]
        if len(names) != 1:
            raise BadRequest(f"give one of task_id, data with label_config, or video, not {names}")
        _check_allowed(names[0], body, allowed)
        config, to_name = body.get("label_config"), body.get("to_name")
        if names != ["task_id"] and body.get("project_id") is not None:
            raise BadRequest("project_id goes with task_id")
        if names == ["video"]:
            if config is not None or to_name is not None:
                raise BadRequest("a video alone has no label_config and no to_name")
            origin = SessionOrigin(reference=_reference(body["video"]))
        elif names == ["data"]:
            if not isinstance(config, str):
                raise BadRequest(f"label_config {config!r:.80} must go with data, a text")
            origin = SessionOrigin.of_task({"data": body["data"]}, config, tag_name=to_name)
        else:
            if config is not None:
                raise BadRequest("label_config is the project's: it cannot go with task_id")
            origin = self._origin_of_task(body, allowed)
        return self._with_known(origin, body.get("results"))

    def _origin_of_task(self, body: Body, allowed: int | None) -> SessionOrigin:
        task_id = check_whole(body["task_id"], "task_id", minimum=1)
        project_id = body.get("project_id")
        if project_id is not None:
            check_whole(project_id, "project_id", minimum=1)
        found = self._service.tasks.one(task_id, project_id if allowed is None else allowed)
        task = {**found.task, "project": found.project["id"]}
        config = found.project["label_config"]
        return SessionOrigin.of_task(task, config, tag_name=body.get("to_name"))

    def _with_known(
        self, origin: SessionOrigin, results: object
    ) -> tuple[SessionOrigin, ReadKnown]:
        """With the objects in the `results`, else those in the newest work on the task."""
        if results is None and origin.task_id is not None:
            return self._with_known_of_task(origin)
        if results is not None and origin.config is None:
            raise BadRequest("results go with a task or with data and label_config")
        if not isinstance(results, (list, type(None))):
            raise BadRequest(f"results {results!r:.80} must be a list of regions")
        return origin, lambda info: known_objects(results, origin, info) if results else ()

    def _with_known_of_task(self, origin: SessionOrigin) -> tuple[SessionOrigin, ReadKnown]:
        results, annotation_id = _newest_results(self._service.tasks.client(), origin.task_id)
        origin = dataclasses.replace(origin, annotation_id=annotation_id)

        def read(info: VideoInfo) -> Sequence[KnownObject]:
            try:
                return known_objects(results, origin, info)
            except (BadRequest, ValueError) as error:
                raise UnusableTask(
                    f"the regions of task {origin.task_id} cannot be read: {error}; "
                    'give "results": [] to begin without them'
                ) from None

        return origin, read


def _check_allowed(name: str, body: Body, allowed: int | None) -> None:
    """Raises Forbidden for what a key does not open: media that is of none of its tasks."""
    if allowed is None:
        return
    if (allowed == STAND_ALONE) == (name == "task_id"):
        rule = "a video without a task" if allowed == STAND_ALONE else f"tasks of project {allowed}"
        raise Forbidden(f"the link's key is for {rule}, not for {name}")
    if allowed != STAND_ALONE and body.get("project_id") not in (None, allowed):
        raise Forbidden(
            f"project_id {body['project_id']!r:.80}: the link's key is for project {allowed}"
        )


def _newest_results(
    label_studio: LabelStudioClient, task_id: int | None
) -> tuple[Sequence[object], int | None]:
    """Of the draft or annotation that was saved last, with the annotation's id; else of the
    newest prediction."""
    assert task_id is not None
    newest = label_studio.newest_draft_or_annotation(task_id)
    if newest is not None:
        return newest.result, newest.annotation_id
    predictions = label_studio.predictions(task_id)
    if not predictions:
        return (), None
    last = max(predictions, key=lambda item: (str(item.get("created_at") or ""), item["id"]))
    return last.get("result") or (), None


def _reference(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"video {value!r:.80} must be a path or a URL")
    return value
