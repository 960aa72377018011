"""The results of one annotation -> annotated videos, one for each media they are on.

Results go with their paths from the top of the file, so that one that is left
out can be named.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Sequence

import numpy as np

from converters.label_studio.config import (
    ImageControl,
    ImageControlKind,
    LabelConfig,
    VideoRectangleControl,
    VideoVectorControl,
)
from converters.label_studio.exported import (
    DroppedRegion,
    ExportedVideo,
    ExportOptions,
    ResegmentRequest,
    SkippedTask,
)
from converters.label_studio.lifespan import Lifespan, read_lifespan, rectangle_mask
from converters.label_studio.paths import InputError, at, joined
from converters.label_studio.regions import logit_of
from converters.label_studio.results import (
    check_original_size,
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
from converters.label_studio.task_media import (
    Results,
    TaskMedia,
    check_claims,
    framerate_of,
    info_of,
    media_of,
)
from converters.label_studio.video_vector import read_video_vector
from converters.masks import check_mask, decode_mask, encode_mask, mask_area
from converters.report import Report
from converters.types import AnnotatedVideo, MaskRLE, ObjectId, Prompt, Track, VideoInfo

_VIDEO_TYPES = ("videorectangle", "videovector", "videovectorlabels")
_SHAPES = {"x", "points", "vertices", "rle", "imageDataURL", "sequence"}
"""Fields of a `value` that make a result a region."""

_Control = VideoRectangleControl | VideoVectorControl | ImageControl


@dataclass(frozen=True)
class AnnotationSource:
    """Where the results of one annotation come from."""

    task_id: int | str | None
    task_name: str
    """What the videos' names begin with."""
    name_suffix: str
    description: str
    """"annotations 11": its kind and id."""
    data: Mapping[str, Any]
    """The task's data."""
    where: str
    """The task's path."""
    is_min: bool = False
    """True for JSON_MIN, which does not say which frame a region is on."""

    @contextlib.contextmanager
    def at(self, path: str) -> Iterator[None]:
        """Puts the path of a result in front of the paths of errors raised within."""
        try:
            with at(""):
                yield
        except InputError as error:
            inner = error.path
            if self.is_min and inner.partition(".")[0] == "value":
                # What lies under `value` elsewhere lies in the item itself here.
                inner = inner.partition(".")[2]
            raise InputError(joined(path, inner), error.rule) from error


@dataclass(frozen=True, eq=False)
class _Object:
    """What one object's regions came to."""

    track: Track
    stale: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()


def read_annotation(
    results: Sequence[tuple[str, Any]],
    source: AnnotationSource,
    options: ExportOptions,
    report: Report,
) -> list[ExportedVideo | SkippedTask]:
    """One video for each media the regions are on; without regions, the task's first media.

    Malformed regions are left out and counted in `report`, as are videos that
    nothing can be read of. Raises InputError, naming the path and the rule, for
    a task without the media that the label config names, and with a strict
    report for the first malformed value.
    """
    usable, dropped = _sorted_out(results, source, options, report)
    if usable:
        groups = _by_media(usable, source, options, report)
    else:
        with at(source.where):
            media = media_of(None, None, source.data, options.label_config)
        if media is None:
            reason = "it has no region, and no media that is clear"
            return [SkippedTask(source.task_id, reason, tuple(dropped))]
        groups = [(media, [])]
    beside = _labels_beside(results, source, report)
    videos: list[ExportedVideo | SkippedTask] = []
    for media, group in groups:
        reader = _GroupReader(media, source, options, beside, report)
        name = media.name(
            source.task_name,
            (f"-{media.tag}" if len(groups) > 1 and media.tag else "") + source.name_suffix,
        )
        with report.leaving_out("videos"):
            videos.append(reader.read(group, name, tuple(dropped)))
            dropped = []  # named once
    if dropped:
        reason = "nothing on its media can be read"
        return [SkippedTask(source.task_id, reason, tuple(dropped))]
    return videos


# --- which results are regions -----------------------------------------------


def marks_something(result: object) -> bool:
    """Whether a result is a region, of a type that is read or not."""
    value = result.get("value") if isinstance(result, Mapping) else None
    return isinstance(value, Mapping) and bool(_SHAPES & set(value))


