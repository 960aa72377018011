"""COCO instance segmentation -> annotated videos; `converters.coco.load_coco` is the way in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Iterator, Mapping, Sequence

from converters.json_stream import Location, Part, read_parts
from converters.json_values import (
    BadValue,
    array,
    finite,
    identifier,
    member,
    polygon_mask,
    run_length_mask,
    text,
    texts,
    whole,
)
from converters.mask_store import MaskStore
from converters.reading import TrackBuilder, folder_of, natural_order, video_info
from converters.report import Report
from converters.types import AnnotatedVideo, MaskRLE, ObjectId

_Id = int | str


@dataclass(frozen=True, slots=True)
class _Image:
    image_id: _Id
    file_name: str
    width: int
    height: int
    video_id: _Id | None
    frame_id: int | None
    position: int
    """In the file's `images`."""

    @property
    def location(self) -> Location:
        return ("images", self.position)


@dataclass(frozen=True)
class _Video:
    name: str
    fps: float
    images: tuple[_Image, ...]
    """In the order of the frames."""
    width: int
    height: int


@dataclass(frozen=True)
class _Header:
    """All of the file but its annotations."""

    images: tuple[_Image, ...]
    videos: dict[_Id, tuple[dict[str, Any], Location]]
    categories: dict[_Id, str]


def read_coco(path: str | os.PathLike[str], report: Report) -> Iterator[AnnotatedVideo]:
    """See `converters.coco.load_coco`."""
    header = _read_header(path)
    videos = _group(header, path)
    store = MaskStore()
    builders = [TrackBuilder(store, video.height, video.width) for video in videos]
    places = {
        image.image_id: (number, frame_index, image)
        for number, video in enumerate(videos)
        for frame_index, image in enumerate(video.images)
    }
    for part in read_parts(path, ["annotations[]"]):
        with report.leaving_out("annotations"):
            _add_annotation(part, header, places, builders)
    for video, builder in zip(videos, builders):
        info = video_info(video.width, video.height, len(video.images), video.fps)
        yield builder.video(video.name, info, (image.file_name for image in video.images))


def _add_annotation(
    part: Part,
    header: _Header,
    places: Mapping[_Id, tuple[int, int, _Image]],
    builders: Sequence[TrackBuilder],
) -> None:
    """To the video that its image is a frame of. Raises BadValue before anything is added."""
    annotation, where = part.value, part.location
    image_id = identifier(member(annotation, "image_id", where), (*where, "image_id"))
    if image_id not in places:
        raise BadValue((*where, "image_id"), f"{image_id!r} is not the id of an image")
    number, frame_index, image = places[image_id]
    object_id = _object_id(annotation, where)
    mask = _mask(annotation, image, where)
    labels = _labels(annotation, header.categories, where)
    try:
        builders[number].add(object_id, labels, frame_index, mask)
    except ValueError as error:
        raise BadValue(where, f"object {object_id!r} of image {image_id!r}: {error}") from None


def _read_header(path: str | os.PathLike[str]) -> _Header:
    images: dict[_Id, _Image] = {}
    videos: dict[_Id, tuple[dict[str, Any], Location]] = {}
    categories: dict[_Id, str] = {}
    for part in read_parts(path, ["images[]", "videos[]", "categories[]"]):
        where = part.location
        number = identifier(member(part.value, "id", where), (*where, "id"))
        known = {"images[]": images, "videos[]": videos, "categories[]": categories}[part.pattern]
        if number in known:
            raise BadValue((*where, "id"), f"{number!r} is used twice")
        if part.pattern == "images[]":
            images[number] = _image(part, number)
        elif part.pattern == "videos[]":
            videos[number] = (part.value, where)
        else:
            categories[number] = text(member(part.value, "name", where), (*where, "name"))
    return _Header(tuple(images.values()), videos, categories)


def _image(part: Part, image_id: _Id) -> _Image:
    value, where = part.value, part.location

    def optional(key: str, check: Any) -> Any:
        given = value.get(key)
        return None if given is None else check(given, (*where, key))

    return _Image(
        image_id=image_id,
        file_name=text(member(value, "file_name", where), (*where, "file_name")),
        width=whole(member(value, "width", where), (*where, "width"), minimum=1),
        height=whole(member(value, "height", where), (*where, "height"), minimum=1),
        video_id=optional("video_id", identifier),
        frame_id=optional("frame_id", whole),
        position=int(where[1]),
    )


