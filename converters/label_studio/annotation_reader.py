"""The results of one annotation -> annotated videos, one for each media they are on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

import numpy as np

from converters.label_studio.config import (
    ImageControl,
    ImageControlKind,
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
from converters.label_studio.lifespan import read_lifespan, rectangle_mask
from converters.label_studio.paths import InputError, at
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
    framerate_of,
    info_of,
    media_of,
)
from converters.label_studio.video_vector import read_video_vector
from converters.masks import check_mask, decode_mask, encode_mask, mask_area
from converters.types import AnnotatedVideo, MaskRLE, ObjectId, Prompt, Track, VideoInfo

_VIDEO_TYPES = ("videorectangle", "videovector", "videovectorlabels")
_SHAPES = {"x", "points", "vertices", "rle", "imageDataURL", "sequence"}
"""Fields of a `value` that make a result a region."""


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
    has_frames: bool = True
    """False for JSON_MIN, which does not say which frame a region is on."""


@dataclass(frozen=True, eq=False)
class _Object:
    """What one object's regions came to."""

    track: Track
    stale: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()


def read_annotation(
    results: Results, source: AnnotationSource, options: ExportOptions
) -> list[ExportedVideo | SkippedTask]:
    """One video for each media the regions are on; without regions, the task's first media.

    Raises InputError naming the path and the rule for malformed values.
    """
    usable, dropped = _sorted_out(results, options)
    groups = _by_media(usable, source, options)
    if not groups:
        media = media_of(None, None, source.data, options.label_config)
        if media is None:
            return [SkippedTask(source.task_id, "it has no region, and no media that is clear")]
        groups = [(media, [])]
    beside = labels_beside_regions([result for _, result in results])
    videos: list[ExportedVideo | SkippedTask] = []
    for media, group in groups:
        reader = _GroupReader(media, source, options, beside)
        name = media.name(
            source.task_name,
            (f"-{media.tag}" if len(groups) > 1 and media.tag else "") + source.name_suffix,
        )
        video = reader.read(group, name, tuple(dropped))
        dropped = []  # named once
        videos.append(video)
    return videos


# --- which results are regions -----------------------------------------------


def _sorted_out(
    results: Results, options: ExportOptions
) -> tuple[list[tuple[str, Mapping[str, Any]]], list[DroppedRegion]]:
    """The regions that are read, checked against the config, and those that are not."""
    usable, dropped = [], []
    for path, result in results:
        with at(path):
            reason = _why_dropped(result, options)
            if reason is None:
                region_id_of(result)
                _check_control(result, options)
                usable.append((path, result))
            elif reason:
                region_id = result.get("id")
                known_id = region_id if isinstance(region_id, str) else None
                dropped.append(DroppedRegion(known_id, reason))
    return usable, dropped


def _why_dropped(result: Mapping[str, Any], options: ExportOptions) -> str | None:
    """None for a region that is read; "" for what is no region; else why it is not read."""
    kind, value = result.get("type"), result.get("value")
    if kind in _VIDEO_TYPES:
        return None
    image_kind = image_kind_of(result)
    if image_kind is None:
        is_region = isinstance(value, Mapping) and bool(_SHAPES & set(value))
        return f"regions of type {kind!r} are not read" if is_region else ""
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


def _check_control(result: Mapping[str, Any], options: ExportOptions) -> None:
    if options.label_config is None:
        return
    control = _control(result, options)
    if result.get("to_name") not in control.to_names:
        raise InputError(
            "to_name", f"{result.get('to_name')!r} must be one of {list(control.to_names)}"
        )


def _control(
    result: Mapping[str, Any], options: ExportOptions
) -> VideoRectangleControl | VideoVectorControl | ImageControl:
    config, name, kind = options.label_config, result.get("from_name"), result.get("type")
    assert config is not None
    with at("from_name"):
        if kind == "videorectangle":
            return config.video_rectangle(name)
        if kind in _VIDEO_TYPES:
            return config.video_vector(name)
        control = config.image_control(name)
        if control.kind.result_type != kind:
            raise ValueError(f"{name!r} is a {control.kind}, but the region is of type {kind!r}")
        return control