def _sorted_out(
    results: Sequence[tuple[str, Any]],
    source: AnnotationSource,
    options: ExportOptions,
    report: Report,
) -> tuple[list[tuple[str, Mapping[str, Any]]], list[DroppedRegion]]:
    """The regions that are read, each with an id, and those that are not, though well-formed."""
    objects = []
    for number, (path, result) in enumerate(results):
        with report.leaving_out("regions"), source.at(path):
            if not isinstance(result, Mapping):
                raise ValueError(f"{str(result)[:60]!r} must be an object")
            objects.append((number, path, result, _why_dropped(result, options)))
    ids = {_text_id(result) for _, _, result, reason in objects if reason is None}
    usable, dropped = [], []
    for number, path, result, reason in objects:
        if reason is None:
            with report.leaving_out("regions"), source.at(path):
                result = _with_id(result, number, ids, report)
                _check_control(result, options, report)
                usable.append((path, result))
        elif reason and (_text_id(result) is None or _text_id(result) not in ids):
            # Answers to questions about a region repeat its id and place.
            dropped.append(DroppedRegion(_text_id(result), reason))
    return usable, dropped


def _text_id(result: Mapping[str, Any]) -> str | None:
    """A number as text; None where there is no id."""
    region_id = result.get("id")
    if isinstance(region_id, int) and not isinstance(region_id, bool):
        return str(region_id)
    return region_id if isinstance(region_id, str) and region_id else None


def _why_dropped(result: Mapping[str, Any], options: ExportOptions) -> str | None:
    """None for a region that is read; "" for what is no region; else why it is not read."""
    kind, value = result.get("type"), result.get("value")
    if kind in _VIDEO_TYPES:
        return None
    image_kind = image_kind_of(result)
    if image_kind is None:
        return f"regions of type {kind!r} are not read" if marks_something(result) else ""
    if image_kind is ImageControlKind.KEY_POINT:
        return "a key point has no mask"
    if options.label_config is not None:
        names = [video.name for video in options.label_config.videos]
        is_on_video = result.get("to_name") in names
    else:
        is_on_video = isinstance(value, Mapping) and "ranges" in value
    if is_on_video:
        return f"{image_kind} on a <Video> holds no mask that the editor could show"
    return None


def _with_id(
    result: Mapping[str, Any], number: int, ids: set[str | None], report: Report
) -> Mapping[str, Any]:
    """The region, with an id of its place among the results where it has none.

    Raises InputError for a region without a value, and with a strict report
    for one whose id is no text.
    """
    region_id = result.get("id")
    is_number = isinstance(region_id, int) and not isinstance(region_id, bool)
    if not report.strict and (region_id in (None, "") or is_number):
        new = _text_id(result)
        if new is None:
            new = f"region-{number}"
            while new in ids:
                new += "'"
        ids.add(new)
        report.change("regions without an id of text, which were given one")
        result = {**result, "id": new}
    region_id_of(result)
    return result


def _labels_beside(
    results: Sequence[tuple[str, Any]], source: AnnotationSource, report: Report
) -> dict[str, tuple[str, ...]]:
    beside: dict[str, tuple[str, ...]] = {}
    for path, result in results:
        if isinstance(result, Mapping):
            with report.leaving_out("labels"), source.at(path):
                beside.update(labels_beside_regions([result]))
    return beside


# --- a label config that is no longer that of the regions ----------------------


@contextlib.contextmanager
def _kept_though(report: Report, what: str) -> Iterator[None]:
    """A region that the label config no longer allows is kept as it is, and counted."""
    try:
        yield
    except InputError:
        if report.strict:
            raise
        report.change(what)


def _check_control(result: Mapping[str, Any], options: ExportOptions, report: Report) -> None:
    if options.label_config is None:
        return
    with _kept_though(report, "regions of a control that the label config no longer has, kept"):
        control = _control(result, options.label_config)
        if result.get("to_name") not in control.to_names:
            raise InputError(
                "to_name", f"{result.get('to_name')!r} must be one of {list(control.to_names)}"
            )


def _control(result: Mapping[str, Any], config: LabelConfig) -> _Control:
    """Raises InputError where the config has no such control for regions of this type."""
    name, kind = result.get("from_name"), result.get("type")
    with at("from_name"):
        if kind == "videorectangle":
            return config.video_rectangle(name)
        if kind in _VIDEO_TYPES:
            return config.video_vector(name)
        control = config.image_control(name)
        if control.kind.result_type != kind:
            raise ValueError(f"{name!r} is a {control.kind}, but the region is of type {kind!r}")
        return control


