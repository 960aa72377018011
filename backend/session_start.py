"""A task's regions -> what a session begins with.

What a person drew is a prompt, the masks that tracking left are frames that are
known already. On images, rectangles that tracking left say no mask, and are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Collection, Mapping, Sequence

import numpy as np

from backend.errors import BadRequest
from backend.prompts import session_frames
from backend.session_media import SessionOrigin
from backend.session_values import Prompts, Shown, check_object
from converters.label_studio.config import ImageControlKind, LabelConfig
from converters.label_studio.lifespan import read_lifespan
from converters.label_studio.paths import named
from converters.label_studio.regions import logit_of
from converters.label_studio.results import (
    ObjectRequest,
    frame_requests,
    image_kind_of,
    is_answer,
    item_index_of,
    labels_of,
    mask_of,
    track_id_of,
    video_requests,
)
from converters.label_studio.video_vector import stored_vector_masks, video_vector_requests
from converters.masks import encode_mask
from converters.types import MaskRLE, Prompt, VideoInfo

Result = Mapping[str, Any]

_MASK_KINDS = (
    ImageControlKind.BRUSH,
    ImageControlKind.BITMASK,
    ImageControlKind.POLYGON,
    ImageControlKind.VECTOR,
)
_UNKNOWN_SCORE = 1.0
"""The logit of an object whose score nobody noted: it is there."""


@dataclass
class KnownObject:
    """An object that there is before the session begins."""

    object_id: str
    labels: tuple[str, ...]
    prompts: dict[int, Prompts] = field(default_factory=dict)
    """By frame index."""
    shown: dict[int, Shown] = field(default_factory=dict)
    """By frame index; with its prompt where it was made from it."""

    def know(
        self,
        masks: Mapping[int, MaskRLE],
        scores: Mapping[int, float],
        marked: Collection[int],
    ) -> None:
        """What tracking left; on `marked` frames a session before had it from a person."""
        for index, mask in masks.items():
            if index in marked:
                self.prompts.setdefault(index, Prompts(mask=mask))
            self.show(index, mask, scores.get(index))

    def show(self, frame_index: int, mask: MaskRLE, score: float | None) -> None:
        logit = _UNKNOWN_SCORE if score is None else score
        self.shown[frame_index] = Shown(mask, logit, self.prompts.get(frame_index))


def known_objects(
    results: Sequence[object], origin: SessionOrigin, info: VideoInfo
) -> tuple[KnownObject, ...]:
    """The objects that the regions on the session's media show, in the regions' order.

    Raises ValueError or BadRequest naming the region and the rule for a malformed
    one, and without a label config.
    """
    config = origin.config
    if config is None or origin.tag_name is None:
        raise BadRequest("results need a label config that says what they are on")
    checked = [check_object(item, f"results[{number}]") for number, item in enumerate(results)]
    own = [r for r in checked if r.get("to_name") == origin.tag_name]
    if origin.is_video:
        return _on_video(own, config, origin.framerate, info)
    return _on_images(own, config, info)


def _on_video(
    results: Sequence[Result], config: LabelConfig, framerate: float, info: VideoInfo
) -> tuple[KnownObject, ...]:
    options: dict[str, Any] = {"config": config, "info": info, "framerate": framerate}
    objects: dict[str, KnownObject] = {}
    for request in video_requests(results, **options):
        item = objects[request.object_id] = _known(request)
        with named(f"region {request.object_id!r}"):
            span = read_lifespan(request.source_region, info, framerate)
        item.know(span.masks, span.scores, session_frames(request.source_region))
    for request in video_vector_requests(results, **options):
        if request.object_id in objects:
            raise ValueError(f"region {request.object_id!r}: there is more than one of this id")
        item = objects[request.object_id] = _known(request)
        with named(f"region {request.object_id!r}"):
            masks, scores = stored_vector_masks(request.source_region, info, framerate)
        item.know(masks, scores, session_frames(request.source_region))
    return tuple(objects.values())


def _on_images(
    results: Sequence[Result], config: LabelConfig, info: VideoInfo
) -> tuple[KnownObject, ...]:
    objects = {
        str(request.object_id): _known(request)
        for request in frame_requests(results, config=config, info=info)
    }
    pixels: dict[tuple[str, int], np.ndarray] = {}
    scores: dict[tuple[str, int], float | None] = {}
    for region in results:
        kind = image_kind_of(region)
        if kind not in _MASK_KINDS or not is_answer(region, kind):
            continue
        with named(f"region {region.get('id')!r}"):
            track = track_id_of(region)
            name = str(region.get("id") if track is None else track)
            labels = labels_of(region, (kind.result_type, "labels"))
            key = (name, item_index_of(region, info.frame_count))
            mask = mask_of(region, kind, (info.height, info.width))
        objects.setdefault(name, KnownObject(name, labels))
        pixels[key] = mask | pixels[key] if key in pixels else mask
        scores[key] = logit_of(region.get("score"))
    for (name, index), mask in pixels.items():
        if mask.any() and index not in objects[name].prompts:
            objects[name].show(index, encode_mask(mask), scores[name, index])
    return tuple(objects.values())


def _known(request: ObjectRequest) -> KnownObject:
    prompts = {prompt.frame_index: _prompts(prompt) for prompt in request.prompts}
    return KnownObject(str(request.object_id), request.labels, prompts)


def _prompts(prompt: Prompt) -> Prompts:
    points = zip(prompt.points_xy.tolist(), prompt.point_labels.tolist())
    return Prompts(
        tuple((x, y, bool(label)) for (x, y), label in points),
        prompt.box,
        None if prompt.mask is None else encode_mask(prompt.mask),
    )
