"""The JSON of Label Studio's ML-backend requests (PROTOCOL sections 2, 6 and 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from backend.errors import BadRequest
from converters.label_studio.config import ImageControlKind
from converters.label_studio.video_vector import VIDEO_VECTOR_TYPES

Result = Mapping[str, Any]

_MARKS = frozenset(
    {"videorectangle", *VIDEO_VECTOR_TYPES, *(kind.result_type for kind in ImageControlKind)}
)
"""Types of results that may be prompts."""


@dataclass(frozen=True)
class PredictRequest:
    """A checked body of POST /predict."""

    tasks: tuple[Mapping[str, Any], ...]
    label_config: str
    context_results: tuple[Result, ...] | None
    """What is marked in the open editor; None for a batch call."""

    @property
    def is_interactive(self) -> bool:
        return self.context_results is not None


def parse_predict(body: object) -> PredictRequest:
    """Raises BadRequest naming the field, the value and the rule."""
    body = _object(body, "the body")
    tasks = _objects(body.get("tasks"), "tasks")
    label_config = body.get("label_config")
    if not isinstance(label_config, str) or not label_config.strip():
        raise BadRequest(
            f"label_config {label_config!r:.80} must be the project's labeling config, a string"
        )
    params = body.get("params")
    context = _object({} if params is None else params, "params").get("context")
    if context is None:
        return PredictRequest(tasks, label_config, None)
    results = _object(context, "params.context").get("result")
    results = _objects([] if results is None else results, "params.context.result")
    if len(tasks) != 1:
        raise BadRequest(f"tasks has {len(tasks)} entries, an interactive call must have one")
    return PredictRequest(tasks, label_config, results)


def is_text_alone(context_results: Sequence[Result]) -> bool:
    """Whether a global text area asks, whose context does not hold the regions."""
    return bool(context_results) and all(
        r.get("type") in ("textarea", "choices") for r in context_results
    )


def saved_results(task: Mapping[str, Any]) -> tuple[Result, ...]:
    """What can be tracked in the draft, or the annotation, that was saved last."""
    saved = [*_saved(task, "drafts"), *_saved(task, "annotations")]
    return markable_results(_newest(saved))


def batch_results(task: Mapping[str, Any]) -> tuple[Result, ...]:
    """What can be tracked in the task's newest annotation; none without one."""
    return markable_results(_newest(_saved(task, "annotations")))


def _saved(task: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    entries = task.get(name)
    if not isinstance(entries, list):
        return []
    return [e for e in entries if isinstance(e, Mapping) and not e.get("was_cancelled")]


def _newest(entries: Sequence[Mapping[str, Any]]) -> Sequence[Result]:
    """The results of the entry saved last; times are ISO 8601 in one zone."""
    if not entries:
        return ()
    newest = max(entries, key=lambda entry: str(entry.get("updated_at") or ""))
    results = newest.get("result")
    return _objects([] if results is None else results, "annotations[].result")


def markable_results(results: Sequence[Result]) -> tuple[Result, ...]:
    """Regions that may be prompts, and the labels that go with them; none without such."""
    found = tuple(r for r in results if _is_mark(r) or r.get("type") == "labels")
    return found if any(map(_is_mark, found)) else ()


def _is_mark(result: Result) -> bool:
    kind = result.get("type")
    return isinstance(kind, str) and kind in _MARKS


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadRequest(f"{name} {value!r:.80} must be a JSON object")
    return value


def _objects(value: object, name: str) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list):
        raise BadRequest(f"{name} {value!r:.80} must be a list of JSON objects")
    return tuple(_object(item, f"{name}[{index}]") for index, item in enumerate(value))
