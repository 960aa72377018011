"""Which data set format a file or folder has, told by its content, and one way into all of them."""

from __future__ import annotations

import enum
import itertools
import os
from pathlib import Path
from typing import Any, Callable, Collection, Iterator

from converters import davis, media_kinds, sav
from converters.coco import load_coco
from converters.folders import image_files, video_folders
from converters.json_stream import prefixed_events
from converters.report import Report
from converters.tracks_json import FORMAT as TRACKS_FORMAT
from converters.tracks_json import load_tracks
from converters.types import AnnotatedVideo, VideoInfo
from converters.youtube_vis import load_youtube_vis


class Format(enum.StrEnum):
    """The formats that can be read and written."""

    COCO = "coco"
    YOUTUBE_VIS = "youtube-vis"
    SAV = "sav"
    DAVIS = "davis"
    LABEL_STUDIO = "label-studio"
    TRACKS = "tracks"


_ACCEPTED = (
    "a JSON file (COCO, YouTube-VIS, SA-V, tracks.json, a Label Studio export) or a folder "
    "(DAVIS, SA-V, a Label Studio target storage)"
)
_SIGNATURES = (
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"\x1f\x8b", "compressed (gzip): unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\xff\xfe", "text in UTF-16: write it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16: write it as UTF-8"),
    (b"<", "XML or HTML"),
)
"""(a file's first bytes, what it is); images and videos are `media_kinds`' matter"""

_FILES_LOOKED_AT = 50
_ITEMS_LOOKED_AT = 100
_TASK_KEYS = {"annotations", "predictions", "data", "completions", "drafts"}
_MIN_TASK_KEYS = {"annotator", "annotation_id", "lead_time", "created_at"}


