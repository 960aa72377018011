"""Frame images of a data set: pictures in, image files out.

This package decodes no video: the caller gives the pictures, in one pass.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Iterable, Mapping

import numpy as np
from PIL import Image

from converters.media_kinds import IMAGE_FORMATS, suffix_of

DEFAULT_QUALITY = 95
_LOSSY = ("JPEG", "WEBP", "AVIF")


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
            says the format: `media_kinds.IMAGE_FORMATS`.
        quality: of JPEG, WebP and AVIF, 1 to 100; JPEG's colours are not subsampled
            from 90 on.

    Raises:
        ValueError: a quality, name or picture breaks these rules, a name lies
            outside the folder, or a named frame did not come.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality {quality} must be in [1, 100]")
    missing = {index: image_path(folder, name) for index, name in file_names.items()}
    for name in file_names.values():
        if IMAGE_FORMATS[suffix_of(name)] == "GIF":
            raise ValueError(f"image {name!r}: a GIF has 256 colours, a picture may have more")
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
        if IMAGE_FORMATS[suffix_of(path)] != IMAGE_FORMATS[suffix_of(new_path)]:
            raise ValueError(f"image {name!r} cannot be copied to {new_name!r}: another format")
        if path.resolve() != new_path.resolve():
            new_path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, new_path)
    return len(file_names)


def missing_images(folder: str | os.PathLike[str], file_names: Iterable[str]) -> list[str]:
    """The names that are no file under the folder, for data sets that only refer to images."""
    return [name for name in file_names if not os.path.isfile(image_path(folder, name))]


def image_path(folder: str | os.PathLike[str], name: str) -> Path:
    """The image's path.

    Raises ValueError for a name outside the folder, or without a known suffix.
    """
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts or "\0" in name or not relative.parts:
        raise ValueError(f"image name {name!r} must lie in the image folder")
    if suffix_of(name) not in IMAGE_FORMATS:
        raise ValueError(f"image name {name!r} must end in {', '.join(IMAGE_FORMATS)}")
    return Path(folder) / relative


def _write(path: Path, picture: np.ndarray, quality: int) -> None:
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"picture for {path} has {picture.dtype} {picture.shape}, must be uint8 (H, W, 3)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.ascontiguousarray(picture))
    format = IMAGE_FORMATS[suffix_of(path)]
    options: dict[str, object] = {"quality": quality} if format in _LOSSY else {}
    if format == "JPEG":
        options["subsampling"] = 0 if quality >= 90 else 2
    image.save(path, format=format, **options)
