"""The tasks of Label Studio's files: an export, one task, and what a target storage holds.

A target storage has a file an annotation, named by its id, with the task
inside; or, by a setting of Label Studio, a file a task as exports have it.
Either is a task here, and the files of one task are one.

Large files are read a task at a time.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

import ijson

from converters.frame_names import natural_order
from converters.json_stream import PlainJson
from converters.label_studio.paths import InputError
from converters.malformed import MalformedValue
from converters.report import Report

Task = Mapping[str, Any]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LOOKED_AT_BYTES = 4096
_SUFFIXES = ("", ".json")
_MIN_ONLY_KEYS = ("annotation_id", "annotator", "lead_time")


def read_tasks(path: str | Path) -> Iterator[Any]:
    """The tasks of a JSON file, one at a time: an array of them, or one alone; or of a folder.

    Raises ValueError naming the file where it is no JSON.
    """
    return (task for _, task in located_tasks(path, Report(strict=True)))


def located_tasks(path: str | Path, report: Report) -> Iterator[tuple[str, Any]]:
    """(place, task) of a file or folder: "tasks[3]", or by the files "tasks[12, 15]".

    Files of a folder that hold no tasks are left out and counted in `report`.
    Raises ValueError for a single file that is no JSON.
    """
    if os.path.isdir(path):
        yield from _of_folder(Path(path), report)
        return
    for position, item in enumerate(_items(path)):
        yield f"tasks[{position}]", as_task(item)


def storage_files(folder: str | Path) -> Iterator[Path]:
    """The files of a folder, and of folders in it, that may be a storage's, by number and name."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted((f for f in folders if not f.startswith(".")), key=natural_order)
        for name in sorted(names, key=natural_order):
            path = Path(root, name)
            if path.suffix.lower() in _SUFFIXES and not name.startswith(".") and path.is_file():
                yield path


def is_annotation_with_task(keys: set[str]) -> bool:
    """Whether an object with these keys is a target storage's: an annotation, its task inside."""
    return {"result", "task"} <= keys


def is_min(task: Task) -> bool:
    """Whether it is a record of JSON_MIN."""
    return not isinstance(task.get("data"), Mapping) and any(key in task for key in _MIN_ONLY_KEYS)


def updated(entry: Mapping[str, Any]) -> str:
    """ISO 8601 in UTC, as Label Studio writes it, sorts as text but for the Z after a fraction."""
    return str(entry.get("updated_at") or entry.get("created_at") or "").removesuffix("Z")


# --- one file ----------------------------------------------------------------


def _items(path: str | Path) -> Iterator[Any]:
    """What a file's array holds, or the one object that it is; NaN and infinities as null."""
    with open(path, "rb") as file:
        first = file.read(_LOOKED_AT_BYTES).removeprefix(_BYTE_ORDER_MARK).lstrip()[:1]
        if first not in (b"[", b"{"):
            raise MalformedValue(str(path), "must be a JSON array of tasks, or one task")
        file.seek(0)
        prefix = "item" if first == b"[" else ""
        items = ijson.items(PlainJson(file), prefix, use_float=True)
        for position in itertools.count():
            try:
                item = next(items)
            except StopIteration:
                return
            except (ijson.JSONError, UnicodeDecodeError) as error:
                detail = " ".join(" ".join(str(error).splitlines()[:2]).split())
                rule = f"tasks[{position}] is not valid JSON: {detail}"
                raise MalformedValue(str(path), rule) from error
            yield item


def as_task(item: Any) -> Any:
    """An annotation with its task inside becomes that task with the annotation."""
    if not isinstance(item, Mapping) or not is_annotation_with_task(set(item)):
        return item
    task = item["task"]
    if not isinstance(task, Mapping):
        return item
    annotation = {key: value for key, value in item.items() if key != "task"}
    return {**task, "annotations": [annotation]}


# --- a folder ----------------------------------------------------------------


def _of_folder(folder: Path, report: Report) -> Iterator[tuple[str, Any]]:
    """Task by task, in the order of their first files."""
    by_task: dict[object, list[Path]] = {}
    for path in storage_files(folder):
        with report.leaving_out("files"):
            by_task.setdefault(_task_in(path), []).append(path)
    for key, paths in by_task.items():
        names = [path.relative_to(folder).as_posix() for path in paths]
        if isinstance(key, Path):
            with report.leaving_out("files"):
                for position, item in enumerate(_items(key)):
                    yield f"tasks[{names[0]}][{position}]", as_task(item)
        else:
            tasks = [as_task(item) for path in paths for item in _items(path)]
            yield f"tasks[{', '.join(names)}]", _merged(tasks)


def _task_in(path: Path) -> object:
    """What is equal for the files of one task; the file itself if it has several, or no ids.

    Two servers give the same ids to other tasks: the data is looked at, too.
    """
    items = list(itertools.islice(_items(path), 2))
    task = as_task(items[0]) if len(items) == 1 else None
    if not isinstance(task, Mapping) or is_min(task):
        return path
    data, task_id = task.get("data"), task.get("id")
    if not isinstance(data, Mapping):
        rule = f"is no task, and no annotation with its task: it has the keys {sorted(task)[:20]}"
        raise InputError(str(path), rule)
    if task_id is None:
        return path
    try:
        text = json.dumps([task_id, data], sort_keys=True)
    except (RecursionError, ValueError) as error:
        raise InputError(str(path), f"the task's data cannot be read: {error}") from error
    return hashlib.sha256(text.encode("ascii")).digest()


def _merged(tasks: Sequence[Task]) -> Task:
    """One task with the annotations of all; of those with one id the one updated last."""
    if len(tasks) == 1:
        return tasks[0]
    annotations: dict[object, Any] = {}
    for number, task in enumerate(tasks):
        entries = task.get("annotations")
        for place, entry in enumerate(entries if isinstance(entries, list) else []):
            entry_id = entry.get("id") if isinstance(entry, Mapping) else None
            key = (number, place) if entry_id is None else str(entry_id)
            before = annotations.get(key)
            if before is None or updated(entry) >= updated(before):
                annotations[key] = entry
    return {**max(tasks, key=updated), "annotations": list(annotations.values())}
