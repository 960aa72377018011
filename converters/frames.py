"""Frame images of a data set: pictures in, JPEG or PNG files out.

This package decodes no video: the caller gives the pictures, in one pass.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Iterable, Mapping

import numpy as np
from PIL import Image

DEFAULT_QUALITY = 95
_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def write_frames(
    folder: str | os.PathLike[str],
    frames: Iterable[tuple[int, np.ndarray]],
    file_names: Mapping[int, str],
    *,
    quality: int = DEFAULT_QUALITY,
) -> int:
    """Writes the frames that have a name; how many.

    Args:
        folder: the data set's image folder.
        frames: (frame index, (H, W, 3) uint8 RGB), in any order; those without
            a name are passed over, so a whole video's frames may come.
        file_names: frame index -> name relative to the folder; its suffix
            says JPEG or PNG.
        quality: of JPEG, 1 to 100; colours are not subsampled from 90 on.

    Raises:
        ValueError: a quality, name or picture breaks these rules, a name lies
            outside the folder, or a named frame did not come.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality {quality} must be in [1, 100]")
    missing = {index: image_path(folder, name) for index, name in file_names.items()}
    written = len(missing)
    for frame_index, picture in frames:
        path = missing.pop(frame_index, None)
        if path is not None:
            _write(path, picture, quality)
        if not missing:
            break
    if missing:
        raise ValueError(
            f"frame {min(missing)} did not come, nor {len(missing) - 1} more that have a name"
        )
    return written


def copy_frames(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    file_names: Mapping[str, str],
) -> int:
    """Copies image files as they are; how many.

    `file_names`: name under `source` -> name under `folder`. Raises ValueError
    for a name outside its folder, or another suffix than the source's, and
    OSError when a file is missing.
    """
    for name, new_name in file_names.items():
        path, new_path = image_path(source, name), image_path(folder, new_name)
        if _FORMATS[path.suffix.lower()] != _FORMATS[new_path.suffix.lower()]:
            raise ValueError(f"image {name!r} cannot be copied to {new_name!r}: another format")
        if path.resolve() != new_path.resolve():
            new_path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, new_path)
    return len(file_names)


def missing_images(folder: str | os.PathLike[str], file_names: Iterable[str]) -> list[str]:
    """The names that are no file under the folder, for data sets that only refer to images."""
    return [name for name in file_names if not image_path(folder, name).is_file()]


def image_path(folder: str | os.PathLike[str], name: str) -> Path:
    """The image's path.

    Raises ValueError for a name outside the folder, or without a known suffix.
    """
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts or "\0" in name or not relative.parts:
        raise ValueError(f"image name {name!r} must lie in the image folder")
    if relative.suffix.lower() not in _FORMATS:
        raise ValueError(f"image name {name!r} must end in {', '.join(_FORMATS)}")
    return Path(folder) / relative


def _write(path: Path, picture: np.ndarray, quality: int) -> None:
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"picture for {path} has {picture.dtype} {picture.shape}, must be uint8 (H, W, 3)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.ascontiguousarray(picture))
    if _FORMATS[path.suffix.lower()] == "PNG":
        image.save(path, format="PNG")
    else:
        image.save(path, format="JPEG", quality=quality, subsampling=0 if quality >= 90 else 2)
