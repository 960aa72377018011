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

import contextlib
import itertools
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Iterator, Literal, Mapping, Sequence, get_args
from urllib.parse import parse_qs, unquote, urlsplit

import ijson
import numpy as np

from converters.label_studio.config import (
    ImageControlKind,
    LabelConfig,
    parse_label_config,
    resolve_framerate,
    resolve_value,
)
from converters.label_studio.keyframes import MAX_LS_FRAME, is_number
from converters.label_studio.lifespan import read_lifespan, rectangle_mask
from converters.label_studio.paths import InputError, at
from converters.label_studio.regions import logit_of
from converters.label_studio.results import (
    check_upright,
    image_kind_of,
    item_index_of,
    labels_beside_regions,
    labels_of,
    mask_of,
    rectangle_of,
    region_id_of,
    track_id_of,
)
from converters.label_studio.video_vector import read_video_vector
from converters.masks import check_mask, decode_mask, encode_mask, mask_area
from converters.types import AnnotatedVideo, MaskRLE, ObjectId, Prompt, Track, VideoInfo

logger = logging.getLogger(__name__)

Task = Mapping[str, Any]
StaleChoice = Literal["rectangle", "resegment", "leave-out"]
AnnotationChoice = Literal["one", "all"]
Source = Literal["annotations", "predictions", "drafts"]

_VIDEO_TYPES = ("videorectangle", "videovector", "videovectorlabels")
_VIDEO_ENDINGS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".ogv", ".mpg", ".mpeg"}
_IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_MAX_PIXELS = 1 << 27  # 16,384 x 8,192; a file may claim any size
_MAX_FRAMES_WITHOUT_VIDEO = 1_000_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MIN_ONLY_KEYS = ("annotation_id", "annotator", "lead_time")


@dataclass(frozen=True, eq=False)
class ResegmentRequest:
    """One object's stale frames, for a callback that tracks them again."""

    media: str
    """The video, as the task's data names it."""
    info: VideoInfo
    object_id: ObjectId
    prompts: tuple[Prompt, ...]
    """The boxes a person drew since the object was last tracked, sorted by frame."""
    masks: Mapping[int, MaskRLE]
    """frame index -> mask that is up to date, to start from."""
    frame_indices: tuple[int, ...]
    """The frames to fill, sorted."""


Resegment = Callable[[ResegmentRequest], Mapping[int, "MaskRLE | np.ndarray"]]
"""frame index -> mask ((H, W) bool or RLE); frames it leaves out show no object."""

VideoInfos = Callable[[str], VideoInfo | None]
"""A media reference, as the task's data has it -> what is known of it, or None.

Called for a video, and for the first of a task's images, of which only the
size counts."""


@dataclass(frozen=True)
class ExportOptions:
    """How exports are read. Values are checked when made."""

    label_config: LabelConfig | None = None
    """Without one, labels are not checked and the media is the only one in the data."""
    video_infos: VideoInfos | None = None
    """Without it, frames are taken to be the editor's, one each, and sizes to
    be as the regions say; right where the config's frame rate is the video's."""
    stale: StaleChoice = "rectangle"
    """What stands on frames whose mask is missing or out of date: the box that
    the editor shows, what `resegment` gives, or nothing. Always listed."""
    resegment: Resegment | None = None
    annotations: AnnotationChoice = "one"
    sources: tuple[Source, ...] = ("annotations",)

    def __post_init__(self) -> None:
        for name, choices in (("stale", StaleChoice), ("annotations", AnnotationChoice)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name}={getattr(self, name)!r} must be one of {list(get_args(choices))}"
                )
        unknown = [source for source in self.sources if source not in get_args(Source)]
        if unknown or not self.sources or isinstance(self.sources, str):
            raise ValueError(
                f"sources={self.sources!r} must hold one or more of {list(get_args(Source))}"
            )
        if (self.stale == "resegment") != (self.resegment is not None):
            raise ValueError(
                f"stale={self.stale!r} and resegment={self.resegment!r} must go together: "
                "the callback is called for stale='resegment', and for nothing else"
            )