def _by_media(
    results: Results, source: AnnotationSource, options: ExportOptions
) -> list[tuple[TaskMedia, Results]]:
    """Regions by the tag they are on, in the order of their first ones."""
    groups: dict[tuple[str, bool], list[tuple[str, Mapping[str, Any]]]] = {}
    for path, result in results:
        # JSON_MIN without a config has no names of tags.
        tag = str(result.get("to_name") or "")
        groups.setdefault((tag, result.get("type") in _VIDEO_TYPES), []).append((path, result))
    found = []
    for (tag, is_video), group in groups.items():
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

    def read(
        self, group: Results, name: str, dropped: tuple[DroppedRegion, ...]
    ) -> ExportedVideo | SkippedTask:
        info = info_of(self.media, group, self.options.video_infos)
        if info is None:
            reason = "it has no region that says the picture's size; pass video_infos"
            return SkippedTask(self.source.task_id, reason)
        read = self._video_objects if self.media.is_video else self._image_objects
        objects, lost = read(group, info)
        return ExportedVideo(
            video=AnnotatedVideo(
                name=name,
                info=info,
                tracks=tuple(item.track for item in objects),
                file_names=self.media.file_names(name),
                categories=self.options.label_config.categories if self.options.label_config else (),
            ),
            task_id=self.source.task_id,
            source=self.source.description,
            media=self.media.references,
            stale={o.track.object_id: o.stale for o in objects if o.stale},
            hidden={o.track.object_id: o.hidden for o in objects if o.hidden},
            dropped=(*dropped, *lost),
        )

    def _labels(self, result: Mapping[str, Any], key: str) -> tuple[str, ...]:
        labels = labels_of(result, (key, "labels")) or self.labels_beside.get(result["id"], ())
        if self.options.label_config is not None:
            control = _control(result, self.options)
            with at(f"value.{key}"):
                control.check_labels(labels)
        return labels

    # on a video

    def _video_objects(
        self, group: Results, info: VideoInfo
    ) -> tuple[list[_Object], list[DroppedRegion]]:
        framerate = framerate_of(self.media, group)
        objects: dict[str, _Object] = {}
        for path, region in group:
            with at(path):
                region_id = region["id"]
                if region_id in objects:
                    raise InputError(
                        "id", f"{region_id!r} is that of an earlier region, must be unique"
                    )
                labels = self._labels(region, "labels")
                if region["type"] == "videorectangle":
                    objects[region_id] = self._rectangle_object(region, labels, info, framerate)
                else:
                    masks, scores = read_video_vector(region, info, framerate)
                    objects[region_id] = _Object(Track(region_id, labels, masks, scores))
        shown = [item for item in objects.values() if item.track.masks or item.stale]
        lost = [
            DroppedRegion(region_id, "the editor shows it on no frame")
            for region_id, item in objects.items()
            if item not in shown
        ]
        return shown, lost

    def _rectangle_object(
        self,
        region: Mapping[str, Any],
        labels: tuple[str, ...],
        info: VideoInfo,
        framerate: float,
    ) -> _Object:
        span = read_lifespan(region, info, framerate)
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
                object_id=region["id"],
                prompts=tuple(
                    Prompt(region["id"], index, box=box) for index, box in span.drawn.items()
                ),
                masks=span.masks,
                frame_indices=span.stale,
            )
            masks.update(_resegmented(self.options.resegment(request), request))
        in_order = {index: masks[index] for index in sorted(masks)}
        return _Object(Track(region["id"], labels, in_order, span.scores), span.stale, span.hidden)

    # on images

    def _image_objects(
        self, group: Results, info: VideoInfo
    ) -> tuple[list[_Object], list[DroppedRegion]]:
        if group and not self.source.has_frames and info.frame_count > 1:
            raise ValueError(
                "JSON_MIN does not say which frame a region is on; export the project as JSON"
            )
        marks: dict[ObjectId, _Marks] = {}
        lost: list[DroppedRegion] = []
        for path, region in group:
            kind = image_kind_of(region)
            assert kind is not None
            with at(path):
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
