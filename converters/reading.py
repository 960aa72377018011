"""What the data set readers share: times, frames in order, tracks as they fill."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath
from typing import Iterable, Sequence

from converters.mask_store import MaskStore, StoredMasks
from converters.report import Report
from converters.types import AnnotatedVideo, Category, MaskRLE, ObjectId, Track, VideoInfo

_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def video_info(width: int, height: int, frame_count: int, fps: float = 0.0) -> VideoInfo:
    """A video of a constant frame rate; with fps 0.0 (unknown) times tick once a second."""
    rate = fps or 1.0
    times = tuple(index / rate for index in range(frame_count))
    return VideoInfo(width, height, frame_count, fps, times, frame_count / rate)


def folder_of(file_name: str) -> str:
    """The folder part of an image name; empty when it has none."""
    parent = str(PurePosixPath(file_name).parent)
    return "" if parent == "." else parent


def names_of_any_system(names: Sequence[str], report: Report) -> tuple[str, ...]:
    """The names of a data set's images, or videos, as they are but for those of Windows.

    `\\` parts folders as `/` does. Of paths with a drive or a server, such as
    `C:\\data\\clip\\0.jpg`, the folders above all of them are left out, which
    nobody else has; the folder that a file lies in stays: `clip/0.jpg`.
    """
    split = {}
    for index, name in enumerate(names):
        if "\\" in name or _DRIVE.match(name):
            parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".")]
            split[index] = parts or [name]
    absolute = [i for i in split if _DRIVE.match(names[i])]
    if absolute:
        folders = [split[i][:-1] for i in absolute]
        above = os.path.commonprefix(folders)
        if above in folders:
            above = above[:-1]
        for index in absolute:
            split[index] = [part.replace(":", "") for part in split[index][len(above) :]]
    report.change("names of Windows, written with /", len(split) - len(absolute))
    report.change("paths of Windows, written from the folders they share", len(absolute))
    return tuple("/".join(split[i]) if i in split else name for i, name in enumerate(names))


def told_apart(names: Sequence[str], ids: Sequence[int | str], report: Report) -> list[str]:
    """The names of a data set's videos, those that come a second time with their id behind."""
    taken, unique = set(names), []
    seen: set[str] = set()
    for name, number in zip(names, ids):
        new = name
        while new in seen or (new != name and new in taken):
            new = f"{new}-{number}"
        seen.add(new)
        unique.append(new)
    changed = sum(a != b for a, b in zip(names, unique))
    report.change("videos of one name, told apart by their ids", changed)
    return unique


class TrackBuilder:
    """The tracks of one video while its masks come in, in the order of first appearance."""

    def __init__(self, store: MaskStore, height: int, width: int) -> None:
        self._store = store
        self._size = (height, width)
        self._masks: dict[ObjectId, StoredMasks] = {}
        self._labels: dict[ObjectId, dict[str, None]] = {}
        self._crowds: dict[ObjectId, set[int]] = {}

    @property
    def object_ids(self) -> tuple[ObjectId, ...]:
        return tuple(self._masks)

    def add_object(self, object_id: ObjectId, labels: Iterable[str] = ()) -> None:
        """An object, or more labels of one."""
        self._masks.setdefault(object_id, StoredMasks(self._store, *self._size))
        self._labels.setdefault(object_id, {}).update(dict.fromkeys(labels))

    def add_mask(self, object_id: ObjectId, frame_index: int, mask: MaskRLE) -> None:
        """Raises ValueError for a second mask on a frame, or one of another size."""
        self._masks[object_id].add(frame_index, mask)

    def add(
        self,
        object_id: ObjectId,
        labels: Iterable[str],
        frame_index: int,
        mask: MaskRLE,
        *,
        is_crowd: bool = False,
    ) -> None:
        """A mask with its object's labels: both, or neither where `add_mask` raises."""
        is_new = object_id not in self._masks
        self.add_object(object_id)
        try:
            self.add_mask(object_id, frame_index, mask)
        except ValueError:
            if is_new:
                del self._masks[object_id], self._labels[object_id]
            raise
        self.add_object(object_id, labels)
        if is_crowd:
            self._crowds.setdefault(object_id, set()).add(frame_index)

    def tracks(self) -> tuple[Track, ...]:
        return tuple(
            Track(
                object_id,
                tuple(self._labels[object_id]),
                masks,
                crowd_frames=frozenset(self._crowds.get(object_id, ())),
            )
            for object_id, masks in self._masks.items()
        )

    def video(
        self,
        name: str,
        info: VideoInfo,
        file_names: Iterable[str],
        categories: tuple[Category, ...] = (),
    ) -> AnnotatedVideo:
        return AnnotatedVideo(name, info, self.tracks(), tuple(file_names), categories)
