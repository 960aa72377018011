"""What the data set readers share: times, frames in order, tracks as they fill."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Iterable

from converters.mask_store import MaskStore, StoredMasks
from converters.types import AnnotatedVideo, MaskRLE, ObjectId, Track, VideoInfo

_NUMBER = re.compile(r"(\d+)")


def video_info(width: int, height: int, frame_count: int, fps: float = 0.0) -> VideoInfo:
    """A video of a constant frame rate; with fps 0.0 (unknown) times tick once a second."""
    rate = fps or 1.0
    times = tuple(index / rate for index in range(frame_count))
    return VideoInfo(width, height, frame_count, fps, times, frame_count / rate)


def natural_order(name: str) -> tuple:
    """Sort key that puts `9.jpg` before `10.jpg`."""
    parts = _NUMBER.split(name)
    return tuple((int(p), "") if i % 2 else (-1, p) for i, p in enumerate(parts)), name


def folder_of(file_name: str) -> str:
    """The folder part of an image name; empty when it has none."""
    parent = str(PurePosixPath(file_name).parent)
    return "" if parent == "." else parent


class TrackBuilder:
    """The tracks of one video while its masks come in, in the order of first appearance."""

    def __init__(self, store: MaskStore, height: int, width: int) -> None:
        self._store = store
        self._size = (height, width)
        self._masks: dict[ObjectId, StoredMasks] = {}
        self._labels: dict[ObjectId, dict[str, None]] = {}

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
        self, object_id: ObjectId, labels: Iterable[str], frame_index: int, mask: MaskRLE
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

    def tracks(self) -> tuple[Track, ...]:
        return tuple(
            Track(object_id, tuple(self._labels[object_id]), masks)
            for object_id, masks in self._masks.items()
        )

    def video(self, name: str, info: VideoInfo, file_names: Iterable[str]) -> AnnotatedVideo:
        return AnnotatedVideo(name, info, self.tracks(), tuple(file_names))
