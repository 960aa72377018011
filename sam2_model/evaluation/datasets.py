"""Videos with true masks, from the folders data sets come in.

Known layouts, told apart by what is in the folder:

- DAVIS 2016 and 2017: `JPEGImages/<resolution>/<video>/*.jpg` and
  `Annotations/<resolution>/<video>/*.png`, one indexed PNG a frame.
- YouTube-VOS: the same without the resolution; an object may enter later.
- SA-V: `JPEGImages_24fps/<video>/*.jpg` and
  `Annotations_6fps/<video>/<object>/*.png`, one binary PNG an object.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

import numpy as np
from PIL import Image

from converters.media_kinds import PILLOW_FORMATS, is_image_name

_VOID = 255
"""DAVIS marks what belongs to no object for certain with this index."""


@dataclass(frozen=True)
class EvaluationVideo:
    """One video, its frames and where its true masks are."""

    name: str
    frames: tuple[Path, ...]
    """One picture a frame, in order."""
    annotations: Mapping[int, Path | Mapping[int, Path]]
    """frame index -> indexed PNG, or object id -> binary PNG."""

    @property
    def source(self) -> Path:
        """What the tracker opens: the folder of frames."""
        return self.frames[0].parent

    @property
    def frame_count(self) -> int:
        return len(self.frames)

    def picture(self, frame_index: int) -> np.ndarray:
        """(H, W, 3) uint8 of a frame."""
        with Image.open(self.frames[frame_index], formats=PILLOW_FORMATS) as picture:
            return np.asarray(picture.convert("RGB"))

    def masks(self, frame_index: int) -> dict[int, np.ndarray]:
        """The objects of an annotated frame: id -> (H, W) bool, none of them empty.

        Raises:
            ValueError: a mask is not one channel of whole numbers.
        """
        annotation = self.annotations[frame_index]
        if isinstance(annotation, Path):
            return _objects_of(_read_indices(annotation), annotation)
        masks = {key: _read_indices(path) > 0 for key, path in annotation.items()}
        return {key: mask for key, mask in masks.items() if mask.any()}


def is_data_set(folder: Path) -> bool:
    """Whether a folder has one of the layouts above."""
    try:
        _layout(folder)
    except FileNotFoundError:
        return False
    return True


def open_data_set(folder: Path, only: list[str] | None = None) -> list[EvaluationVideo]:
    """The videos of a data set folder, sorted by name.

    Args:
        folder: the data set's top folder.
        only: names of videos to take; None: all.

    Raises:
        FileNotFoundError: the folder is not there or has no known layout.
        ValueError: a name in `only` is not in the data set, a video has no
            annotation, or an annotation has no frame.
    """
    frames, annotations = _layout(folder)
    names = sorted(path.name for path in annotations.iterdir() if path.is_dir())
    if only is not None:
        missing = sorted(set(only) - set(names))
        if missing:
            raise ValueError(f"video {missing[0]!r} is not in {annotations}: it has {names}")
        names = [name for name in names if name in set(only)]
    if not names:
        raise FileNotFoundError(f"{annotations} holds no video's folder")
    return [_open_video(name, frames / name, annotations / name) for name in names]


def _layout(folder: Path) -> tuple[Path, Path]:
    """The folders of frames and of annotations, each with one folder a video."""
    pairs = (("JPEGImages_24fps", "Annotations_6fps"), ("JPEGImages", "Annotations"))
    for frames_name, annotations_name in pairs:
        frames, annotations = folder / frames_name, folder / annotations_name
        if frames.is_dir() and annotations.is_dir():
            for resolution in ("480p", "Full-Resolution", "1080p"):
                if (frames / resolution).is_dir() and (annotations / resolution).is_dir():
                    return frames / resolution, annotations / resolution
            return frames, annotations
    raise FileNotFoundError(
        f"{folder} is not a data set: it must hold JPEGImages and Annotations (DAVIS, "
        "YouTube-VOS) or JPEGImages_24fps and Annotations_6fps (SA-V)"
    )


def _open_video(name: str, frame_folder: Path, annotation_folder: Path) -> EvaluationVideo:
    if not frame_folder.is_dir():
        raise FileNotFoundError(f"video {name!r} has no frames: {frame_folder} is not there")
    frames = sorted(p for p in frame_folder.iterdir() if is_image_name(p.name))
    index_of = {path.stem: index for index, path in enumerate(frames)}
    annotations: dict[int, Path | dict[int, Path]] = {}
    for path in sorted(annotation_folder.glob("*.png")):
        annotations[_frame_index(path, index_of)] = path
    for path in sorted(annotation_folder.glob("*/*.png")):
        of_frame = annotations.setdefault(_frame_index(path, index_of), {})
        if isinstance(of_frame, Path) or not path.parent.name.isdecimal():
            raise ValueError(f"{path}: object folders must be numbered and stand alone")
        of_frame[int(path.parent.name)] = path
    if not annotations:
        raise ValueError(f"video {name!r} has no annotation in {annotation_folder}")
    return EvaluationVideo(name, tuple(frames), annotations)


def _frame_index(path: Path, index_of: Mapping[str, int]) -> int:
    if path.stem not in index_of:
        raise ValueError(f"{path} annotates a frame that has no picture")
    return index_of[path.stem]


def _read_indices(path: Path) -> np.ndarray:
    with Image.open(path, formats=PILLOW_FORMATS) as picture:
        if picture.mode not in ("1", "L", "P", "I", "I;16"):
            raise ValueError(f"{path} has mode {picture.mode}, must be an indexed or gray PNG")
        return np.asarray(picture)


def _objects_of(indices: np.ndarray, path: Path) -> dict[int, np.ndarray]:
    values = [int(value) for value in np.unique(indices) if value != 0]
    if indices.dtype == np.bool_ or values == [_VOID]:
        # DAVIS 2016: one object, written as white.
        return {1: indices > 0} if values else {}
    return {value: indices == value for value in values if value != _VOID}
