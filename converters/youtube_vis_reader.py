"""YouTube-VIS ground truth -> annotated videos; the way in is `youtube_vis.load_youtube_vis`."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping

from converters.categories import CategoryReader, is_crowd
from converters.coco_header import frame_rate
from converters.json_stream import Location, Part, read_parts
from converters.json_values import (
    BadValue,
    array,
    data_set_id,
    member,
    text,
    texts,
    unquoted,
    whole,
)
from converters.mask_store import MaskStore, StoredMasks
from converters.reading import folder_of, names_of_any_system, told_apart, video_info
from converters.report import Report
from converters.segmentations import is_missing, read_mask
from converters.types import AnnotatedVideo, MaskRLE, Track, VideoInfo

_Id = int | str
_SEGMENTATION = "annotations[].segmentations[]"
_BOX = "annotations[].bboxes[]"
_LISTS = ("annotations[].segmentations", "annotations[].bboxes", "annotations[].areas")


@dataclass
class _Video:
    name: str
    info: VideoInfo
    file_names: tuple[str, ...]
    tracks: dict[_Id, Track] = field(default_factory=dict)


@dataclass
class _Header:
    """All of the file but the annotations' masks."""

    categories: CategoryReader
    videos: dict[_Id, _Video] = field(default_factory=dict)
    left_out: set[_Id] = field(default_factory=set)
    """Ids of videos."""
    owners: dict[int, _Id] = field(default_factory=dict)
    """Position of an annotation -> the id of its video."""


def read_youtube_vis(path: str | os.PathLike[str], report: Report) -> Iterator[AnnotatedVideo]:
    """See `converters.youtube_vis.load_youtube_vis`."""
    header = _read_header(path, report)
    store = MaskStore()
    pending = _PendingObject(store, None, report)
    position = -1
    for part in read_parts(
        path, [_SEGMENTATION, _BOX, "annotations[]"], skip=["annotations[].areas"]
    ):
        if part.location[1] != position:
            position = int(part.location[1])
            video = header.videos.get(header.owners.get(position))
            pending = _PendingObject(store, video, report)
        if part.pattern == "annotations[]":
            with report.leaving_out("annotations"):
                _finish(part, pending, header, report)
        else:
            pending.take(part)
    categories = header.categories.categories
    for video in header.videos.values():
        tracks = tuple(video.tracks.values())
        yield AnnotatedVideo(video.name, video.info, tracks, video.file_names, categories)


# --- videos -------------------------------------------------------------------


def _read_header(path: str | os.PathLike[str], report: Report) -> _Header:
    header = _Header(CategoryReader(report))
    entries: dict[_Id, Part] = {}
    # What the annotations say of their video, for videos that do not say it themselves.
    told: dict[_Id, dict[str, int]] = defaultdict(dict)
    for part in read_parts(path, ["videos[]", "categories[]", "annotations[]"], skip=_LISTS):
        if part.pattern == "categories[]":
            header.categories.add(part)
        elif part.pattern == "videos[]":
            with report.leaving_out("videos"):
                number = data_set_id(
                    member(part.value, "id", part.location), (*part.location, "id")
                )
                if number in entries:
                    raise BadValue((*part.location, "id"), f"{number!r} is used twice")
                entries[number] = part
        else:
            _note_owner(part, header, told)
    header.categories.count_shared_names()
    for number, part in entries.items():
        if not _is_complete(part.value, told[number]):
            _look_at_masks(path, header, told)
            break
    for number, part in entries.items():
        try:
            header.videos[number] = _video(part, told[number], report)
        except BadValue as error:
            header.left_out.add(number)
            report.leave_out("videos", error)
    _name(header.videos, report)
    return header


def _name(videos: Mapping[_Id, _Video], report: Report) -> None:
    """Give the videos and their images the names that they have here."""
    # Of paths of Windows the folders that all images share are left out, so all at once.
    names = iter(
        names_of_any_system([name for v in videos.values() for name in v.file_names], report)
    )
    for number, video in videos.items():
        video.file_names = tuple(itertools.islice(names, len(video.file_names)))
        folder = folder_of(video.file_names[0]) if video.file_names else ""
        video.name = video.name or folder or str(number)
    own = names_of_any_system([video.name for video in videos.values()], report)
    for video, name in zip(videos.values(), told_apart(own, list(videos), report)):
        video.name = name


def _note_owner(part: Part, header: _Header, told: Mapping[_Id, dict[str, int]]) -> None:
    try:
        where = (*part.location, "video_id")
        owner = data_set_id(member(part.value, "video_id", part.location), where)
    except BadValue:
        return  # Said when the annotation is read.
    header.owners[int(part.location[1])] = owner
    for key in ("width", "height", "length"):
        value = unquoted(part.value.get(key))
        if type(value) is int and value > 0:
            told[owner].setdefault(key, value)


def _is_complete(entry: Mapping[str, Any], told: Mapping[str, int]) -> bool:
    known = {**told, **{key: value for key, value in entry.items() if value is not None}}
    return {"width", "height"} <= known.keys() and bool(known.get("file_names") or "length" in known)


def _look_at_masks(
    path: str | os.PathLike[str], header: _Header, told: Mapping[_Id, dict[str, int]]
) -> None:
    """Sizes and lengths from the annotations' lists, where nothing else says them."""
    lengths: dict[_Id, int] = defaultdict(int)
    for part in read_parts(path, [_SEGMENTATION, _BOX]):
        owner = header.owners.get(int(part.location[1]))
        lengths[owner] = max(lengths[owner], int(part.location[3]) + 1)
        size = part.value.get("size") if isinstance(part.value, dict) else None
        if isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size):
            told[owner].setdefault("height", size[0])
            told[owner].setdefault("width", size[1])
    for owner, length in lengths.items():
        told[owner].setdefault("length", length)


