"""What a COCO file says of its videos, images and categories: all but its annotations."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Collection, Mapping

from converters.categories import CategoryReader
from converters.frame_names import natural_order
from converters.json_stream import Location, Part, read_parts
from converters.json_values import BadValue, data_set_id, finite, member, text, unquoted, whole
from converters.reading import folder_of, names_of_any_system, told_apart
from converters.report import Report

Id = int | str
TRACK_KEYS = (("track_id",), ("instance_id",), ("attributes", "track_id"))
"""Where an annotation says which object it is of; the last is CVAT's."""
_ORDER_KEYS = ("frame_id", "frame_index")
"""Where an image says which frame it is, the surer first; the second is kwcoco's."""


@dataclass(frozen=True, slots=True)
class Image:
    """An entry of `images`."""

    image_id: Id
    file_name: str
    width: int | None
    height: int | None
    video_id: Id | None
    frame_id: int | None
    frame_index: int | None
    position: int
    """In the file's `images`."""

    @property
    def location(self) -> Location:
        return ("images", self.position)

    @property
    def order(self) -> tuple[int | None, ...]:
        """What it has of `_ORDER_KEYS`."""
        return self.frame_id, self.frame_index

    @property
    def size_wh(self) -> tuple[int, int] | None:
        return None if self.width is None or self.height is None else (self.width, self.height)


@dataclass(frozen=True)
class Video:
    """A video and the images that are its frames, in their order."""

    name: str
    fps: float
    images: tuple[Image, ...]
    width: int
    height: int


@dataclass(frozen=True)
class Header:
    """The videos, and what an annotation may refer to."""

    videos: tuple[Video, ...]
    categories: CategoryReader
    left_out: Collection[Id]
    """Ids of images that are in no video."""
    aliases: Mapping[Id, Id]
    """Ids of images that are entered before under another id, which is the value."""


@dataclass
class _Entries:
    """The sections of the file as they stand in it."""

    categories: CategoryReader
    images: dict[Id, Image] = field(default_factory=dict)
    videos: dict[Id, tuple[dict[str, Any], Location]] = field(default_factory=dict)
    left_out: set[Id] = field(default_factory=set)
    aliases: dict[Id, Id] = field(default_factory=dict)


def read_header(path: str | os.PathLike[str], report: Report) -> Header:
    """Entries that break a rule are left out and counted in `report`."""
    entries = _Entries(CategoryReader(report))
    for part in read_parts(path, ["images[]", "videos[]", "categories[]"]):
        if part.pattern == "categories[]":
            entries.categories.add(part)
        elif part.pattern == "videos[]":
            with report.leaving_out("videos"):
                entries.videos[_new_id(part, entries.videos)] = (part.value, part.location)
        else:
            with report.leaving_out("images"):
                _add_image(part, entries, report)
    entries.categories.count_shared_names()
    images = _each_once(_with_names(entries.images.values(), report), entries, report)
    images = _with_sizes(images, entries, path)
    videos = _Grouping(entries, path, report).videos(images)
    return Header(tuple(videos), entries.categories, entries.left_out, entries.aliases)


def _new_id(part: Part, known: Mapping[Id, Any]) -> Id:
    where = part.location
    number = data_set_id(member(part.value, "id", where), (*where, "id"))
    if number in known:
        raise BadValue((*where, "id"), f"{number!r} is used twice")
    return number


# --- images -------------------------------------------------------------------


def _add_image(part: Part, entries: _Entries, report: Report) -> None:
    number = _new_id(part, entries.images)
    try:
        entries.images[number] = _image(part, number, report)
    except BadValue:
        entries.left_out.add(number)
        raise


def _image(part: Part, image_id: Id, report: Report) -> Image:
    value, where = part.value, part.location

    def optional(key: str, check: Callable[..., Any], **options: int) -> Any:
        given = value.get(key)
        return None if given in (None, "") else check(unquoted(given), (*where, key), **options)

    # A frame without a name is one all the same: without it the others would move.
    file_name = f"{image_id}.jpg"
    with report.making_do("image names made of ids"):
        file_name = _file_name(value, where)
    return Image(
        image_id=image_id,
        file_name=file_name,
        width=optional("width", whole, minimum=1),
        height=optional("height", whole, minimum=1),
        video_id=optional("video_id", data_set_id),
        **{key: optional(key, whole) for key in _ORDER_KEYS},
        position=int(where[1]),
    )


