"""What must hold of a prediction before Label Studio sees it.

Label Studio takes most of what is wrong here and then fails without a word:
the editor drops a region, Submit stores nothing, or one bad prediction loses a
batch. What it does refuse, it refuses only where its validation is switched on.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

from converters.label_studio.config import ImageControlKind, LabelConfig
from converters.label_studio.keyframes import MAX_LS_FRAME, is_number
from converters.label_studio.paths import InputError, at
from converters.label_studio.results import image_kind_of, labels_of, type_of

_MAX_PERCENT = 100


def check_prediction(
    result: object,
    *,
    score: object,
    model_version: object,
    config: LabelConfig | None = None,
    frame_count: int | None = None,
) -> None:
    """Raises InputError naming the place, the value and the rule.

    Args:
        result: the list of regions; an empty one is a prediction with nothing in it.
        score: of the whole prediction, in [0, 1].
        model_version: what it is stored under.
        config: the project's; None: names of controls and labels are not checked.
        frame_count: of the task's frames; None: `item_index` has no upper limit.
    """
    _check_text(model_version, "model_version")
    _check_share(score, "score")
    check_results(result, config=config, frame_count=frame_count)


def check_results(
    result: object, *, config: LabelConfig | None = None, frame_count: int | None = None
) -> None:
    """The regions alone; raises InputError as `check_prediction` does."""
    if not isinstance(result, (list, tuple)):
        raise InputError("result", f"{type(result).__name__} must be a list")
    for number, region in enumerate(result):
        with at(f"result[{number}]"):
            _check_region(region, config, frame_count)


def _check_region(region: object, config: LabelConfig | None, frame_count: int | None) -> None:
    if not isinstance(region, Mapping):
        raise InputError("", f"{type(region).__name__} must be an object")
    for name in ("id", "from_name", "to_name", "type"):
        _check_text(region.get(name), name)
    if not isinstance(region.get("value"), Mapping):
        raise InputError("value", "must be an object")
    if "score" in region:
        _check_share(region["score"], "score")
    kind = image_kind_of(region)
    if kind is not None:
        _check_item_index(region, frame_count)
    if type_of(region) == "videorectangle":
        _check_sequence(region["value"], _check_box_keyframe)
    elif type_of(region) in ("videovector", "videovectorlabels"):
        _check_sequence(region["value"], _check_vector_keyframe)
    if config is not None:
        _check_names(region, kind, config)


def _check_names(
    region: Mapping[str, Any], kind: ImageControlKind | None, config: LabelConfig
) -> None:
    """The control is there, takes results of this type, is on this tag and has these labels."""
    name, kind_name = region["from_name"], region["type"]
    if kind is not None:
        control: Any = config.image_control(name)
        expected = control.kind.result_type
        labels = labels_of(region, (expected, "labels"))
    elif kind_name == "videorectangle":
        control, expected = config.video_rectangle(name), kind_name
        labels = labels_of(region, ("labels",))
    elif kind_name in ("videovector", "videovectorlabels"):
        control = config.video_vector(name)
        expected, labels = control.result_type, labels_of(region, ("labels",))
    else:
        return
    if kind_name != expected:
        raise InputError("type", f"{kind_name!r} must be {expected!r}, as control {name!r} makes")
    if region["to_name"] not in control.to_names:
        raise InputError(
            "to_name", f"{region['to_name']!r} must be one of {list(control.to_names)}"
        )
    control.check_labels(labels)


def _check_item_index(region: Mapping[str, Any], frame_count: int | None) -> None:
    """Submit of a region with a bad one fails in silence; a missing one is frame 0."""
    if "item_index" not in region:
        return
    index = region["item_index"]
    limit = MAX_LS_FRAME if frame_count is None else frame_count
    if not _is_whole(index) or not 0 <= index < limit:
        raise InputError("item_index", f"{index!r} must be an integer in [0, {limit})")


def _check_sequence(value: Mapping[str, Any], check: Callable[[Mapping[str, Any]], None]) -> None:
    sequence = value.get("sequence")
    if not isinstance(sequence, (list, tuple)) or not sequence:
        raise InputError("value.sequence", "must be a list of at least one keyframe")
    for number, keyframe in enumerate(sequence):
        with at(f"value.sequence[{number}]"):
            if not isinstance(keyframe, Mapping):
                raise InputError("", f"{type(keyframe).__name__} must be an object")
            frame = keyframe.get("frame")
            if not _is_whole(frame) or not 1 <= frame <= MAX_LS_FRAME:
                raise InputError("frame", f"{frame!r} must be an integer from 1 to {MAX_LS_FRAME}")
            if not isinstance(keyframe.get("enabled"), bool):
                raise InputError("enabled", f"{keyframe.get('enabled')!r} must be true or false")
            _check_number(keyframe, "time", minimum=0)
            check(keyframe)


def _check_box_keyframe(keyframe: Mapping[str, Any]) -> None:
    _check_number(keyframe, "x", maximum=_MAX_PERCENT)
    _check_number(keyframe, "y", maximum=_MAX_PERCENT)
    _check_number(keyframe, "width", minimum=0, maximum=_MAX_PERCENT)
    _check_number(keyframe, "height", minimum=0, maximum=_MAX_PERCENT)
    _check_number(keyframe, "rotation")


def _check_vector_keyframe(keyframe: Mapping[str, Any]) -> None:
    vertices = keyframe.get("vertices")
    if not isinstance(vertices, (list, tuple)) or len(vertices) < 2:
        raise InputError("vertices", "must be a list of at least two")


def _check_number(
    values: Mapping[str, Any], name: str, minimum: float | None = None, maximum: float | None = None
) -> None:
    number = values.get(name)
    if not is_number(number):
        raise InputError(name, f"{number!r} must be a finite number")
    if minimum is not None and number < minimum:
        raise InputError(name, f"{number!r} must be at least {minimum}")
    if maximum is not None and number > maximum:
        raise InputError(name, f"{number!r} must be at most {maximum}")


def _check_share(value: object, name: str) -> None:
    if not is_number(value) or not 0 <= value <= 1:
        raise InputError(name, f"{value!r} must be a number in [0, 1]")


def _check_text(value: object, name: str) -> None:
    if not isinstance(value, str) or not value:
        raise InputError(name, f"{value!r} must be a string that is not empty")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
