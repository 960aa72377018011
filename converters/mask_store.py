"""Masks kept in a temporary file instead of in memory.

A long video's masks are megabytes a hundred frames. Readers put each mask
away as it comes, and hand out tracks whose `masks` read it back when asked:
what stays in memory is a few numbers a mask.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import weakref
from typing import Iterator, Mapping

from converters.types import AnnotatedVideo, MaskRLE


class MaskStore:
    """An append-only temporary file of mask counts; gone with the last mapping that reads it.

    Adding is for one thread; reading is safe from several, and in forked
    processes.
    """

    def __init__(self) -> None:
        # Closed by the finalizer, not by `with`: the mappings outlive any block.
        self._file = tempfile.TemporaryFile(prefix="masks-")
        weakref.finalize(self, self._file.close)
        self._written = 0
        self._flushed = 0

    def append(self, counts: str) -> tuple[int, int]:
        """Where the counts now lie: (offset, length) in bytes."""
        data = counts.encode("ascii")
        place = (self._written, len(data))
        self._file.write(data)
        self._written += len(data)
        return place

    def read(self, offset: int, length: int) -> str:
        """The counts that `append` put there."""
        if offset + length > self._flushed:
            self._file.flush()
            self._flushed = self._written
        return os.pread(self._file.fileno(), length, offset).decode("ascii")


class StoredMasks(Mapping[int, MaskRLE]):
    """frame index -> mask of one track, read from a `MaskStore` at each access."""

    def __init__(self, store: MaskStore, height: int, width: int) -> None:
        self._store = store
        self._height = height
        self._width = width
        self._places: dict[int, tuple[int, int]] = {}

    @property
    def size_hw(self) -> tuple[int, int]:
        return self._height, self._width

    def add(self, frame_index: int, mask: MaskRLE) -> None:
        """Put a frame's mask away.

        Raises ValueError for a second mask on a frame, or one of another size.
        """
        if frame_index in self._places:
            raise ValueError(f"frame index {frame_index} has a second mask of the same object")
        if (mask.height, mask.width) != self.size_hw:
            raise ValueError(
                f"mask has size {mask.height} x {mask.width}, must be "
                f"{self._height} x {self._width}"
            )
        self._places[frame_index] = self._store.append(mask.counts)

    def __getitem__(self, frame_index: int) -> MaskRLE:
        counts = self._store.read(*self._places[frame_index])
        return MaskRLE(self._height, self._width, counts)

    def __contains__(self, frame_index: object) -> bool:
        return frame_index in self._places

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __reduce__(self):
        # To another process the masks travel themselves: the file does not.
        return dict, (dict(self.items()),)


class RenumberedMasks(Mapping[int, MaskRLE]):
    """Some masks of a track under other frame indices, without reading them."""

    def __init__(self, masks: Mapping[int, MaskRLE], sources: Mapping[int, int]) -> None:
        """`sources`: new frame index -> frame index in `masks`."""
        self._masks = masks
        self._sources = dict(sources)

    def __getitem__(self, frame_index: int) -> MaskRLE:
        return self._masks[self._sources[frame_index]]

    def __contains__(self, frame_index: object) -> bool:
        return frame_index in self._sources

    def __iter__(self) -> Iterator[int]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def __reduce__(self):
        return dict, (dict(self.items()),)


def store_masks(video: AnnotatedVideo, store: MaskStore) -> AnnotatedVideo:
    """The same video with its masks put into the store.

    One store serves a whole data set: each is an open file. Raises ValueError
    when a mask has another size than the video.
    """
    tracks = []
    for track in video.tracks:
        masks = StoredMasks(store, video.info.height, video.info.width)
        for frame_index, mask in track.masks.items():
            masks.add(frame_index, mask)
        tracks.append(dataclasses.replace(track, masks=masks))
    return dataclasses.replace(video, tracks=tuple(tracks))
