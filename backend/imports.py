"""Videos -> tasks that fit a project's label config."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Protocol, Sequence

from backend.fingerprints import content_fingerprint
from backend.label_configs import media_videos
from converters.label_studio.config import LabelConfig, resolve_framerate
from converters.label_studio.references import filled
from converters.types import VideoInfo

FINGERPRINT = "fingerprint"
"""The field of a task's data that says which file it was made of."""
MAX_FRAMES_UNASKED = 1000
"""The editor opens a task of so many frames in 2 s."""

_FIELD = re.compile(r"\$(\w+)")
_FILES_AT_ONCE = 20
_FPS_DECIMALS = 6
_PLAYED_CODECS = ("h264", "vp8", "vp9", "av1", "theora")
_RATE_TOLERANCE = 0.01


class Uploader(Protocol):
    """What of `LabelStudioClient` is needed here."""

    def upload_file(self, project_id: int, path: Path) -> str: ...

    def upload_files(self, project_id: int, paths: Sequence[Path]) -> list[str]: ...


@dataclass(frozen=True)
class TaskFields:
    """The names that a config gives to a task's data."""

    video: str | None
    frames: str | None
    fps: str | None

    @classmethod
    def of(cls, config: LabelConfig) -> TaskFields:
        """Raises ValueError for a config whose tasks cannot be made of a video."""
        videos = media_videos(config)
        images = [tag for tag in config.images if tag.value_list]
        if config.videos and not videos:
            raise ValueError(
                f"<Video value={config.videos[0].value!r}> must be one field, as $video, "
                "to be filled from a file"
            )
        if config.images and not images:
            raise ValueError(
                f"<Image name={config.images[0].name!r}> shows one picture; frames of a video "
                "need valueList"
            )
        video = _field(videos[0].value) if videos else None
        frames = _field(images[0].value_list or "") if images else None
        fps = videos[0].framerate if videos and _FIELD.fullmatch(videos[0].framerate) else None
        return cls(video, frames, fps[1:] if fps else None)


def _field(template: str) -> str:
    match = _FIELD.fullmatch(template)
    if match is None:
        raise ValueError(f"{template!r} must be one field, as $frames, to be filled")
    return match[1]


def make_task(
    path: Path,
    project_id: int,
    client: Uploader,
    config: LabelConfig,
    *,
    every: int | None = None,
    reference: str | None = None,
    jpeg_quality: int = 95,
    warn: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Upload what the config shows of the video; the task's data.

    Args:
        path: a video file, or a folder of images where the config shows frames alone.
        every: only frames 0, n, 2n, ... become images; None: all, of a short video.
        reference: the video's URL, in place of an upload; `{name}` is the file's name.
        progress: called with frames uploaded and frames in all.

    Raises:
        ValueError: what cannot be: no video, too many frames, an option without use.
        OSError, LabelStudioError: it cannot be read or stored.
    """
    from sam2_model.video import open_frame_source

    fields = TaskFields.of(config)
    if path.is_dir() and fields.video is not None:
        raise ValueError(f"{path} is a folder, but the project's config shows a video file")
    check_use(fields, every=every, reference=reference)
    data: dict[str, Any] = {}
    with open_frame_source(path) as source:
        frame_indices = _frame_indices(path, source.info, every) if fields.frames else range(0)
        if fields.video is not None:
            _warn_of_traps(path, source.info, config, fields, warn)
            data[fields.video] = (
                filled(reference, name=path.name)
                if reference is not None
                else client.upload_file(project_id, path)
            )
        if fields.fps is not None:
            data[fields.fps] = round(source.info.fps, _FPS_DECIMALS)
        if fields.frames is not None:
            data[fields.frames] = _upload_frames(
                source, frame_indices, path.stem, project_id, client, jpeg_quality, progress
            )
            data["every"] = every or 1
    return data


def check_use(fields: TaskFields, *, every: int | None, reference: str | None) -> None:
    """Raises ValueError for an option that the config has no use for."""
    if every is not None and fields.frames is None:
        raise ValueError("--frames is for a config with <Image valueList>, this project has none")
    if reference is not None and fields.video is None:
        raise ValueError("--reference is for a config with <Video>, this project has none")


def file_fingerprint(path: Path) -> str:
    """Of a video file's content, or of the files of a folder. Raises OSError."""
    if path.is_dir():
        return content_fingerprint(sorted(item for item in path.iterdir() if item.is_file()))
    return content_fingerprint(path)


def imported_already(tasks: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], int]:
    """(fingerprint, every) -> id of the first of the tasks that was made of such a file."""
    found: dict[tuple[str, int], int] = {}
    for task in tasks:
        data = task["data"]
        if isinstance(data.get(FINGERPRINT), str):
            found.setdefault((data[FINGERPRINT], data.get("every", 1)), task["id"])
    return found


def _frame_indices(path: Path, info: VideoInfo, every: int | None) -> range:
    count = info.frame_count
    if every is None and count > MAX_FRAMES_UNASKED:
        enough = -(-count // MAX_FRAMES_UNASKED)
        raise ValueError(
            f"{path} has {count} frames, more than {MAX_FRAMES_UNASKED}: say --frames "
            f"every=n; every={enough} makes {-(-count // enough)} images"
        )
    return range(0, count, every or 1)


def _upload_frames(
    source: Any,
    indices: range,
    stem: str,
    project_id: int,
    client: Uploader,
    jpeg_quality: int,
    progress: Callable[[int, int], None],
) -> list[str]:
    """URLs in the frames' order; a few at a time, so that a long video needs little room."""
    from PIL import Image

    urls: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for begin in range(0, len(indices), _FILES_AT_ONCE):
            files = []
            for index in indices[begin : begin + _FILES_AT_ONCE]:
                files.append(Path(folder) / f"{stem}_{index:06d}.jpg")
                Image.fromarray(source.frame(index)).save(files[-1], quality=jpeg_quality)
            urls += client.upload_files(project_id, files)
            for file in files:
                file.unlink()
            progress(len(urls), len(indices))
    return urls


def _warn_of_traps(
    path: Path,
    info: VideoInfo,
    config: LabelConfig,
    fields: TaskFields,
    warn: Callable[[str], None],
) -> None:
    codec = video_codec(path)
    if codec not in _PLAYED_CODECS:
        warn(
            f"{path.name} is {codec}, which browsers do not play: make it H.264 first "
            "(ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4)"
        )
    if fields.fps is None:
        trap = framerate_trap(resolve_framerate(media_videos(config)[0], {}), info)
        if trap:
            warn(f"{path.name}: {trap}")


def framerate_trap(framerate: float, info: VideoInfo) -> str | None:
    """What is wrong when the editor counts other frames than the video has; None: nothing."""
    if info.fps <= 0 or abs(framerate - info.fps) <= _RATE_TOLERANCE * info.fps:
        return None
    return (
        f"the editor counts {framerate:g} frames a second, the video has {info.fps:g}: frames "
        'are skipped or shown twice; write framerate="$fps" in the config and give tasks fps'
    )


def video_codec(path: Path) -> str:
    """The name of the video stream's codec, as "h264"."""
    import av

    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.name.removeprefix("lib").partition("-")[0]
