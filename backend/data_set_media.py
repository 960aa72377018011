"""The pictures of a data set: where they are, and into the image folder of another."""

from __future__ import annotations

import functools
import re
from pathlib import Path, PurePosixPath
from typing import Callable, Mapping, Sequence
from urllib.parse import parse_qs, unquote, urlsplit

from converters.dataset import file_names_of
from converters.frames import copy_frames, missing_images, write_frames
from converters.types import AnnotatedVideo, VideoInfo
from sam2_model.video import FrameSource, open_frame_source

IMAGES = "images"
"""The folder beside a file that frames are written to."""

_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
"""Label Studio puts this before the names of uploaded files."""


def save_images(
    root: Path,
    folder: Path,
    video: AnnotatedVideo,
    names: Mapping[int, str],
    *,
    media: Sequence[str] = (),
    quality: int,
) -> None:
    """Copies frames that are image files as they are, takes others out of the video in one pass.

    `names`: frame index in the video -> name of its image in `folder`.
    Pictures are looked for under `root`: by `media`, what Label Studio calls
    the video or its frames; by the video's `file_names`; and by its name, as a
    video file or a folder of images.

    Raises FileNotFoundError when they are nowhere there, ValueError when they
    are not as many or not as large as the video's frames.
    """
    root = _folder_of_images(root, video)
    found = [path for item in media if (path := find_media(root, item)) is not None]
    if len(media) == video.info.frame_count > 1 and len(found) == len(media):
        old_names = tuple(str(path.relative_to(root)) for path in found)
    else:
        old_names = file_names_of(video)
    wanted = {old_names[frame]: name for frame, name in names.items()}
    if _same_suffixes(wanted) and not missing_images(root, wanted):
        copy_frames(root, folder, wanted)
        return
    with open_frame_source(locate(root, video, media)) as source:
        numbers = _frame_numbers(source, video, list(names))
        write_frames(folder, source.frames(), dict(zip(numbers, names.values())), quality=quality)


def media_infos(root: Path) -> Callable[[str], VideoInfo | None]:
    """What is known of a task's media: of the file that `find_media` finds, or None."""

    @functools.cache
    def info(media: str) -> VideoInfo | None:
        path = find_media(root, media)
        if path is None:
            return None
        with open_frame_source([path] if _is_image(path) else path) as source:
            return source.info

    return info


def find_media(root: Path, media: str) -> Path | None:
    """The file under the root that a task's media means, or None.

    Its path is that of the URL, or its `d` parameter (local files); as much of
    the path's end counts as there is under the root, and the prefix that
    Label Studio gives uploads may be missing.
    """
    parts = urlsplit(media)
    local = parse_qs(parts.query).get("d")
    steps = [s for s in PurePosixPath(local[0] if local else unquote(parts.path)).parts if s != "/"]
    for start in range(len(steps)):
        *folders, name = steps[start:]
        for candidate in (name, _UPLOAD_PREFIX.sub("", name)):
            path = root.joinpath(*folders, candidate)
            if candidate and "\0" not in str(path) and path.is_file() and _is_under(path, root):
                return path
    return None


def _is_under(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg", ".png")


def _same_suffixes(names: Mapping[str, str]) -> bool:
    return all(Path(a).suffix.lower() == Path(b).suffix.lower() for a, b in names.items())


def _folder_of_images(root: Path, video: AnnotatedVideo) -> Path:
    """`root`; or its folder `images` when that alone holds the video's frames."""
    names, below = video.file_names, root / IMAGES
    if names and missing_images(root, names) and not missing_images(below, names):
        return below
    return root


def locate(root: Path, video: AnnotatedVideo, media: Sequence[str] = ()) -> Path | list[Path]:
    """A video's pictures under a folder, as `open_frame_source` takes them.

    By `media`, what Label Studio calls the video or its frames; by the video's
    `file_names`; and by its name, as a video file or a folder of images.

    Raises FileNotFoundError when they are nowhere there.
    """
    root = _folder_of_images(root, video)
    found = [path for item in media if (path := find_media(root, item)) is not None]
    if found and len(found) == len(media) and all(map(_is_image, found)):
        return found
    if found:
        return found[0]
    names = file_names_of(video)
    if video.file_names and not missing_images(root, names):
        return [root / name for name in names]
    for suffix in ("", *_VIDEO_SUFFIXES):
        place = root / f"{video.name}{suffix}"
        if place.exists() and _is_under(place, root):
            return place
    raise FileNotFoundError(
        f"video {video.name!r}: there are neither images {names[:1]} nor a video or folder "
        f"{video.name!r} in {root}: say where with the media root"
    )


def _frame_numbers(source: FrameSource, video: AnnotatedVideo, frames: Sequence[int]) -> list[int]:
    """The numbers that the video's frames have in its media.

    A data set may hold every fourth frame of a video: then images are named
    by the numbers of the video's.
    """
    size, media_size = ((info.width, info.height) for info in (video.info, source.info))
    if size != media_size:
        raise ValueError(f"video {video.name!r} has {size} pixels, its media {media_size}")
    if source.info.frame_count == video.info.frame_count:
        return list(frames)
    stems = [PurePosixPath(file_names_of(video)[frame]).stem for frame in frames]
    if video.file_names and all(s.isdecimal() and int(s) < len(source) for s in stems):
        return [int(stem) for stem in stems]
    raise ValueError(
        f"video {video.name!r} has {video.info.frame_count} frames, its media {len(source)}"
    )
