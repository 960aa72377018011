"""A checked /predict call -> the `results` of its answer, whoever the web server is."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Callable, ContextManager, Mapping

from backend.deadlines import Deadline
from backend.errors import BadRequest
from backend.interactive import answer_call
from backend.propagation import NOTHING, Answer
from backend.protocol import PredictRequest, batch_results
from backend.requests import TaskRequest
from backend.service import TrackingService
from converters.label_studio.config import parse_label_config

logger = logging.getLogger(__name__)


def answer_predict(
    call: PredictRequest,
    service: TrackingService,
    deadline: Deadline,
    *,
    place: Callable[[], ContextManager[None]] = contextlib.nullcontext,
) -> list[Any]:
    """Interactive: the open task's answer. Batch: one item a task, [] for nothing to say.

    Args:
        place: entered for a call that may have to wait.

    Raises as `TrackingService.answer` and `place`; UnsupportedConfigError.
    """
    if call.is_interactive and not call.context_results:
        # The editor calls without asking, as after Submit.
        return [_prediction(NOTHING, service)]
    with place():
        return _answers(call, service, deadline)


def _answers(call: PredictRequest, service: TrackingService, deadline: Deadline) -> list[Any]:
    if call.is_interactive:
        answer = answer_call(call, service, deadline)
        prediction = _prediction(answer, service)
        # A batch's answers are stored as they are: there the job's record says it.
        return [prediction | ({"left_out": answer.left_out} if answer.left_out else {})]
    parse_label_config(call.label_config)  # it is the same for all of them
    if len(call.tasks) == 1:
        # As when a person opens a task, whose page waits: what is not there yet is posted.
        deadline = deadline.at_most(service.settings.open_seconds)
    # A task that fails is left out and asked for again later, not the whole batch.
    requests = [_batch_request(task, call) for task in call.tasks]
    answers = service.answer_many(requests, deadline)
    return [_prediction(answer, service) if answer.regions else [] for answer in answers]


def _batch_request(task: Mapping[str, Any], call: PredictRequest) -> TaskRequest | None:
    try:
        results = batch_results(task)
        return TaskRequest.of(task, results, call.label_config) if results else None
    except (ValueError, BadRequest) as error:
        logger.warning("task %r of a batch cannot be answered: %s", task.get("id"), error)
        return None


def _prediction(answer: Answer, service: TrackingService) -> dict[str, Any]:
    return {
        "result": list(answer.regions),
        "model_version": answer.model_version or service.settings.model_version,
        "score": answer.score,
    }
