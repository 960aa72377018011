"""One long video on several workers: windows between frames that a person has prompted.

A seam is a frame on which every object that is followed there has a prompt. Each window
is given all prompts, and tracked by whoever is free; it begins `WARM_UP_FRAMES` before its
seam, so that it has memories of what comes before, and keeps what it finds from the seam
on. On the seams the masks are those of an unsplit run, as they depend on the prompt and
that frame alone. Between them they may differ where the unsplit run would have looked at
memories from before the seam; prompted frames it looks at in both.

The job of the whole video offers its windows as jobs, tracks itself those that nobody has
begun, and waits for the others. A window that fails elsewhere it tracks itself.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from backend.decoding import opening_until
from backend.jobs.blobs import Blobs
from backend.jobs.handles import JobHandle, Outcome
from backend.jobs.interface import Store
from backend.jobs.types import Job, JobKind, JobSpec, JobState
from backend.kept_progress import FrameRecord, KeptProgress, delete_progress
from backend.requests import TaskRequest, fingerprint
from backend.scheduler import Priority
from backend.sqlite_file import packed, unpacked
from backend.tracking import TrackingRun
from converters.types import Direction, FrameRange
from sam2_model.video import OpeningGivenUp

if TYPE_CHECKING:
    from backend.model import Tracker
    from backend.service import TrackingService
    from sam2_model.video import FrameSource

logger = logging.getLogger(__name__)

WINDOWS = "windows"
"""What the names of all finished windows begin with."""
WARM_UP_FRAMES = 7
"""As many as the official models have memories of."""
MOST_WINDOWS = 64
_LOOK_SECONDS = 0.3
_ASK_SECONDS = 5.0


def seams(prompted: Sequence[Sequence[int]], frame_range: FrameRange) -> list[int]:
    """Frames on which a window may begin (forward) or end (backward), ascending.

    Args:
        prompted: the frames of each object's prompts.
    """
    direction = frame_range.direction
    objects = [(set(frames), min(frames), max(frames)) for frames in prompted]
    # Both ways begin at the earliest prompt: on the way back there is none.
    start = frame_range.start
    if direction is Direction.BOTH:
        start = max(start, min(first for _, first, _ in objects))

    def is_followed(first: int, last: int, frame: int) -> bool:
        if direction is Direction.FORWARD:
            return frame >= first
        return direction is Direction.BOTH or frame <= last

    return sorted(
        frame
        for frame in set().union(*(frames for frames, _, _ in objects))
        if start < frame < frame_range.stop - 1
        and all(
            frame in frames or not is_followed(first, last, frame)
            for frames, first, last in objects
        )
    )


def plan_windows(
    prompted: Sequence[Sequence[int]], frame_range: FrameRange, *, least_frames: int
) -> list[FrameRange]:
    """A range as windows of at least so many frames each, ascending; one if it is not split."""
    start, stop, direction = frame_range.start, frame_range.stop, frame_range.direction
    least = max(least_frames, -(-(stop - start) // MOST_WINDOWS))
    # Backward the seam is the first frame that its window tracks, so it ends after it.
    cuts = [
        frame + 1 if direction is Direction.BACKWARD else frame
        for frame in seams(prompted, frame_range)
    ]
    edges = [start]
    for cut in cuts:
        if cut - edges[-1] >= least and stop - cut >= least:
            edges.append(cut)
    edges.append(stop)
    later = Direction.FORWARD if direction is Direction.BOTH else direction
    return [
        FrameRange(first, last, direction if number == 0 else later)
        for number, (first, last) in enumerate(zip(edges, edges[1:]))
    ]


def with_warm_up(window: FrameRange, whole: FrameRange) -> FrameRange:
    """What is tracked for a window: it begins a little before its seam."""
    start, stop = window.start, window.stop
    if window.direction is Direction.FORWARD:
        start = max(whole.start, start - WARM_UP_FRAMES)
    elif window.direction is Direction.BACKWARD:
        stop = min(whole.stop, stop + WARM_UP_FRAMES)
    return FrameRange(start, stop, window.direction)


@dataclass(frozen=True)
class _Place:
    """A window of one of a request's runs."""

    part: int
    run: int
    window: FrameRange

    def as_json(self) -> dict[str, Any]:
        window = self.window
        return {
            "part": self.part, "run": self.run, "start": window.start, "stop": window.stop,
            "direction": window.direction,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> _Place:
        window = FrameRange(value["start"], value["stop"], Direction(value["direction"]))
        return cls(value["part"], value["run"], window)

    def key(self, content_key: str) -> str:
        return fingerprint([content_key, self.as_json()])

    def progress_name(self, content_key: str) -> str:
        """The same wherever the window is tracked: one goes on after the other."""
        return f"window-{self.key(content_key)}"


class WindowedTracking:
    """The long runs of one job, shared with other workers. For the thread that runs it."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        job: Job,
        content_key: str,
        *,
        least_frames: int,
        save_seconds: float,
        priority: Callable[[], Priority],
        is_left: Callable[[], bool],
    ) -> None:
        """
        Args:
            job: that of the whole video.
            content_key: names media, prompts and settings.
            least_frames: of a window.
            is_left: whether another attempt is to go on, so that windows are not given up.
        """
        self._store, self._blobs, self._job = store, blobs, job
        self._content_key = content_key
        self._least_frames = least_frames
        self._save_seconds = save_seconds
        self._priority = priority
        self._is_left = is_left
        self._places: list[_Place] = []

    def plan(self, run: TrackingRun) -> list[FrameRange]:
        """Its windows; fewer than two when it is not to be split."""
        prompted = [[p.frame_index for p in request.prompts] for request in run.requests]
        return plan_windows(prompted, run.frame_range, least_frames=self._least_frames)

    def track(
        self,
        run: TrackingRun,
        source: FrameSource,
        tracker: Tracker,
        *,
        part: int,
        number: int,
        is_cancelled: Callable[[], bool],
        progress: Callable[[int, int], None],
    ) -> None:
        """`run.run`, with the help of others. Raises as it does."""
        open_places = [_Place(part, number, window) for window in self.plan(run)]
        logger.info("job %s is done in %d windows", self._job.id, len(open_places))
        self._places += open_places
        offered: dict[_Place, str] = {}
        self._take_over(open_places, offered, run, progress)
        # The first is begun here: nobody is asked for it.
        offered.update((place, self._offer(place)) for place in open_places[1:])
        try:
            while open_places and not is_cancelled():
                place = self._next_here(open_places, offered)
                if place is None:
                    time.sleep(_LOOK_SECONDS)
                elif self._track_here(place, run, source, tracker, is_cancelled, progress):
                    open_places.remove(place)
                self._take_over(open_places, offered, run, progress)
            if not open_places:
                run.set_complete()
        finally:
            if not self._is_left():
                for place in open_places:
                    self._withdraw(offered.get(place))

    def forget(self) -> None:
        """The job has ended: nobody asks for its windows any more."""
        for place in self._places:
            try:
                self._blobs.delete(_name(place, self._content_key))
            except Exception:  # it goes by its age
                logger.warning("a window cannot be deleted", exc_info=True)
            delete_progress(self._blobs, place.progress_name(self._content_key))

    def _withdraw(self, job_id: str | None) -> None:
        if job_id is not None:
            self._store.finish(job_id, JobState.CANCELLED)

    def _offer(self, place: _Place) -> str:
        """A job for whoever is free; its id."""
        key = place.key(self._content_key)
        spec = JobSpec(
            kind=JobKind.WINDOW,
            request={
                "job": self._job.id, "content_key": self._content_key, "place": place.as_json(),
            },
            key=f"window:{key}",
            # A person sees the frames around the prompts first, which are tracked here.
            priority=max(self._priority(), Priority.WEBHOOK),
            project_id=self._job.project_id,
            request_id=self._job.request_id,
        )
        return self._store.add(spec)[0].id

    def _take_over(
        self,
        open_places: list[_Place],
        offered: dict[_Place, str],
        run: TrackingRun,
        progress: Callable[[int, int], None],
    ) -> None:
        """What others have done, or an earlier attempt; what has failed is offered no more."""
        for place in list(open_places):
            if self._is_under_way(offered.get(place)):
                continue
            frames = self._frames_of(place)
            if frames is None:
                offered.pop(place, None)
                continue
            run.restore(frames, in_order=False)
            progress(run.done_frames, run.total_frames)
            open_places.remove(place)

    def _is_under_way(self, job_id: str | None) -> bool:
        job = None if job_id is None else self._store.get(job_id)
        return job is not None and not job.state.has_ended

    def _frames_of(self, place: _Place) -> list[FrameRecord] | None:
        try:
            body = self._blobs.load(_name(place, self._content_key))
            return None if body is None else unpacked(body)
        except Exception:  # a storage that is away: it is asked again, or the window done again
            logger.warning("a window of job %s cannot be read", self._job.id, exc_info=True)
            return None

    def _next_here(
        self, open_places: list[_Place], offered: Mapping[_Place, str]
    ) -> _Place | None:
        """A window to track here, the first that nobody has begun; None: all that is left
        is under way, or has just ended."""
        for place in open_places:
            if place not in offered:
                return place
            job = self._store.get(offered[place])
            if job is not None and job.state is JobState.QUEUED:
                self._withdraw(job.id)
                return place
        return None

    def _track_here(
        self,
        place: _Place,
        run: TrackingRun,
        source: FrameSource,
        tracker: Tracker,
        is_cancelled: Callable[[], bool],
        progress: Callable[[int, int], None],
    ) -> bool:
        """Whether it was tracked to its end."""
        part = TrackingRun(
            run.requests, run.info, run.options,
            frame_range=with_warm_up(place.window, run.frame_range),
        )
        given = 0

        def give(*_: int) -> None:
            nonlocal given
            new = part.frames_since(given)
            given += len(new)
            run.restore(_inside(place.window, new), in_order=False)
            progress(run.done_frames, run.total_frames)

        kept = KeptProgress(
            self._blobs, place.progress_name(self._content_key), place.key(self._content_key),
            every_seconds=self._save_seconds, is_left=self._is_left,
        )
        kept.track(part, source, tracker, is_cancelled=is_cancelled, progress=give)
        if not part.is_complete:
            return False
        give()
        try:
            _save(self._blobs, place, self._content_key, part)
        except Exception:  # only another attempt would have had a use for it
            logger.warning("a window of job %s cannot be kept", self._job.id, exc_info=True)
        return True


class WindowWork:
    """The job of one window, for another worker's job of the whole video."""

    def __init__(self, job: Job, service: TrackingService) -> None:
        """Raises ValueError for a malformed request."""
        self._job, self._service = job, service
        self._serving = service.serving
        self._place = _Place.from_json(job.request["place"])
        self._asked_at, self._is_wanted = 0.0, True

    def run(self, handle: JobHandle) -> Outcome:
        from backend.propagation import TaskPropagation

        service, place, wanted_key = self._service, self._place, self._job.request["content_key"]
        whole = service.store.get(self._job.request["job"])
        if whole is None or whole.state.has_ended:
            return Outcome()
        propagation = TaskPropagation(
            TaskRequest.from_json(whole.request),
            media=service.media, settings=self._serving.settings,
        )
        with service.media.in_use() as media:
            if propagation.fetch_media(media) != wanted_key:
                raise ValueError(
                    "this worker has other settings than the one that asks for the window, or the "
                    "video has changed meanwhile"
                )
            kept = KeptProgress(
                service.blobs, place.progress_name(wanted_key), place.key(wanted_key),
                every_seconds=service.settings.save_seconds, is_left=lambda: handle.is_left,
            )
            try:
                with opening_until(None, handle.is_cancelled):
                    run = propagation.run_window(
                        self._serving.model, place.part, place.run,
                        lambda frame_range: with_warm_up(place.window, frame_range),
                        kept=kept, priority=lambda: handle.priority,
                        is_cancelled=lambda: handle.is_cancelled() or not self._is_asked_for(),
                        progress=handle.report,
                    )
            except OpeningGivenUp:
                return Outcome()
            if run.is_complete:
                _save(service.blobs, place, wanted_key, run)
            elif not handle.is_left:  # nobody asks for it any more
                delete_progress(service.blobs, place.progress_name(wanted_key))
        return Outcome()

    def _is_asked_for(self) -> bool:
        """Whether the job of the whole video has not ended; looked at now and then."""
        if time.monotonic() - self._asked_at > _ASK_SECONDS:
            self._asked_at = time.monotonic()
            whole = self._service.store.get(self._job.request["job"])
            self._is_wanted = whole is not None and not whole.state.has_ended
        return self._is_wanted


def _inside(window: FrameRange, frames: Sequence[FrameRecord]) -> list[FrameRecord]:
    return [frame for frame in frames if window.start <= frame[0] < window.stop]


def _save(blobs: Blobs, place: _Place, content_key: str, run: TrackingRun) -> None:
    """A finished window, for the job of the whole video."""
    frames = _inside(place.window, run.frames_since(0))
    blobs.save(_name(place, content_key), packed(frames))
    delete_progress(blobs, place.progress_name(content_key))


def _name(place: _Place, content_key: str) -> str:
    return f"{WINDOWS}/{place.key(content_key)}"
