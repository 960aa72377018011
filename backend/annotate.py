"""A whole project: each task's prompts tracked, the answers stored as predictions."""

from __future__ import annotations

import enum
import functools
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, Sequence, TypeVar

from backend.errors import ServiceError
from backend.left_out import sentence
from backend.label_studio_client import LabelStudioClient, LabelStudioError, LabelStudioFailure
from converters.label_studio.config import LabelConfig, UnsupportedConfigError
from converters.label_studio.results import image_kind_of

if TYPE_CHECKING:
    from backend.propagation import Answer

logger = logging.getLogger(__name__)

Json = Mapping[str, Any]
_Value = TypeVar("_Value")

_TRIES = 4
_FIRST_WAIT_SECONDS = 2.0
_LONGEST_WAIT_SECONDS = 60.0
_VIDEO_TYPES = ("videorectangle", "videovector", "videovectorlabels")


class Outcome(enum.StrEnum):
    """What became of a task."""

    STORED = "prediction stored"
    WOULD_TRACK = "would be tracked"
    HAS_PREDICTION = "has a prediction of this model already"
    NO_PROMPT = "has no prompt"
    NOTHING_FOUND = "prompts ask for nothing new"
    FAILED = "failed"


@dataclass(frozen=True)
class TaskReport:
    """One task's outcome."""

    task_id: int
    outcome: Outcome
    detail: str = ""
    """Why it failed, or how much there is."""


def annotate_project(
    client: LabelStudioClient,
    project_id: int,
    answer: Callable[[Json, Sequence[Json]], Answer],
    *,
    config: LabelConfig,
    model_version: str,
    again: bool = False,
    dry_run: bool = False,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[TaskReport]:
    """What becomes of each task, as it is done; a failure does not end the run.

    Of a task's drafts and annotations the one that was changed last holds the
    prompts. A task with a prediction of this `model_version` is left alone, so
    that a run which was stopped goes on where it was; with `again` it is
    tracked anew, and its earlier predictions of the version are removed once
    the new one is stored.

    Args:
        answer: tracks a task's results; nothing where no prompt is new.
        wait: is called between tries with the seconds to wait.

    Raises:
        LabelStudioError: the tasks cannot be listed, or the key is refused.
        UnsupportedConfigError: no task of the project can be answered.
    """
    # All of them first: a run takes hours, and pages shift when tasks come or go.
    for task in list(client.task_heads(project_id)):
        task_id = task["id"]
        try:
            yield _annotate_task(
                client, task, answer, config, model_version, again, dry_run, wait
            )
        except UnsupportedConfigError:
            raise  # it is so for every task
        except (ServiceError, ValueError, OSError) as error:
            if getattr(error, "failure", None) is LabelStudioFailure.TOKEN_REFUSED:
                raise
            logger.debug("task %s", task_id, exc_info=error)
            yield TaskReport(task_id, Outcome.FAILED, str(error))
        except Exception as error:  # the boundary of one task's job
            logger.exception("task %s", task_id)
            yield TaskReport(task_id, Outcome.FAILED, f"{type(error).__name__}: {error}")


def _annotate_task(
    client: LabelStudioClient,
    task: Json,
    answer: Callable[[Json, Sequence[Json]], Answer],
    config: LabelConfig,
    model_version: str,
    again: bool,
    dry_run: bool,
    wait: Callable[[float], object],
) -> TaskReport:
    task_id = task["id"]
    earlier = _of_version(client, task_id, model_version, wait)
    if earlier and not again:
        return TaskReport(task_id, Outcome.HAS_PREDICTION)
    # Not the task itself: Label Studio would have the service predict it first.
    work = _with_retries(functools.partial(client.newest_draft_or_annotation, task_id), wait)
    results = work.result if work is not None else []
    marked = sum(_may_be_prompt(region) for region in results)
    if not marked:
        return TaskReport(task_id, Outcome.NO_PROMPT)
    if dry_run:
        plural = "" if marked == 1 else "s"
        return TaskReport(task_id, Outcome.WOULD_TRACK, f"{marked} marked region{plural}")
    found = answer(task, results)
    if not found.is_complete:
        return TaskReport(task_id, Outcome.FAILED, "tracking ended before the last frame")
    if not found.regions:
        return TaskReport(task_id, Outcome.NOTHING_FOUND)
    if set(_of_version(client, task_id, model_version, wait)) - set(earlier):
        return TaskReport(task_id, Outcome.HAS_PREDICTION, "stored by another meanwhile")
    _with_retries(
        lambda: client.create_prediction(
            task_id, found.regions, score=found.score, model_version=model_version, config=config
        ),
        wait,
    )
    for prediction_id in earlier:
        _with_retries(functools.partial(client.delete_prediction, prediction_id), wait)
    count = len(found.regions)
    detail = f"{count} region{'' if count == 1 else 's'}"
    if found.left_out is not None:
        detail = f"{detail}; {sentence(found.left_out)}"
    return TaskReport(task_id, Outcome.STORED, detail)


def _of_version(
    client: LabelStudioClient, task_id: int, model_version: str, wait: Callable[[float], object]
) -> list[int]:
    """The task's predictions of the model."""
    predictions = _with_retries(functools.partial(client.predictions, task_id), wait)
    return [item["id"] for item in predictions if item.get("model_version") == model_version]


def _may_be_prompt(region: object) -> bool:
    if not isinstance(region, Mapping):
        return False
    return region.get("type") in _VIDEO_TYPES or image_kind_of(region) is not None


def _with_retries(call: Callable[[], _Value], wait: Callable[[float], object]) -> _Value:
    """Again while Label Studio is busy or away, for about as long as a restart takes."""
    pause = _FIRST_WAIT_SECONDS
    for _ in range(_TRIES - 1):
        try:
            return call()
        except LabelStudioError as error:
            if not error.is_retryable:
                raise
            logger.warning("%s; trying again", error)
            wait(min(error.retry_after_seconds or pause, _LONGEST_WAIT_SECONDS))
            pause *= 3
    return call()
