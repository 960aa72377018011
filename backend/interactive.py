"""A person's call from the open editor: which regions it means, and what is to be done."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Mapping, Sequence

from backend.deadlines import Deadline
from backend.errors import ServiceError, UnusableTask
from backend.left_out import sentence
from backend.propagation import NOTHING, Answer
from backend.protocol import PredictRequest, is_text_alone, markable_results, saved_results
from backend.requests import Result, TaskRequest
from backend.service import TrackingService
from backend.text_commands import HELP, Command, UnknownCommand, command_of, text_of

logger = logging.getLogger(__name__)

_NOTHING_TO_STOP = "There is nothing to stop: no object of this task is being tracked."
_NO_BOXES = (
    "There is nothing to track yet: draw a box, give it a label, wait some seconds until "
    "Label Studio has saved the draft, then press Enter again."
)


def answer_call(call: PredictRequest, service: TrackingService, deadline: Deadline) -> Answer:
    """The regions for the open editor. Raises as `TrackingService.answer`."""
    task, context = call.tasks[0], call.context_results or ()
    if is_text_alone(context):
        return _answer_text(call, task, context, service, deadline)
    return _with_texts(_answer_regions(call, task, context, service, deadline), context)


def _answer_regions(
    call: PredictRequest,
    task: Mapping[str, Any],
    context: Sequence[Result],
    service: TrackingService,
    deadline: Deadline,
) -> Answer:
    commands = _region_commands(context)
    stopped = {key for key, command in commands.items() if command.action == "stop"}
    if stopped:
        answer = service.stop_task(_task_id(task, call), stopped)
        if answer is not None:
            return answer
        # Said before: the text stays with its region when another one is to be tracked.
        context = [r for r in context if r.get("id") not in stopped]
    helped = {key for key, command in commands.items() if command.action == "help"}
    if helped:
        return _help_regions(context, helped)
    tracked = {key: command for key, command in commands.items() if command.action == "track"}
    return service.answer(
        TaskRequest.of(task, context, call.label_config, region_commands=tracked), deadline
    )


def _with_texts(answer: Answer, context: Sequence[Result]) -> Answer:
    """A region's own text would be lost with the region that replaces it."""
    ids = {region["id"] for region in answer.regions}
    said = {r["id"] for r in answer.regions if r.get("type") == "textarea"}
    texts = [
        dict(r) for r in context
        if r.get("type") == "textarea" and r.get("id") in ids - said
    ]
    return dataclasses.replace(answer, regions=(*answer.regions, *texts))


def _help_regions(context: Sequence[Result], region_ids: set[str]) -> Answer:
    """The regions as they are, with the sentence where `help` stood."""
    regions: list[dict[str, Any]] = []
    for region_id in region_ids:
        own = [r for r in context if r.get("id") == region_id]
        asked = text_of(own)
        regions += [_saying(r, HELP) if r is asked else dict(r) for r in own]
    return Answer(tuple(regions), is_complete=True)


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
        if command is not None:
            commands[region_id] = command
    return commands


def _task_id(task: Mapping[str, Any], call: PredictRequest) -> int | None:
    return TaskRequest.of(task, (), call.label_config).task_id


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
        stopped = service.stop_task(_task_id(task, call))
        return stopped or _say(context, _NOTHING_TO_STOP)
    marks = saved_results(task) or _saved_in_label_studio(task, service)
    if not marks:
        return _say(context, _NO_BOXES)
    request = TaskRequest.of(task, marks, call.label_config, command=command)
    answer = service.answer(request, deadline)
    if answer.left_out is None:
        return answer
    said = _say(context, sentence(answer.left_out)).regions
    return dataclasses.replace(answer, regions=(*answer.regions, *said))


def _saved_in_label_studio(
    task: Mapping[str, Any], service: TrackingService
) -> tuple[Result, ...]:
    """The draft or annotation that the call did not bring: drafts lag by some seconds.

    Not the task itself: before Label Studio answers that, it asks us for a prediction.
    """
    task_id = task.get("id")
    if not service.can_post or not isinstance(task_id, int):
        return ()
    try:
        newest = service.label_studio().newest_draft_or_annotation(task_id)
        return () if newest is None else markable_results(newest.result)
    except (ServiceError, ValueError) as error:
        raise UnusableTask(
            f"the call for task {task_id} holds no boxes, and Label Studio could not be "
            f"asked for its draft: {error}"
        ) from None


def _say(context: Sequence[Result], message: str) -> Answer:
    """A sentence where the person typed: nothing else of an answer is shown."""
    asked = text_of(context)
    return Answer(() if asked is None else (_saying(asked, message),), is_complete=True)


def _saying(asked: Result, message: str) -> dict[str, Any]:
    value = {"text": [message]}
    if isinstance(asked.get("value"), Mapping):
        value = {**asked["value"], **value}
    return {**asked, "value": value}
