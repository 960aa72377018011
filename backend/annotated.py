"""Annotated data sets as the videos that training and evaluation take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Iterable, Sequence

import numpy as np

from converters.masks import decode_mask
from converters.types import AnnotatedVideo
from sam2_model.video import open_frame_source

_VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")


@dataclass(frozen=True)
class AnnotatedCase:
    """An annotated video and where its pictures are (`evaluation.TrueVideo`)."""

    video: AnnotatedVideo
    source: Path | list[Path]
    """A video file, a folder of frames, or one picture a frame."""

    @property
    def name(self) -> str:
        return self.video.name

    @property
    def frame_count(self) -> int:
        return self.video.info.frame_count

    @cached_property
    def annotations(self) -> Sequence[int]:
        """Frames whose masks are known: from the first marked one to the last.

        A frame in between that shows no object is one without it, unless all
        marked frames lie a fixed number apart (SA-V marks every fourth).
        """
        marked = sorted(
            {frame for track in self.video.tracks for frame in (*track.masks, *track.scores)}
        )
        if len(marked) < 2:
            return marked
        apart = math.gcd(*(later - earlier for earlier, later in zip(marked, marked[1:])))
        return range(marked[0], marked[-1] + 1, apart)

    def masks(self, frame_index: int) -> dict[object, np.ndarray]:
        """Object id -> (H, W) bool, not empty."""
        decoded = {
            track.object_id: decode_mask(track.masks[frame_index])
            for track in self.video.tracks
            if frame_index in track.masks
        }
        return {key: mask for key, mask in decoded.items() if mask.any()}

    def picture(self, frame_index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        with open_frame_source(self.source) as source:
            return source.frame(frame_index)


def find_media(video: AnnotatedVideo, root: Path) -> Path | list[Path]:
    """A video's pictures under a folder.

    By the image names the data set gives, else a folder or video file of the
    video's name.

    Raises:
        FileNotFoundError: none of them is there; the message names what was looked for.
        ValueError: a name that leads out of `root`.
    """
    for name in (*video.file_names[:1], video.name):
        if not (root / name).resolve().is_relative_to(root.resolve()):
            raise ValueError(f"video {video.name!r}: {name!r} leads out of {root}")
    if video.file_names and (root / video.file_names[0]).is_file():
        pictures = [root / name for name in video.file_names]
        for picture in pictures:
            if not picture.resolve().is_relative_to(root.resolve()):
                raise ValueError(f"video {video.name!r}: {str(picture)!r} leads out of {root}")
            if not picture.is_file():
                raise FileNotFoundError(f"video {video.name!r}: {picture} is not there")
        return pictures
    named = root / video.name
    candidates = [named, *(named.with_name(named.name + suffix) for suffix in _VIDEO_SUFFIXES)]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    first = f"{root / video.file_names[0]}, " if video.file_names else ""
    raise FileNotFoundError(
        f"video {video.name!r}: its pictures are not under {root} "
        f"(looked for {first}{named} and {named.name} with {', '.join(_VIDEO_SUFFIXES)})"
    )


def cases_of(
    videos: Iterable[AnnotatedVideo], root: Path, only: Sequence[str] | None = None
) -> list[AnnotatedCase]:
    """The videos that show an object, with their pictures.

    Raises:
        ValueError: a name in `only` that no video has.
        FileNotFoundError: as `find_media`.
    """
    found, names = [], []
    for video in videos:
        names.append(video.name)
        if only is not None and video.name not in only:
            continue
        if any(track.masks for track in video.tracks):
            found.append(AnnotatedCase(video, find_media(video, root)))
    missing = sorted(set(only or ()) - set(names))
    if missing:
        raise ValueError(f"video {missing[0]!r} is not in the data set: it has {names}")
    return found
