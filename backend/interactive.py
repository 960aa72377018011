"""A person's call from the open editor: which regions it means, and what is to be done."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from backend.deadlines import Deadline
from backend.errors import ServiceError, UnusableTask
from backend.propagation import NOTHING, Answer
from backend.protocol import PredictRequest, is_text_alone, saved_results
from backend.requests import Result, TaskRequest
from backend.service import TrackingService
from backend.text_commands import HELP, Command, UnknownCommand, command_of

logger = logging.getLogger(__name__)

_NO_BOXES = (
    "There is nothing to track yet: draw a box, give it a label, wait some seconds until "
    "Label Studio has saved the draft, then press Enter again."
)


def answer_call(call: PredictRequest, service: TrackingService, deadline: Deadline) -> Answer:
    """The regions for the open editor. Raises as `TrackingService.answer`."""
    task, context = call.tasks[0], call.context_results or ()
    if is_text_alone(context):
        return _answer_text(call, task, context, service, deadline)
    request = TaskRequest.of(
        task, context, call.label_config, region_commands=_region_commands(context)
    )
    stopped = {key for key, command in request.region_commands.items() if command.action == "stop"}
    if stopped:
        return service.stop_task(request.task_id)
    return service.answer(request, deadline)


def _region_commands(context: Sequence[Result]) -> dict[str, Command]:
    """What was typed into text areas of regions, by region; other texts are none of ours."""
    by_region: dict[str, list[Result]] = {}
    for result in context:
        if result.get("type") in ("textarea", "choices") and isinstance(result.get("id"), str):
            by_region.setdefault(result["id"], []).append(result)
    commands = {}
    for region_id, results in by_region.items():
        try:
            command = command_of(results)
        except UnknownCommand:
            logger.info("the text of region %r is no command", region_id)
            continue
        if command is not None and command.action != "help":
            commands[region_id] = command
    return commands


def _answer_text(
    call: PredictRequest,
    task: Mapping[str, Any],
    context: Sequence[Result],
    service: TrackingService,
    deadline: Deadline,
) -> Answer:
    """A global text area asks about all that was saved last."""
    try:
        command = command_of(context)
    except UnknownCommand as error:
        return _say(context, str(error))
    if command is None:
        return NOTHING
    if command.action == "help":
        return _say(context, HELP)
    if command.action == "stop":
        return service.stop_task(TaskRequest.of(task, (), call.label_config).task_id)
    marks = saved_results(task) or _saved_in_label_studio(task, service)
    if not marks:
        return _say(context, _NO_BOXES)
    request = TaskRequest.of(task, marks, call.label_config, command=command)
    return service.answer(request, deadline)


def _saved_in_label_studio(
    task: Mapping[str, Any], service: TrackingService
) -> tuple[Result, ...]:
    """The draft or annotation that the call did not bring: drafts lag by some seconds."""
    task_id = task.get("id")
    if not service.can_post or not isinstance(task_id, int):
        return ()
    try:
        return saved_results(service.label_studio().task(task_id))
    except (ServiceError, ValueError) as error:
        raise UnusableTask(
            f"the call for task {task_id} holds no boxes, and Label Studio could not be "
            f"asked for its draft: {error}"
        ) from None


def _say(context: Sequence[Result], message: str) -> Answer:
    """A sentence where the person typed: nothing else of an answer is shown."""
    asked = next(r for r in reversed(context) if r.get("type") == "textarea")
    names = {key: asked[key] for key in ("id", "from_name", "to_name") if key in asked}
    said = {**names, "type": "textarea", "origin": "manual", "value": {"text": [message]}}
    return Answer((said,), is_complete=True)
