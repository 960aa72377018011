"""What the data set writers share: checks, image names, categories, scores."""

from __future__ import annotations

import math
from typing import Iterable, Sequence

from converters.masks import mask_area, mask_box
from converters.types import AnnotatedVideo, MaskRLE, Track


def check_videos(
    videos: Iterable[AnnotatedVideo], *, labels_needed: bool = True
) -> tuple[AnnotatedVideo, ...]:
    """The videos as a tuple.

    Raises ValueError naming the video and object for: no name, a repeated
    object id, a track without a label (unless not `labels_needed`), a frame
    outside the video, a mask of another size than the video.
    """
    checked = tuple(videos)
    for video in checked:
        if not video.name:
            raise ValueError("a video has an empty name")
        object_ids = [track.object_id for track in video.tracks]
        if len(set(object_ids)) != len(object_ids):
            raise ValueError(f"video {video.name!r}: object ids {object_ids} repeat")
        for track in video.tracks:
            _check_track(track, video, labels_needed)
    return checked


def _check_track(track: Track, video: AnnotatedVideo, labels_needed: bool) -> None:
    where = f"video {video.name!r}, object {track.object_id!r}"
    if labels_needed and not track.labels:
        raise ValueError(
            f"{where}: has no label, must have one for its category "
            "(--default-label LABEL gives one to all objects without)"
        )
    for frame_index, mask in track.masks.items():
        if not 0 <= frame_index < video.info.frame_count:
            raise ValueError(
                f"{where}: frame index {frame_index} must be in "
                f"[0, {video.info.frame_count})"
            )
        if (mask.height, mask.width) != (video.info.height, video.info.width):
            raise ValueError(
                f"{where}, frame index {frame_index}: mask has size {mask.height} x "
                f"{mask.width}, must be {video.info.height} x {video.info.width}"
            )


def file_names_of(video: AnnotatedVideo) -> tuple[str, ...]:
    """One image name a frame; `<video name>/<frame:05d>.jpg` when none are given.

    Raises ValueError when the video's own names are not one a frame.
    """
    count = video.info.frame_count
    if not video.file_names:
        return tuple(f"{video.name}/{index:05d}.jpg" for index in range(count))
    if len(video.file_names) != count:
        raise ValueError(
            f"video {video.name!r} has {len(video.file_names)} file_names, must have "
            f"one for each of its {count} frames"
        )
    return video.file_names


def check_unique_file_names(videos: Sequence[AnnotatedVideo]) -> None:
    """Raises ValueError when two images of the data set have the same name."""
    owners: dict[str, str] = {}
    for video in videos:
        for name in file_names_of(video):
            if name in owners:
                raise ValueError(
                    f"file name {name!r} of video {video.name!r} is already that of a "
                    f"frame of video {owners[name]!r}, must be unique"
                )
            owners[name] = video.name


def check_unique_folders(videos: Sequence[AnnotatedVideo]) -> None:
    """Raises ValueError when frames of two videos lie in the same top folder.

    TrackEval takes the first part of a file name for the video's name, and
    merges videos that share it.
    """
    owners: dict[str, int] = {}
    for number, video in enumerate(videos):
        for folder in sorted({_top_folder(name, video) for name in file_names_of(video)}):
            if owners.setdefault(folder, number) != number:
                raise ValueError(
                    f"folder {folder!r} of video {video.name!r} also holds video "
                    f"{videos[owners[folder]].name!r}, must be one video's alone"
                )


def _top_folder(file_name: str, video: AnnotatedVideo) -> str:
    folder, slash, _ = file_name.partition("/")
    if not slash or not folder:
        raise ValueError(
            f"file name {file_name!r} of video {video.name!r} must be "
            "<video folder>/<frame image>"
        )
    return folder


def category_ids(
    videos: Sequence[AnnotatedVideo], categories: Sequence[str] | None
) -> dict[str, int]:
    """Category name -> id from 1, in the given order or sorted by name.

    A track's category is its first label. Raises ValueError for a repeated
    category, or a track whose category is not among the given ones.
    """
    used = {track.labels[0] for video in videos for track in video.tracks}
    if categories is None:
        names = sorted(used)
    else:
        names = list(categories)
        if len(set(names)) != len(names):
            raise ValueError(f"categories {names} repeat")
        missing = sorted(used - set(names))
        if missing:
            raise ValueError(f"label {missing[0]!r} is not in categories {names}")
    return {name: number for number, name in enumerate(names, start=1)}


def visible_frames(track: Track) -> list[int]:
    """Sorted frame indices with a mask that is not empty."""
    return sorted(i for i, mask in track.masks.items() if mask_area(mask) > 0)


def box_xywh(mask: MaskRLE) -> list[float]:
    """[x, y, width, height] in pixels, as pycocotools' toBbox gives it."""
    box = mask_box(mask)
    if box is None:
        return [0.0, 0.0, 0.0, 0.0]
    return [float(box.x_min), float(box.y_min), float(box.width), float(box.height)]


def track_score(track: Track, frame_indices: Iterable[int]) -> float:
    """Mean probability over the frames that have a score; 1.0 when none has."""
    logits = [float(track.scores[i]) for i in frame_indices if i in track.scores]
    if not logits:
        return 1.0
    # tanh is the sigmoid that does not overflow.
    probabilities = [0.5 + 0.5 * math.tanh(logit / 2) for logit in logits]
    return round(sum(probabilities) / len(probabilities), 6)
