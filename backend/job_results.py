"""What a finished tracking job found, as files, figures and pictures."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import numpy as np

from backend.errors import NotFound, NotReady
from backend.jobs.types import Job, StoredResult
from backend.requests import TaskRequest
from backend.task_videos import TaskVideo, task_videos
from converters.label_studio.regions import probability_of
from converters.tracks_json import save_tracks
from converters.types import AnnotatedVideo, Track

if TYPE_CHECKING:
    from backend.media import MediaStore
    from backend.preview import Style
    from backend.service import TrackingService

_PICTURES, _COLUMNS, _PICTURE_WIDTH = 4, 2, 240
_MOST_KEPT = 64
_AT_ONCE = 2
"""How many are drawn at a time: the threads are there for Label Studio first."""
_WAIT_SECONDS = 10.0


class JobResults:
    """Reads results with the media they are on, and keeps what was drawn last."""

    def __init__(self, service: TrackingService) -> None:
        self._service = service
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def save_tracks(self, job: Job, result: StoredResult, path: Path) -> None:
        """Write tracks.json. Raises as `task_videos`."""
        save_tracks(path, (item.video for item in self._videos(job, result)))

    def scores(self, job: Job, result: StoredResult) -> list[dict[str, Any]]:
        """A JSON object an object, with one value a frame. Raises as `task_videos`."""
        return self._made(
            "scores", result,
            lambda: [
                scores for item in self._videos(job, result) for scores in _scores(item.video)
            ],
        )

    def preview_png(self, job: Job, result: StoredResult) -> bytes:
        """A few frames with the masks in them. Raises as `task_videos`."""
        media = self._service.media
        return self._made("preview", result, lambda: _preview(self._videos(job, result), media))

    def _videos(self, job: Job, result: StoredResult) -> Iterator[TaskVideo]:
        request = TaskRequest.from_json(job.request)
        task = {
            "id": request.task_id,
            "data": request.data,
            "predictions": [{"id": job.id, "result": list(result.regions)}],
        }
        with self._service.media.in_use() as media:
            yield from task_videos(
                task, label_config=request.label_config, media=media, source="predictions"
            )

    def _made(self, kind: str, result: StoredResult, make: Callable[[], Any]) -> Any:
        """That of an equal result, or a new one. Raises NotReady when others take too long."""
        key = (kind, result.key)
        if not self._places.acquire(timeout=_WAIT_SECONDS):
            raise NotReady("too many previews and plots are being drawn; try again later")
        try:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            made = make()
            with self._lock:
                self._kept[key] = made
                while len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
            return made
        finally:
            self._places.release()


def _scores(video: AnnotatedVideo) -> Iterator[dict[str, Any]]:
    from backend.preview import object_styles

    styles = object_styles(track.object_id for track in video.tracks)
    for track in video.tracks:
        yield {"video": video.name, **_style(styles[track.object_id]), **_object_scores(track)}


def _style(style: Style) -> dict[str, Any]:
    """As the preview draws the object."""
    red, green, blue = style.colour
    return {"colour": f"#{red:02x}{green:02x}{blue:02x}", "dashed": style.dashed}


def _object_scores(track: Track) -> dict[str, Any]:
    from backend.preview import doubtful_stretches, track_curve

    curve = track_curve(track)
    return {
        "id": str(track.object_id),
        "labels": list(track.labels),
        "frames": curve.frame_indices.tolist(),
        "probabilities": [
            None if np.isnan(score) else round(probability_of(score), 4)
            for score in curve.scores.tolist()
        ],
        "areas": curve.areas.tolist(),
        "doubtful": [
            {"start": s.start, "stop": s.stop, "reasons": [str(r) for r in s.reasons]}
            for s in doubtful_stretches(curve)
        ],
    }


def _preview(videos: Iterator[TaskVideo], media: MediaStore) -> bytes:
    """Contact sheets of the videos, one below the other; of the first two, as PNG."""
    from PIL import Image

    sheets = [_sheet(item, media) for item, _ in zip(videos, range(2))]
    if not sheets:
        raise NotFound("there is nothing to draw: the result shows no object")
    width = max(sheet.width for sheet in sheets)
    picture = Image.new("RGB", (width, sum(sheet.height for sheet in sheets)))
    top = 0
    for sheet in sheets:
        picture.paste(sheet, (0, top))
        top += sheet.height
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _sheet(item: TaskVideo, media: MediaStore) -> Any:
    from backend.preview import contact_sheet, sheet_frames

    frames = [frame for track in item.video.tracks for frame in track.masks]
    with media.opened(item.files) as source:
        return contact_sheet(
            source,
            item.video.tracks,
            sheet_frames(min(frames), max(frames) + 1, _PICTURES),
            columns=_COLUMNS,
            picture_width=_PICTURE_WIDTH,
        )
