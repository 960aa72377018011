"""Annotated videos -> Label Studio tasks with predictions, ready to import.

Where the masks go follows from the config and the task's data: to every
`<Video>` and `<Image>` whose field is in the data. On a `<Video>` a track is
one VideoRectangle with the masks in its keyframes (Enterprise: one
VideoVector); on an `<Image>` it is one region a frame.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence, TypeVar

from converters.label_studio.config import (
    ImageControl,
    ImageControlKind,
    ImageTag,
    LabelConfig,
    VideoRectangleControl,
    VideoTag,
    VideoVectorControl,
    parse_label_config,
    resolve_framerate,
    resolve_value,
)
from converters.label_studio.paths import named
from converters.label_studio.regions import (
    KeyframeChoice,
    track_to_frame_regions,
    track_to_video_region,
)
from converters.label_studio.video_vector import track_to_video_vector_region
from converters.types import AnnotatedVideo, Track, VideoInfo

logger = logging.getLogger(__name__)

MediaUrls = Callable[[AnnotatedVideo], str | Sequence[str] | Mapping[str, Any]]
"""What Label Studio opens for a video: the URL of its file, those of its
frames in order, or the whole of the task's data for a config that needs more."""

_OUTPUT_KINDS = (
    ImageControlKind.BRUSH,
    ImageControlKind.BITMASK,
    ImageControlKind.VECTOR,
    ImageControlKind.POLYGON,
    ImageControlKind.RECTANGLE,
)
"""What can carry a mask on images, the most exact first."""

_FIELD_ALONE = re.compile(r"\$(\w+)")


def to_tasks(
    videos: Iterable[AnnotatedVideo],
    *,
    label_config: str,
    media_urls: MediaUrls,
    keyframes: KeyframeChoice = "thin",
    min_iou: float = 0.9,
    image_control: str | None = None,
    polygon_tolerance_pixels: float = 1.0,
    model_version: str = "sam2-label-studio",
) -> Iterator[dict[str, Any]]:
    """One task a video, in order: `{"data": …, "predictions": [one]}`.

    `label_config` is the project's XML; its labels must include the tracks'.
    A `$field` for the frame rate that the data lacks is filled with the
    video's. `keyframes` and `min_iou` are those of
    `regions.track_to_video_region`. On images `image_control` names the
    control that takes the masks; without it the first of BrushLabels,
    BitmaskLabels, VectorLabels, PolygonLabels, RectangleLabels that has the
    track's labels. A track that the editor can show on no frame is left out, and
    logged.

    Raises ValueError naming the video for media that the config has no place
    for, a number of frames other than the video's, an unknown label, a track
    that makes no region, or object ids that are the same as text.
    """
    config = parse_label_config(label_config)
    if image_control is not None:
        config.image_control(image_control)
    writer = _Writer(config, keyframes, min_iou, image_control, polygon_tolerance_pixels)

    def tasks() -> Iterator[dict[str, Any]]:
        for video in videos:
            with named(f"video {video.name!r}"):
                data = _task_data(video, config, media_urls(video))
                regions = writer.regions(video, data)
            scores = [region["score"] for region in regions if "score" in region]
            prediction: dict[str, Any] = {"model_version": model_version, "result": regions}
            if scores:
                prediction["score"] = round(sum(scores) / len(scores), 6)
            yield {"data": data, "predictions": [prediction]}

    return tasks()


# --- the task's data ---------------------------------------------------------


def _task_data(
    video: AnnotatedVideo, config: LabelConfig, media: str | Sequence[str] | Mapping[str, Any]
) -> dict[str, Any]:
    if isinstance(media, Mapping):
        data = dict(media)
    elif isinstance(media, str):
        data = {_field_for_one(config): media}
    else:
        data = {_field_for_frames(config): list(media)}
    for tag in config.videos:
        field = _FIELD_ALONE.fullmatch(tag.framerate)
        is_missing = field is not None and data.get(field.group(1)) is None
        # The editor takes a value below 1 for seconds a frame.
        if is_missing and _is_in(tag.value, data) and video.info.fps >= 1:
            data[field.group(1)] = video.info.fps
    return data


def _field_for_one(config: LabelConfig) -> str:
    """The field of the only Video, else of the only Image of one picture."""
    templates = [tag.value for tag in config.videos]
    templates = templates or [tag.value for tag in config.images if tag.value is not None]
    return _only_field(templates, "<Video>, or <Image> with a value")


def _field_for_frames(config: LabelConfig) -> str:
    templates = [tag.value_list for tag in config.images if tag.value_list is not None]
    return _only_field(templates, "<Image> with a valueList")


