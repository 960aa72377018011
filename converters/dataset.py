"""What the data set writers share: checks, image names, categories, scores."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import AbstractSet, Any, Iterable, Sequence

from converters.masks import mask_area, mask_box
from converters.types import AnnotatedVideo, Category, MaskRLE, Track


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
        raise ValueError(f"{where}: has no label, must have one for its category")
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


def have_own_file_names(videos: Iterable[AnnotatedVideo]) -> bool:
    """Whether no two images of the data set have the same name."""
    names = [name for video in videos for name in file_names_of(video)]
    return len(set(names)) == len(names)


def have_own_folders(videos: Sequence[AnnotatedVideo]) -> bool:
    """Whether each image lies in a folder, and no two videos' in the same top folder.

    TrackEval takes the first part of a file name for the video's name, and
    merges videos that share it.
    """
    owners: dict[str, int] = {}
    for number, video in enumerate(videos):
        for folder in {name.rpartition("/")[0].partition("/")[0] for name in file_names_of(video)}:
            if folder in ("", ".", "..") or owners.setdefault(folder, number) != number:
                return False
    return True


def categories_of(
    videos: Iterable[AnnotatedVideo], given: Sequence[str | Category] | None = None
) -> tuple[Category, ...]:
    """The categories of a data set, each with its own id and name.

    `given` are all that there may be: names have the ids 1, 2, ... in their
    order. Without them: those that the videos know of, in their order and with
    their ids, then other labels, sorted, with ids after the highest of those;
    of videos that know none, the labels with ids from 1. A track's category is
    its first label.

    Raises ValueError for a repeated category, or a track whose category is not
    among the given ones.
    """
    known: dict[str, Category] = {}
    used: set[str] = set()
    before: tuple[Category, ...] = ()
    for video in videos:
        used.update(track.labels[0] for track in video.tracks if track.labels)
        if video.categories != before:
            before = video.categories
            for category in before:
                known.setdefault(category.name, category)
    if given is not None:
        return _given_categories(given, used)
    return _with_own_ids((*known.values(), *sorted(used - known.keys())))


def _given_categories(
    given: Sequence[str | Category], used: AbstractSet[str]
) -> tuple[Category, ...]:
    categories = tuple(
        item if isinstance(item, Category) else Category(number, item)
        for number, item in enumerate(given, start=1)
    )
    names = [category.name for category in categories]
    ids = [category.id for category in categories]
    if len(set(names)) != len(names) or len(set(ids)) != len(ids):
        raise ValueError(f"categories {names} with the ids {ids} repeat")
    missing = sorted(used - set(names))
    if missing:
        raise ValueError(f"label {missing[0]!r} is not in categories {names}")
    return categories


def _with_own_ids(items: Sequence[Category | str]) -> tuple[Category, ...]:
    """Labels with ids above all others; so also of two with one id, from two data sets, the later."""
    ids = [item.id for item in items if isinstance(item, Category)]
    following = itertools.count(max([0, *(n for n in ids if isinstance(n, int))]) + 1)
    taken: set[int | str] = set()
    found = []
    for item in items:
        if isinstance(item, str):
            item = Category(next(following), item)
        elif item.id in taken:
            item = dataclasses.replace(item, id=next(following))
        taken.add(item.id)
        found.append(item)
    return tuple(found)


def category_entries(categories: Sequence[Category]) -> list[dict[str, Any]]:
    """As COCO and YouTube-VIS write them."""
    return [dataclasses.asdict(category) for category in categories]


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
