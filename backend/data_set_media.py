"""The pictures of a data set: where they are, and into the image folder of another."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Callable, Iterable, Mapping, Sequence
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
    are not as many or not as large as the video's frames, or when names lead
    out of the root.
    """
    pictures = _Pictures.of(root, video, media)
    old_names = pictures.image_names
    wanted = {old_names[frame]: name for frame, name in names.items()}
    # An image that stands for two frames has no one name to be copied to.
    is_one_each = len(wanted) == len(names)
    if is_one_each and _same_suffixes(wanted) and not missing_images(pictures.root, wanted):
        _check_inside(pictures.root, wanted)
        copy_frames(pictures.root, folder, wanted)
        return
    with open_frame_source(pictures.place()) as source:
        numbers = frame_numbers(source, video, list(names))
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

    Raises FileNotFoundError when they are nowhere there, ValueError for names
    that lead out of the folder.
    """
    return _Pictures.of(root, video, media).place()


@dataclass(frozen=True)
class _Pictures:
    """Where a video's pictures are looked for."""

    root: Path
    """The folder itself, or its folder `images`."""
    video: AnnotatedVideo
    media: tuple[Path, ...]
    """The files that Label Studio's names mean."""
    is_frames: bool
    """Whether these are its frames, one each."""

    @classmethod
    def of(cls, root: Path, video: AnnotatedVideo, media: Sequence[str]) -> _Pictures:
        root = _folder_of_images(root, video)
        found = tuple(path for item in media if (path := find_media(root, item)) is not None)
        is_whole = 0 < len(found) == len(media)
        return cls(root, video, found, is_whole and all(map(_is_image, found)))

    @property
    def image_names(self) -> tuple[str, ...]:
        """One name a frame under the root, whether or not there is such a file."""
        if self.is_frames and len(self.media) == self.video.info.frame_count:
            return tuple(str(path.relative_to(self.root)) for path in self.media)
        return file_names_of(self.video)

    def place(self) -> Path | list[Path]:
        """As `open_frame_source` takes it; raises as `locate` does."""
        if self.media:
            return list(self.media) if self.is_frames else self.media[0]
        root, video, names = self.root, self.video, file_names_of(self.video)
        if video.file_names and not missing_images(root, names):
            _check_inside(root, names)
            return [root / name for name in names]
        for suffix in ("", *_VIDEO_SUFFIXES):
            place = root / f"{video.name}{suffix}"
            if "\0" not in video.name and place.exists() and _is_under(place, root):
                return place
        raise FileNotFoundError(
            f"video {video.name!r}: there are neither images {names[:1]} nor a video or folder "
            f"{video.name!r} in {root}: say where with the media root"
        )


def _check_inside(root: Path, names: Iterable[str]) -> None:
    """Raises ValueError for an image that lies elsewhere, as by a link.

    Names that climb out of the folder were refused when they were looked for.
    """
    for name in names:
        if not _is_under(root / name, root):
            raise ValueError(f"image {name!r} leads out of {root}, must lie in it")


def frame_numbers(source: FrameSource, video: AnnotatedVideo, frames: Sequence[int]) -> list[int]:
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
