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
from typing import Iterable, Iterator, Mapping

import numpy as np

from converters.dataset import check_videos
from converters.files import write_json
from converters.folders import (
    AnnotatedFrame,
    annotated_frames,
    frame_stems,
    image_names,
    load_folder_labels,
    made_folder,
    new_folder,
    unique_folder_names,
    video_folders,
)
from converters.indexed_png import read_indices, write_indices
from converters.mask_store import MaskStore
from converters.masks import decode_mask, encode_mask
from converters.reading import TrackBuilder, video_info
from converters.report import Report
from converters.sav_json import SavJson, save_sav_json
from converters.types import AnnotatedVideo

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
) -> Iterator[AnnotatedVideo]:
    """The videos of a SA-V folder, of either layout, sorted by name; or of one JSON file.

    A video's frames are those that are annotated, usually every fourth: of
    those between nothing is known. They have the rate of the annotations (6
    a second in SA-V), or 0.0 where only PNGs tell. JSON files are found at any
    depth; `_manual` and `_auto` of one video are its objects together, ids of
    the latter as `auto <id>`. Object ids are masklet ids, or the numbers of
    folders. Labels are `default_label` where none are kept. `file_names` are
    relative to `image_folder(source)`.

    Raises:
        FileNotFoundError: neither layout is there.
        ValueError: a value or PNG breaks a rule; the file and place are named.
    """
    source, store = Path(source), MaskStore()
    if source.is_file():
        yield _load_jsons(_video_name(source), [source], source.parent, default_label, store)
    elif (annotations := _annotations_folder(source)) is not None:
        labels = load_folder_labels(source / LABELS_FILE)
        for folder in video_folders(annotations):
            of_video = labels.get(folder.name, {})
            yield _load_pngs(folder, image_folder(source), of_video, default_label, store)
    else:
        for name, files in _json_files(source).items():
            yield _load_jsons(name, files, source, default_label, store)


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


def _json_files(folder: Path) -> dict[str, list[Path]]:
    """video -> its JSON files, manual before auto."""
    files: dict[str, list[Path]] = {}
    for kind in _KINDS:
        for path in folder.rglob(f"*_{kind}.json"):
            files.setdefault(_video_name(path), []).append(path)
    if not files:
        raise FileNotFoundError(
            f"{folder} is no SA-V data set: it must hold {ANNOTATIONS_FOLDER}, or files "
            "<video>_manual.json or <video>_auto.json"
        )
    for name, paths in files.items():
        kinds = [path.stem for path in paths]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"{paths[0]} and {paths[1]} are both of video {name!r}")
    return dict(sorted(files.items()))


def _video_name(path: Path) -> str:
    for kind in _KINDS:
        if path.stem.endswith(f"_{kind}") and path.stem != f"_{kind}":
            return path.stem.removesuffix(f"_{kind}")
    return path.stem


def _load_pngs(
    folder: Path,
    images: Path,
    labels: Mapping[str, tuple[str, ...]],
    default_label: str,
    store: MaskStore,
) -> AnnotatedVideo:
    objects = video_folders(folder)
    for path in objects:
        if not path.name.isdecimal():
            raise ValueError(f"{path}: an object's folder must be named by a number")
    pngs = [png for path in objects for png in sorted(path.glob("*.png"))]
    frames = annotated_frames(folder.name, pngs, images)
    if not frames:
        raise ValueError(f"{folder} holds no PNG of an object")
    height, width = read_indices(pngs[0]).shape
    builder = TrackBuilder(store, height, width)
    for path in objects:
        builder.add_object(int(path.name), labels.get(path.name, (default_label,)))
        for frame_index, frame in enumerate(frames):
            _add_png(builder, path, frame, frame_index)
    info = video_info(width, height, len(frames))
    return builder.video(folder.name, info, (frame.file_name for frame in frames))


def _add_png(builder: TrackBuilder, folder: Path, frame: AnnotatedFrame, frame_index: int) -> None:
    png = folder / f"{frame.stem}.png"
    if not png.is_file():
        return
    mask = read_indices(png) > 0
    if mask.any():
        try:
            builder.add_mask(int(folder.name), frame_index, encode_mask(mask))
        except ValueError as error:
            raise ValueError(f"{png}: {error}") from None


def _load_jsons(
    name: str, files: list[Path], folder: Path, default_label: str, store: MaskStore
) -> AnnotatedVideo:
    loaded = [SavJson(path, store) for path in files]
    first = loaded[0]
    for other in loaded[1:]:
        if other.shape != first.shape:
            raise ValueError(
                f"{other.path}: has (height, width, annotated frames) {other.shape}, must have "
                f"{first.shape} as {first.path}"
            )
    tracks = [track for one in loaded for track in one.tracks(default_label)]
    height, width, frame_count = first.shape
    info = video_info(width, height, frame_count, first.fps)
    names = image_names(name, frame_count, first.step, image_folder(folder))
    return AnnotatedVideo(first.video_id or name, info, tuple(tracks), names)
