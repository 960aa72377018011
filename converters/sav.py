"""SA-V, the data set of SAM 2: masks that may overlap, in two layouts.

Training, a JSON file a video beside its mp4 or frames:

    <video>_manual.json     {video_id, video_frame_count, ..., masklet: [[{size, counts}, ...], ...]}

Validation and test, a binary PNG an object and frame:

    JPEGImages_24fps/<video>/00000.jpg
    Annotations_6fps/<video>/<object:03d>/00000.png

SA-V has no categories. Labels are kept where its readers do not look: in
`masklet_labels` of a JSON file, in `labels.json` beside the folders.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator, Mapping

from converters.folders import (
    AnnotatedFrame,
    annotated_frames,
    image_names,
    load_folder_labels,
    video_folders,
)
from converters.indexed_png import read_indices
from converters.mask_store import MaskStore
from converters.masks import encode_mask
from converters.reading import TrackBuilder, video_info
from converters.sav_json import SavJson
from converters.types import AnnotatedVideo

ANNOTATIONS_FOLDER = "Annotations_6fps"
LABELS_FILE = "labels.json"

_KINDS = ("manual", "auto")


def image_folder(folder: str | os.PathLike[str]) -> Path:
    """Where the images of a SA-V data set lie: what `file_names` are relative to."""
    folder = Path(folder)
    for name in ("JPEGImages_24fps", "JPEGImages"):
        if (folder / name).is_dir():
            return folder / name
    return folder / "JPEGImages_24fps"


def load_sav(
    source: str | os.PathLike[str], *, default_label: str = "object"
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
    source = Path(source)
    if source.is_file():
        yield _load_jsons(_video_name(source), [source], source.parent, default_label)
    elif (annotations := _annotations_folder(source)) is not None:
        labels = load_folder_labels(source / LABELS_FILE)
        for folder in video_folders(annotations):
            of_video = labels.get(folder.name, {})
            yield _load_pngs(folder, image_folder(source), of_video, default_label)
    else:
        for name, files in _json_files(source).items():
            yield _load_jsons(name, files, source, default_label)


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
    folder: Path, images: Path, labels: Mapping[str, tuple[str, ...]], default_label: str
) -> AnnotatedVideo:
    objects = video_folders(folder)
    for path in objects:
        if not path.name.isdecimal():
            raise ValueError(f"{path}: an object's folder must be named by a number")
    pngs = [png for path in objects for png in path.glob("*.png")]
    frames = annotated_frames(folder.name, pngs, images)
    if not frames:
        raise ValueError(f"{folder} holds no PNG of an object")
    height, width = read_indices(pngs[0]).shape
    builder = TrackBuilder(MaskStore(), height, width)
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


def _load_jsons(name: str, files: list[Path], folder: Path, default_label: str) -> AnnotatedVideo:
    loaded = [SavJson(path) for path in files]
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