def _file_name(value: dict[str, Any], where: Location) -> str:
    name = text(member(value, "file_name", where), (*where, "file_name"))
    if PurePosixPath(name).name in ("", ".."):
        raise BadValue((*where, "file_name"), f"{name!r} names no file")
    return name


def _with_names(images: Collection[Image], report: Report) -> list[Image]:
    names = names_of_any_system([image.file_name for image in images], report)
    return [
        image if name == image.file_name else dataclasses.replace(image, file_name=name)
        for image, name in zip(images, names)
    ]


def _each_once(images: list[Image], entries: _Entries, report: Report) -> list[Image]:
    """Without those that are entered again, as some tools do for each annotation on them."""
    if len({image.file_name for image in images}) == len(images):
        return images
    first: dict[tuple[Any, ...], Image] = {}
    for image in images:
        kept = first.setdefault((image.file_name, image.video_id, *image.order), image)
        if kept is not image:
            entries.aliases[image.image_id] = kept.image_id
    report.change("images entered more than once, taken for one", len(entries.aliases))
    return list(first.values())


def _with_sizes(
    images: list[Image], entries: _Entries, path: str | os.PathLike[str]
) -> list[Image]:
    """Those without a size have that of their video's entry, else that of a mask on them."""
    lacking = {image.image_id for image in images if image.size_wh is None}
    if not lacking:
        return images
    sizes = _mask_sizes(path, lacking)
    for image in images:
        entry, _ = entries.videos.get(image.video_id, ({}, ()))
        size = [unquoted(entry.get(side)) for side in ("width", "height")]
        if image.image_id in lacking and all(type(n) is int and n > 0 for n in size):
            sizes[image.image_id] = tuple(size)
    return [
        dataclasses.replace(image, width=sizes[image.image_id][0], height=sizes[image.image_id][1])
        if image.size_wh is None and image.image_id in sizes
        else image
        for image in images
    ]


def _mask_sizes(path: str | os.PathLike[str], images: Collection[Id]) -> dict[Id, tuple[int, int]]:
    """Image id -> (width, height) of the first RLE on it."""
    sizes: dict[Id, tuple[int, int]] = {}
    of_annotation: dict[str, Any] = {}
    annotation = -1
    patterns = ["annotations[].image_id", "annotations[].segmentation.size"]
    for part in read_parts(path, patterns):
        if part.location[1] != annotation:
            annotation, of_annotation = int(part.location[1]), {}
        of_annotation[part.pattern] = part.value
        image_id, size = (of_annotation.get(pattern) for pattern in patterns)
        image_id = unquoted(image_id)
        is_size = isinstance(size, list) and len(size) == 2
        if is_size and isinstance(image_id, Id) and image_id in images:
            if all(type(side) is int and side > 0 for side in size):
                sizes.setdefault(image_id, (size[1], size[0]))
    return sizes


# --- videos -------------------------------------------------------------------


