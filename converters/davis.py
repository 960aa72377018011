"""DAVIS 2016 and 2017: a folder a video, one indexed PNG a frame.

JPEGImages/<resolution>/<video>/00000.jpg
Annotations/<resolution>/<video>/00000.png    0 background, 1..N objects, 255 void
ImageSets/2017/train.txt                      names of videos
davis_semantics.json                          {video: {"1": label}}

YouTube-VOS is the same without the resolution, its labels in meta.json.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Iterable, Iterator, Mapping

import numpy as np

from converters.dataset import check_videos
from converters.files import write_json
from converters.folders import (
    FolderLabels,
    annotated_frames,
    check_inside,
    frame_stems,
    image_files,
    images_by_stem,
    is_stray,
    load_folder_labels,
    mask_files,
    masks_with_image,
    new_folder,
    unique_folder_names,
    video_folders,
)
from converters.indexed_png import MAX_OBJECTS, write_indices
from converters.malformed import MalformedValue
from converters.mask_readings import VideoMasks, distinct, survey_masks
from converters.mask_store import MaskStore
from converters.masks import decode_mask, encode_mask
from converters.reading import TrackBuilder, video_info
from converters.report import Report
from converters.types import AnnotatedVideo

LABELS_FILE = "davis_semantics.json"
ANNOTATION_FOLDERS = ("Annotations", "Annotations_unsupervised")
"""Where masks are, the first that is there."""
_YOUTUBE_VOS_LABELS_FILE = "meta.json"
_RESOLUTION = "Full-Resolution"
IMAGES = f"JPEGImages/{_RESOLUTION}"
"""Where the images belong that go with what `save_davis` writes."""

_RESOLUTION_NAME = re.compile(
    r"full[-_ ]?resolution|full|original|raw|u?hd|[1-9]k|\d{2,5}[pi]|\d+x\d+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Layout:
    """Where a data set has its masks and images, a folder a video each."""

    annotations: Path
    images: Path
    other_images: tuple[str, ...] = ()
    """Resolutions that there are images of, where there are none of the masks'."""

    @classmethod
    def of(cls, folder: Path, resolution: str | None = None) -> _Layout:
        """Of a data set's folder: the given resolution, or else the finest of masks and images."""
        places = (folder / name for name in ANNOTATION_FOLDERS)
        annotations = next((p for p in places if p.is_dir()), folder / ANNOTATION_FOLDERS[0])
        images = folder / "JPEGImages"
        of_images = _levels(images)
        of_masks = [n for n in _levels(annotations) if _is_resolution(annotations / n, images)]
        both = [name for name in of_masks if name in of_images]

        def finest(names: list[str]) -> str:
            return min(names, key=lambda name: (name != resolution, *_fineness(name)))

        if both:
            return cls(annotations / finest(both), images / finest(both))
        if of_masks:
            level = finest(of_masks)
            return cls(annotations / level, images / level if of_images else images, of_images)
        return cls(annotations, images / finest(of_images) if of_images else images)


def _levels(folder: Path) -> tuple[str, ...]:
    """Its folders of folders, which hold no images themselves."""
    if not folder.is_dir():
        return ()
    return tuple(
        path.name for path in folder.iterdir()
        if path.is_dir() and not is_stray(path) and next(image_files(path), None) is None
        and any(below.is_dir() and not is_stray(below) for below in path.iterdir())
    )


def _is_resolution(level: Path, images: Path) -> bool:
    """Whether a folder of folders of masks is a resolution, and no video of SA-V's kind.

    That has a folder an object, and its images lie in the video's folder.
    """
    if (images / level.name).is_dir():
        return level.name in _levels(images)
    if _RESOLUTION_NAME.fullmatch(level.name):
        return True
    objects = [path.name for path in level.iterdir() if path.is_dir() and not is_stray(path)]
    return not images.is_dir() and not all(name.isdecimal() for name in objects)


def _fineness(name: str) -> tuple[int, str]:
    """Sorts what is finer first; names that say no size are taken for the full one."""
    numbers = re.findall(r"\d{2,5}", name)
    return -int(numbers[-1]) if numbers else -(10**6), name


