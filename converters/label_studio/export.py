"""Label Studio exports (JSON, JSON_MIN, target storages) -> annotated videos.

`load_export` gives the videos; `read_export` gives them together with what
was left out or filled in, and the tasks that gave none; `export_task` is the
pure function on one task that both go through.

Of a task's annotations one is read: a ground truth where there is one, else
the one updated last that marks anything; cancelled ones never.
`annotations="all"` reads every one that is not cancelled. `sources` says
whether predictions and drafts are read too: the first kind that the task has
counts.

A task gives one video for each `<Video>` or `<Image>` that its regions are
on. Objects: a VideoRectangle or VideoVector is one, by its region id; on
images the regions that share our track id in `meta`, or their own id, are one,
any other region is one of its own. On images, brush, bitmask, polygon and
vector regions of one object on one frame are united; a rectangle counts only
where there is none of these.

What is malformed costs itself alone: a region, an annotation, a task. It is
left out and counted in a `Report`; without one, or with a strict one, the
first raises. A label config that has changed since costs nothing: regions are
kept as they are, and counted.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence, get_args

from converters.label_studio.annotation_reader import (
    AnnotationSource,
    marks_something,
    read_annotation,
)
from converters.label_studio.config import parse_label_config
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
from converters.label_studio.json_min import is_same_task, min_results
from converters.label_studio.keyframes import is_number
from converters.label_studio.paths import InputError, at, joined
from converters.label_studio.task_files import (
    Task,
    as_task,
    is_annotation_with_task,
    is_min,
    located_tasks,
    read_tasks,
    updated,
)
from converters.report import Report
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

_Entry = tuple[str, Mapping[str, Any]]
"""(path, annotation) of an annotation, a prediction or a draft."""


def load_export(
    path: str | Path,
    *,
    label_config: str | None = None,
    video_infos: VideoInfos | None = None,
    stale: StaleChoice = "rectangle",
    resegment: Resegment | None = None,
    annotations: AnnotationChoice = "one",
    sources: Sequence[Source] = ("annotations",),
    report: Report | None = None,
) -> Iterator[AnnotatedVideo]:
    """The annotated videos of a Label Studio export, in the file's order.

    `path` is a JSON file, or a folder of a target storage's files.
    `label_config` is the project's XML; the other options are those of
    `ExportOptions`. Stale, hidden and dropped masks and skipped tasks are
    logged as warnings; `read_export` gives them as values, and a `report` the
    rest of what is said. Which annotation of
    a task is read, and what is one object: see this module's head.

    Raises ValueError for a bad option, a file that is no export, and, unless
    `report` takes them, malformed values, naming their path:
    "tasks[3].annotations[0].result[2].value.…".
    """
    options = ExportOptions(
        label_config=None if label_config is None else parse_label_config(label_config),
        video_infos=video_infos,
        stale=stale,
        resegment=resegment,
        annotations=annotations,
        sources=tuple(sources) if not isinstance(sources, str) else sources,
    )
    return _videos_with_warnings(path, options, report)


def _videos_with_warnings(
    path: str | Path, options: ExportOptions, report: Report | None
) -> Iterator[AnnotatedVideo]:
    own_report = Report(strict=True)
    for item in read_export(path, options, report=report or own_report):
        for region in item.dropped:
            logger.warning(
                "task %s: region %s is left out: %s", item.task_id, region.region_id, region.reason
            )
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
        yield item.video
    for sentence in own_report.notes:
        logger.warning("%s", sentence)


def read_export(
    path: str | Path,
    options: ExportOptions = ExportOptions(),
    *,
    report: Report | None = None,
) -> Iterator[ExportedVideo | SkippedTask]:
    """The videos of an export with what was left out, and the tasks without one.

    Malformed values are counted in `report`, and nowhere else. Raises
    ValueError as `load_export` does.
    """
    report = report or Report(strict=True)
    names = _Names(report)
    tasks = _grouped(located_tasks(path, report), options, report)
    for position, (where, task) in enumerate(tasks):
        for item in export_task(task, options, where=where, position=position, report=report):
            yield item if isinstance(item, SkippedTask) else names.told_apart(item)


def export_task(
    task: object,
    options: ExportOptions = ExportOptions(),
    *,
    where: str = "task",
    position: int = 0,
    report: Report | None = None,
) -> tuple[ExportedVideo | SkippedTask, ...]:
    """The videos of one task, or why it gives none.

    `task` is an item of an export, a task as Label Studio's API gives it, or
    an annotation with its task inside. `where` is put in front of the paths in
    errors; `position` names the video where the task has no id. Malformed
    values are left out and counted in `report`; without one, or with a strict
    one, the first raises ValueError.
    """
    report = report or Report(strict=True)
    with report.leaving_out("tasks"):
        return tuple(_export_task(as_task(task), options, where, position, report))
    return ()


def _export_task(
    task: object, options: ExportOptions, where: str, position: int, report: Report
) -> list[ExportedVideo | SkippedTask]:
    if not isinstance(task, Mapping):
        raise InputError(where, f"{str(task)[:60]!r} must be an object")
    if is_min(task):
        return _export_min(task, options, where, position, report)
    data = task.get("data")
    if data is None and is_annotation_with_task(set(task)):
        rule = f"{str(task['task'])[:60]} must be the task itself, with its data"
        raise InputError(joined(where, "task"), rule)
    if not isinstance(data, Mapping):
        raise InputError(joined(where, "data"), f"{str(data)[:60]!r} must be an object")
    found = _chosen(task, options, where, report)
    if isinstance(found, str):
        return [SkippedTask(_task_id(task), found)]
    videos: list[ExportedVideo | SkippedTask] = []
    for path, annotation in found:
        kind, entry_id = _kind(path), _id_text(annotation, path)
        source = AnnotationSource(
            task_id=_task_id(task),
            task_name=_task_name(task, position),
            name_suffix="" if options.annotations == "one" else f"-{kind}-{entry_id}",
            description=f"{kind} {entry_id}",
            data=data,
            where=where,
        )
        path = joined(where, path)
        results = [
            (f"{path}.result[{number}]", result)
            for number, result in enumerate(annotation.get("result") or [])
        ]
        videos += read_annotation(results, source, options, report)
    return videos


class _Names:
    """Tells videos of one name apart: servers give the same ids to other tasks."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._taken: dict[str, int] = {}

    def told_apart(self, item: ExportedVideo) -> ExportedVideo:
        name, video = item.video.name, item.video
        if name not in self._taken:
            self._taken[name] = 1
            return item
        number = self._taken[name] + 1
        while f"{name}-{number}" in self._taken:
            number += 1
        self._taken[name] = number
        new = f"{name}-{number}"
        self._taken[new] = 1
        self._report.change("videos named apart, as tasks of one id have media of one name")
        sentence = (
            f"task {item.task_id} comes more than once, each time with media of one name: this "
            f"video is named {new!r}. All are kept; for other names give the tasks other ids"
        )
        self._report.say(sentence)
        files = tuple(f"{new}/{file.removeprefix(f'{name}/')}" for file in video.file_names)
        video = dataclasses.replace(video, name=new, file_names=files)
        return dataclasses.replace(item, video=video)


