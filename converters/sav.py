"""SA-V, the data set of SAM 2: masks that may overlap, in two layouts.

Training, a JSON file a video beside its mp4 or frames:

    <video>_manual.json     {video_id, ..., masklet: [[{size, counts}, ...], ...]}

Validation and test, a binary PNG an object and frame:

    JPEGImages_24fps/<video>/00000.jpg
    Annotations_6fps/<video>/<object:03d>/00000.png

SA-V has no categories. Labels are kept where its readers do not look: in
`masklet_labels` of a JSON file, in `labels.json` beside the folders.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Collection, Iterable, Iterator

import numpy as np

from converters.dataset import check_videos
from converters.files import write_json
from converters.folders import (
    FolderLabels,
    annotated_frames,
    check_inside,
    frame_stems,
    image_names,
    images_by_stem,
    is_stray,
    load_folder_labels,
    made_folder,
    mask_files,
    masks_with_image,
    new_folder,
    unique_folder_names,
    video_folders,
)
from converters.indexed_png import write_indices
from converters.malformed import MalformedValue
from converters.mask_readings import survey_masks
from converters.mask_store import MaskStore
from converters.masks import decode_mask, encode_mask
from converters.reading import TrackBuilder, video_info
from converters.report import Report
from converters.sav_json import SavJson, save_sav_json
from converters.types import AnnotatedVideo, ObjectId

ANNOTATIONS_FOLDER = "Annotations_6fps"
LABELS_FILE = "labels.json"
IMAGES = "JPEGImages_24fps"
"""Where the images belong that go with what `save_sav` writes."""

_KINDS = ("manual", "auto")


class SavLayout(enum.StrEnum):
    """How SA-V lies on disk."""

    JSON = "json"
    """As its training set."""
    FOLDERS = "folders"
    """As its validation and test sets."""


def image_folder(folder: str | os.PathLike[str]) -> Path:
    """Where the images of a SA-V data set lie: what `file_names` are relative to."""
    folder = Path(folder)
    for name in (IMAGES, "JPEGImages"):
        if (folder / name).is_dir():
            return folder / name
    return folder / IMAGES


def load_sav(
    source: str | os.PathLike[str],
    *,
    default_label: str = "object",
    report: Report | None = None,
    only: Collection[str] | None = None,
) -> Iterator[AnnotatedVideo]:
    """The videos of a SA-V folder, of either layout, sorted by name; or of one JSON file.

    A video's frames are those that are annotated, usually every fourth: of
    those between nothing is known. They have the rate of the annotations (6
    a second in SA-V), or 0.0 where only PNGs tell. JSON files are found at any
    depth; `_manual` and `_auto` of one video are its objects together, ids of
    the latter as `auto <id>`. Object ids are masklet ids, or the numbers of
    folders, or their names where those are no numbers. A pixel of any index
    or colour is its object's; of masks with soft edges those of at least half
    of their white. Labels are `default_label` where none are kept.
    `file_names` are relative to `image_folder(source)`.

    Args:
        report: told what is left out: a mask that cannot be read, breaks a rule
            or has no image (its frame is one of `unknown_frames`), a masklet
            without an id, a video whose file breaks a rule, or without masks.
            Without one, or with a strict one, the first of these raises.
        only: names of videos to read, in the layout of PNGs; None: all.

    Raises:
        FileNotFoundError: neither layout is there.
        ValueError: a name in `only` is not there; strict, also for what would
            be left out, with the file and the place.
    """
    source, report = Path(source), report or Report(strict=True)
    store = MaskStore()
    if source.is_file():
        jsons = {_video_name(source): [source]}
        folder = source.parent
    else:
        annotations, folder = _annotations_folder(source), source
        if annotations is not None:
            yield from _load_folders(source, annotations, default_label, store, report, only)
            return
        jsons = _json_files(source, report)
    for name, files in jsons.items():
        video = _load_jsons(name, files, folder, default_label, store, report)
        if video is not None:
            yield video


def save_sav(
    folder: str | os.PathLike[str],
    videos: Iterable[AnnotatedVideo],
    *,
    layout: SavLayout = SavLayout.JSON,
    split: str = "train",
    report: Report | None = None,
) -> Report:
    """Writes a SA-V data set, a video at a time; masks may overlap.

    `layout` JSON: `<video>_manual.json`, with masks of every frame. FOLDERS:
    `Annotations_6fps/<video>/<object:03d>/<frame>.png`, binary, one for every
    object and frame, black where it is not visible; `sav_<split>.txt` names
    the videos. Objects are numbered from 0 in the order of the tracks, and
    PNGs named as the frames' images. Returns what was counted, added to
    `report` when one is given.

    The folder is called 6fps whatever the rate, since readers look for that
    name: `selection.Selection.every` thins frames.

    Raises ValueError as `dataset.check_videos` does, and when what it would
    write is there already.
    """
    folder, layout, report = Path(folder), SavLayout(layout), report or Report()
    labels: dict[str, dict[str, list[str]]] = {}
    with made_folder(folder):
        for name, video in unique_folder_names(videos):
            check_videos([video])
            report.add_video(video.info.frame_count)
            visible = [report.visible_frames(track) for track in video.tracks]
            if layout == SavLayout.JSON:
                path = folder / f"{name}_manual.json"
                save_sav_json(path, video, visible, video_id=name, split=split, report=report)
            else:
                with new_folder(folder / ANNOTATIONS_FOLDER / name) as target:
                    _save_pngs(target, video, report)
                labels[name] = {f"{n:03d}": list(t.labels) for n, t in enumerate(video.tracks)}
    if layout == SavLayout.FOLDERS:
        (folder / f"sav_{split}.txt").write_text("".join(f"{n}\n" for n in labels), "utf-8")
        write_json(folder / LABELS_FILE, {**load_folder_labels(folder / LABELS_FILE), **labels})
    return report


def _save_pngs(target: Path, video: AnnotatedVideo, report: Report) -> None:
    stems = frame_stems(video)
    nothing = np.zeros((video.info.height, video.info.width), np.uint8)
    for number, track in enumerate(video.tracks):
        folder = target / f"{number:03d}"
        folder.mkdir()
        for frame_index, stem in enumerate(stems):
            mask = track.masks.get(frame_index)
            write_indices(folder / f"{stem}.png", nothing if mask is None else decode_mask(mask))
            report.progress(1)


def _annotations_folder(folder: Path) -> Path | None:
    for name in (ANNOTATIONS_FOLDER, "Annotations"):
        if (folder / name).is_dir():
            return folder / name
    return None


def json_files(folder: Path) -> Iterator[Path]:
    """Its `_manual` and `_auto` files at any depth, manual ones first; without stray ones."""
    for kind in _KINDS:
        for path in sorted(folder.rglob(f"*_{kind}.json")):
            if not any(is_stray(folder / part) for part in path.relative_to(folder).parts):
                yield path


def _json_files(folder: Path, report: Report) -> dict[str, list[Path]]:
    """video -> its JSON files, manual before auto."""
    files: dict[str, dict[str, Path]] = {}
    for path in json_files(folder):
        with report.leaving_out("files"):
            of_video = files.setdefault(_video_name(path), {})
            check_inside(path, folder)
            if path.stem in of_video:
                raise MalformedValue(
                    str(path), f"is of the same video as {str(of_video[path.stem])!r}"
                )
            of_video[path.stem] = path
    if not files:
        raise FileNotFoundError(
            f"{folder} is no SA-V data set: it must hold {ANNOTATIONS_FOLDER}, or files "
            "<video>_manual.json or <video>_auto.json"
        )
    return {name: list(paths.values()) for name, paths in sorted(files.items()) if paths}


def _video_name(path: Path) -> str:
    for kind in _KINDS:
        if path.stem.endswith(f"_{kind}") and path.stem != f"_{kind}":
            return path.stem.removesuffix(f"_{kind}")
    return path.stem


def _load_folders(
    source: Path,
    annotations: Path,
    default_label: str,
    store: MaskStore,
    report: Report,
    only: Collection[str] | None,
) -> Iterator[AnnotatedVideo]:
    labels, images = load_folder_labels(source / LABELS_FILE, report), image_folder(source)
    for folder in video_folders(annotations, only):
        video = None
        with report.leaving_out("videos"):
            check_inside(folder, annotations)
            of_video = labels.get(folder.name, {})
            video = _load_pngs(folder, images, of_video, default_label, store, report)
        if video is not None:
            yield video


def _load_pngs(
    folder: Path,
    images: Path,
    labels: FolderLabels,
    default_label: str,
    store: MaskStore,
    report: Report,
) -> AnnotatedVideo:
    """Raises MalformedValue for a video without a mask that can be read."""
    known = images_by_stem(folder.name, images)
    objects = {
        path: masks_with_image(mask_files(path, folder, report), known, report)
        for path in video_folders(folder)
    }
    if not any(objects.values()):
        raise MalformedValue(str(folder), "holds no mask: no PNG of an object")
    frames = annotated_frames(folder.name, (s for masks in objects.values() for s in masks), known)
    files = (path for masks in objects.values() for path in masks.values())
    surveyed = survey_masks(files, folder, report)
    builder = TrackBuilder(store, *surveyed.size_hw)
    unknown = set()
    for path, object_id in zip(objects, _object_ids(list(objects))):
        builder.add_object(object_id, labels.get(path.name) or (default_label,))
        for frame_index, frame in enumerate(frames):
            file = objects[path].get(frame.stem)
            if file is None:
                continue
            mask = None
            with report.leaving_out("masks"):
                mask = surveyed.objects(file) != 0 if file in surveyed.files else None
            if mask is None:
                unknown.add(frame_index)
            elif mask.any():
                builder.add_mask(object_id, frame_index, encode_mask(mask))
    height, width = surveyed.size_hw
    return AnnotatedVideo(
        folder.name, video_info(width, height, len(frames)), builder.tracks(),
        tuple(frame.file_name for frame in frames), unknown_frames=frozenset(unknown),
    )


def _object_ids(folders: list[Path]) -> list[ObjectId]:
    """The folders' numbers; names where they are none, or the same as another's."""
    numbers = [int(path.name) for path in folders if path.name.isdecimal()]
    return [
        int(path.name) if path.name.isdecimal() and numbers.count(int(path.name)) == 1
        else path.name
        for path in folders
    ]


def _load_jsons(
    name: str, files: list[Path], folder: Path, default_label: str, store: MaskStore, report: Report
) -> AnnotatedVideo | None:
    """None when all files were left out."""
    loaded: list[SavJson] = []
    for path in files:
        with report.leaving_out("videos" if len(files) == 1 else "files of a video"):
            one = SavJson(path, store, report)
            if loaded and one.shape != loaded[0].shape:
                raise MalformedValue(
                    str(path), f"has (height, width, annotated frames) {one.shape}, must have "
                    f"{loaded[0].shape} as {str(loaded[0].path)!r}",
                )
            loaded.append(one)
    if not loaded:
        return None
    first = loaded[0]
    tracks = [track for one in loaded for track in one.tracks(default_label)]
    height, width, frame_count = first.shape
    info = video_info(width, height, frame_count, first.fps)
    names = image_names(name, frame_count, first.step, image_folder(folder))
    unknown = frozenset(frame for one in loaded for frame in one.unknown_frames)
    return AnnotatedVideo(
        first.video_id or name, info, tuple(tracks), names, unknown_frames=unknown
    )
