"""The pictures of a data set: where they are, and into the image folder of another."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Callable, Iterable, Mapping, Sequence

from backend.media_folder import MediaFolder, is_under
from converters.dataset import file_names_of
from converters.frames import copy_frames, missing_images, write_frames
from converters.label_studio.references import path_of, steps_of
from converters.media_kinds import (
    IMAGE_FORMATS,
    MediaKind,
    image_format_of_file,
    is_image_file,
    kind_of_file,
    suffix_of,
)
from converters.types import AnnotatedVideo, VideoInfo
from sam2_model.video import FrameSource, open_frame_source
from sam2_model.video.image_file import IMAGE_ERRORS, is_upright

IMAGES = "images"
"""The folder beside a file that frames are written to."""


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

    Image files that an EXIF tag turns are written upright, without it.

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
    if is_one_each and not missing_images(pictures.root, wanted):
        _check_inside(pictures.root, wanted)
        _copy_or_write(pictures.root, folder, wanted, video, quality)
        return
    with open_frame_source(pictures.place()) as source:
        numbers = frame_numbers(source, video, list(names))
        write_frames(folder, source.frames(), dict(zip(numbers, names.values())), quality=quality)


def _copy_or_write(
    root: Path, folder: Path, names: Mapping[str, str], video: AnnotatedVideo, quality: int
) -> None:
    """Image files as they are; those of another format or that an EXIF tag turns, as pictures.

    Masks are of the upright picture, and half of all readers take no notice of the tag.
    """
    same = {old: new for old, new in names.items() if _can_be_copied(root / old, new)}
    copy_frames(root, folder, same)
    others = {old: new for old, new in names.items() if old not in same}
    if others:
        with open_frame_source([root / old for old in others]) as source:
            _check_size(video, source.info)
            write_frames(folder, source.frames(), dict(enumerate(others.values())), quality=quality)


def _can_be_copied(path: Path, name: str) -> bool:
    try:
        is_same = image_format_of_file(path) == IMAGE_FORMATS[suffix_of(name)]
        return is_same and suffix_of(path) in IMAGE_FORMATS and is_upright(path)
    except IMAGE_ERRORS as error:
        raise ValueError(f"{path} is not an image that can be read: {error}") from error


def media_infos(root: Path) -> Callable[[str], VideoInfo | None]:
    """What is known of a task's media: of the file that `MediaFolder` finds, or None."""
    files = MediaFolder(root)

    @functools.cache
    def info(media: str) -> VideoInfo | None:
        path = files.find(media)
        if path is None:
            return None
        with open_frame_source(path) as source:
            return source.info

    return info


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
    missing: tuple[str, ...]
    """Those of Label Studio's names that mean no file there."""

    @classmethod
    def of(cls, root: Path, video: AnnotatedVideo, media: Sequence[str]) -> _Pictures:
        root = _folder_of_images(root, video)
        files = MediaFolder(root)
        found = {item: files.find(item) for item in media}
        missing = [item for item, path in found.items() if path is None]
        paths = [path for path in map(found.__getitem__, media) if path is not None]
        # A video file may be of an image's kind, as GIF: then it is one for many frames.
        is_frames = len(media) > 1 or video.info.frame_count == 1
        is_frames = is_frames and not missing and all(map(is_image_file, paths))
        return cls(root, video, tuple(paths), is_frames and bool(paths), tuple(missing))

    @property
    def image_names(self) -> tuple[str, ...]:
        """One name a frame under the root, whether or not there is such a file."""
        if self.is_frames and len(self.media) == self.video.info.frame_count:
            return tuple(str(path.relative_to(self.root)) for path in self.media)
        return file_names_of(self.video)

    def place(self) -> Path | list[Path]:
        """As `open_frame_source` takes it; raises as `locate` does."""
        if self.media and not self.missing:
            return list(self.media) if self.is_frames else self.media[0]
        root, video, names = self.root, self.video, file_names_of(self.video)
        if video.file_names and not missing_images(root, names):
            _check_inside(root, names)
            return [root / name for name in names]
        place = _place_named(root, video.name)
        if place is not None:
            return place
        looked_for = f"images {names[:1]} nor a video or folder {video.name!r}"
        if self.missing:
            name = steps_of(path_of(self.missing[0]))[-1:]
            more = f" ({len(self.missing)} files are missing)" if len(self.missing) > 1 else ""
            looked_for = f"{name[0] if name else ''!r} of {self.missing[0]!r}{more} nor " + looked_for
        raise FileNotFoundError(
            f"video {video.name!r}: there are neither {looked_for} in {root}: say where with "
            "the media root"
        )


def _place_named(root: Path, name: str) -> Path | None:
    """A folder of this name, or the file that is a video, whatever its suffix, or an image."""
    if "\0" in name or not name or ".." in steps_of(name):
        return None
    place = root / name
    if os.path.exists(place):
        return place if is_under(place, root) else None
    if not os.path.isdir(place.parent) or not is_under(place.parent, root):
        return None
    files = [p for p in sorted(place.parent.iterdir()) if p.stem == place.name and p.is_file()]
    kinds = {path: kind_of_file(path) for path in files if is_under(path, root)}
    for kind in (MediaKind.VIDEO, MediaKind.IMAGE):
        found = [path for path in files if kinds.get(path) is kind]
        if len(found) > 1:
            raise ValueError(
                f"video {name!r} may be {found[0].name} or {found[1].name} in {place.parent}: "
                "move one of them away"
            )
        if found:
            return found[0]
    return None


def _check_inside(root: Path, names: Iterable[str]) -> None:
    """Raises ValueError for an image that lies elsewhere, as by a link.

    Names that climb out of the folder were refused when they were looked for.
    """
    for name in names:
        if not is_under(root / name, root):
            raise ValueError(f"image {name!r} leads out of {root}, must lie in it")


def frame_numbers(source: FrameSource, video: AnnotatedVideo, frames: Sequence[int]) -> list[int]:
    """The numbers that the video's frames have in its media.

    A data set may hold every fourth frame of a video: then images are named
    by the numbers of the video's.
    """
    _check_size(video, source.info)
    if source.info.frame_count == video.info.frame_count:
        return list(frames)
    stems = [PurePosixPath(file_names_of(video)[frame]).stem for frame in frames]
    if video.file_names and all(s.isdecimal() and int(s) < len(source) for s in stems):
        return [int(stem) for stem in stems]
    raise ValueError(
        f"video {video.name!r} has {video.info.frame_count} frames, its media {len(source)}"
    )


def _check_size(video: AnnotatedVideo, media: VideoInfo) -> None:
    size, media_size = ((info.width, info.height) for info in (video.info, media))
    if size != media_size:
        turned = (
            " as they are shown: its masks are of pictures that lie as they are stored, without "
            "their orientation (EXIF)" if size == media_size[::-1] else ""
        )
        raise ValueError(f"video {video.name!r} has {size} pixels, its media {media_size}{turned}")