def _tag_of(result: Mapping[str, Any], is_video: bool, config: LabelConfig | None) -> str:
    """The tag that a region is on; where the config has no such tag any more, the only one."""
    # JSON_MIN without a config has no names of tags.
    name = str(result.get("to_name") or "")
    if config is None:
        return name
    names = [tag.name for tag in (config.videos if is_video else config.images)]
    return names[0] if name not in names and len(names) == 1 else name


def _by_media(
    results: Results, source: AnnotationSource, options: ExportOptions, report: Report
) -> list[tuple[TaskMedia, Results]]:
    """Regions by the tag they are on, in the order of their first ones."""
    groups: dict[tuple[str, bool], list[tuple[str, Mapping[str, Any]]]] = {}
    for path, result in results:
        is_video = result.get("type") in _VIDEO_TYPES
        tag = _tag_of(result, is_video, options.label_config)
        groups.setdefault((tag, is_video), []).append((path, result))
    found = []
    for (tag, is_video), group in groups.items():
        with report.leaving_out("videos"), at(source.where):
            media = media_of(tag, is_video, source.data, options.label_config)
            assert media is not None
            found.append((media, group))
    return found


# --- the regions on one media ------------------------------------------------


@dataclass(frozen=True)
class _GroupReader:
    """Reads the regions on one media."""

    media: TaskMedia
    source: AnnotationSource
    options: ExportOptions
    labels_beside: Mapping[str, tuple[str, ...]]
    report: Report

    def read(
        self, group: Results, name: str, dropped: tuple[DroppedRegion, ...]
    ) -> ExportedVideo | SkippedTask:
        config, infos = self.options.label_config, self.options.video_infos
        known = infos(self.media.references[0]) if infos is not None else None
        if known is None:
            group = self._believable(group)
        info = info_of(self.media, group, known)
        if info is None:
            reason = "it has no region that says the picture's size; pass video_infos"
            return SkippedTask(self.source.task_id, reason, dropped)
        read = self._video_objects if self.media.is_video else self._image_objects
        objects, lost = read(group, info)
        return ExportedVideo(
            video=AnnotatedVideo(
                name=name,
                info=info,
                tracks=tuple(item.track for item in objects),
                file_names=self.media.file_names(name),
                categories=() if config is None else config.categories,
            ),
            task_id=self.source.task_id,
            source=self.source.description,
            media=self.media.references,
            stale={o.track.object_id: o.stale for o in objects if o.stale},
            hidden={o.track.object_id: o.hidden for o in objects if o.hidden},
            dropped=(*dropped, *lost),
        )

    def _believable(self, group: Results) -> Results:
        """Without those whose size or frames no media has: the others say what the media is."""
        kept = []
        for path, region in group:
            with self.report.leaving_out("regions"), self.source.at(path):
                check_claims(region, is_video=self.media.is_video)
                kept.append((path, region))
        return kept

    def _labels(self, result: Mapping[str, Any], key: str) -> tuple[str, ...]:
        """As the label config has them: by their aliases, where it gives them any."""
        labels = labels_of(result, (key, "labels")) or self.labels_beside.get(result["id"], ())
        config = self.options.label_config
        if config is None:
            return labels
        try:
            control = _control(result, config)
        except InputError:  # counted before
            return labels
        aliases = [control.alias_of(label) for label in labels]
        self.report.change(
            "labels, written as their aliases of the label config",
            sum(alias != label for alias, label in zip(aliases, labels)),
        )
        with _kept_though(
            self.report, "regions with a label that the label config no longer has, kept"
        ), at(f"value.{key}"):
            control.check_labels(aliases)
        return tuple(dict.fromkeys(aliases))

    # on a video

    def _video_objects(
        self, group: Results, info: VideoInfo
    ) -> tuple[list[_Object], list[DroppedRegion]]:
        framerate = framerate_of(self.media, group)
        objects: dict[str, _Object] = {}
        for path, region in group:
            region_id, span = region["id"], None
            with self.report.leaving_out("regions"), self.source.at(path):
                if region_id in objects:
                    raise InputError(
                        "id", f"{region_id!r} is that of an earlier region, must be unique"
                    )
                labels = self._labels(region, "labels")
                if region["type"] == "videorectangle":
                    span = read_lifespan(region, info, framerate)
                else:
                    masks, scores = read_video_vector(region, info, framerate)
                    objects[region_id] = _Object(Track(region_id, labels, masks, scores))
            if span is not None:
                # What the callback raises is no fault of the region's.
                objects[region_id] = self._rectangle_object(region_id, labels, span, info)
        shown = [item for item in objects.values() if item.track.masks or item.stale]
        lost = [
            DroppedRegion(region_id, "the editor shows it on no frame")
            for region_id, item in objects.items()
            if item not in shown
        ]
        return shown, lost

    def _rectangle_object(
        self, region_id: str, labels: tuple[str, ...], span: Lifespan, info: VideoInfo
    ) -> _Object:
        masks = dict(span.masks)
        if span.stale and self.options.stale == "rectangle":
            for index in span.stale:
                mask = rectangle_mask(span.boxes[index], (info.height, info.width))
                if mask is not None:
                    masks[index] = mask
        elif span.stale and self.options.resegment is not None:
            request = ResegmentRequest(
                media=self.media.references[0],
                info=info,
                object_id=region_id,
                prompts=tuple(
                    Prompt(region_id, index, box=box) for index, box in span.drawn.items()
                ),
                masks=span.masks,
                frame_indices=span.stale,
            )
            masks.update(_resegmented(self.options.resegment(request), request))
        in_order = {index: masks[index] for index in sorted(masks)}
        return _Object(Track(region_id, labels, in_order, span.scores), span.stale, span.hidden)

    # on images

    def _image_objects(
        self, group: Results, info: VideoInfo
    ) -> tuple[list[_Object], list[DroppedRegion]]:
        if group and self.source.is_min and info.frame_count > 1:
            raise InputError(
                self.source.where,
                "JSON_MIN does not say which frame a region is on; export the project as JSON",
            )
        marks: dict[ObjectId, _Marks] = {}
        lost: list[DroppedRegion] = []
        met: set[tuple[str, int]] = set()
        for path, region in group:
            kind = image_kind_of(region)
            assert kind is not None
            with self.report.leaving_out("regions"), self.source.at(path):
                labels = self._labels(region, kind.result_type)
                index = item_index_of(region, info.frame_count)
                mask = _mask_on_image(region, kind, (info.height, info.width))
                track_id = track_id_of(region)
                if mask is None:
                    lost.append(DroppedRegion(region["id"], f"it has no pixel on frame {index}"))
                    continue
                object_id = region["id"] if track_id is None else track_id
                is_box = kind is ImageControlKind.RECTANGLE
                of_object = marks.setdefault(object_id, _Marks())
                of_object.add(index, mask, labels, region.get("score"), is_box=is_box)
                if (region["id"], index) in met:
                    self.report.change("regions united with one of the same id and frame")
                met.add((region["id"], index))
        return [_Object(item.track(object_id)) for object_id, item in marks.items()], lost


