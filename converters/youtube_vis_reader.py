"""YouTube-VIS ground truth -> annotated videos; the way in is `youtube_vis.load_youtube_vis`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Iterator

from converters.json_stream import Location, Part, read_parts
from converters.json_values import (
    BadValue,
    finite,
    identifier,
    member,
    run_length_mask,
    text,
    texts,
    whole,
)
from converters.mask_store import MaskStore, StoredMasks
from converters.reading import folder_of, video_info
from converters.types import AnnotatedVideo, Track, VideoInfo

_Id = int | str
_SEGMENTATION = "annotations[].segmentations[]"


@dataclass
class _Video:
    name: str
    info: VideoInfo
    file_names: tuple[str, ...]
    tracks: dict[_Id, Track] = field(default_factory=dict)


def read_youtube_vis(path: str | os.PathLike[str]) -> Iterator[AnnotatedVideo]:
    """See `converters.youtube_vis.load_youtube_vis`."""
    videos, categories = _read_header(path)
    store = MaskStore()
    pending = _PendingObject(store)
    skip = ["annotations[].bboxes", "annotations[].areas"]
    for part in read_parts(path, [_SEGMENTATION, "annotations[]"], skip=skip):
        if part.pattern == _SEGMENTATION:
            pending.add(part)
        else:
            _finish(part, pending, videos, categories)
            pending = _PendingObject(store)
    for video in videos.values():
        tracks = tuple(video.tracks.values())
        yield AnnotatedVideo(video.name, video.info, tracks, video.file_names)


class _PendingObject:
    """An annotation's masks, which come before what they belong to is known."""

    def __init__(self, store: MaskStore) -> None:
        self._store = store
        self.masks: StoredMasks | None = None
        self.length = 0

    def add(self, part: Part) -> None:
        frame_index = self.length
        self.length += 1
        if part.value is None:
            return
        mask = run_length_mask(part.value, part.location)
        if self.masks is None:
            self.masks = StoredMasks(self._store, mask.height, mask.width)
        try:
            self.masks.add(frame_index, mask)
        except ValueError as error:
            raise BadValue(part.location, str(error)) from None


def _read_header(
    path: str | os.PathLike[str],
) -> tuple[dict[_Id, _Video], dict[_Id, str]]:
    videos: dict[_Id, _Video] = {}
    categories: dict[_Id, str] = {}
    for part in read_parts(path, ["videos[]", "categories[]"]):
        where = part.location
        number = identifier(member(part.value, "id", where), (*where, "id"))
        if number in (videos if part.pattern == "videos[]" else categories):
            raise BadValue((*where, "id"), f"{number!r} is used twice")
        if part.pattern == "videos[]":
            videos[number] = _video(part.value, number, where)
        else:
            categories[number] = text(member(part.value, "name", where), (*where, "name"))
    return videos, categories


def _video(value: dict[str, Any], number: _Id, where: Location) -> _Video:
    width, height = (
        whole(member(value, side, where), (*where, side), minimum=1) for side in ("width", "height")
    )
    file_names = texts(value.get("file_names") or [], (*where, "file_names"))
    length = whole(value.get("length", len(file_names)), (*where, "length"))
    if file_names and len(file_names) != length:
        raise BadValue((*where, "length"), f"is {length} for {len(file_names)} file_names")
    folder = folder_of(file_names[0]) if file_names else ""
    name = text(value.get("name") or folder or str(number), (*where, "name"))
    fps = finite(value.get("fps") or 0.0, (*where, "fps"))
    if fps < 0:
        raise BadValue((*where, "fps"), f"must be >= 0, is {fps}")
    return _Video(name, video_info(width, height, length, fps), file_names)


def _finish(
    part: Part, pending: _PendingObject, videos: dict[_Id, _Video], categories: dict[_Id, str]
) -> None:
    """Give the masks that came to their video as a track."""
    annotation, where = part.value, part.location
    video_id = identifier(member(annotation, "video_id", where), (*where, "video_id"))
    if video_id not in videos:
        raise BadValue((*where, "video_id"), f"{video_id!r} is not the id of a video")
    video = videos[video_id]
    category_id = identifier(member(annotation, "category_id", where), (*where, "category_id"))
    if category_id not in categories:
        raise BadValue((*where, "category_id"), f"{category_id!r} is not the id of a category")
    object_id = identifier(member(annotation, "id", where), (*where, "id"))
    if object_id in video.tracks:
        raise BadValue((*where, "id"), f"{object_id!r} is used twice")
    _check_masks(pending, video, (*where, "segmentations"))
    labels = {categories[category_id]: None}
    attributes = annotation.get("attributes")
    if isinstance(attributes, dict) and "labels" in attributes:
        given = texts(attributes["labels"], (*where, "attributes", "labels"))
        labels.update(dict.fromkeys(given))
    video.tracks[object_id] = Track(object_id, tuple(labels), pending.masks or {})


def _check_masks(pending: _PendingObject, video: _Video, where: Location) -> None:
    info = video.info
    if pending.length != info.frame_count:
        raise BadValue(
            where,
            f"has {pending.length} items, must have one for each of {info.frame_count} frames",
        )
    if pending.masks is not None and pending.masks.size_hw != (info.height, info.width):
        raise BadValue(
            where,
            f"are of size {pending.masks.size_hw[0]} x {pending.masks.size_hw[1]}, video "
            f"{video.name!r} has {info.height} x {info.width}",
        )
