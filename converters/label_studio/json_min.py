"""Records of JSON_MIN -> results as a whole export has them.

A record is an annotation: the task's data and, under each control's name, the
bare values. It says neither a region's id nor its frame.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping

from converters.label_studio.config import ImageControlKind, LabelConfig
from converters.label_studio.task_media import Results, media_of

Record = Mapping[str, Any]

_ANSWERS = {"choices", "text", "rating", "taxonomy", "number", "datetime"}
"""Fields of a value that answers a question about a region, whose place it repeats."""


def is_same_task(record: Record, other: Record, config: LabelConfig | None) -> bool:
    """Whether both are annotations of one task; another server's may have its id."""
    if record.get("id") is None or record.get("id") != other.get("id"):
        return False
    return _references(record, config) == _references(other, config)


def _references(record: Record, config: LabelConfig | None) -> tuple[str, ...] | None:
    try:
        media = media_of(None, None, record, config)
    except ValueError:
        return None
    return None if media is None else media.references


def min_results(record: Record, config: LabelConfig | None, where: str) -> Results:
    """(path, result) as a whole export would have it, but for `item_index` and `meta`.

    A value that is no object becomes a result that is malformed.
    """
    results: list[tuple[str, Any]] = []
    for name, kind, to_name in _controls(record, config):
        values = record.get(name)
        for number, value in enumerate(values if isinstance(values, list) else []):
            sizes = ("original_width", "original_height")
            of_value = value if isinstance(value, Mapping) else {}
            result = {
                "id": f"{name}-{number}",
                "from_name": name,
                "to_name": to_name,
                "type": kind or _guessed_type(of_value),
                "value": value,
                **{key: of_value[key] for key in sizes if key in of_value},
            }
            results.append((f"{where}.{name}[{number}]", result))
    return results


def _controls(
    record: Record, config: LabelConfig | None
) -> Iterator[tuple[str, str | None, str | None]]:
    """(name, type of its results, toName) of each control; what the config lacks is guessed."""
    known: dict[str, tuple[str, str]] = {}
    if config is not None:
        for control in config.video_rectangles:
            known[control.name] = ("videorectangle", control.to_name)
        for vector in config.video_vectors:
            known[vector.name] = (vector.result_type, vector.to_name)
        for mark in config.image_controls:
            known[mark.name] = (mark.kind.result_type, mark.to_name)
    for name, (kind, to_name) in known.items():
        yield name, kind, to_name
    for name, values in record.items():
        if name not in known and isinstance(values, list) and any(map(_is_region, values)):
            yield name, None, None


def _is_region(value: object) -> bool:
    """Whether a value of an unknown control can be one, of a type that is read or not."""
    if not isinstance(value, Mapping) or _ANSWERS & set(value):
        return False
    if {"sequence", "rle", "imageDataURL"} & set(value):
        return True
    return any(str(key).endswith("labels") for key in value)


def _guessed_type(value: Mapping[str, Any]) -> str | None:
    sequence = value.get("sequence")
    if isinstance(sequence, list):
        is_vector = any(isinstance(item, Mapping) and "vertices" in item for item in sequence)
        return "videovectorlabels" if is_vector else "videorectangle"
    kinds = (kind.result_type for kind in ImageControlKind)
    known = next((kind for kind in kinds if kind in value), None)
    return known or next((key for key in value if str(key).endswith("labels")), None)
