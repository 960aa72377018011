"""What data sets of image folders share: where videos, frames and labels lie."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Collection, Iterable, Iterator, Mapping

from converters.dataset import file_names_of
from converters.frame_names import natural_order
from converters.json_stream import Location
from converters.json_values import BadValue, texts
from converters.malformed import MalformedValue
from converters.media_kinds import is_image_name
from converters.report import Report
from converters.types import AnnotatedVideo

_MOST_NAME_BYTES = 255
"""Of a folder or file, on every common file system."""

FolderLabels = dict[str, tuple[str, ...]]
"""Object, as the data set names it -> its labels."""

_STRAY_FOLDERS = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found")


@dataclass(frozen=True)
class AnnotatedFrame:
    """A frame that has annotations."""

    stem: str
    """Name of its files without suffix."""
    file_name: str
    """Name of its image, relative to the image folder."""


def is_stray(path: Path) -> bool:
    """Whether macOS, Windows or a file server put it there: `._00000.png`, `__MACOSX`."""
    return path.name.startswith(".") or path.name.lower() in _STRAY_FOLDERS


def image_files(folder: Path) -> Iterator[Path]:
    """The image files right in it, in no order; stray ones are left out."""
    return (
        path for path in folder.iterdir()
        if is_image_name(path.name) and not is_stray(path)
    )


def mask_files(folder: Path, root: Path, report: Report) -> dict[str, Path]:
    """Stem -> file, of a video's or object's masks, in the order of the frames.

    Those are its PNG files, or other images where it has no PNG. Left out and
    counted in `report`: a second file of one stem, and files that a link
    leads out of `root`.
    """
    files = sorted(image_files(folder))
    pngs = [path for path in files if path.suffix.lower() == ".png"]
    found: dict[str, Path] = {}
    for path in pngs or files:
        with report.leaving_out("masks"):
            check_inside(path, root)
            if path.stem in found:
                other = found[path.stem].name
                raise MalformedValue(str(path), f"is of the same frame as {other!r}")
            found[path.stem] = path
    return {stem: found[stem] for stem in sorted(found, key=natural_order)}


def video_folders(folder: Path, only: Collection[str] | None = None) -> list[Path]:
    """Its folders, sorted by name; stray ones are left out.

    Raises FileNotFoundError when it is no folder, ValueError when it has not
    all of the names in `only`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder of annotations")
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not is_stray(path))
    missing = sorted(set(only or ()) - {path.name for path in found})
    if missing:
        names = [path.name for path in found]
        raise ValueError(f"video {missing[0]!r} is not in the data set: {folder} has {names}")
    return [path for path in found if only is None or path.name in only]


def check_inside(path: Path, root: Path) -> None:
    """Raises MalformedValue when a link leads out of the root."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise MalformedValue(str(path), "leads out of the data set")


def images_by_stem(video: str, images: Path) -> dict[str, str] | None:
    """Stem -> name relative to `images`, of a video's images; None when there are none."""
    folder = images / video
    if not folder.is_dir():
        return None
    return {path.stem: f"{video}/{path.name}" for path in sorted(image_files(folder))} or None


def masks_with_image(
    masks: Mapping[str, Path], known: Mapping[str, str] | None, report: Report
) -> dict[str, Path]:
    """The masks without those of no image, which are counted in `report`."""
    found = {}
    for stem, path in masks.items():
        with report.leaving_out("masks"):
            if known is not None and stem not in known:
                raise MalformedValue(str(path), "annotates a frame that has no image")
            found[stem] = path
    return found


def annotated_frames(
    video: str, stems: Iterable[str], known: Mapping[str, str] | None
) -> tuple[AnnotatedFrame, ...]:
    """The frames of these stems, in order, each once; `.jpg` where no image is known."""
    return tuple(
        AnnotatedFrame(stem, f"{video}/{stem}.jpg" if known is None else known[stem])
        for stem in sorted(set(stems), key=natural_order)
    )


def image_names(video: str, frame_count: int, step: int, images: Path) -> tuple[str, ...]:
    """Names of every `step`-th image of a video, `frame_count` of them, relative to `images`.

    Taken from `images/<video>` when that holds enough, else `<video>/<index:05d>.jpg`.
    """
    folder = images / video
    if os.path.isdir(folder):
        names = sorted((path.name for path in image_files(folder)), key=natural_order)
        chosen = names[::step][:frame_count]
        if len(chosen) == frame_count:
            return tuple(f"{video}/{name}" for name in chosen)
    return tuple(f"{video}/{index * step:05d}.jpg" for index in range(frame_count))


