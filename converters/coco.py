"""COCO instance segmentation: one image a frame, one annotation an object and frame."""

from __future__ import annotations

import os
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from converters.coco_reader import read_coco
from converters.dataset import (
    box_xywh,
    categories_of,
    category_entries,
    check_videos,
    file_names_of,
    have_own_file_names,
)
from converters.files import write_json
from converters.folders import with_own_folders
from converters.json_values import naming_file
from converters.masks import mask_area
from converters.outlines import mask_outlines
from converters.report import Report
from converters.types import AnnotatedVideo, Category, MaskRLE

_INFO = {"description": "SAM 2 video annotation for Label Studio: COCO instances"}


def to_coco(
    videos: Iterable[AnnotatedVideo],
    *,
    categories: Sequence[str | Category] | None = None,
    polygons: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """The data set as a COCO dict of plain Python values.

    Every frame is an image, with `video_id` and 0-based `frame_id`. An
    annotation has a compressed RLE segmentation, `area` in mask pixels,
    `bbox` as pycocotools' toBbox, `iscrowd` (1 for a crowd's mask),
    `instance_id` (the object's number in its video) and `track_id` (its number
    in the data set). Masks without a pixel are left out. A track's category is
    its first label; a track with several has them all in `attributes.labels`.
    Ids are from 1 and come from order; categories and their ids as
    `dataset.categories_of` says. FORMATS section 4.

    With `polygons`, masks are outlines along pixel edges where those hold the
    mask: not with a hole, and not where pycocotools would draw them otherwise;
    those stay RLE, and `report` counts them. Crowds are RLE by COCO's rules.

    Where two images have one name, all are named `<video>/<image>`, which
    `report` counts. Raises ValueError as `dataset.check_videos` does, when two
    videos would then have one name, and for a label that is not in `categories`.
    """
    return _document(videos, categories, list, polygons, report or Report())


def save_coco(
    path: str | os.PathLike[str],
    videos: Iterable[AnnotatedVideo],
    *,
    categories: Sequence[str | Category] | None = None,
    polygons: bool = False,
    report: Report | None = None,
) -> Report:
    """Writes what `to_coco` gives, an entry at a time; the file appears whole or not at all.

    Returns what was counted, added to `report` when one is given.
    """
    report = report or Report()
    write_json(path, _document(videos, categories, iter, polygons, report))
    return report


def load_coco(
    path: str | os.PathLike[str], *, report: Report | None = None
) -> Iterator[AnnotatedVideo]:
    """The videos of a COCO instances file, frames in order, masks read when asked for.

    Images with a `video_id` are the frames of that video, in the order of
    `frame_id`, or kwcoco's `frame_index` (of their names, numbers by value,
    when one has none); the frame index is the place in that order. Images
    without one make a video a folder when the annotations have track ids, else
    each is a video of one frame, under its name without suffix. An object is
    what shares a `track_id`, `instance_id` or CVAT's `attributes.track_id` in
    a video; an annotation with none stands alone. Segmentations may be
    polygons, compressed or uncompressed RLE; an annotation without one has its
    `bbox` as its mask, which is counted. `iscrowd` is kept, as it is: several
    tools set it on every RLE. Images without a size have that of a mask on
    them, or of their video. `file_names` are as in the file, but for those of
    Windows (`reading.names_of_any_system`). Ids may be numbers or texts of
    them.

    The file is read as a stream, its masks kept in a temporary file.

    What is malformed is left out, with what depends on it, and counted in
    `report`; without one, or with a strict one, the first raises ValueError
    naming the value's place in the file (`annotations[12].segmentation.counts`)
    and the rule it breaks. A category without a name counts only where it is used.
    """
    with naming_file(path):
        yield from read_coco(path, report or Report(strict=True))


def _document(
    videos: Iterable[AnnotatedVideo],
    categories: Sequence[str | Category] | None,
    gather: Callable[[Iterator[dict[str, Any]]], Any],
    polygons: bool,
    report: Report,
) -> dict[str, Any]:
    checked = check_videos(videos)
    if not have_own_file_names(checked):
        checked = with_own_folders(checked, report)
    known = categories_of(checked, categories)
    ids = {category.name: category.id for category in known}
    return {
        "info": dict(_INFO),
        "licenses": [],
        "videos": [_video(video, number) for number, video in enumerate(checked, start=1)],
        "images": gather(_images(checked, report)),
        "annotations": gather(_annotations(checked, ids, polygons, report)),
        "categories": category_entries(known),
    }


def _video(video: AnnotatedVideo, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": video.name,
        "width": int(video.info.width),
        "height": int(video.info.height),
        "length": int(video.info.frame_count),
        "fps": float(video.info.fps),
    }


def _images(videos: Sequence[AnnotatedVideo], report: Report) -> Iterator[dict[str, Any]]:
    image_id = 0
    for video_id, video in enumerate(videos, start=1):
        report.add_video(video.info.frame_count)
        for frame_index, file_name in enumerate(file_names_of(video)):
            image_id += 1
            yield {
                "id": image_id,
                "file_name": file_name,
                "width": int(video.info.width),
                "height": int(video.info.height),
                "video_id": video_id,
                "frame_id": frame_index,
            }


def _annotations(
    videos: Sequence[AnnotatedVideo], ids: Mapping[str, int | str], polygons: bool, report: Report
) -> Iterator[dict[str, Any]]:
    annotation_id = track_id = images_before = 0
    for video in videos:
        for instance_id, track in enumerate(video.tracks, start=1):
            track_id += 1
            for frame_index in report.visible_frames(track):
                mask = track.masks[frame_index]
                is_crowd = frame_index in track.crowd_frames
                annotation_id += 1
                annotation = {
                    "id": annotation_id,
                    "image_id": images_before + int(frame_index) + 1,
                    "category_id": ids[track.labels[0]],
                    "segmentation": _segmentation(mask, polygons and not is_crowd, report),
                    "area": mask_area(mask),
                    "bbox": box_xywh(mask),
                    "iscrowd": int(is_crowd),
                    "instance_id": instance_id,
                    "track_id": track_id,
                }
                if len(track.labels) > 1:
                    annotation["attributes"] = {"labels": list(track.labels)}
                yield annotation
                report.progress(1)
        images_before += video.info.frame_count


def _segmentation(mask: MaskRLE, polygons: bool, report: Report) -> Any:
    if polygons:
        outlines, hindrance = mask_outlines(mask)
        if not hindrance:
            return outlines
        report.change(f"masks kept as RLE ({hindrance})")
    return {"size": [mask.height, mask.width], "counts": mask.counts}
