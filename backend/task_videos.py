"""A task's results -> annotated videos, and the files that their pictures are in."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

from backend.media import MediaStore
from converters.label_studio.config import parse_label_config
from converters.label_studio.export import ExportOptions, SkippedTask, export_task
from converters.label_studio.exported import Source, StaleChoice
from converters.report import Report
from converters.types import AnnotatedVideo, VideoInfo


@dataclass(frozen=True, eq=False)
class TaskVideo:
    """What the results on one `<Video>` or `<Image>` of a task show."""

    video: AnnotatedVideo
    files: Path | list[Path]
    """As `MediaStore.opened` takes them."""


def task_videos(
    task: Mapping[str, Any],
    *,
    label_config: str,
    media: MediaStore,
    source: Source,
    stale: StaleChoice = "leave-out",
    report: Report | None = None,
) -> Iterator[TaskVideo]:
    """The videos of a task with masks, its media fetched where it is not yet there.

    Args:
        task: as Label Studio's API and exports give it.
        media: in use (`MediaStore.in_use`) for as long as the files are.
        source: which of its results are read.
        stale: as for `ExportOptions`.
        report: told of malformed results, which are left out; without one they raise.

    Raises ValueError for malformed results without a report, ServiceError when the media cannot
    be had, VideoDecodeError.
    """
    if not isinstance(task, Mapping):
        raise ValueError(f"task {task!r:.80} must be a JSON object")
    of = {"task_id": task.get("id"), "project_id": task.get("project")}
    options = ExportOptions(
        label_config=parse_label_config(label_config),
        video_infos=_infos(media, of),
        stale=stale,
        sources=(source,),
    )
    for exported in export_task(task, options, report=report):
        if isinstance(exported, SkippedTask):
            continue
        if any(track.masks for track in exported.video.tracks):
            is_video = len(exported.media) == 1 and not exported.video.file_names
            files = (
                media.video_file(exported.media[0], **of) if is_video
                else media.frame_files(list(exported.media), **of)
            )
            yield TaskVideo(exported.video, files)


def _infos(media: MediaStore, of: Mapping[str, Any]) -> Callable[[str], VideoInfo | None]:
    @functools.cache
    def info(reference: str) -> VideoInfo:
        # The first of a list of images as well: a still one is a video of one frame.
        with media.opened(media.video_file(reference, **of)) as source:
            return source.info

    return info
