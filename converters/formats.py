"""Which data set format a file or folder has, told by its content, and one way into all of them."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Any, Callable, Iterator

from converters import davis, media_kinds, sav
from converters.coco import load_coco
from converters.json_stream import prefixed_events
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
    "(DAVIS, SA-V)"
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

_TASK_KEYS = {"annotations", "predictions", "data", "completions", "drafts"}
_MIN_TASK_KEYS = {"annotator", "annotation_id", "lead_time", "created_at"}


def recognise(path: str | os.PathLike[str]) -> Format:
    """The format of a file or folder. A JSON file is read no further than needed.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is none of the formats; the message says what was found.
    """
    path = Path(path)
    if path.is_dir():
        return _recognise_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder")
    return _recognise_json(path)


def open_source(
    path: str | os.PathLike[str],
    *,
    label_config: str | None = None,
    video_infos: Callable[[str], VideoInfo] | None = None,
    stale: str = "rectangle",
) -> Iterator[AnnotatedVideo]:
    """The videos of a data set in any of the formats, one at a time.

    The options are for Label Studio exports alone: see
    `label_studio.export.load_export`. Raises as `recognise` and the readers do.
    """
    found = recognise(path)
    if found == Format.LABEL_STUDIO:
        from converters.label_studio.export import load_export

        return load_export(path, label_config=label_config, video_infos=video_infos, stale=stale)
    readers = {
        Format.COCO: load_coco,
        Format.YOUTUBE_VIS: load_youtube_vis,
        Format.SAV: sav.load_sav,
        Format.DAVIS: davis.load_davis,
        Format.TRACKS: load_tracks,
    }
    return readers[found](path)


def image_folder(path: str | os.PathLike[str]) -> Path:
    """Where the images that a data set names are expected, unless the caller knows better."""
    path = Path(path)
    if not path.is_dir():
        return path.parent
    module = davis if recognise(path) == Format.DAVIS else sav
    return module.image_folder(path)


def _recognise_folder(folder: Path) -> Format:
    if (folder / sav.ANNOTATIONS_FOLDER).is_dir():
        return Format.SAV
    annotations = folder / "Annotations"
    if annotations.is_dir():
        # SA-V's folders are one deeper: a folder an object.
        videos = davis.annotation_folder(folder)
        is_deeper = next(videos.glob("*/*/*.png"), None) is not None
        is_flat = next(videos.glob("*/*.png"), None) is not None
        return Format.SAV if is_deeper and not is_flat else Format.DAVIS
    for kind in ("manual", "auto"):
        if next(folder.rglob(f"*_{kind}.json"), None) is not None:
            return Format.SAV
    splits = sorted(place.parent.name for place in folder.glob(f"*/{sav.ANNOTATIONS_FOLDER}"))
    raise ValueError(
        f"{folder} is no data set: a folder must hold Annotations (DAVIS), "
        f"{sav.ANNOTATIONS_FOLDER} or <video>_manual.json files (SA-V)"
        + (f"; each of its folders {', '.join(splits)} is one" if splits else "")
    )


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
    for prefix, event, value in prefixed_events(path):
        if prefix == "" and event == "map_key":
            top.add(value)
        found = _by_top(prefix, event, value)
        if found is not None:
            return found
        if prefix in ("item", "annotations.item") and event == "start_map":
            return _by_first_item(path, prefix)
        if prefix == "item":
            break
    if {"videos", "categories"} <= top:
        return Format.YOUTUBE_VIS
    if "data" in top and top & _TASK_KEYS:
        return Format.LABEL_STUDIO
    raise ValueError(f"{path}: is none of {', '.join(Format)}: it has the keys {sorted(top)}")


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


def _by_first_item(path: Path, where: str) -> Format:
    """By the keys of the first item of the top array, or of `annotations`."""
    keys: set[str] = set()
    for prefix, event, value in prefixed_events(path):
        if prefix == where and event == "map_key":
            keys.add(value)
        elif prefix == where and event == "end_map":
            break
    if where == "annotations.item":
        if "segmentations" in keys:
            return Format.YOUTUBE_VIS
        return Format.COCO if keys & {"segmentation", "image_id"} else Format.LABEL_STUDIO
    if {"segmentations", "video_id"} <= keys:
        raise ValueError(
            f"{path}: holds YouTube-VIS results, which name no videos: give the ground truth"
        )
    if keys & (_TASK_KEYS | _MIN_TASK_KEYS):
        return Format.LABEL_STUDIO
    raise ValueError(f"{path}: is none of {', '.join(Format)}: its items have {sorted(keys)}")
