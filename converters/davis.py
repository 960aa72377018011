"""DAVIS 2016 and 2017: a folder a video, one indexed PNG a frame.

    JPEGImages/<resolution>/<video>/00000.jpg
    Annotations/<resolution>/<video>/00000.png    0 background, 1..N objects, 255 void
    ImageSets/2017/train.txt                      names of videos
    davis_semantics.json                          {video: {"1": label}}
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Iterator, Mapping, Sequence

import numpy as np

from converters.folders import (
    annotated_frames,
    load_folder_labels,
    resolution_folder,
    video_folders,
)
from converters.indexed_png import VOID, read_indices
from converters.mask_store import MaskStore
from converters.masks import encode_mask
from converters.reading import TrackBuilder, video_info
from converters.types import AnnotatedVideo, Track

LABELS_FILE = "davis_semantics.json"


def image_folder(folder: str | os.PathLike[str]) -> Path:
    """Where the images of a DAVIS data set lie: what `file_names` are relative to."""
    return resolution_folder(Path(folder) / "JPEGImages")


def load_davis(
    folder: str | os.PathLike[str], *, default_label: str = "object"
) -> Iterator[AnnotatedVideo]:
    """The videos of a DAVIS folder, sorted by name, masks read when asked for.

    Also reads YouTube-VOS (no resolution folder). A video's frames are those
    with a PNG; the images between are not frames of it, since nothing is known
    of them. An object's id is its index. A video whose only index is 255 is of
    DAVIS 2016: white is one object, with id 1; elsewhere 255 is void and left
    out. Labels are those of davis_semantics.json, or else `default_label`.
    The frame rate is unknown (0.0). `file_names` are relative to
    `image_folder(folder)`.

    Raises:
        FileNotFoundError: the folder has no Annotations.
        ValueError: a PNG is unreadable, has colours or another size than the
            first of its video, or has no image where images are there.
    """
    folder = Path(folder)
    labels = load_folder_labels(folder / LABELS_FILE)
    images = image_folder(folder)
    for video_folder in video_folders(resolution_folder(folder / "Annotations")):
        of_video = labels.get(video_folder.name, {})
        yield _load_video(video_folder, images, of_video, default_label)


def _load_video(
    video_folder: Path,
    images: Path,
    labels: Mapping[str, tuple[str, ...]],
    default_label: str,
) -> AnnotatedVideo:
    frames = annotated_frames(video_folder.name, video_folder.glob("*.png"), images)
    if not frames:
        raise ValueError(f"{video_folder} holds no PNG")
    height, width = read_indices(video_folder / f"{frames[0].stem}.png").shape
    builder = TrackBuilder(MaskStore(), height, width)
    for frame_index, frame in enumerate(frames):
        path = video_folder / f"{frame.stem}.png"
        indices = read_indices(path)
        if indices.shape != (height, width):
            raise ValueError(
                f"{path}: has {indices.shape[0]} x {indices.shape[1]} pixels, the first frame "
                f"of the video {height} x {width}"
            )
        for index in np.unique(indices[indices != 0]).tolist():
            # A 1-bit PNG without a palette reads as True: white, as in DAVIS 2016.
            object_id = VOID if index is True else index
            builder.add_object(object_id)
            builder.add_mask(object_id, frame_index, encode_mask(indices == index))
    tracks = tuple(_labelled(track, labels, default_label) for track in _objects(builder.tracks()))
    info = video_info(width, height, len(frames))
    return AnnotatedVideo(video_folder.name, info, tracks, tuple(f.file_name for f in frames))


def _objects(tracks: Sequence[Track]) -> list[Track]:
    """The tracks without void, by index; white alone is object 1."""
    if [track.object_id for track in tracks] == [VOID]:
        return [dataclasses.replace(tracks[0], object_id=1)]
    objects = [track for track in tracks if track.object_id != VOID]
    return sorted(objects, key=lambda track: track.object_id)


def _labelled(
    track: Track, labels: Mapping[str, tuple[str, ...]], default_label: str
) -> Track:
    return dataclasses.replace(track, labels=labels.get(str(track.object_id), (default_label,)))