def recognise(path: str | os.PathLike[str]) -> Format:
    """The format of a file or folder. A JSON file is read no further than needed.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is none of the formats; the message says what was found.
    """
    path = Path(path)
    if os.path.isdir(path):
        return _recognise_folder(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file or folder")
    return _recognise_json(path)


def open_source(
    path: str | os.PathLike[str],
    *,
    label_config: str | None = None,
    video_infos: Callable[[str], VideoInfo] | None = None,
    stale: str = "rectangle",
    report: Report | None = None,
    only: Collection[str] | None = None,
    resolution: str | None = None,
) -> Iterator[AnnotatedVideo]:
    """The videos of a data set in any of the formats, one at a time.

    Malformed values are left out and counted in `report`; without one, or with a
    strict one, the first raises. `only` names videos, others need not come;
    `resolution` is for DAVIS alone: see `load_davis`. The other options are for
    Label Studio exports alone: see `label_studio.export.load_export`. Raises as
    `recognise` and the readers do.
    """
    found = recognise(path)
    if found == Format.DAVIS:
        return davis.load_davis(path, report=report, only=only, resolution=resolution)
    if found == Format.SAV:
        return sav.load_sav(path, report=report, only=only)
    if found == Format.LABEL_STUDIO:
        from converters.label_studio.export import load_export

        return load_export(
            path, label_config=label_config, video_infos=video_infos, stale=stale, report=report
        )
    readers = {
        Format.COCO: load_coco,
        Format.YOUTUBE_VIS: load_youtube_vis,
        Format.TRACKS: load_tracks,
    }
    return readers[found](path, report=report)


def image_folder(path: str | os.PathLike[str], *, resolution: str | None = None) -> Path:
    """Where the images that a data set names are expected, unless the caller knows better."""
    path = Path(path)
    if not path.is_dir():
        return path.parent
    found = recognise(path)
    if found == Format.LABEL_STUDIO:
        return path
    if found == Format.DAVIS:
        return davis.image_folder(path, resolution=resolution)
    return sav.image_folder(path)


def _recognise_folder(folder: Path) -> Format:
    if (folder / sav.ANNOTATIONS_FOLDER).is_dir():
        return Format.SAV
    annotations = davis.annotation_folder(folder)
    if annotations.is_dir():
        # SA-V's folders are one deeper: a folder an object.
        has_objects = False
        for video in video_folders(annotations):
            if next(image_files(video), None) is not None:
                return Format.DAVIS
            has_objects |= any(
                next(image_files(place), None) is not None for place in video_folders(video)
            )
        return Format.SAV if has_objects else Format.DAVIS
    if next(sav.json_files(folder), None) is not None:
        return Format.SAV
    if _is_target_storage(folder):
        return Format.LABEL_STUDIO
    names = (sav.ANNOTATIONS_FOLDER, *davis.ANNOTATION_FOLDERS)
    splits = sorted({place.parent.name for name in names for place in folder.glob(f"*/{name}")})
    raise ValueError(
        f"{folder} is no data set: a folder must hold Annotations (DAVIS, YouTube-VOS), "
        f"{sav.ANNOTATIONS_FOLDER} or <video>_manual.json files (SA-V), or the files of a Label "
        "Studio target storage"
        + (f"; each of its folders {', '.join(splits)} is one" if splits else "")
    )


def _is_target_storage(folder: Path) -> bool:
    """Whether the first file that may be one of a target storage, and is of any format, is one."""
    from converters.label_studio.task_files import storage_files

    for file in itertools.islice(storage_files(folder), _FILES_LOOKED_AT):
        try:
            return _recognise_json(file) == Format.LABEL_STUDIO
        except ValueError:  # a file that is there besides
            continue
    return False


def _check_is_text(path: Path) -> None:
    """Raises ValueError, saying what it is, for a file that is no JSON at first sight."""
    with open(path, "rb") as file:
        head = file.read(4096)
    kind = "empty" if not head.strip() else media_kinds.described(head)
    for signature, name in _SIGNATURES:
        if kind is None and head.startswith(signature):
            kind = name
    if kind is None and b"\0" in head:
        kind = "a binary file of an unknown kind"
    if kind is not None:
        raise ValueError(f"{path}: is {kind}; a data set is {_ACCEPTED}")


def _recognise_json(path: Path) -> Format:
    _check_is_text(path)
    top: set[str] = set()
    keys: set[str] = set()
    met: set[str] = set()
    items = 0
    for prefix, event, value in prefixed_events(path):
        if prefix == "" and event == "map_key":
            top.add(value)
        elif prefix in ("item", "annotations.item") and event == "map_key":
            keys.add(value)
        elif prefix in ("item", "annotations.item") and event == "end_map":
            found = _by_task(path, keys) if prefix == "item" else _by_annotation(keys)
            if found is not None:
                return found
            met, keys = keys, set()
        if prefix == "item" and event not in ("map_key", "start_map", "start_array"):
            items += 1
        if items and (prefix == "" or items == _ITEMS_LOOKED_AT):
            break
        found = _by_top(prefix, event, value)
        if found is not None:
            return found
    if {"videos", "categories"} <= top:
        return Format.YOUTUBE_VIS
    if ("data" in top and top & _TASK_KEYS) or {"result", "task"} <= top:
        return Format.LABEL_STUDIO
    what = f"its items have {sorted(met)}" if items else f"it has the keys {sorted(top)}"
    raise ValueError(f"{path}: is none of {', '.join(Format)}: {what}")


def _by_top(prefix: str, event: str, value: Any) -> Format | None:
    """What an event outside all items gives away."""
    if prefix == "format" and value == TRACKS_FORMAT:
        return Format.TRACKS
    if prefix == "masklet":
        return Format.SAV
    if prefix == "images" and event == "start_array":
        return Format.COCO
    if prefix == "" and event == "end_array":
        # No tasks: an export is the only one of the formats that is an array.
        return Format.LABEL_STUDIO
    return None


def _by_annotation(keys: set[str]) -> Format | None:
    """By the keys of an item of `annotations`; None where they do not tell."""
    if keys & {"segmentations", "bboxes"}:
        return Format.YOUTUBE_VIS
    if "image_id" in keys or "segmentation" in keys:
        return Format.COCO
    if "video_id" in keys:
        return Format.YOUTUBE_VIS
    return Format.LABEL_STUDIO if "result" in keys else None


def _by_task(path: Path, keys: set[str]) -> Format | None:
    """By the keys of an item of the top array; None where they do not tell."""
    if {"segmentations", "video_id"} <= keys:
        raise ValueError(
            f"{path}: holds YouTube-VIS results, which name no videos: give the ground truth"
        )
    is_task = keys & (_TASK_KEYS | _MIN_TASK_KEYS) or {"result", "task"} <= keys
    return Format.LABEL_STUDIO if is_task else None
