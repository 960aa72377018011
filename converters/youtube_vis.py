"""YouTube-VIS 2019/2021/2022: ground truth and results, one entry an object."""

from __future__ import annotations

import os
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from converters.dataset import (
    box_xywh,
    categories_of,
    category_entries,
    check_videos,
    file_names_of,
    have_own_folders,
    track_score,
)
from converters.files import write_json
from converters.folders import with_own_folders
from converters.json_values import naming_file
from converters.masks import mask_area, mask_runs
from converters.report import Report
from converters.types import AnnotatedVideo, Category, MaskRLE, Track
from converters.youtube_vis_reader import read_youtube_vis

_INFO = {"description": "SAM 2 video annotation for Label Studio: YouTube-VIS"}

_Gather = Callable[[Iterator[Any]], Any]


def to_youtube_vis(
    videos: Iterable[AnnotatedVideo],
    *,
    categories: Sequence[str | Category] | None = None,
    compressed: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """The data set as a YouTube-VIS ground truth dict of plain Python values.

    `segmentations`, `bboxes` and `areas` have one item a frame, None in all
    three where the object is not visible. Counts are lists (TrackEval takes
    no others in ground truth), or compressed strings with `compressed`. An
    object that is never visible is left out. `iscrowd` is 1 where all masks
    of an object are a crowd's. Ids are from 1 and come from order; categories
    and their ids as `dataset.categories_of` says. FORMATS section 5.

    Where an image lies in no folder, or in one with another video's, all are
    named `<video>/<image>`, since readers tell videos by their folders.

    Raises ValueError as `dataset.check_videos` does, when two videos would
    then have one name, and for a label that is not in `categories`.
    """
    return _ground_truth(videos, categories, compressed, list, report or Report())


def save_youtube_vis(
    path: str | os.PathLike[str],
    videos: Iterable[AnnotatedVideo],
    *,
    categories: Sequence[str | Category] | None = None,
    compressed: bool = False,
    report: Report | None = None,
) -> Report:
    """Writes what `to_youtube_vis` gives, a mask at a time; whole or not at all.

    Returns what was counted, added to `report` when one is given.
    """
    report = report or Report()
    write_json(path, _ground_truth(videos, categories, compressed, iter, report))
    return report


def load_youtube_vis(
    path: str | os.PathLike[str], *, report: Report | None = None
) -> Iterator[AnnotatedVideo]:
    """The videos of a YouTube-VIS ground truth file, masks read when asked for.

    Each annotation is an object, with its id as object id. RLE may be
    compressed or not; None is "not visible". A video's name is its `name`, or
    the folder of its first frame, or its id. The frame rate is its `fps`, or
    unknown (0.0). Segmentations may be RLE or polygons; where a frame has a
    box in `bboxes` and no mask, the box is its mask, which is counted. Sizes
    and lengths that a video does not say are taken from its annotations. With
    `iscrowd` 1 all masks of an object are a crowd's. `areas` are not looked at.

    The file is read as a stream, one mask at a time.

    A malformed mask or annotation is left out, other values made do without,
    and both counted in `report`; without one, or with a strict one, the first
    raises ValueError naming the value's place in the file
    (`annotations[12].segmentations[3].counts`) and the rule it breaks.
    """
    with naming_file(path):
        yield from read_youtube_vis(path, report or Report(strict=True))


def to_youtube_vis_results(
    videos: Iterable[AnnotatedVideo], *, categories: Sequence[str | Category] | None = None
) -> list[dict[str, Any]]:
    """The tracks as YouTube-VIS results, with the ids of `to_youtube_vis`.

    Pass `categories` when the ground truth has labels that the results lack.
    Counts are compressed strings (YTVOSeval takes no others); `score` is the
    mean object probability, 1.0 when no frame has one. Raises as
    `to_youtube_vis` does.
    """
    return list(_results(videos, categories, list))


def save_youtube_vis_results(
    path: str | os.PathLike[str],
    videos: Iterable[AnnotatedVideo],
    *,
    categories: Sequence[str | Category] | None = None,
) -> None:
    """Writes what `to_youtube_vis_results` gives, a mask at a time; whole or not at all."""
    write_json(path, _results(videos, categories, iter))


def _ground_truth(
    videos: Iterable[AnnotatedVideo],
    categories: Sequence[str | Category] | None,
    compressed: bool,
    gather: _Gather,
    report: Report,
) -> dict[str, Any]:
    checked, known = _checked(videos, categories, report)
    ids = {category.name: category.id for category in known}
    for video in checked:
        report.add_video(video.info.frame_count)
    return {
        "info": dict(_INFO),
        "licenses": [],
        "videos": [_video(video, number) for number, video in enumerate(checked, start=1)],
        "categories": category_entries(known),
        "annotations": gather(_annotations(checked, ids, compressed, gather, report)),
    }


def _checked(
    videos: Iterable[AnnotatedVideo], categories: Sequence[str | Category] | None, report: Report
) -> tuple[tuple[AnnotatedVideo, ...], tuple[Category, ...]]:
    checked = check_videos(videos)
    if not have_own_folders(checked):
        checked = with_own_folders(checked, report)
    return checked, categories_of(checked, categories)


def _video(video: AnnotatedVideo, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "width": int(video.info.width),
        "height": int(video.info.height),
        "length": int(video.info.frame_count),
        "file_names": list(file_names_of(video)),
    }


def _annotations(
    videos: Sequence[AnnotatedVideo],
    ids: Mapping[str, int | str],
    compressed: bool,
    gather: _Gather,
    report: Report,
) -> Iterator[dict[str, Any]]:
    annotation_id = 0
    write = _compressed if compressed else _uncompressed
    for video_id, video, track, visible in _visible_tracks(videos, report):
        annotation_id += 1
        if not track.is_crowd:
            report.change("masks of a crowd, written as an object's", len(track.crowd_frames))
        annotation = {
            "id": annotation_id,
            "video_id": video_id,
            "category_id": ids[track.labels[0]],
            "segmentations": gather(_each_frame(video, track, visible, write)),
            "bboxes": gather(_each_frame(video, track, visible, box_xywh)),
            "areas": gather(_each_frame(video, track, visible, mask_area)),
            "iscrowd": int(track.is_crowd),
            "width": int(video.info.width),
            "height": int(video.info.height),
            "length": int(video.info.frame_count),
        }
        if len(track.labels) > 1:
            annotation["attributes"] = {"labels": list(track.labels)}
        yield annotation
        report.progress(len(visible))


def _results(
    videos: Iterable[AnnotatedVideo], categories: Sequence[str | Category] | None, gather: _Gather
) -> Iterator[dict[str, Any]]:
    checked, known = _checked(videos, categories, Report())
    ids = {category.name: category.id for category in known}
    return (
        {
            "video_id": video_id,
            "category_id": ids[track.labels[0]],
            "segmentations": gather(_each_frame(video, track, visible, _compressed)),
            "score": track_score(track, visible),
        }
        for video_id, video, track, visible in _visible_tracks(checked, Report())
    )


def _visible_tracks(
    videos: Sequence[AnnotatedVideo], report: Report
) -> Iterator[tuple[int, AnnotatedVideo, Track, list[int]]]:
    """(video id, video, track, visible frame indices) of tracks seen at least once."""
    for video_id, video in enumerate(videos, start=1):
        for track in video.tracks:
            visible = report.visible_frames(track)
            if visible:
                yield video_id, video, track, visible


def _each_frame(
    video: AnnotatedVideo,
    track: Track,
    visible: Sequence[int],
    describe: Callable[[MaskRLE], Any],
) -> Iterator[Any]:
    """describe(mask) on visible frames, None on the others."""
    seen = set(visible)
    for frame_index in range(video.info.frame_count):
        yield describe(track.masks[frame_index]) if frame_index in seen else None


def _uncompressed(mask: MaskRLE) -> dict[str, Any]:
    return {"size": [mask.height, mask.width], "counts": mask_runs(mask).tolist()}


def _compressed(mask: MaskRLE) -> dict[str, Any]:
    return {"size": [mask.height, mask.width], "counts": mask.counts}