# --- which annotation --------------------------------------------------------


def _chosen(
    task: Task, options: ExportOptions, where: str, report: Report
) -> list[_Entry] | str:
    """(path, annotation) of those that are read; or the reason why there is none."""
    reasons = []
    for source in options.sources:
        entries = task.get(source, task.get("completions") if source == "annotations" else None)
        if entries is None:
            entries = []
        if not isinstance(entries, list):
            raise InputError(joined(where, source), f"{str(entries)[:60]!r} must be a list")
        whole = _well_formed(entries, source, where, report)
        kept = [item for item in whole if not _is_cancelled(item[1])]
        if kept:
            return kept if options.annotations == "all" else [_one_of(kept, task, report)]
        if any(isinstance(entry, (int, str)) for entry in entries):
            reasons.append(f"its {source} are in the file by id only")
        elif len(whole) < len(entries):
            reasons.append(f"none of its {source} can be read")
        else:
            reasons.append(f"all {source} are cancelled" if whole else f"it has no {source}")
    others = [kind for kind in get_args(Source) if kind not in options.sources and task.get(kind)]
    return ", ".join(reasons) + (f", but {' and '.join(others)}" if others else "")


def _well_formed(
    entries: Sequence[Any], source: str, where: str, report: Report
) -> list[_Entry]:
    """Those that are objects with a list of results; one that is an id is passed over."""
    found: list[_Entry] = []
    for number, entry in enumerate(entries):
        path = f"{source}[{number}]"
        with report.leaving_out(source), at(joined(where, path)):
            if not isinstance(entry, Mapping):
                if isinstance(entry, bool) or not isinstance(entry, (int, str)):
                    raise InputError("", f"{str(entry)[:60]!r} must be an object")
                continue
            result = entry.get("result")
            if not isinstance(result, (list, type(None))):
                raise InputError("result", f"{str(result)[:60]!r} must be a list")
            found.append((path, entry))
    return found


