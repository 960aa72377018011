"""Label Studio's webhooks: what a saved annotation asks of the model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Mapping

from backend.errors import BadRequest
from backend.protocol import markable_results
from backend.requests import TaskRequest
from backend.scheduler import Priority

if TYPE_CHECKING:
    from backend.service import TrackingService

logger = logging.getLogger(__name__)

_SAVED = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")
_TRAIN = "START_TRAINING"


def begin_job(body: Mapping[str, Any], service: TrackingService) -> str | None:
    """The job that a webhook asks for, queued or there already; None when it asks for none.

    Raises BadRequest naming the missing part, TooManyJobs.
    """
    if (project_id := training_project(body)) is not None:
        return service.train_in_background(project_id)
    if (request := tracking_request(body)) is not None:
        return service.track_in_background(request, Priority.WEBHOOK)
    return None


def action_of(body: object) -> str:
    """Raises BadRequest for a body that is no webhook's."""
    action = body.get("action") if isinstance(body, Mapping) else None
    if not isinstance(action, str):
        raise BadRequest("the body of /webhook must be a JSON object with an action")
    return action


def tracking_request(body: Mapping[str, Any]) -> TaskRequest | None:
    """What a saved annotation asks to track; None for other events and without marks.

    Regions of ours that nobody has changed ask for nothing, so an accepted
    prediction does not begin it all again (`TaskPropagation.asks_nothing`).

    Raises BadRequest naming the missing part.
    """
    if action_of(body) not in _SAVED:
        return None
    annotation, project, task = (_part(body, n) for n in ("annotation", "project", "task"))
    results = annotation.get("result")
    if annotation.get("was_cancelled") or not isinstance(results, list):
        return None
    label_config = project.get("label_config")
    if not isinstance(label_config, str):
        raise BadRequest("project.label_config must be a string")
    marks = markable_results([r for r in results if isinstance(r, Mapping)])
    if not marks:
        return None
    return TaskRequest.of({"project": project.get("id"), **task}, marks, label_config)


def training_project(body: Mapping[str, Any]) -> int | None:
    """The project whose annotations are to be learned from; None for other events.

    Raises BadRequest for one without a number.
    """
    if action_of(body) != _TRAIN:
        return None
    project_id = _part(body, "project").get("id")
    if not isinstance(project_id, int) or isinstance(project_id, bool):
        raise BadRequest(f"project.id {project_id!r:.80} must be a whole number")
    return project_id


def _part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = body.get(name)
    if not isinstance(part, Mapping):
        raise BadRequest(f"{name} {part!r:.80} must be a JSON object")
    return part