def load_folder_labels(path: Path, report: Report | None = None) -> dict[str, FolderLabels]:
    """video -> object -> labels, of a JSON file; nothing when there is none.

    Either `{video: {object: label}}`, a label a text or a list of them; or
    YouTube-VOS' `{"videos": {video: {"objects": {object: {"category": label}}}}}`.
    A malformed file, video or object costs itself (`Report.leaving_out`).
    Raises ValueError for it without a report, or with a strict one.
    """
    report = report or Report(strict=True)
    if not path.is_file():
        return {}
    document: dict[str, Any] = {}
    with report.leaving_out("files of labels"):
        document = _labels_document(path)
    labels: dict[str, FolderLabels] = {}
    for video, objects in document.items():
        labels[video] = {}
        for key, value in _members(path, video, objects, report):
            with report.leaving_out("labels"):
                labels[video][key] = _labels_of(value, path, (video, key))
    return labels


def _labels_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise MalformedValue(str(path), f"is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise MalformedValue(str(path), "must be an object of videos")
    videos = document.get("videos")
    if isinstance(videos, dict) and all(
        isinstance(entry, dict) and "objects" in entry for entry in videos.values()
    ):
        return {video: entry["objects"] for video, entry in videos.items()}
    return document


def _members(path: Path, video: str, objects: Any, report: Report) -> Iterator[tuple[str, Any]]:
    with report.leaving_out("labels"):
        if not isinstance(objects, dict):
            raise MalformedValue(f"{path}: {video}", "must be an object of objects' labels")
        yield from objects.items()


def _labels_of(value: Any, path: Path, where: Location) -> tuple[str, ...]:
    if isinstance(value, dict):
        # YouTube-VOS' test set has no categories.
        value = value.get("category")
    if value is None:
        return ()
    try:
        return (value,) if isinstance(value, str) and value else texts(value, where)
    except BadValue as error:
        raise MalformedValue(f"{path}: {error.place}", error.rule) from None


def folder_name(video: AnnotatedVideo) -> str:
    """The name of a video's folder: its own, with `__` for each `/`.

    Raises ValueError for a name that no folder can have, or that would lie elsewhere.
    """
    name = video.name.replace("/", "__")
    if name in ("", ".", "..") or "\0" in name or "\\" in name:
        raise ValueError(f"video name {video.name!r} cannot be that of a folder")
    if len(os.fsencode(name)) > _MOST_NAME_BYTES:
        raise ValueError(
            f"video name {video.name!r:.80} cannot be that of a folder: it has "
            f"{len(os.fsencode(name))} bytes, may have {_MOST_NAME_BYTES}"
        )
    return name


def frame_stems(video: AnnotatedVideo) -> tuple[str, ...]:
    """The file names of its frames without folder and suffix.

    Raises ValueError when two frames have the same.
    """
    stems = tuple(PurePosixPath(name).stem for name in file_names_of(video))
    if len(set(stems)) != len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise ValueError(f"video {video.name!r} has two frames with the name {twice!r}")
    return stems


def names_in_own_folder(video: AnnotatedVideo) -> tuple[str, ...]:
    """`<video folder>/<image>` for each frame, under the names that its images have.

    Where two of them have the same, under their whole names, with `__` for
    each `/`. Raises ValueError as `folder_name` does.
    """
    folder, names = folder_name(video), file_names_of(video)
    last = [PurePosixPath(name).name for name in names]
    if len(set(last)) < len(last):
        last = [name.replace("/", "__") for name in names]
    return tuple(f"{folder}/{name}" for name in last)


def with_own_folders(
    videos: Iterable[AnnotatedVideo], report: Report
) -> tuple[AnnotatedVideo, ...]:
    """The videos with all their images named as `names_in_own_folder` does, which is counted.

    Raises ValueError when two videos would have one folder.
    """
    named = tuple(
        dataclasses.replace(video, file_names=names_in_own_folder(video))
        for _, video in unique_folder_names(videos)
    )
    count = sum(video.info.frame_count for video in named)
    report.change("image names, written with a folder a video", count)
    return named


@contextmanager
def made_folder(folder: Path) -> Iterator[Path]:
    """Creates it, where it is not there yet, with its parents.

    When the block fails, those of them that it created and that are empty are
    removed again.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        for place in missing:
            if any(place.iterdir()):
                break
            place.rmdir()
        raise


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Creates it, to be filled in the block; when that fails, all of it is removed again.

    Raises ValueError when something is in it already: it would mix with what
    is written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: write elsewhere, or remove it first")
    with made_folder(folder):
        try:
            yield folder
        except BaseException:
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            raise


def unique_folder_names(videos: Iterable[AnnotatedVideo]) -> Iterator[tuple[str, AnnotatedVideo]]:
    """(folder name, video), one at a time. Raises ValueError when two have the same."""
    owners: dict[str, str] = {}
    for video in videos:
        name = folder_name(video)
        if name in owners:
            raise ValueError(
                f"videos {owners[name]!r} and {video.name!r} would both have the folder {name!r}"
            )
        owners[name] = video.name
        yield name, video