def image_folder(folder: str | os.PathLike[str], *, resolution: str | None = None) -> Path:
    """Where the images of a DAVIS data set lie: what `file_names` are relative to."""
    return _Layout.of(Path(folder), resolution).images


def annotation_folder(folder: str | os.PathLike[str], *, resolution: str | None = None) -> Path:
    """Where the masks of a DAVIS data set lie, a folder a video."""
    return _Layout.of(Path(folder), resolution).annotations


def load_davis(
    folder: str | os.PathLike[str],
    *,
    default_label: str = "object",
    report: Report | None = None,
    only: Collection[str] | None = None,
    resolution: str | None = None,
) -> Iterator[AnnotatedVideo]:
    """The videos of a DAVIS folder, sorted by name, masks read when asked for.

    Also reads YouTube-VOS (no resolution folder). A video's frames are those
    with a PNG; the images between are not frames of it, since nothing is known
    of them. An object's id is its index. A video whose only index is 255 is of
    DAVIS 2016: white is one object, with id 1; elsewhere 255 is void, left out
    and counted. What gray pictures with soft edges and pictures in colours
    mean is told by `mask_pictures`, of the whole video. Labels are those of
    davis_semantics.json or meta.json, or else `default_label`. The frame rate
    is unknown (0.0). `file_names` are relative to `image_folder(folder)`.

    Args:
        report: told what is left out: a picture that cannot be read or is of
            another size than most of its video (the frame stays, as one of
            `unknown_frames`), a frame without an image, a video without masks.
            Without one, or with a strict one, the first of these raises.
        only: names of videos to read; None: all.
        resolution: which folder of a resolution is read, where it is there;
            None: the finest that masks and images have.

    Raises:
        FileNotFoundError: the folder has no Annotations.
        ValueError: a name in `only` is not there; strict, also for what would
            be left out.
    """
    folder, report = Path(folder), report or Report(strict=True)
    layout = _Layout.of(folder, resolution)
    folders = video_folders(layout.annotations, only)
    labels = load_folder_labels(folder / _YOUTUBE_VOS_LABELS_FILE, report)
    labels |= load_folder_labels(folder / LABELS_FILE, report)
    if layout.other_images:
        report.drop(
            f"images (of {', '.join(layout.other_images)}, the masks are of "
            f"{layout.annotations.name})", len(folders),
        )
    store = MaskStore()
    for path in folders:
        video = None
        with report.leaving_out("videos"):
            check_inside(path, layout.annotations)
            of_video = labels.get(path.name, {})
            video = _load_video(path, layout, of_video, default_label, store, report)
        if video is not None:
            yield video


def save_davis(
    folder: str | os.PathLike[str],
    videos: Iterable[AnnotatedVideo],
    *,
    image_set: str = "train",
    report: Report | None = None,
) -> Report:
    """Writes indexed PNGs under `Annotations/Full-Resolution`, a video at a time.

    Objects have the indices 1..N in the order of the tracks. Where masks
    overlap, the pixel goes to the object with the smaller mask on that frame,
    of equal ones to the later track; `report` counts such pixels, and masks
    of which nothing is left. `<image_set>.txt` names the videos, and
    davis_semantics.json keeps the labels. PNGs are named as the frames'
    images. Returns what was counted, added to `report` when one is given.

    Raises ValueError as `dataset.check_videos` does, for more than 254
    objects in a video, and when a video's folder already holds something.
    """
    folder, report = Path(folder), report or Report()
    labels: dict[str, dict[str, Any]] = {}
    for name, video in unique_folder_names(videos):
        check_videos([video])
        with new_folder(folder / "Annotations" / _RESOLUTION / name) as target:
            _save_video(target, video, report)
        labels[name] = {
            str(number): track.labels[0] if len(track.labels) == 1 else list(track.labels)
            for number, track in enumerate(video.tracks, start=1)
        }
    _save_image_set(folder, image_set, labels)
    return report