def _one_of(entries: Sequence[_Entry], task: Task, report: Report) -> _Entry:
    """The one with the highest rank; an empty one of a person's never hides another's work."""
    first = max(entries, key=_rank)
    kind = _kind(first[0])
    if kind == "predictions" or _is_ground_truth(first[1]) or _marks_something(first):
        return first
    with_work = [item for item in entries if _marks_something(item)]
    if not with_work:
        return first
    taken = max(with_work, key=_rank)
    _say_older_was_taken(kind, task, first, taken, report)
    return taken


def _say_older_was_taken(
    kind: str, task: Task, newest: _Entry, taken: _Entry, report: Report
) -> None:
    what = kind.removesuffix("s")
    report.change(f"tasks whose newest {what} is empty, an older one was read")
    report.say(
        f"task {_task_id(task)}: {what} {_id_text(newest[1], newest[0])}, its newest, is empty: "
        f"{what} {_id_text(taken[1], taken[0])} was read"
    )


def _marks_something(item: _Entry) -> bool:
    return any(map(marks_something, item[1].get("result") or []))


def _is_cancelled(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("was_cancelled") or entry.get("skipped"))


def _is_ground_truth(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("ground_truth"))


def _rank(item: _Entry) -> tuple[bool, str, float, int]:
    path, entry = item
    number = int(path[path.index("[") + 1 : -1])
    entry_id = entry["id"] if is_number(entry.get("id")) else 0
    return _is_ground_truth(entry), updated(entry), entry_id, number


def _kind(path: str) -> str:
    return path.partition("[")[0]


def _id_text(annotation: Mapping[str, Any], path: str) -> str:
    entry_id = annotation.get("id")
    return path[path.index("[") + 1 : -1] if entry_id is None else str(entry_id)


def _task_name(task: Task, position: int) -> str:
    task_id = _task_id(task)
    return str(position if task_id is None else task_id)


def _task_id(task: Task) -> int | str | None:
    task_id = task.get("id")
    return task_id if isinstance(task_id, (int, str)) else None


# --- JSON_MIN ----------------------------------------------------------------


def _export_min(
    record: Task, options: ExportOptions, where: str, position: int, report: Report
) -> list[ExportedVideo | SkippedTask]:
    """A record holds the task's data and, under each control's name, the bare values."""
    annotation_id = record.get("annotation_id")
    source = AnnotationSource(
        task_id=_task_id(record),
        task_name=_task_name(record, position),
        name_suffix="" if options.annotations == "one" else f"-annotations-{annotation_id}",
        description=f"annotations {annotation_id}",
        data=record,
        where=where,
        is_min=True,
    )
    results = min_results(record, options.label_config, where)
    return read_annotation(results, source, options, report)


def _grouped(
    tasks: Iterator[tuple[str, Any]], options: ExportOptions, report: Report
) -> Iterator[tuple[str, Any]]:
    """(place, task); of JSON_MIN's one record an annotation, the one of each task that is read.

    JSON_MIN writes the records of one task one after another.
    """
    waiting: list[tuple[str, Task]] = []
    for where, task in tasks:
        if waiting and not (
            isinstance(task, Mapping)
            and is_min(task)
            and options.annotations == "one"
            and is_same_task(task, waiting[0][1], options.label_config)
        ):
            yield _one_record(waiting, options, report)
            waiting = []
        if isinstance(task, Mapping) and is_min(task):
            waiting.append((where, task))
        else:
            yield where, task
    if waiting:
        yield _one_record(waiting, options, report)


def _one_record(
    records: Sequence[tuple[str, Task]], options: ExportOptions, report: Report
) -> tuple[str, Task]:
    """As `_one_of` chooses among annotations."""
    if len(records) == 1:
        return records[0]
    entries: list[_Entry] = [
        (
            f"annotations[{number}]",
            {
                "id": record.get("annotation_id"),
                "updated_at": updated(record),
                "result": [r for _, r in min_results(record, options.label_config, where)],
            },
        )
        for number, (where, record) in enumerate(records)
    ]
    taken = _one_of(entries, records[0][1], report)
    return records[entries.index(taken)]