def _mask_on_image(
    region: Mapping[str, Any], kind: ImageControlKind, size_hw: tuple[int, int]
) -> MaskRLE | None:
    """The region's pixels; None when there is none."""
    check_upright(region)
    check_original_size(region, size_hw)
    if kind is ImageControlKind.RECTANGLE:
        return rectangle_mask(rectangle_of(region), size_hw)
    pixels = mask_of(region, kind, size_hw)
    return encode_mask(pixels) if pixels.any() else None


class _Marks:
    """One object's regions on images."""

    def __init__(self) -> None:
        self._masks: dict[int, MaskRLE] = {}
        self._boxes: dict[int, MaskRLE] = {}
        self._labels: dict[str, None] = {}
        self._scores: dict[int, float] = {}

    def add(
        self, index: int, mask: MaskRLE, labels: Sequence[str], score: object, *, is_box: bool
    ) -> None:
        into = self._boxes if is_box else self._masks
        if index in into:
            mask = encode_mask(decode_mask(into[index]) | decode_mask(mask))
        into[index] = mask
        self._labels.update(dict.fromkeys(labels))
        if (logit := logit_of(score)) is not None:
            self._scores.setdefault(index, logit)

    def track(self, object_id: ObjectId) -> Track:
        masks = {**self._boxes, **self._masks}
        in_order = {index: masks[index] for index in sorted(masks)}
        scores = {index: self._scores[index] for index in in_order if index in self._scores}
        return Track(object_id, tuple(self._labels), in_order, scores)


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
            raise ValueError(
                f"{where}: mask has size {rle.height} x {rle.width}, must be "
                f"{size_hw[0]} x {size_hw[1]}"
            )
        if mask_area(rle):
            masks[index] = rle
    return masks
