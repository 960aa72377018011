"""COCO instance segmentation -> annotated videos; `converters.coco.load_coco` is the way in."""

from __future__ import annotations

import os
from typing import Any, Iterator

from converters.categories import is_crowd
from converters.coco_header import TRACK_KEYS, Header, Id, Image, read_header
from converters.json_stream import Location, Part, read_parts
from converters.json_values import BadValue, data_set_id, member
from converters.mask_store import MaskStore
from converters.reading import TrackBuilder, video_info
from converters.report import Report
from converters.segmentations import read_mask
from converters.types import AnnotatedVideo, ObjectId


def read_coco(path: str | os.PathLike[str], report: Report) -> Iterator[AnnotatedVideo]:
    """See `converters.coco.load_coco`."""
    header = read_header(path, report)
    annotations = _Annotations(header, report)
    for part in read_parts(path, ["annotations[]"]):
        with report.leaving_out("annotations"):
            annotations.add(part)
    categories = header.categories.categories
    for video, builder in zip(header.videos, annotations.builders):
        info = video_info(video.width, video.height, len(video.images), video.fps)
        names = (image.file_name for image in video.images)
        yield builder.video(video.name, info, names, categories)


class _Annotations:
    """Puts each annotation's mask to the video that its image is a frame of."""

    def __init__(self, header: Header, report: Report) -> None:
        store = MaskStore()
        self.builders = [TrackBuilder(store, video.height, video.width) for video in header.videos]
        self._header = header
        self._report = report
        self._places: dict[Id, tuple[int, int, Image]] = {
            image.image_id: (number, frame_index, image)
            for number, video in enumerate(header.videos)
            for frame_index, image in enumerate(video.images)
        }

    def add(self, part: Part) -> None:
        """Raises BadValue before anything is added."""
        annotation, where = part.value, part.location
        image_id = data_set_id(member(annotation, "image_id", where), (*where, "image_id"))
        image_id = self._header.aliases.get(image_id, image_id)
        if image_id not in self._places:
            if image_id in self._header.left_out:
                self._report.drop("annotations (of images that were left out)")
                return
            raise BadValue((*where, "image_id"), f"{image_id!r} is not the id of an image")
        number, frame_index, image = self._places[image_id]
        video = self._header.videos[number]
        object_id = _object_id(annotation, where)
        labels = self._header.categories.labels_of(annotation, where)
        crowd = is_crowd(annotation, where)
        mask = read_mask(
            annotation.get("segmentation"),
            annotation.get("bbox"),
            (video.height, video.width),
            (*where, "segmentation"),
            (*where, "bbox"),
            self._report,
        )
        try:
            self.builders[number].add(object_id, labels, frame_index, mask, is_crowd=crowd)
        except ValueError as error:
            raise BadValue(where, f"object {object_id!r} of image {image_id!r}: {error}") from None


def _object_id(annotation: dict[str, Any], where: Location) -> ObjectId:
    for keys in TRACK_KEYS:
        value: Any = annotation
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value not in (None, ""):
            return data_set_id(value, (*where, *keys))
    # No track: an object of this image alone, under a name no track id has.
    return f"annotation {data_set_id(member(annotation, 'id', where), (*where, 'id'))}"