@dataclass(frozen=True)
class DroppedRegion:
    """A region that is not in the video."""

    region_id: str | None
    reason: str


@dataclass(frozen=True, eq=False)
class ExportedVideo:
    """A video of an export, with all that is not as a person left it."""

    video: AnnotatedVideo
    task_id: int | str | None
    source: str
    """Which annotation: "annotations 11" (its kind and id)."""
    media: tuple[str, ...]
    """The video, or its frames, as the task's data names them."""
    stale: Mapping[ObjectId, tuple[int, ...]]
    """object id -> frames whose mask was missing or out of date, and which
    hold what `ExportOptions.stale` says."""
    hidden: Mapping[ObjectId, tuple[int, ...]]
    """object id -> frames whose mask is left out, as a person hid the object there."""
    dropped: tuple[DroppedRegion, ...]


@dataclass(frozen=True)
class SkippedTask:
    """A task that gave no video."""

    task_id: int | str | None
    reason: str


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
    logged as warnings; `read_export` gives them as values.

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
            logger.warning("video %s: region %s is left out: %s", name, region.region_id, region.reason)
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
            suffix = "" if options.annotations == "one" else f"-{kind}-{entry_id}"
            reader = _Reader(task, data, options, position, suffix)
            videos += reader.read(_results(annotation, path), f"{kind} {entry_id}")
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
                raise ValueError(
                    f"{path}: tasks[{position}] is not valid JSON: {error}"
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
        kept = [item for item in whole if not (item[1].get("was_cancelled") or item[1].get("skipped"))]
        if kept:
            return kept if options.annotations == "all" else [max(kept, key=_rank)]
        if len(whole) < len(entries):
            reasons.append(f"its {source} are in the file by id only")
        else:
            reasons.append(f"all {source} are cancelled" if whole else f"it has no {source}")
    return ", ".join(reasons)


def _rank(item: tuple[str, Mapping[str, Any]]) -> tuple[bool, str, float, int]:
    path, entry = item
    number = int(path[path.index("[") + 1 : -1])
    entry_id = entry.get("id")
    return bool(entry.get("ground_truth")), _updated(entry), entry_id if is_number(entry_id) else 0, number


def _updated(entry: Mapping[str, Any]) -> str:
    """ISO 8601 in UTC, as Label Studio writes it, sorts as text."""
    return str(entry.get("updated_at") or entry.get("created_at") or "")


def _id_text(annotation: Mapping[str, Any], path: str) -> str:
    entry_id = annotation.get("id")
    return path[path.index("[") + 1 : -1] if entry_id is None else str(entry_id)


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
    suffix = "" if options.annotations == "one" else f"-annotations-{record.get('annotation_id')}"
    reader = _Reader(record, record, options, position, suffix, is_min=True)
    return tuple(reader.read(results, f"annotations {record.get('annotation_id')}"))


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
        is_vector = bool(sequence) and isinstance(sequence[0], Mapping) and "vertices" in sequence[0]
        return "videovectorlabels" if is_vector else "videorectangle"
    return next((k.result_type for k in ImageControlKind if k.result_type in value), None)


# --- one annotation ----------------------------------------------------------


@dataclass(frozen=True)
class _Media:
    """What the regions of one `<Video>` or `<Image>` are on."""

    tag: str | None
    references: tuple[str, ...]
    is_video: bool
    framerate: float | None = None


@dataclass(frozen=True, eq=False)
class _Object:
    """What one object's regions came to."""

    track: Track
    stale: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()


Results = Sequence[tuple[str, Mapping[str, Any]]]


class _Reader:
    """Reads one annotation of one task."""

    def __init__(
        self,
        task: Task,
        data: Mapping[str, Any],
        options: ExportOptions,
        position: int,
        suffix: str,
        is_min: bool = False,
    ) -> None:
        self._task_id = _task_id(task)
        self._data = data
        self._options = options
        self._config = options.label_config
        self._label = f"{self._task_id if self._task_id is not None else position}"
        self._suffix = suffix
        self._is_min = is_min

    def read(self, results: Results, source: str) -> list[ExportedVideo | SkippedTask]:
        usable, dropped = [], []
        for path, result in results:
            with self._at(path):
                reason = self._why_dropped(result)
            if reason is None:
                usable.append((path, result))
            elif reason:
                region_id = result.get("id")
                dropped.append(DroppedRegion(region_id if isinstance(region_id, str) else None, reason))
        groups = self._by_media(usable)
        if not groups:
            media = self._media_of(None, is_video=None)
            if media is None:
                return [SkippedTask(self._task_id, "it has no region, and no media that could be named")]
            groups = [(media, [])]
        beside = labels_beside_regions([result for _, result in results])
        videos: list[ExportedVideo | SkippedTask] = []
        for number, (media, group) in enumerate(groups):
            info = self._info(media, group)
            if info is None:
                reason = "it has no region that says the picture's size; pass video_infos"
                videos.append(SkippedTask(self._task_id, reason))
                continue
            lost: list[DroppedRegion] = []
            read = self._video_objects if media.is_video else self._image_objects
            objects = read(group, media, info, beside, lost)
            videos.append(
                ExportedVideo(
                    video=AnnotatedVideo(
                        name=self._name(media, len(groups) > 1),
                        info=info,
                        tracks=tuple(item.track for item in objects),
                        file_names=self._file_names(media, len(groups) > 1),
                    ),
                    task_id=self._task_id,
                    source=source,
                    media=media.references,
                    stale={o.track.object_id: o.stale for o in objects if o.stale},
                    hidden={o.track.object_id: o.hidden for o in objects if o.hidden},
                    dropped=(*(dropped if number == 0 else ()), *lost),
                )
            )
        return videos

    @contextlib.contextmanager
    def _at(self, path: str) -> Iterator[None]:
        """JSON_MIN has no `value`: what lies under it lies in the item itself."""
        try:
            with at(path):
                yield
        except InputError as error:
            if not self._is_min:
                raise
            short = error.path.replace(f"{path}.value", path, 1)
            raise InputError(short, error.rule) from error

    # what is read

    def _why_dropped(self, result: Mapping[str, Any]) -> str | None:
        """None for a region that is read; "" for what is no region; else why it is not read."""
        kind = result.get("type")
        if kind in _VIDEO_TYPES:
            region_id_of(result)
            self._check_control(result)
            return None
        image_kind = image_kind_of(result)
        if image_kind is None:
            is_region = isinstance(result.get("value"), Mapping) and (
                {"x", "points", "vertices", "rle", "imageDataURL", "sequence"} & set(result["value"])
            )
            return f"regions of type {kind!r} are not read" if is_region else ""
        if image_kind is ImageControlKind.KEY_POINT:
            return "a key point has no mask"
        if self._is_on_video(result):
            return f"{image_kind} on a <Video> holds no mask that the editor could show"
        region_id_of(result)
        self._check_control(result)
        return None

    def _is_on_video(self, result: Mapping[str, Any]) -> bool:
        if self._config is not None:
            return any(video.name == result.get("to_name") for video in self._config.videos)
        value = result.get("value")
        return isinstance(value, Mapping) and "ranges" in value

    def _check_control(self, result: Mapping[str, Any]) -> None:
        if self._config is None:
            return
        with at("from_name"):
            control = self._control(result)
        if result.get("to_name") not in control.to_names:
            raise InputError(
                "to_name", f"{result.get('to_name')!r} must be one of {list(control.to_names)}"
            )

    def _control(self, result: Mapping[str, Any]) -> Any:
        assert self._config is not None
        name, kind = result.get("from_name"), result.get("type")
        if kind == "videorectangle":
            return self._config.video_rectangle(name)
        if kind in _VIDEO_TYPES:
            return self._config.video_vector(name)
        control = self._config.image_control(name)
        if control.kind.result_type != kind:
            raise ValueError(f"{name!r} is a {control.kind}, but the region is of type {kind!r}")
        return control

    def _labels(
        self, result: Mapping[str, Any], key: str, beside: Mapping[str, tuple[str, ...]]
    ) -> tuple[str, ...]:
        labels = labels_of(result, (key, "labels")) or beside.get(result["id"], ())
        if self._config is not None:
            with at(f"value.{key}"):
                self._control(result).check_labels(labels)
        return labels

    # the media

    def _by_media(self, results: Results) -> list[tuple[_Media, Results]]:
        """Regions by the tag they are on, in the order of their first ones."""
        groups: dict[object, list[tuple[str, Mapping[str, Any]]]] = {}
        for path, result in results:
            groups.setdefault(result.get("to_name"), []).append((path, result))
        found = []
        for name, group in groups.items():
            is_video = group[0][1].get("type") in _VIDEO_TYPES
            for path, result in group:
                if (result.get("type") in _VIDEO_TYPES) != is_video:
                    raise InputError(f"{path}.to_name", f"{name!r} has regions of videos and of images")
            media = self._media_of(name, is_video)
            assert media is not None
            found.append((media, group))
        return found

    def _media_of(self, name: object, is_video: bool | None) -> _Media | None:
        """The media of the tag of this name; of the first tag there is for None."""
        if self._config is None:
            return self._guessed_media(name, is_video)
        for tag in self._config.videos:
            if (tag.name == name and is_video) or name is None:
                reference = resolve_value(tag.value, self._data)
                return _Media(tag.name, (str(reference),), True, resolve_framerate(tag, self._data))
        for image in self._config.images:
            if (image.name == name and not is_video) or name is None:
                if image.value_list is None:
                    return _Media(image.name, (str(resolve_value(image.value or "", self._data)),), False)
                return _Media(image.name, self._frame_list(resolve_value(image.value_list, self._data)), False)
        raise ValueError(f"the label config has no tag named {name!r} for these regions")

    def _frame_list(self, frames: object) -> tuple[str, ...]:
        if isinstance(frames, str):
            frames = [part.strip() for part in frames.split(",")]
        if not isinstance(frames, list) or not frames or not all(isinstance(f, str) for f in frames):
            raise ValueError(f"the task's frames {str(frames)[:60]!r} must be a list of image names")
        return tuple(frames)

    def _guessed_media(self, name: object, is_video: bool | None) -> _Media | None:
        """The only media in the data that it can be."""
        texts = {k: v for k, v in self._data.items() if isinstance(v, str) and v}
        lists = {
            k: v for k, v in self._data.items()
            if isinstance(v, list) and v and all(isinstance(item, str) for item in v)
        }  # fmt: skip
        videos = [v for v in texts.values() if _ending(v) in _VIDEO_ENDINGS]
        images = [[v] for v in texts.values() if _ending(v) in _IMAGE_ENDINGS]
        frames = [*lists.values(), *images]
        tag = name if isinstance(name, str) else None
        if is_video is not False and len(videos) == 1:
            return _Media(tag, tuple(videos), True)
        if is_video is not True and len(lists) == 1:
            return _Media(tag, tuple(next(iter(lists.values()))), False)
        if is_video is not True and len(frames) == 1:
            return _Media(tag, tuple(frames[0]), False)
        if is_video is not None and len(texts) == 1 and not lists:
            return _Media(tag, tuple(texts.values()), is_video)
        if is_video is None:
            return None
        raise InputError(
            "data" if not self._is_min else "",
            f"fields {sorted(self._data)[:20]} do not say which is the "
            f"{'video' if is_video else 'image'}: pass the label config",
        )

    def _info(self, media: _Media, group: Results) -> VideoInfo | None:
        known = None
        if self._options.video_infos is not None and media.references:
            known = self._options.video_infos(media.references[0])
        if media.is_video:
            return known if known is not None else self._assumed_video_info(media, group)
        size = (known.height, known.width) if known is not None else self._original_size(group)
        if size is None:
            return None
        count = len(media.references)
        return VideoInfo(
            width=size[1],
            height=size[0],
            frame_count=count,
            fps=0.0,
            frame_times_seconds=tuple(map(float, range(count))),
            duration_seconds=float(count),
        )

    def _original_size(self, group: Results) -> tuple[int, int] | None:
        for path, result in group:
            size = result.get("original_height"), result.get("original_width")
            if size != (None, None):
                with self._at(path):
                    return _size_of(*size, "original_height")
        return None

    def _assumed_video_info(self, media: _Media, group: Results) -> VideoInfo | None:
        """A frame for each of the editor's, of the size of the embedded masks."""
        size, count = None, 0
        for path, result in group:
            with self._at(path):
                for number, item in enumerate(_sequence(result)):
                    with at(f"value.sequence[{number}]"):
                        size = size or _embedded_size(item)
                        count = max(count, _last_frame(item))
                _check_one_frame_each(_sequence(result))
                count = max(count, _frames_count(result))
        if size is None or not count:
            return None
        if count > _MAX_FRAMES_WITHOUT_VIDEO:
            raise ValueError(
                f"the regions speak of {count} frames, may be {_MAX_FRAMES_WITHOUT_VIDEO} "
                "where no video_infos say how many there are"
            )
        framerate = self._framerate(media, group)
        return VideoInfo(
            width=size[1],
            height=size[0],
            frame_count=count,
            fps=framerate,
            frame_times_seconds=tuple(i / framerate for i in range(count)),
            duration_seconds=count / framerate,
        )

    def _framerate(self, media: _Media, group: Results) -> float:
        """The config's; without one, what the keyframes' frame and time come to."""
        if media.framerate is not None:
            return media.framerate
        rates = [
            (item["frame"], item["frame"] / item["time"])
            for _, result in group
            for item in _sequence(result)
            if isinstance(item, Mapping)
            and is_number(item.get("frame"))
            and is_number(item.get("time"))
            and item["time"] > 0
        ]
        if rates:
            rate = max(rates)[1]
            # `time` has been through decimals: 24.999999 is 25.
            return float(round(rate)) if abs(rate - round(rate)) < 1e-3 and round(rate) else rate
        for _, result in group:
            value = result["value"]
            count, duration = value.get("framesCount"), value.get("duration")
            if is_number(count) and is_number(duration) and count > 0 and duration > 0:
                return count / duration
        return 24.0

    # objects on a video

    def _video_objects(
        self,
        group: Results,
        media: _Media,
        info: VideoInfo,
        beside: Mapping[str, tuple[str, ...]],
        lost: list[DroppedRegion],
    ) -> list[_Object]:
        framerate = self._framerate(media, group)
        objects: dict[str, _Object] = {}
        for path, region in group:
            with self._at(path):
                region_id = region_id_of(region)
                if region_id in objects:
                    raise InputError("id", f"{region_id!r} is that of an earlier region, must be unique")
                labels = self._labels(region, "labels", beside)
                if region["type"] != "videorectangle":
                    masks, scores = read_video_vector(region, info, framerate)
                    objects[region_id] = _Object(Track(region_id, labels, masks, scores))
                else:
                    objects[region_id] = self._rectangle_object(region, labels, media, info, framerate)
            if not objects[region_id].track.masks and not objects[region_id].stale:
                lost.append(DroppedRegion(region_id, "the editor shows it on no frame"))
                del objects[region_id]
        return list(objects.values())

    def _rectangle_object(
        self,
        region: Mapping[str, Any],
        labels: tuple[str, ...],
        media: _Media,
        info: VideoInfo,
        framerate: float,
    ) -> _Object:
        span = read_lifespan(region, info, framerate)
        masks = dict(span.masks)
        if span.stale and self._options.stale == "rectangle":
            for index in span.stale:
                mask = rectangle_mask(span.boxes[index], (info.height, info.width))
                if mask is not None:
                    masks[index] = mask
        elif span.stale and self._options.resegment is not None:
            request = ResegmentRequest(
                media=media.references[0],
                info=info,
                object_id=region["id"],
                prompts=tuple(
                    Prompt(region["id"], index, box=box) for index, box in span.drawn.items()
                ),
                masks=span.masks,
                frame_indices=span.stale,
            )
            masks.update(_resegmented(self._options.resegment(request), request))
        in_order = {index: masks[index] for index in sorted(masks)}
        return _Object(Track(region["id"], labels, in_order, span.scores), span.stale, span.hidden)

    # objects on images

    def _image_objects(
        self,
        group: Results,
        media: _Media,
        info: VideoInfo,
        beside: Mapping[str, tuple[str, ...]],
        lost: list[DroppedRegion],
    ) -> list[_Object]:
        if self._is_min and info.frame_count > 1 and group:
            raise ValueError(
                "JSON_MIN does not say which frame a region is on; export the project as JSON"
            )
        size_hw = (info.height, info.width)
        marks: dict[ObjectId, _Marks] = {}
        for path, region in group:
            with self._at(path):
                kind = image_kind_of(region)
                assert kind is not None
                check_upright(region)
                labels = self._labels(region, kind.result_type, beside)
                index = item_index_of(region, info.frame_count)
                if kind is ImageControlKind.RECTANGLE:
                    _check_region_size(region, size_hw)
                    rle = rectangle_mask(rectangle_of(region), size_hw)
                else:
                    _check_region_size(region, size_hw)
                    pixels = mask_of(region, kind, size_hw)
                    rle = encode_mask(pixels) if pixels.any() else None
                object_id = track_id_of(region)
            if rle is None:
                lost.append(DroppedRegion(region["id"], f"it has no pixel on frame {index}"))
                continue
            object_id = region["id"] if object_id is None else object_id
            is_box = kind is ImageControlKind.RECTANGLE
            marks.setdefault(object_id, _Marks()).add(index, rle, labels, region.get("score"), is_box)
        return [_Object(item.track(object_id)) for object_id, item in marks.items()]

    # names

    def _name(self, media: _Media, is_one_of_many: bool) -> str:
        """Unique in the export: it begins with the task's id."""
        first = PurePosixPath(_media_path(media.references[0]))
        stem = first.parent.name if len(media.references) > 1 else first.stem
        tag = f"-{media.tag}" if is_one_of_many and media.tag else ""
        text = re.sub(r"[^\w.-]+", "_", f"{self._label}-{stem}{tag}{self._suffix}")
        return text.strip("-.") or "task"

    def _file_names(self, media: _Media, is_one_of_many: bool) -> tuple[str, ...]:
        """On images `<name>/<image's own name>`, where these are unique; else none."""
        names = [PurePosixPath(_media_path(reference)).name for reference in media.references]
        if media.is_video or len(set(names)) < len(names) or not all(names):
            return ()
        folder = self._name(media, is_one_of_many)
        return tuple(f"{folder}/{name}" for name in names)


class _Marks:
    """One object's regions on images."""

    def __init__(self) -> None:
        self._masks: dict[int, MaskRLE] = {}
        self._boxes: dict[int, MaskRLE] = {}
        self._labels: dict[str, None] = {}
        self._scores: dict[int, float] = {}

    def add(
        self, index: int, mask: MaskRLE, labels: Sequence[str], score: object, is_box: bool
    ) -> None:
        into = self._boxes if is_box else self._masks
        into[index] = _united(into[index], mask) if index in into else mask
        self._labels.update(dict.fromkeys(labels))
        if (logit := logit_of(score)) is not None:
            self._scores.setdefault(index, logit)

    def track(self, object_id: ObjectId) -> Track:
        masks = {**self._boxes, **self._masks}
        in_order = {index: masks[index] for index in sorted(masks)}
        scores = {index: self._scores[index] for index in in_order if index in self._scores}
        return Track(object_id, tuple(self._labels), in_order, scores)


def _united(first: MaskRLE, second: MaskRLE) -> MaskRLE:
    return encode_mask(decode_mask(first) | decode_mask(second))


def _resegmented(
    found: Mapping[int, MaskRLE | np.ndarray], request: ResegmentRequest
) -> dict[int, MaskRLE]:
    """What the callback gave, checked; empty masks are left out."""
    size_hw = (request.info.height, request.info.width)
    masks: dict[int, MaskRLE] = {}
    for index, mask in found.items():
        where = f"resegment: object {request.object_id!r}, frame index {index}"
        if index not in request.frame_indices:
            raise ValueError(f"{where}: was not asked for")
        rle = mask if isinstance(mask, MaskRLE) else encode_mask(check_mask(mask))
        if (rle.height, rle.width) != size_hw:
            raise ValueError(f"{where}: mask has size {rle.height} x {rle.width}, must be {size_hw}")
        if mask_area(rle):
            masks[index] = rle
    return masks


# --- sizes and counts from the file ------------------------------------------


def _sequence(result: Mapping[str, Any]) -> list[Any]:
    sequence = result["value"].get("sequence")
    return sequence if isinstance(sequence, list) else []


def _size_of(height: object, width: object, path: str) -> tuple[int, int]:
    for value in (height, width):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(path, f"{value!r} must be an integer >= 1")
    assert isinstance(height, int) and isinstance(width, int)
    if height * width > _MAX_PIXELS:
        raise InputError(path, f"{height} x {width} must be at most {_MAX_PIXELS} pixels")
    return height, width


def _embedded_size(item: object) -> tuple[int, int] | None:
    """The size of a mask that a keyframe carries."""
    if not isinstance(item, Mapping):
        return None
    entries = [("mask", item.get("mask"))]
    if isinstance(item.get("masks"), Mapping):
        entries += [(f"masks.{key}", entry) for key, entry in item["masks"].items()]
    for path, entry in entries:
        size = entry.get("size") if isinstance(entry, Mapping) else None
        if isinstance(size, list) and len(size) == 2:
            return _size_of(size[0], size[1], f"{path}.size")
    return None


def _last_frame(item: object) -> int:
    """The highest frame, counted from 1, that a keyframe speaks of."""
    if not isinstance(item, Mapping):
        return 0
    frames = [item.get("frame")]
    if isinstance(item.get("masks"), Mapping):
        frames += [int(k) + 1 for k in item["masks"] if k.isascii() and k.isdigit() and len(k) < 9]
    return max((int(f) for f in frames if is_number(f) and f <= MAX_LS_FRAME), default=0)


def _check_one_frame_each(sequence: list[Any]) -> None:
    """Masks that ride on a keyframe are between it and the next, if frames are the editor's.

    Their keys are frames of the video, so that they tell when it has more or
    fewer of them. Raises InputError.
    """
    keyframes = [item for item in sequence if isinstance(item, Mapping)]
    for number, (item, following) in enumerate(zip(keyframes, keyframes[1:])):
        riding, here, there = item.get("masks"), item.get("frame"), following.get("frame")
        if number and isinstance(riding, Mapping) and is_number(here) and is_number(there):
            for key in riding:
                if key.isascii() and key.isdigit() and not here - 1 <= int(key) < there - 1:
                    raise InputError(
                        f"value.sequence[{number}].masks",
                        f"entry {key[:20]!r} is not between the frames of two keyframes: the "
                        "config's frame rate is not the video's, pass video_infos",
                    )


def _frames_count(result: Mapping[str, Any]) -> int:
    count = result["value"].get("framesCount")
    if count is None:
        return 0
    if not is_number(count) or count < 0 or count > MAX_LS_FRAME:
        raise InputError("value.framesCount", f"{count!r} must be from 0 to {MAX_LS_FRAME}")
    return int(count)


def _check_region_size(region: Mapping[str, Any], size_hw: tuple[int, int]) -> None:
    for name, right in zip(("original_height", "original_width"), size_hw):
        if region.get(name) is not None and region.get(name) != right:
            raise InputError(name, f"{region.get(name)!r} must be {right}, the picture's")


# --- media references --------------------------------------------------------


def _media_path(reference: str) -> str:
    """The path within a reference: of local files what follows `d=`."""
    parts = urlsplit(reference)
    local = parse_qs(parts.query).get("d")
    return unquote(local[0] if local else parts.path)


def _ending(reference: str) -> str:
    return PurePosixPath(_media_path(reference)).suffix.lower()