def _only_field(templates: Sequence[str], what: str) -> str:
    fields = {match.group(1) for t in templates if (match := _FIELD_ALONE.fullmatch(t))}
    if len(fields) != 1:
        raise ValueError(
            f"the label config must have one {what} that is one $field, has "
            f"{list(templates)}; give the task's data as a mapping instead"
        )
    return fields.pop()


def _is_in(template: str, data: Mapping[str, Any]) -> bool:
    try:
        return bool(resolve_value(template, data)) and "$" in template
    except ValueError:
        return False


# --- its regions -------------------------------------------------------------


@dataclass(frozen=True)
class _Writer:
    """The options of `to_tasks`, and what they make of a video."""

    config: LabelConfig
    keyframes: KeyframeChoice
    min_iou: float
    image_control: str | None
    polygon_tolerance_pixels: float

    def regions(self, video: AnnotatedVideo, data: Mapping[str, Any]) -> list[dict[str, Any]]:
        _check_ids(video)
        regions: list[dict[str, Any]] = []
        had_place = False
        for tag in self.config.videos:
            rectangles = _on(tag, self.config.video_rectangles)
            vectors = _on(tag, self.config.video_vectors)
            if _is_in(tag.value, data) and (rectangles or vectors):
                had_place = True
                framerate = resolve_framerate(tag, data)
                for track in video.tracks:
                    region = self._video_region(track, video.info, framerate, rectangles, vectors)
                    if region is not None:
                        regions.append({**region, "to_name": tag.name})
                    elif track.masks:
                        logger.warning(
                            "video %s: object %s is left out: at %g frames a second the editor "
                            "shows none of its frames", video.name, track.object_id, framerate,
                        )  # fmt: skip
        for image in self.config.images:
            template = image.value_list if image.value_list is not None else image.value or ""
            controls = self._image_controls(image)
            if _is_in(template, data) and controls:
                had_place = True
                _check_frames(video, resolve_value(template, data), image)
                for track in video.tracks:
                    regions += track_to_frame_regions(
                        track,
                        control=_with_labels(controls, track),
                        info=video.info,
                        to_name=image.name,
                        polygon_tolerance_pixels=self.polygon_tolerance_pixels,
                    )
        if not had_place:
            raise ValueError(
                f"the task's data has {sorted(data)}, which fills no <Video> or <Image> of the "
                "label config that takes masks"
            )
        return regions

    def _video_region(
        self,
        track: Track,
        info: VideoInfo,
        framerate: float,
        rectangles: Sequence[VideoRectangleControl],
        vectors: Sequence[VideoVectorControl],
    ) -> dict[str, Any] | None:
        if rectangles:
            return track_to_video_region(
                track,
                control=_with_labels(rectangles, track),
                info=info,
                framerate=framerate,
                keyframes=self.keyframes,
                min_iou=self.min_iou,
            )
        return track_to_video_vector_region(
            track,
            control=_with_labels(vectors, track),
            info=info,
            framerate=framerate,
            polygon_tolerance_pixels=self.polygon_tolerance_pixels,
        )

    def _image_controls(self, image: ImageTag) -> list[ImageControl]:
        """Controls on the image that take masks, the most exact first."""
        return [
            control
            for kind in _OUTPUT_KINDS
            for control in _on(image, self.config.image_controls_of(kind))
            if self.image_control in (None, control.name)
        ]


_Control = TypeVar("_Control", VideoRectangleControl, VideoVectorControl, ImageControl)


def _on(tag: VideoTag | ImageTag, controls: Sequence[_Control]) -> list[_Control]:
    return [control for control in controls if tag.name in control.to_names]


def _with_labels(controls: Sequence[_Control], track: Track) -> _Control:
    """The first control that has the track's labels; else the first, which says what it lacks."""
    for control in controls:
        if control.has_dynamic_labels or set(track.labels) <= set(control.labels):
            return control
    return controls[0]


def _check_ids(video: AnnotatedVideo) -> None:
    """Region ids are text: 1 and "1" would be one region."""
    ids = [str(track.object_id) for track in video.tracks]
    repeated = sorted({object_id for object_id in ids if ids.count(object_id) > 1})
    if repeated or "" in ids:
        raise ValueError(
            f"object ids {repeated or ['']} must be different as text, and not empty: they "
            "become region ids"
        )


def _check_frames(video: AnnotatedVideo, media: object, image: ImageTag) -> None:
    count = 1 if image.value_list is None else len(media) if isinstance(media, list) else 0
    if count != video.info.frame_count:
        raise ValueError(
            f"<Image name={image.name!r}> gets {count} images, must get one for each of "
            f"the video's {video.info.frame_count} frames"
        )
