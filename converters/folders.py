"""What data sets of image folders share: where videos, frames and labels lie."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Iterable, Iterator

from converters.dataset import file_names_of
from converters.json_stream import Location
from converters.json_values import BadValue, texts
from converters.media_kinds import is_image_name
from converters.reading import natural_order
from converters.report import Report
from converters.types import AnnotatedVideo

_MOST_NAME_BYTES = 255
"""Of a folder or file, on every common file system."""
_RESOLUTIONS = ("Full-Resolution", "1080p", "480p")


@dataclass(frozen=True)
class AnnotatedFrame:
    """A frame that has annotations."""

    stem: str
    """Name of its files without suffix."""
    file_name: str
    """Name of its image, relative to the image folder."""


def resolution_folder(folder: Path) -> Path:
    """The finest of DAVIS' resolution folders in it; itself when there is none."""
    for name in _RESOLUTIONS:
        if (folder / name).is_dir():
            return folder / name
    return folder


def video_folders(folder: Path) -> list[Path]:
    """Its folders, sorted by name; hidden ones are left out.

    Raises FileNotFoundError when it is no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder of annotations")
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def annotated_frames(video: str, pngs: Iterable[Path], images: Path) -> tuple[AnnotatedFrame, ...]:
    """The frames that the PNGs annotate, in order, each once.

    Images are looked for in `images/<video>`; where that folder is not there,
    `.jpg` is assumed. Raises ValueError for an annotation without an image.
    """
    folder = images / video
    known = None
    if folder.is_dir():
        known = {p.stem: p.name for p in folder.iterdir() if is_image_name(p.name)}
    frames = []
    for stem, png in sorted({p.stem: p for p in pngs}.items(), key=lambda i: natural_order(i[0])):
        if known is not None and stem not in known:
            raise ValueError(f"{png} annotates a frame that has no image in {folder}")
        name = known[stem] if known is not None else f"{stem}.jpg"
        frames.append(AnnotatedFrame(stem, f"{video}/{name}"))
    return tuple(frames)


def image_names(video: str, frame_count: int, step: int, images: Path) -> tuple[str, ...]:
    """Names of every `step`-th image of a video, `frame_count` of them, relative to `images`.

    Taken from `images/<video>` when that holds enough, else `<video>/<index:05d>.jpg`.
    """
    folder = images / video
    if os.path.isdir(folder):
        names = [p.name for p in folder.iterdir() if is_image_name(p.name)]
        chosen = sorted(names, key=natural_order)[::step][:frame_count]
        if len(chosen) == frame_count:
            return tuple(f"{video}/{name}" for name in chosen)
    return tuple(f"{video}/{index * step:05d}.jpg" for index in range(frame_count))


def load_folder_labels(path: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """video -> object -> labels, of a JSON file; nothing when there is none.

    A label may be a text or a list of them. Raises ValueError otherwise.
    """
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text("utf-8"))
        if not isinstance(document, dict):
            raise ValueError("must be an object of videos")
        return {video: _labels_of(objects, (video,)) for video, objects in document.items()}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _labels_of(objects: Any, where: Location) -> dict[str, tuple[str, ...]]:
    if not isinstance(objects, dict):
        raise BadValue(where, "must be an object of objects' labels")
    return {
        key: (value,) if isinstance(value, str) and value else texts(value, (*where, key))
        for key, value in objects.items()
    }


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
