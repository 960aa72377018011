"""Label Studio exports (JSON, JSON_MIN) -> annotated videos.

`load_export` gives the videos; `read_export` gives them together with what
was left out or filled in, and the tasks that gave none; `export_task` is the
pure function on one task that both go through.

Of a task's annotations one is read: a ground truth where there is one, else
the one updated last; cancelled ones never. `annotations="all"` reads every
one that is not cancelled. `sources` says whether predictions and drafts are
read too: the first kind that the task has counts.

A task gives one video for each `<Video>` or `<Image>` that its regions are
on. Objects: a VideoRectangle or VideoVector is one, by its region id; on
images the regions that share our track id in `meta` are one, any other region
is one of its own. On images, brush, bitmask, polygon and vector regions of
one object on one frame are united; a rectangle counts only where there is
none of these.

Large files are read a task at a time.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence, get_args

import ijson

from converters.label_studio.annotation_reader import AnnotationSource, read_annotation
from converters.label_studio.config import ImageControlKind, LabelConfig, parse_label_config
from converters.label_studio.exported import (
    AnnotationChoice,
    DroppedRegion,
    ExportedVideo,
    ExportOptions,
    Resegment,
    ResegmentRequest,
    SkippedTask,
    Source,
    StaleChoice,
    VideoInfos,
)
from converters.label_studio.keyframes import is_number
from converters.label_studio.paths import InputError, at
from converters.types import AnnotatedVideo

__all__ = [
    "DroppedRegion",
    "ExportOptions",
    "ExportedVideo",
    "Resegment",
    "ResegmentRequest",
    "SkippedTask",
    "VideoInfos",
    "export_task",
    "load_export",
    "read_export",
    "read_tasks",
]

logger = logging.getLogger(__name__)

Task = Mapping[str, Any]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MIN_ONLY_KEYS = ("annotation_id", "annotator", "lead_time")


def load_export(
    path: str | Path,
    *,
    label_config: str | None = None,
    video_infos: VideoInfos | None = None,
    stale: StaleChoice = "rectangle",
    resegment: Resegment | None = None,
    annotations: AnnotationChoice = "one",
    sources: Sequence[Source] = ("annotations",),
) -> Iterator[AnnotatedVideo]:
    """The annotated videos of a Label Studio export, in the file's order.

    `label_config` is the project's XML; the other options are those of
    `ExportOptions`. Stale, hidden and dropped masks and skipped tasks are
    logged as warnings; `read_export` gives them as values. Which annotation of
    a task is read, and what is one object: see this module's head.

    Raises ValueError for a bad option, a file that is no export, and malformed
    values, naming their path: "tasks[3].annotations[0].result[2].value.…".
    """
    options = ExportOptions(
        label_config=None if label_config is None else parse_label_config(label_config),
        video_infos=video_infos,
        stale=stale,
        resegment=resegment,
        annotations=annotations,
        sources=tuple(sources) if not isinstance(sources, str) else sources,
    )
    return _videos_with_warnings(path, options)


def _videos_with_warnings(path: str | Path, options: ExportOptions) -> Iterator[AnnotatedVideo]:
    for item in read_export(path, options):
        if isinstance(item, SkippedTask):
            logger.warning("task %s gives no video: %s", item.task_id, item.reason)
            continue
        name = item.video.name
        if item.stale:
            logger.warning(
                "video %s: %d masks of %d objects are missing or out of date; stale=%s",
                name, sum(map(len, item.stale.values())), len(item.stale), options.stale,
            )  # fmt: skip
        if item.hidden:
            logger.warning(
                "video %s: %d masks are left out, as their object was hidden there",
                name, sum(map(len, item.hidden.values())),
            )  # fmt: skip
        for region in item.dropped:
            logger.warning(
                "video %s: region %s is left out: %s", name, region.region_id, region.reason
            )
        yield item.video


def read_export(
    path: str | Path, options: ExportOptions = ExportOptions()
) -> Iterator[ExportedVideo | SkippedTask]:
    """The videos of an export with what was left out, and the tasks without one.

    Raises ValueError as `load_export` does.
    """
    for position, task in _grouped(read_tasks(path), options):
        yield from export_task(task, options, where=f"tasks[{position}]", position=position)


def export_task(
    task: object,
    options: ExportOptions = ExportOptions(),
    *,
    where: str = "task",
    position: int = 0,
) -> tuple[ExportedVideo | SkippedTask, ...]:
    """The videos of one task, or why it gives none.

    `task` is an item of an export, or a task as Label Studio's API gives it.
    `where` is put in front of the paths in errors; `position` names the video
    where the task has no id. Raises ValueError for malformed values.
    """
    with at(where):
        if not isinstance(task, Mapping):
            raise ValueError(f"{str(task)[:60]!r} must be an object")
        if _is_min(task):
            return _export_min(task, options, position)
        data = task.get("data")
        if not isinstance(data, Mapping):
            raise InputError("data", f"{str(data)[:60]!r} must be an object")
        found = _chosen(task, options)
        if isinstance(found, str):
            return (SkippedTask(_task_id(task), found),)
        videos: list[ExportedVideo | SkippedTask] = []
        for path, annotation in found:
            kind, entry_id = path.partition("[")[0], _id_text(annotation, path)
            source = AnnotationSource(
                task_id=_task_id(task),
                task_name=_task_name(task, position),
                name_suffix="" if options.annotations == "one" else f"-{kind}-{entry_id}",
                description=f"{kind} {entry_id}",
                data=data,
            )
            videos += read_annotation(_results(annotation, path), source, options)
        return tuple(videos)


# --- the file ----------------------------------------------------------------


def read_tasks(path: str | Path) -> Iterator[Any]:
    """The tasks of a JSON file, one at a time: an array of them, or one alone.

    Raises ValueError naming the file where it is no JSON.
    """
    with open(path, "rb") as file:
        start = file.read(3)
        file.seek(len(_BYTE_ORDER_MARK) if start == _BYTE_ORDER_MARK else 0)
        first = b" "
        while first and first.isspace():
            first = file.read(1)
        if first not in (b"[", b"{"):
            raise ValueError(f"{path}: must be a JSON array of tasks, or one task")
        file.seek(-1, os.SEEK_CUR)
        tasks = ijson.items(file, "item" if first == b"[" else "", use_float=True)
        for position in itertools.count():
            try:
                task = next(tasks)
            except StopIteration:
                return
            except (ijson.JSONError, UnicodeDecodeError) as error:
                detail = " ".join(" ".join(str(error).splitlines()[:2]).split())
                raise ValueError(
                    f"{path}: tasks[{position}] is not valid JSON: {detail}"
                ) from error
            yield task


def _grouped(tasks: Iterator[Any], options: ExportOptions) -> Iterator[tuple[int, Any]]:
    """(position, task); of JSON_MIN's one record an annotation, the last updated of each task.

    JSON_MIN writes the records of one task one after another.
    """
    waiting: tuple[int, Any] | None = None
    for position, task in enumerate(tasks):
        is_min = isinstance(task, Mapping) and _is_min(task)
        if waiting is not None:
            same = is_min and task.get("id") is not None and task.get("id") == waiting[1].get("id")
            if same and options.annotations == "one":
                if _updated(task) > _updated(waiting[1]):
                    waiting = position, task
                continue
            yield waiting
            waiting = None
        if is_min:
            waiting = position, task
        else:
            yield position, task
    if waiting is not None:
        yield waiting


# --- which annotation --------------------------------------------------------


def _is_min(task: Task) -> bool:
    return not isinstance(task.get("data"), Mapping) and any(key in task for key in _MIN_ONLY_KEYS)


def _chosen(task: Task, options: ExportOptions) -> list[tuple[str, Mapping[str, Any]]] | str:
    """(path, annotation) of those that are read; or the reason why there is none."""
    reasons = []
    for source in options.sources:
        entries = task.get(source, task.get("completions") if source == "annotations" else None)
        if entries is None:
            entries = []
        if not isinstance(entries, list):
            raise InputError(source, f"{str(entries)[:60]!r} must be a list")
        whole = []
        for number, entry in enumerate(entries):
            if isinstance(entry, Mapping):
                whole.append((f"{source}[{number}]", entry))
            elif isinstance(entry, bool) or not isinstance(entry, (int, str)):
                raise InputError(f"{source}[{number}]", f"{str(entry)[:60]!r} must be an object")
        kept = [item for item in whole if not _is_cancelled(item[1])]
        if kept:
            return kept if options.annotations == "all" else [max(kept, key=_rank)]
        if len(whole) < len(entries):
            reasons.append(f"its {source} are in the file by id only")
        else:
            reasons.append(f"all {source} are cancelled" if whole else f"it has no {source}")
    others = [kind for kind in get_args(Source) if kind not in options.sources and task.get(kind)]
    return ", ".join(reasons) + (f", but {' and '.join(others)}" if others else "")


def _is_cancelled(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("was_cancelled") or entry.get("skipped"))


def _rank(item: tuple[str, Mapping[str, Any]]) -> tuple[bool, str, float, int]:
    path, entry = item
    number = int(path[path.index("[") + 1 : -1])
    entry_id = entry["id"] if is_number(entry.get("id")) else 0
    return bool(entry.get("ground_truth")), _updated(entry), entry_id, number


def _updated(entry: Mapping[str, Any]) -> str:
    """ISO 8601 in UTC, as Label Studio writes it, sorts as text."""
    return str(entry.get("updated_at") or entry.get("created_at") or "")


def _id_text(annotation: Mapping[str, Any], path: str) -> str:
    entry_id = annotation.get("id")
    return path[path.index("[") + 1 : -1] if entry_id is None else str(entry_id)


def _task_name(task: Task, position: int) -> str:
    task_id = _task_id(task)
    return str(position if task_id is None else task_id)


def _task_id(task: Task) -> int | str | None:
    task_id = task.get("id")
    return task_id if isinstance(task_id, (int, str)) else None


def _results(annotation: Mapping[str, Any], path: str) -> list[tuple[str, Mapping[str, Any]]]:
    """(path, result) of an annotation, a prediction or a draft."""
    results = annotation.get("result")
    if results is None:
        return []
    if not isinstance(results, list):
        raise InputError(f"{path}.result", f"{str(results)[:60]!r} must be a list")
    for number, result in enumerate(results):
        if not isinstance(result, Mapping):
            raise InputError(f"{path}.result[{number}]", f"{str(result)[:60]!r} must be an object")
    return [(f"{path}.result[{number}]", result) for number, result in enumerate(results)]


# --- JSON_MIN ----------------------------------------------------------------


def _export_min(
    record: Task, options: ExportOptions, position: int
) -> tuple[ExportedVideo | SkippedTask, ...]:
    """A record holds the task's data and, under each control's name, the bare values."""
    annotation_id = record.get("annotation_id")
    source = AnnotationSource(
        task_id=_task_id(record),
        task_name=_task_name(record, position),
        name_suffix="" if options.annotations == "one" else f"-annotations-{annotation_id}",
        description=f"annotations {annotation_id}",
        data=record,
        has_frames=False,
    )
    try:
        return tuple(read_annotation(_min_results(record, options), source, options))
    except InputError as error:
        # What lies under `value` elsewhere lies in the item itself here.
        path = re.sub(r"^([^.]*\[\d+\])\.value\b", r"\1", error.path)
        raise InputError(path, error.rule) from error


def _min_results(
    record: Task, options: ExportOptions
) -> list[tuple[str, Mapping[str, Any]]]:
    """(path, result) as a whole export would have it, but for `item_index` and `meta`."""
    results = []
    for name, kind, to_name in _min_controls(record, options.label_config):
        values = record.get(name)
        for number, value in enumerate(values if isinstance(values, list) else []):
            if isinstance(value, Mapping):
                result = {
                    "id": f"{name}-{number}",
                    "from_name": name,
                    "to_name": to_name,
                    "type": kind or _guessed_type(value),
                    "value": value,
                    **{k: value[k] for k in ("original_width", "original_height") if k in value},
                }
                results.append((f"{name}[{number}]", result))
    return results


def _min_controls(
    record: Task, config: LabelConfig | None
) -> Iterator[tuple[str, str | None, str | None]]:
    """(name, type of its results, toName) of each control."""
    if config is None:
        for name, values in record.items():
            if isinstance(values, list) and values and isinstance(values[0], Mapping):
                yield name, None, None
        return
    for control in config.video_rectangles:
        yield control.name, "videorectangle", control.to_name
    for vector in config.video_vectors:
        yield vector.name, vector.result_type, vector.to_name
    for mark in config.image_controls:
        yield mark.name, mark.kind.result_type, mark.to_name


def _guessed_type(value: Mapping[str, Any]) -> str | None:
    sequence = value.get("sequence")
    if isinstance(sequence, list):
        is_vector = any(isinstance(item, Mapping) and "vertices" in item for item in sequence)
        return "videovectorlabels" if is_vector else "videorectangle"
    return next((k.result_type for k in ImageControlKind if k.result_type in value), None)