def _save_video(target: Path, video: AnnotatedVideo, report: Report) -> None:
    if len(video.tracks) > MAX_OBJECTS:
        raise ValueError(
            f"video {video.name!r} has {len(video.tracks)} objects, DAVIS holds {MAX_OBJECTS}"
        )
    size = (video.info.height, video.info.width)
    report.add_video(video.info.frame_count)
    # Masks are read a frame at a time, so what is visible is known at the end.
    seen: set[int] = set()
    for frame_index, stem in enumerate(frame_stems(video)):
        masks = {}
        for number, track in enumerate(video.tracks, start=1):
            if frame_index in track.masks:
                masks[number] = decode_mask(track.masks[frame_index])
        indices = _layered(masks, size, report)
        seen.update(np.unique(indices).tolist())
        write_indices(target / f"{stem}.png", indices)
        report.progress(1)
    report.objects += len(seen - {0})
    report.drop("objects (on no frame)", len(video.tracks) - len(seen - {0}))


def _layered(
    masks: Mapping[int, np.ndarray], size_hw: tuple[int, int], report: Report
) -> np.ndarray:
    """(H, W) uint8: the number of the object on top, 0 where there is none."""
    indices = np.zeros(size_hw, np.uint8)
    covered = 0
    areas = {number: int(mask.sum()) for number, mask in masks.items()}
    report.drop("masks (empty)", sum(not area for area in areas.values()))
    for number in sorted(masks, key=lambda number: (-areas[number], number)):
        covered += int(np.count_nonzero(indices[masks[number]]))
        indices[masks[number]] = number
    left = set(np.unique(indices).tolist()) - {0}
    hidden = sum(1 for number, area in areas.items() if area and number not in left)
    report.masks += len(left)
    report.drop("masks (wholly under smaller objects)", hidden)
    report.change("pixels given to a smaller object", covered)
    return indices


def _save_image_set(folder: Path, image_set: str, labels: Mapping[str, Any]) -> None:
    path = folder / "ImageSets" / "2017" / f"{image_set}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in labels), "utf-8")
    known = load_folder_labels(folder / LABELS_FILE)
    # Another image set may have been written into the same folder before.
    write_json(folder / LABELS_FILE, {**known, **labels})


def _load_video(
    folder: Path,
    layout: _Layout,
    labels: FolderLabels,
    default_label: str,
    store: MaskStore,
    report: Report,
) -> AnnotatedVideo:
    """Raises MalformedValue for a video without a mask that can be read."""
    masks = mask_files(folder, layout.annotations, report)
    if not masks:
        raise MalformedValue(str(folder), "holds no mask: no PNG")
    known = images_by_stem(folder.name, layout.images)
    masks = masks_with_image(masks, known, report)
    frames = annotated_frames(folder.name, masks, known)
    surveyed = survey_masks(masks.values(), folder, report)
    builder = TrackBuilder(store, *surveyed.size_hw)
    unknown = set()
    for frame_index, frame in enumerate(frames):
        unknown.add(frame_index)
        path = masks[frame.stem]
        with report.leaving_out("masks"):
            if path in surveyed.files:
                _add_objects(builder, surveyed, path, frame_index, report)
                unknown.remove(frame_index)
    if labels and not surveyed.has_own_ids:
        report.drop("labels (of objects told apart by colour alone)", len(labels))
        labels = {}
    for object_id in builder.object_ids:
        builder.add_object(object_id, labels.get(str(object_id)) or (default_label,))
    height, width = surveyed.size_hw
    return AnnotatedVideo(
        folder.name, video_info(width, height, len(frames)),
        tuple(sorted(builder.tracks(), key=lambda track: track.object_id)),
        tuple(frame.file_name for frame in frames), unknown_frames=frozenset(unknown),
    )


def _add_objects(
    builder: TrackBuilder, masks: VideoMasks, path: Path, frame_index: int, report: Report
) -> None:
    objects = masks.objects(path)
    for object_id, pixels in zip(*(array.tolist() for array in distinct(objects))):
        if object_id == masks.void:
            report.drop("pixels (void)", pixels)
        elif object_id:
            builder.add_object(object_id)
            builder.add_mask(object_id, frame_index, encode_mask(objects == object_id))