class _Grouping:
    """Puts the images together to videos."""

    def __init__(self, entries: _Entries, path: str | os.PathLike[str], report: Report) -> None:
        self._entries = entries
        self._path = path
        self._report = report

    def videos(self, images: list[Image]) -> list[Video]:
        """In the order of `videos`, then of first images."""
        groups = self._groups(images)
        videos, keys = [], []
        for (kind, key), group in groups.items():
            try:
                videos.append(self._video(kind, key, group))
                keys.append(group[0].image_id if kind == "folder" else key)
            except BadValue as error:
                self._report.leave_out("images" if kind == "image" else "videos", error)
                if kind != "image":
                    self._report.drop("images (of videos that were left out)", len(group))
                self._entries.left_out.update(image.image_id for image in group)
        names = names_of_any_system([video.name for video in videos], self._report)
        names = told_apart(names, keys, self._report)
        return [dataclasses.replace(video, name=name) for video, name in zip(videos, names)]

    def _groups(self, images: list[Image]) -> dict[tuple[str, Id], list[Image]]:
        entries = self._entries.videos
        groups: dict[tuple[str, Id], list[Image]] = {("video", key): [] for key in entries}
        by_folder = any(image.video_id is None for image in images) and self._has_track_ids()
        for image in images:
            if image.video_id is None:
                key = (
                    ("folder", folder_of(image.file_name))
                    if by_folder
                    else ("image", image.image_id)
                )
            elif entries and image.video_id not in entries:
                place = (*image.location, "video_id")
                self._leave_out(image, BadValue(place, f"{image.video_id!r} is not the id of a video"))
                continue
            else:
                key = ("video", image.video_id)
            groups.setdefault(key, []).append(image)
        return groups

    def _leave_out(self, image: Image, error: BadValue) -> None:
        self._report.leave_out("images", error)
        self._entries.left_out.add(image.image_id)

    def _has_track_ids(self) -> bool:
        patterns = ["annotations[]." + ".".join(keys) for keys in TRACK_KEYS]
        return any(part.value is not None for part in read_parts(self._path, patterns))

    def _video(self, kind: str, key: Id, images: list[Image]) -> Video:
        entry, where = self._entries.videos.get(key, ({}, ())) if kind == "video" else ({}, ())
        fps, name = 0.0, str(key)
        if kind == "image":
            name = str(PurePosixPath(images[0].file_name).with_suffix(""))
        elif kind == "folder":
            name = name or Path(self._path).stem
        with self._report.making_do("frame rates taken for unknown"):
            fps = frame_rate(entry, where)
        with self._report.making_do("videos named by their ids"):
            name = text(entry.get("name") or name, (*where, "name"))
        width, height = self._size(entry, where, images)
        frames = self._in_order(self._of_size(images, (width, height), name))
        return Video(name, fps, frames, width, height)

    def _size(self, entry: dict[str, Any], where: Location, images: list[Image]) -> tuple[int, int]:
        """(width, height): what most of its images have, of equally many the first."""
        sizes = Counter(image.size_wh for image in images if image.size_wh is not None)
        if sizes:
            return sizes.most_common(1)[0][0]
        # Without any, the entry's; the first image's place where there is none of it either.
        if images and not ("width" in entry and "height" in entry):
            entry, where = {}, images[0].location
        width, height = (
            whole(unquoted(member(entry, side, where)), (*where, side), minimum=1)
            for side in ("width", "height")
        )
        return width, height

    def _of_size(self, images: list[Image], size: tuple[int, int], name: str) -> list[Image]:
        kept = []
        for image in images:
            if image.size_wh not in (None, size):
                message = (
                    f"has {image.width} x {image.height} pixels, the video {name!r} has "
                    f"{size[0]} x {size[1]}"
                )
                self._leave_out(image, BadValue(image.location, message))
            else:
                kept.append(image)
        return kept

    # order

    def _in_order(self, images: list[Image]) -> tuple[Image, ...]:
        """By the numbers that all have; by name, numbers by value, where none does."""
        numbered = [
            rank
            for rank in range(len(_ORDER_KEYS))
            if images and all(image.order[rank] is not None for image in images)
        ]
        # A number that frames share is worth less than one of each frame's own.
        numbered.sort(key=lambda rank: -len({image.order[rank] for image in images}))
        by_name = sorted(images, key=lambda image: natural_order(image.file_name))
        if not numbered:
            if any(number is not None for image in images for number in image.order):
                self._report.change(f"{_BY_NAME}, as not all have a number")
            return tuple(by_name)
        rank = numbered[0]
        if len(images) > 1 and len({image.order[rank] for image in images}) == 1:
            with self._report.making_do(_BY_NAME):
                raise _same_number(images[1], images[0], rank)
            return tuple(by_name)
        kept = self._one_a_number(images, rank)
        for other in numbered[1:]:
            numbers = [image.order[other] for image in kept]
            if numbers != sorted(numbers):
                used, unused = (_ORDER_KEYS[number] for number in (rank, other))
                self._report.change(f"videos in the order of {used}, which {unused} contradicts")
        return tuple(kept)

    def _one_a_number(self, images: list[Image], rank: int) -> list[Image]:
        kept: list[Image] = []
        for image in sorted(images, key=lambda image: image.order[rank]):
            if kept and kept[-1].order[rank] == image.order[rank]:
                self._leave_out(image, _same_number(image, kept[-1], rank))
            else:
                kept.append(image)
        return kept


_BY_NAME = "videos with their frames in the order of names"


def _same_number(image: Image, other: Image, rank: int) -> BadValue:
    return BadValue(
        (*image.location, _ORDER_KEYS[rank]),
        f"{image.order[rank]} is also that of image {other.image_id!r} of the same video",
    )


def frame_rate(entry: Mapping[str, Any], where: Location) -> float:
    """Its `fps`; 0.0 (unknown) where it has none. Raises BadValue."""
    fps = finite(entry.get("fps") or 0.0, (*where, "fps"))
    if fps < 0:
        raise BadValue((*where, "fps"), f"must be >= 0, is {fps}")
    return fps