def _group(header: _Header, path: str | os.PathLike[str]) -> list[_Video]:
    """The videos that the images make, in the order of `videos`, then of first images."""
    groups: dict[tuple[str, _Id], list[_Image]] = {("video", key): [] for key in header.videos}
    by_folder = any(image.video_id is None for image in header.images) and _has_track_ids(path)
    for image in header.images:
        if image.video_id is not None:
            if header.videos and image.video_id not in header.videos:
                raise BadValue(
                    (*image.location, "video_id"), f"{image.video_id!r} is not the id of a video"
                )
            key: tuple[str, _Id] = ("video", image.video_id)
        elif by_folder:
            key = ("folder", folder_of(image.file_name))
        else:
            key = ("image", image.image_id)
        groups.setdefault(key, []).append(image)
    return [_video(kind, key, images, header, path) for (kind, key), images in groups.items()]


def _has_track_ids(path: str | os.PathLike[str]) -> bool:
    keys = ("track_id", "instance_id")
    patterns = [f"annotations[].{key}" for key in keys]
    return any(part.value is not None for part in read_parts(path, patterns))


def _video(
    kind: str, key: _Id, images: list[_Image], header: _Header, path: str | os.PathLike[str]
) -> _Video:
    entry, where = header.videos.get(key, ({}, ())) if kind == "video" else ({}, ())
    fps = finite(entry.get("fps") or 0.0, (*where, "fps"))
    if fps < 0:
        raise BadValue((*where, "fps"), f"must be >= 0, is {fps}")
    if kind == "image":
        name = str(PurePosixPath(images[0].file_name).with_suffix(""))
    elif kind == "folder":
        name = str(key) or Path(path).stem
    else:
        name = text(entry.get("name") or str(key), (*where, "name"))
    if images:
        width, height = images[0].width, images[0].height
    else:
        width, height = (
            whole(member(entry, side, where), (*where, side), minimum=1)
            for side in ("width", "height")
        )
    ordered = _in_order(images)
    for image in ordered:
        if (image.width, image.height) != (width, height):
            raise BadValue(
                image.location,
                f"has {image.width} x {image.height} pixels, the video {name!r} has "
                f"{width} x {height}",
            )
    return _Video(name, fps, ordered, width, height)


def _in_order(images: list[_Image]) -> tuple[_Image, ...]:
    if any(image.frame_id is None for image in images):
        return tuple(sorted(images, key=lambda image: natural_order(image.file_name)))
    ordered = sorted(images, key=lambda image: image.frame_id)
    for before, image in zip(ordered, ordered[1:]):
        if before.frame_id == image.frame_id:
            raise BadValue(
                (*image.location, "frame_id"),
                f"{image.frame_id} is also that of image {before.image_id!r} of the same video",
            )
    return tuple(ordered)


def _object_id(annotation: dict[str, Any], where: Location) -> ObjectId:
    for key in ("track_id", "instance_id"):
        if annotation.get(key) is not None:
            return identifier(annotation[key], (*where, key))
    # No track: an object of this image alone, under a name no track id has.
    return f"annotation {identifier(member(annotation, 'id', where), (*where, 'id'))}"


def _labels(
    annotation: dict[str, Any], categories: dict[_Id, str], where: Location
) -> tuple[str, ...]:
    key = identifier(member(annotation, "category_id", where), (*where, "category_id"))
    if key not in categories:
        raise BadValue((*where, "category_id"), f"{key!r} is not the id of a category")
    attributes = annotation.get("attributes")
    if isinstance(attributes, dict) and "labels" in attributes:
        labels = texts(attributes["labels"], (*where, "attributes", "labels"))
        return tuple(dict.fromkeys((categories[key], *labels)))
    return (categories[key],)


def _mask(annotation: dict[str, Any], image: _Image, where: Location) -> MaskRLE:
    value = member(annotation, "segmentation", where)
    where = (*where, "segmentation")
    if isinstance(value, dict):
        mask = run_length_mask(value, where)
        if (mask.height, mask.width) != (image.height, image.width):
            raise BadValue(
                (*where, "size"),
                f"is {mask.height} x {mask.width}, image {image.image_id!r} has "
                f"{image.height} x {image.width}",
            )
        return mask
    return polygon_mask(array(value, where), image.height, image.width, where)
