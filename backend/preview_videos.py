"""The newest track of a video, drawn over it: which file a viewer gets now.

Always one that plays: the finished preview, a look at one being drawn, or
stills that say why there is none. The editor would turn for ever otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Sequence

import numpy as np

from backend.deadlines import Deadline
from backend.decoding import opening_until
from backend.errors import ServiceError
from backend.fingerprints import content_fingerprint
from backend.jobs.types import JobState, ResultVideo, StoredResult
from backend.media_references import MediaReference, meant_by, spellings
from backend.preview.growing import Still, look, spread_stills
from backend.preview_cache import PreviewCache
from backend.preview_renders import Render, Renders, Scene
from backend.requests import fingerprint
from converters.label_studio.lifespan import region_to_track
from converters.types import Track, VideoInfo
from sam2_model.video import VideoDecodeError

if TYPE_CHECKING:
    from backend.service import TrackingService

logger = logging.getLogger(__name__)

_FORMAT = 2  # one more whenever the same track is drawn otherwise
_PATIENCE_SECONDS = 10.0
"""So long a viewer waits for the masks before there is something else to see."""
_PLACES = 6
"""Viewers for whom something is fetched or made at once; others wait, but not for long:
each takes a thread of the server."""
_PLACE_SECONDS = 2.0
_PARTS_OF_A_JOB = 4
"""So many previews of a job's partial answers, at most."""
_NO_TRACK = "no track yet"
_BEING_DRAWN = "the masks are being drawn here; open the task again"
_BUSY = "many previews are being made; open the task again later"
_UNKNOWN_VIDEO = VideoInfo(
    width=640, height=360, frame_count=1, fps=25.0, frame_times_seconds=(0.0,),
    duration_seconds=10.0,
)


@dataclass(frozen=True)
class _NewestTrack:
    """What is to be drawn over a video."""

    key: str
    video: ResultVideo
    regions: Sequence[dict]

    def tracks(self, info: VideoInfo) -> list[Track]:
        """Raises ValueError for masks that do not fit the video."""
        return [
            region_to_track(region, info, self.video.framerate)
            for region in self.regions
            if region.get("type") == "videorectangle" and region.get("to_name") == self.video.name
        ]


class PreviewVideos:
    """Thread safe."""

    def __init__(
        self, service: TrackingService, *, patience_seconds: float = _PATIENCE_SECONDS
    ) -> None:
        settings = service.settings
        self._service = service
        self._label_studio_url = settings.label_studio_url
        self._cache = PreviewCache(
            settings.data_folder / "previews", max_bytes=settings.preview_cache_bytes
        )
        self._renders = Renders()
        self._places = threading.BoundedSemaphore(_PLACES)
        self._stills_lock = threading.Lock()
        self.patience_seconds = patience_seconds

    def stop(self) -> None:
        """Draw no more."""
        self._renders.stop()

    def find(self, name: str) -> Path | None:
        """The file that a viewer was given before, while it is kept."""
        return self._cache.find(name)

    def newest(self, references: Sequence[str]) -> Path:
        """The file to show now; it never changes.

        Args:
            references: how the video may be meant, the likeliest first.
        """
        if not self._places.acquire(timeout=_PLACE_SECONDS):
            return self._unknown_video(_BUSY)
        try:
            return self._newest([meant_by(text, self._label_studio_url) for text in references])
        finally:
            self._places.release()

    def _newest(self, references: Sequence[MediaReference]) -> Path:
        named = [
            text
            for media in references
            for text in spellings(media.reference, self._label_studio_url)
        ]
        problem = "no task of the project has this video"
        for media in references:
            try:
                with self._service.media.in_use() as store:
                    file = store.video_file(media.reference, task_id=media.task_id)
                    return self._of_video(media, file, named)
            except ServiceError as error:
                logger.warning("no preview: %s", error.detail)
                problem = error.name
            except (VideoDecodeError, ValueError) as error:
                logger.warning("no preview: %s", error)
                problem = "the video cannot be read"
        return self._unknown_video(problem)

    # --- one video -----------------------------------------------------------

    def _of_video(self, media: MediaReference, file: Path, named: Sequence[str]) -> Path:
        content = content_fingerprint(file)
        newest = self._newest_track(named)
        if newest is None:
            return self._stills(content, file, _NO_TRACK)
        name = fingerprint([_FORMAT, content, newest.key, newest.video.name])
        if (found := self._cache.find(name)) is not None:
            return found
        render = self._renders.join(name, lambda: self._render(name, media, newest))
        if render is None:
            return self._stills(content, file, _BUSY)
        has_ended = render.wait(self.patience_seconds)
        if not has_ended and (path := render.look(_BEING_DRAWN)) is not None:
            return path
        if (found := self._cache.find(name)) is not None:
            return found
        return self._stills(content, file, render.failure or _BEING_DRAWN)

    def _render(self, name: str, media: MediaReference, newest: _NewestTrack) -> Render:
        @contextlib.contextmanager
        def scene() -> Iterator[Scene]:
            with self._service.media.in_use() as store:
                file = store.video_file(media.reference, task_id=media.task_id)
                deadline = Deadline(self._service.settings.answer_seconds)
                with (
                    opening_until(deadline),
                    store.opened(file, decoder_threads=1) as source,
                ):
                    yield source, newest.tracks(source.info)

        return Render(name, self._cache, scene)

    def _newest_track(self, named: Sequence[str]) -> _NewestTrack | None:
        found = [self._service.store.newest_result_of_media(text) for text in named]
        results = [result for result in found if result is not None]
        if results:
            result = max(results, key=lambda result: result.created_at)
            return _track_in(result, named)
        return self._partial_track(named)

    def _partial_track(self, named: Sequence[str]) -> _NewestTrack | None:
        """What the first job on a video has so far."""
        for job in self._service.store.list(states=(JobState.RUNNING,)):
            handle = self._service.jobs.handle(job.id)
            work = None if handle is None else handle.work
            for video in getattr(work, "videos", ()):
                if video.reference in named:
                    regions = work.answer(is_limited=False).regions
                    part = _PARTS_OF_A_JOB * job.done // max(1, job.total)
                    return _NewestTrack(f"{job.id}:{part}", video, regions) if regions else None
        return None

    # --- stills --------------------------------------------------------------

    def _stills(self, content: str, file: Path, message: str) -> Path:
        """Dimmed pictures of the video, as long as it is, with a message."""
        name = fingerprint([_FORMAT, content, message])
        with self._stills_lock:
            if (found := self._cache.find(name)) is not None:
                return found
            with self._service.media.opened(file, decoder_threads=1) as source:
                return self._new_stills(name, source.info, spread_stills(source), message)

    def _unknown_video(self, problem: str) -> Path:
        message = f"no preview: {problem}"
        name = fingerprint([_FORMAT, message])
        with self._stills_lock:
            if (found := self._cache.find(name)) is not None:
                return found
            black = np.zeros((_UNKNOWN_VIDEO.height, _UNKNOWN_VIDEO.width, 3), np.uint8)
            return self._new_stills(name, _UNKNOWN_VIDEO, [Still(0.0, black)], message)

    def _new_stills(
        self, name: str, info: VideoInfo, stills: Sequence[Still], message: str
    ) -> Path:
        path = self._cache.new(name)
        look(path, None, info, stills, message)
        self._cache.make_room(path)
        return path


def _track_in(result: StoredResult, named: Sequence[str]) -> _NewestTrack | None:
    for video in result.videos:
        if video.reference in named:
            return _NewestTrack(result.key, video, result.regions)
    return None
