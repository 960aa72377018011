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
from typing import Any, Iterable, Iterator, Mapping, Sequence

import numpy as np

from converters.dataset import check_videos
from converters.files import write_json
from converters.folders import (
    annotated_frames,
    frame_stems,
    load_folder_labels,
    new_folder,
    resolution_folder,
    unique_folder_names,
    video_folders,
)
from converters.indexed_png import MAX_OBJECTS, VOID, read_indices, write_indices
from converters.mask_store import MaskStore
from converters.masks import decode_mask, encode_mask
from converters.reading import TrackBuilder, video_info
from converters.report import Report
from converters.types import AnnotatedVideo, Track

LABELS_FILE = "davis_semantics.json"
_RESOLUTION = "Full-Resolution"
IMAGES = f"JPEGImages/{_RESOLUTION}"
"""Where the images belong that go with what `save_davis` writes."""


def image_folder(folder: str | os.PathLike[str]) -> Path:
    """Where the images of a DAVIS data set lie: what `file_names` are relative to."""
    return resolution_folder(Path(folder) / "JPEGImages")


def annotation_folder(folder: str | os.PathLike[str]) -> Path:
    """Where the PNGs of a DAVIS data set lie, a folder a video."""
    return resolution_folder(Path(folder) / "Annotations")


def load_davis(
    folder: str | os.PathLike[str],
    *,
    default_label: str = "object",
    report: Report | None = None,
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
    store = MaskStore()
    for video_folder in video_folders(annotation_folder(folder)):
        of_video = labels.get(video_folder.name, {})
        yield _load_video(video_folder, images, of_video, default_label, store)


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
    video_folder: Path,
    images: Path,
    labels: Mapping[str, tuple[str, ...]],
    default_label: str,
    store: MaskStore,
) -> AnnotatedVideo:
    frames = annotated_frames(video_folder.name, video_folder.glob("*.png"), images)
    if not frames:
        raise ValueError(f"{video_folder} holds no PNG")
    height, width = read_indices(video_folder / f"{frames[0].stem}.png").shape
    builder = TrackBuilder(store, height, width)
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


def _labelled(track: Track, labels: Mapping[str, tuple[str, ...]], default_label: str) -> Track:
    return dataclasses.replace(track, labels=labels.get(str(track.object_id), (default_label,)))