def _video(part: Part, told: Mapping[str, int], report: Report) -> _Video:
    """Its name is empty where the file has none."""
    entry, where = part.value, part.location
    known = {**told, **{key: value for key, value in entry.items() if value is not None}}
    width, height = (
        whole(unquoted(member(known, side, where)), (*where, side), minimum=1)
        for side in ("width", "height")
    )
    file_names, fps = (), 0.0
    with report.making_do("image names taken for unknown"):
        file_names = texts(entry.get("file_names") or [], (*where, "file_names"))
    length = len(entry["file_names"]) if isinstance(entry.get("file_names"), list) else 0
    if not length:
        length = whole(unquoted(known.get("length", 0)), (*where, "length"))
    with report.making_do("lengths taken from the file names"):
        told_length = whole(unquoted(entry.get("length") or length), (*where, "length"))
        if told_length != length:
            raise BadValue((*where, "length"), f"is {told_length} for {length} file_names")
    with report.making_do("frame rates taken for unknown"):
        fps = frame_rate(entry, where)
    name = ""
    with report.making_do("videos named by their folders or ids"):
        name = text(entry["name"], (*where, "name")) if entry.get("name") else ""
    return _Video(name, video_info(width, height, length, fps), file_names)


# --- objects ------------------------------------------------------------------


class _PendingObject:
    """An annotation's masks and boxes, frame by frame as they come."""

    def __init__(self, store: MaskStore, video: _Video | None, report: Report) -> None:
        self._report = report
        self._info = None if video is None else video.info
        self.masks: StoredMasks | dict[int, MaskRLE] = (
            {} if video is None else StoredMasks(store, video.info.height, video.info.width)
        )
        self.lengths = {_SEGMENTATION: 0, _BOX: 0}
        self._bad: set[int] = set()
        self._boxes: dict[int, tuple[Any, Location]] = {}

    def take(self, part: Part) -> None:
        """The next item of either list. A bad mask is left out alone."""
        frame_index = int(part.location[3])
        self.lengths[part.pattern] = frame_index + 1
        if self._info is None or frame_index >= self._info.frame_count or is_missing(part.value):
            return
        if part.pattern == _BOX:
            # Its mask, which it is not needed beside, may also come later.
            if frame_index not in self.masks and part.value != [0, 0, 0, 0]:
                self._boxes[frame_index] = (part.value, part.location)
            return
        self._bad.add(frame_index)
        with self._report.leaving_out("masks"):
            size = (self._info.height, self._info.width)
            mask = read_mask(part.value, None, size, part.location, part.location, self._report)
            self.masks.add(frame_index, mask)
            self._bad.discard(frame_index)
        self._boxes.pop(frame_index, None)

    def fill_with_boxes(self) -> None:
        """Where there is a box and no mask."""
        for frame_index, (box, where) in sorted(self._boxes.items()):
            if frame_index not in self.masks and frame_index not in self._bad:
                with self._report.leaving_out("masks"):
                    size = (self._info.height, self._info.width)
                    self.masks.add(
                        frame_index, read_mask(None, box, size, where, where, self._report)
                    )


def _finish(part: Part, pending: _PendingObject, header: _Header, report: Report) -> None:
    """Give the masks that came to their video as a track."""
    annotation, where = part.value, part.location
    video_id = data_set_id(member(annotation, "video_id", where), (*where, "video_id"))
    if video_id in header.left_out:
        report.drop("annotations (of videos that were left out)")
        return
    if video_id not in header.videos:
        raise BadValue((*where, "video_id"), f"{video_id!r} is not the id of a video")
    video = header.videos[video_id]
    labels = header.categories.labels_of(annotation, where)
    object_id = data_set_id(member(annotation, "id", where), (*where, "id"))
    if object_id in video.tracks:
        raise BadValue((*where, "id"), f"{object_id!r} is used twice")
    crowd = is_crowd(annotation, where)
    _check_lists(annotation, pending, video, where, report)
    pending.fill_with_boxes()
    frames = frozenset(pending.masks) if crowd else frozenset()
    video.tracks[object_id] = Track(object_id, labels, pending.masks, crowd_frames=frames)


def _check_lists(
    annotation: Mapping[str, Any],
    pending: _PendingObject,
    video: _Video,
    where: Location,
    report: Report,
) -> None:
    """Say where a list is no list, or not one item a frame. Raises BadValue where there is none."""
    frame_count = video.info.frame_count
    for key in ("segmentations", "bboxes"):
        # What was read item by item is not in the annotation any more.
        if annotation.get(key) is not None:
            array(annotation[key], (*where, key))
    if frame_count and not any(pending.lengths.values()):
        raise BadValue(
            (*where, "segmentations"),
            f"has 0 items, must have one for each of {frame_count} frames",
        )
    pattern = _SEGMENTATION if pending.lengths[_SEGMENTATION] else _BOX
    length = pending.lengths[pattern]
    if length != frame_count:
        key = pattern.removesuffix("[]").rpartition(".")[2]
        error = BadValue(
            (*where, key), f"has {length} items, must have one for each of {frame_count} frames"
        )
        what = "objects taken for not visible on the frames that are not listed"
        if length > frame_count:
            what = "objects without what is listed after the last frame"
        with report.making_do(what):
            raise error
