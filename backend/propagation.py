"""Task and context -> prompts -> masks -> tracks -> regions.

The one meeting point of `converters` and `sam2_model`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from backend.errors import OverLimit
from backend.fingerprints import content_fingerprint
from backend.kept_progress import KeptProgress
from backend.left_out import LeftOut, LeftOutJson, sentence
from backend.jobs.types import ResultVideo
from backend.media import MediaStore
from backend.model import ModelService, Tracker
from backend.prompts import (
    STAMP,
    VIDEO_TYPE,
    asked,
    drawn_key,
    meta_of,
    prompts_key,
    session_frames,
    session_stamp_of,
    stamp_of,
)
from backend.requests import Result, TaskRequest, fingerprint
from backend.scheduler import Priority
from backend.settings import Settings
from backend.text_commands import Command
from backend.tracking import TrackingOptions, TrackingRun, nearest_to_prompts
from backend.windows import WindowedTracking
from converters.geometry import ls_frame_to_index
from converters.label_studio.config import (
    ImageControl,
    ImageControlKind,
    ImageTag,
    LabelConfig,
    UnsupportedConfigError,
    VideoTag,
    parse_label_config,
    resolve_framerate,
    resolve_value,
)
from converters.label_studio.lifespan import read_lifespan
from converters.label_studio.paths import named
from converters.label_studio.regions import (
    probability_of,
    stored_masks,
    track_to_frame_regions,
    track_to_video_region,
)
from converters.label_studio.results import ObjectRequest, frame_requests, video_requests
from converters.label_studio.video_clock import noted_clock
from converters.label_studio.video_vector import (
    VIDEO_VECTOR_TYPES,
    stored_vector_masks,
    track_to_video_vector_region,
    video_vector_requests,
)
from converters.masks import decode_mask
from converters.types import Direction, FrameRange, ObjectId, Prompt, Track, VideoInfo
from sam2_model.video import FrameSource, OpeningGivenUp

logger = logging.getLogger(__name__)

_ANSWERS = 2
"""One more whenever the same request has another answer, so that stored ones are not given."""

_OUTPUT_KINDS = (
    ImageControlKind.BRUSH,
    ImageControlKind.BITMASK,
    ImageControlKind.POLYGON,
    ImageControlKind.VECTOR,
    ImageControlKind.RECTANGLE,
)
"""What can carry an answer on images, the best first."""

_DOUBTFUL_SHARE = 0.1
"""A track is as good as its worst tenth."""


@dataclass(frozen=True)
class Answer:
    """What goes back to Label Studio for one task."""

    regions: tuple[dict[str, Any], ...]
    is_complete: bool
    """False when there are more frames to come."""
    score: float = 0.0
    """In [0, 1], low where tracking is doubtful: of the worst object, the tenth
    percentile of its probabilities."""
    model_version: str | None = None
    """Of the model that made it; None where nothing was asked of one."""
    left_out: LeftOutJson | None = None
    """Regions that were malformed, if any: they are not in the answer."""


NOTHING = Answer((), is_complete=True)


class TaskPropagation:
    """The work on one request: one thread runs it, any may take `answer()` meanwhile."""

    def __init__(self, request: TaskRequest, *, media: MediaStore, settings: Settings) -> None:
        """Raises ValueError for a malformed config, and when no region is on anything that
        it has; touches no media."""
        self.request = request
        self._media = media
        self._settings = settings
        self._left_out = LeftOut()
        config = parse_label_config(request.label_config)
        results = request.results
        self._parts: list[_Part] = [
            *(kind(tag, group, config, request, settings)
              for kind in (_VideoPart, _VectorPart)
              for tag, group in _by_video(results, config, kind.result_types, self._left_out)),
            *(_FramesPart(tag, group, config, request, settings)
              for tag, group in _by_image(results, config)),
        ]
        self._left_out.check_rest(self.has_work)
        for number, part in enumerate(self._parts):
            part.number = number
        self._has_ended = False
        self._building = threading.Lock()
        self._last: dict[bool, Answer] = {}
        """The answers that no frame will change any more, by `is_limited`."""
        self.content_key: str | None = None
        """Names media, prompts and settings together; None until the media is there."""

    @property
    def has_work(self) -> bool:
        """Whether anything in the results could be a prompt."""
        return bool(self._parts)

    @functools.cached_property
    def open_prompts(self) -> Mapping[str, str]:
        """Region id -> name of its prompts and label, for all that nobody has answered yet.

        No media is needed to tell.
        """
        return {
            result["id"]: prompts_key(result)
            for part in self._parts
            for result in part.open_results()
            if isinstance(result.get("id"), str)
        }

    @functools.cached_property
    def asks_nothing(self) -> bool:
        """Whether all regions were answered before, so that they come back as they are."""
        return not any(part.open_results() for part in self._parts)

    @property
    def commands(self) -> dict[str, Command]:
        """Region id -> what a person said to do with it, if anything."""
        found = {key: self.request.command_for(key) for key in self.open_prompts}
        return {key: command for key, command in found.items() if command is not None}

    @functools.cached_property
    def key(self) -> str:
        """The same for requests of one task that ask for the same, whatever tracking
        has added to the regions since."""
        request = self.request
        where = [request.task_id, request.project_id, dict(request.data)]
        return fingerprint([where, self._asked, self._settings.tracking_fingerprint])

    @functools.cached_property
    def _asked(self) -> Any:
        stored = self.request.to_json()
        kept = ("label_config", "command", "region_commands")
        asked = {name: stored[name] for name in kept}
        return [_ANSWERS, asked, [part.signature() for part in self._parts]]

    @property
    def has_tracked(self) -> bool:
        """Whether there were prompts that nobody had answered yet."""
        return any(part.runs for part in self._parts)

    @property
    def left_out(self) -> LeftOutJson | None:
        """The regions that are malformed, of those that were looked at so far."""
        return self._left_out.to_json()

    @property
    def has_more(self) -> bool:
        """Whether a stored prediction could hold more than `answer` does."""
        return any(part.has_more for part in self._parts)

    @property
    def files(self) -> list[Path]:
        """All media files, once they are there."""
        files: list[Path] = []
        for part in self._parts:
            files += [part.files] if isinstance(part.files, Path) else part.files
        return files

    @property
    def references(self) -> tuple[str, ...]:
        """The videos, as the task's data names them."""
        return tuple(part.reference for part in self._parts if part.reference is not None)

    @property
    def videos(self) -> tuple[ResultVideo, ...]:
        """The same, with what tells the frames of their regions."""
        return tuple(part.video for part in self._parts if part.video is not None)

    def fetch_media(self, media: MediaStore | None = None) -> str:
        """Find or download everything; the `content_key`. Raises ServiceError.

        Args:
            media: one whose files stay while they are worked with (`in_use`).
        """
        contents = []
        for part in self._parts:
            part.files = part.fetch(media or self._media)
            part.content = content_fingerprint(part.files)
            contents.append([part.content, part.timing])
        # Where the media lies and whose task it is does not change the masks.
        self.content_key = fingerprint(
            [contents, self._asked, self._settings.tracking_fingerprint]
        )
        return self.content_key

    def run(
        self,
        model: ModelService,
        *,
        priority: Callable[[], Priority],
        kept: KeptProgress | None = None,
        windows: WindowedTracking | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Track everything; `answer` grows meanwhile. Results that ask for nothing give
        an empty answer. Malformed regions are `left_out`; when nothing else is asked for,
        the first of them raises.

        Args:
            priority: asked for each frame.
            kept: what an earlier attempt has tracked, and where this one keeps its own.
            windows: shares long videos with others; None: they are tracked here alone.
            is_cancelled: asked before each prompt and frame.
            progress: called after each frame with frames done and in all.

        Raises:
            UnsupportedConfigError: nothing in the config can take the answer.
            VideoDecodeError: the media gives no pictures.
            ValueError: no region can be tracked, as the one that it names is malformed.
            ServiceError: the media or the model cannot be had, or a limit is passed.
        """
        if self.content_key is None:
            self.fetch_media()

        def report(_: int, __: int) -> None:
            runs = [run for part in self._parts for run in part.runs]
            progress(sum(r.done_frames for r in runs), sum(r.total_frames for r in runs))

        for part in self._parts:
            if is_cancelled():
                return
            try:
                with model.tracker(part.files, part.content, priority) as (source, tracker):
                    part.track(
                        source, tracker, kept, windows, is_cancelled, report, self._left_out
                    )
            except OpeningGivenUp:
                return
        self._left_out.check_rest(self.has_tracked)
        if self.left_out is not None:
            logger.warning("task %s: %s", self.request.task_id, sentence(self.left_out))
        self._has_ended = True

    def run_window(
        self,
        model: ModelService,
        part_number: int,
        run_number: int,
        range_of: Callable[[FrameRange], FrameRange],
        *,
        kept: KeptProgress,
        priority: Callable[[], Priority],
        is_cancelled: Callable[[], bool],
        progress: Callable[[int, int], None],
    ) -> TrackingRun:
        """Track some frames of one of the runs of `run`, after `fetch_media`.

        Args:
            range_of: the whole run's frames -> those to track.

        Raises as `run`.
        """
        part = self._parts[part_number]
        with model.tracker(part.files, part.content, priority) as (source, tracker):
            whole = part.plan(source.info, LeftOut())[run_number]
            run = TrackingRun(
                whole.requests, whole.info, whole.options,
                frame_range=range_of(whole.frame_range),
            )
            kept.track(run, source, tracker, is_cancelled=is_cancelled, progress=progress)
        return run

    @property
    def has_enough(self) -> bool:
        """Whether more frames would not change `answer`."""
        return self._has_ended or all(part.has_enough for part in self._parts)

    def as_it_came(self) -> Answer:
        """The answer to a request that `asks_nothing`; touches no media."""
        for part in self._parts:
            part.is_done = True
        self._has_ended = True
        return self.answer()

    def answer(self, *, is_limited: bool = True, is_final: bool = False) -> Answer:
        """What there is now.

        Args:
            is_limited: regions on frames in the number that the editor bears in one
                answer; False: as many as a stored prediction may have.
            is_final: no more is wanted, so that regions that are not complete
                count as answered too.
        """
        if not self._is_complete:
            return self._answer(is_limited, is_final)
        # Several ask for it at once as the job ends, and it is worth a second for a long video.
        with self._building:
            if is_limited not in self._last:
                self._last[is_limited] = self._answer(is_limited, is_final)
            last = self._last[is_limited]
        return dataclasses.replace(last, regions=tuple(dict(r) for r in last.regions))

    @property
    def _is_complete(self) -> bool:
        return self._has_ended and all(part.is_complete for part in self._parts)

    def _answer(self, is_limited: bool, is_final: bool) -> Answer:
        is_complete = self._is_complete  # before its frames are looked at: there may be more
        regions: list[dict[str, Any]] = []
        for part in self._parts:
            regions += part.answer(is_limited, is_final)
        scores = [score for part in self._parts for score in part.scores()]
        # Nothing new: as good as what came.
        scores = scores or [r["score"] for r in regions if isinstance(r.get("score"), float)]
        return Answer(
            tuple(regions), is_complete, round(min(scores, default=0.0), 6),
            self._settings.model_version, self.left_out,
        )


class _Part:
    """One `<Video>` or `<Image>` of the config, with the results on it."""

    def __init__(
        self,
        tag: Any,
        results: Sequence[Result],
        config: LabelConfig,
        request: TaskRequest,
        settings: Settings,
    ) -> None:
        self.tag = tag
        self.results = results
        self.config = config
        self.request = request
        self.settings = settings
        self.number = 0
        """Among the request's parts."""
        self.files: Path | Sequence[Path] = ()
        self.content = ""
        self.runs: list[TrackingRun] = []
        """One for each way in which objects are to be tracked."""
        self.is_done = False
        self._last: dict[int | None, list[dict[str, Any]]] = {}

    def fetch(self, media: MediaStore) -> Path | Sequence[Path]:
        raise NotImplementedError

    @property
    def reference(self) -> str | None:
        """The video in the task's data; None for images."""
        return None

    @property
    def video(self) -> ResultVideo | None:
        """The same, with what tells the frames of its regions."""
        return None

    def requests(self, info: VideoInfo, left_out: LeftOut) -> Sequence[ObjectRequest]:
        """The objects to track; malformed regions are left out and counted."""
        raise NotImplementedError

    def frame_index_of(self, ls_frame: int, info: VideoInfo) -> int:
        """The editor's 1-based frame -> index."""
        raise NotImplementedError

    def answer(self, is_limited: bool, is_final: bool) -> list[dict[str, Any]]:
        """`regions`, built once a limit when there are no more to come."""
        limit = self.region_limit(is_limited)
        if not self.is_complete:
            return self.regions(limit, is_final)
        if limit not in self._last:
            self._last[limit] = self.regions(limit, is_final)
        return self._last[limit]

    def region_limit(self, is_limited: bool) -> int | None:
        """How many regions an answer may have; None: there is no need for a limit."""
        return None

    def regions(self, limit: int | None, is_final: bool) -> list[dict[str, Any]]:
        raise NotImplementedError

    def open_results(self) -> list[Result]:
        """Those with prompts that nobody has answered yet."""
        raise NotImplementedError

    def signature(self) -> list[Any]:
        """What of the results changes the answer, as JSON."""
        raise NotImplementedError

    @property
    def timing(self) -> float | None:
        """The task's own frame rate; None where there is none."""
        return None

    @property
    def has_more(self) -> bool:
        """Whether regions are left out of a limited answer."""
        return False

    @property
    def has_enough(self) -> bool:
        return self.is_done

    @property
    def is_complete(self) -> bool:
        return self.is_done and all(run.is_complete for run in self.runs)

    def track(
        self,
        source: FrameSource,
        tracker: Tracker,
        kept: KeptProgress | None,
        windows: WindowedTracking | None,
        is_cancelled: Callable[[], bool],
        progress: Callable[[int, int], None],
        left_out: LeftOut,
    ) -> None:
        self.runs = self.plan(source.info, left_out)
        for number, run in enumerate(self.runs):
            track = run.run if kept is None else functools.partial(kept.track, run)
            if windows is not None and len(windows.plan(run)) > 1:
                track = functools.partial(windows.track, run, part=self.number, number=number)
            track(source, tracker, is_cancelled=is_cancelled, progress=progress)
            if is_cancelled():
                return
        self.is_done = True

    def plan(self, info: VideoInfo, left_out: LeftOut) -> list[TrackingRun]:
        """What is to be tracked, but for malformed regions. Raises ValueError and OverLimit."""
        limits = self.settings
        if info.frame_count > limits.max_frames:
            raise OverLimit(
                f"the video has {info.frame_count} frames, may have {limits.max_frames} "
                "(SAM2_MAX_FRAMES)"
            )
        requests = self.requests(info, left_out)
        if len(requests) > limits.max_objects:
            raise OverLimit(
                f"the request has {len(requests)} objects, may have {limits.max_objects} "
                "(SAM2_MAX_OBJECTS)"
            )
        groups: dict[TrackingOptions, list[ObjectRequest]] = {}
        for request in requests:
            groups.setdefault(self._options(request, info), []).append(request)
        return [TrackingRun(group, info, options) for options, group in groups.items()]

    def _command(self, request: ObjectRequest) -> Command:
        return self.request.command_for(request.object_id) or Command()

    def _options(self, request: ObjectRequest, info: VideoInfo) -> TrackingOptions:
        command = self._command(request)
        if command.to_ls_frame is not None:
            return _towards(self.frame_index_of(command.to_ls_frame, info), request)
        return TrackingOptions(
            direction=command.direction or self.settings.direction,
            frame_limit=command.frame_limit or self.settings.frame_limit,
        )

    def scores(self) -> Iterator[float]:
        """One an object that was seen."""
        yield from track_scores(track for run in self.runs for track in run.tracked().tracks)


class _VideoPart(_Part):
    """VideoRectangles on a `<Video>`; they come back under their own ids."""

    tag: VideoTag
    result_types: tuple[str, ...] = (VIDEO_TYPE,)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._known: dict[ObjectId, Track] = {}
        """What a session had tracked of objects that are tracked again."""

    def fetch(self, media: MediaStore) -> Path:
        reference = resolve_value(self.tag.value, self.request.data)
        return media.video_file(
            reference, task_id=self.request.task_id, project_id=self.request.project_id
        )

    @property
    def reference(self) -> str | None:
        value = resolve_value(self.tag.value, self.request.data)
        return value if isinstance(value, str) else None

    @property
    def video(self) -> ResultVideo | None:
        if self.reference is None:
            return None
        return ResultVideo(
            name=self.tag.name, reference=self.reference, framerate=self._framerate
        )

    @property
    def _framerate(self) -> float:
        return resolve_framerate(self.tag, self.request.data)

    @property
    def timing(self) -> float | None:
        return self._framerate

    def requests(self, info: VideoInfo, left_out: LeftOut) -> Sequence[ObjectRequest]:
        asked = []
        for request in self._read_requests(info, left_out):
            if request.prompts and not self._is_answered(request.source_region):
                with left_out.leaving_out("regions"):
                    asked.append(self._with_session(request, info))
        return asked

    def _with_session(self, request: ObjectRequest, info: VideoInfo) -> ObjectRequest:
        """Prompted also by what a person marked in a session, where nothing is drawn now."""
        region = request.source_region
        if not session_stamp_of(region):
            return request
        known = self._known_track(region, info)
        self._known[request.object_id] = known
        drawn = {prompt.frame_index for prompt in request.prompts}
        marked = (session_frames(region) & known.masks.keys()) - drawn
        prompts = [
            Prompt(request.object_id, index, mask=decode_mask(known.masks[index]))
            for index in marked
        ]
        in_order = sorted([*request.prompts, *prompts], key=lambda p: p.frame_index)
        return dataclasses.replace(request, prompts=tuple(in_order))

    def _known_track(self, region: Result, info: VideoInfo) -> Track:
        """Every mask that the region holds where a person has not hidden it."""
        with named(f"region {region.get('id')!r}"):
            hidden = read_lifespan(region, info, self._framerate).hidden
            masks, scores = stored_masks(region, info, self._framerate)
        kept = {index: mask for index, mask in masks.items() if index not in hidden}
        return Track(region["id"], (), kept, scores)

    def _read_requests(self, info: VideoInfo, left_out: LeftOut) -> Sequence[ObjectRequest]:
        return video_requests(
            self.results, config=self.config, info=info, framerate=self._framerate,
            report=left_out,
        )

    def open_results(self) -> list[Result]:
        return [
            r for r in self._video_results
            if asked(r) is not None and not self._is_answered(r)
        ]

    def signature(self) -> list[Any]:
        # Those that were answered come back as they are, so all of them counts.
        return [
            dict(r) if r.get("type") in self.result_types and self._is_answered(r) else asked(r)
            for r in self.results
        ]

    @property
    def _video_results(self) -> list[Result]:
        return [r for r in self.results if r.get("type") in self.result_types]

    def _is_answered(self, region: Result) -> bool:
        """Whether nobody has given it a new prompt since it was tracked."""
        stamp = stamp_of(region)
        if session_stamp_of(region) and asked(region) is None:
            return True
        if "prompts" not in stamp or stamp["prompts"] != drawn_key(region):
            return False
        command = self.request.command_for(region.get("id"))
        return command is None or stamp.get("how") == self._how(command)

    def _how(self, command: Command) -> str:
        direction = command.direction or self.settings.direction
        limit = command.frame_limit or self.settings.frame_limit
        return fingerprint([self.settings.model_version, direction, limit, command.to_ls_frame])

    def frame_index_of(self, ls_frame: int, info: VideoInfo) -> int:
        return ls_frame_to_index(ls_frame, self._framerate, info.frame_times_seconds)

    def regions(self, limit: int | None, is_final: bool) -> list[dict[str, Any]]:
        answers: dict[object, dict[str, Any] | None] = {}
        for run in self.runs:
            tracked = run.tracked()
            for request, track in zip(run.requests, tracked.tracks):
                region = None
                if track.scores:
                    whole = self._with_known(request, track)
                    region = self._region(request, whole, run.info)
                if region is not None:
                    is_answered = tracked.is_complete or is_final
                    command = self._command(request) if is_answered else None
                    self._stamp(region, command, run.info)
                answers[request.object_id] = region
        changed = [region for region in answers.values() if region is not None]
        return changed + (self._as_they_came(answers) if changed or self.is_done else [])

    def _stamp(self, region: dict[str, Any], command: Command | None, info: VideoInfo) -> None:
        """Note the video, and what the region answers; None: nothing yet, there are frames to
        come."""
        meta = {key: value for key, value in meta_of(region).items() if key != STAMP}
        stamp: dict[str, Any] = session_stamp_of(region) | noted_clock(info)
        if command is not None:
            stamp |= {"prompts": drawn_key(region), "how": self._how(command)}
        region["meta"] = {**meta, STAMP: stamp}

    def _as_they_came(self, answered: Iterable[object]) -> list[dict[str, Any]]:
        """Tracked regions with nothing new to ask: the editor keeps what comes back."""
        return [
            dict(r) for r in self._video_results
            if isinstance(r.get("id"), str) and r["id"] not in answered
            and ("prompts" in stamp_of(r) or session_stamp_of(r))
        ]

    def _with_known(self, request: ObjectRequest, track: Track) -> Track:
        """With what a session had tracked on frames that are not tracked now."""
        known = self._known.get(request.object_id)
        if known is None:
            return track
        masks = {i: mask for i, mask in known.masks.items() if i not in track.scores}
        scores = {i: known.scores[i] for i in masks if i in known.scores}
        return dataclasses.replace(
            track, masks={**masks, **track.masks}, scores={**scores, **track.scores}
        )

    def _region(
        self, request: ObjectRequest, track: Track, info: VideoInfo
    ) -> dict[str, Any] | None:
        return track_to_video_region(
            track,
            control=self.config.video_rectangle(request.source_region.get("from_name")),
            info=info,
            framerate=self._framerate,
            source_region=request.source_region,
            keyframes=self.settings.keyframes,
            min_iou=self.settings.keyframe_min_iou,
        )


class _VectorPart(_VideoPart):
    """The same of VideoVectors, whose outlines are mask prompts."""

    result_types = VIDEO_VECTOR_TYPES

    def _read_requests(self, info: VideoInfo, left_out: LeftOut) -> Sequence[ObjectRequest]:
        return video_vector_requests(
            self.results, config=self.config, info=info, framerate=self._framerate,
            report=left_out,
        )

    def _known_track(self, region: Result, info: VideoInfo) -> Track:
        with named(f"region {region.get('id')!r}"):
            masks, scores = stored_vector_masks(region, info, self._framerate)
        return Track(region["id"], (), masks, scores)

    def _region(
        self, request: ObjectRequest, track: Track, info: VideoInfo
    ) -> dict[str, Any] | None:
        return track_to_video_vector_region(
            track,
            control=self.config.video_vector(request.source_region.get("from_name")),
            info=info,
            framerate=self._framerate,
            source_region=request.source_region,
        )


class _FramesPart(_Part):
    """Marks on an `<Image>`; they come back as one region an object and frame."""

    tag: ImageTag

    def fetch(self, media: MediaStore) -> list[Path]:
        if self.tag.value_list is not None:
            references = resolve_value(self.tag.value_list, self.request.data)
        else:
            references = [resolve_value(self.tag.value or "", self.request.data)]
        return media.frame_files(
            references, task_id=self.request.task_id, project_id=self.request.project_id
        )

    def requests(self, info: VideoInfo, left_out: LeftOut) -> Sequence[ObjectRequest]:
        found = frame_requests(self.results, config=self.config, info=info, report=left_out)
        asked = []
        for request in found:
            if request.prompts:
                with left_out.region(request.object_id):
                    self._control_of(request)  # before the work: the masks need a place
                    asked.append(request)
        return asked

    def frame_index_of(self, ls_frame: int, info: VideoInfo) -> int:
        return min(ls_frame, info.frame_count) - 1

    def _control_of(self, request: ObjectRequest) -> ImageControl:
        return output_control(self.config, self.tag.name, request.labels)

    @property
    def _objects(self) -> list[ObjectRequest]:
        return [request for run in self.runs for request in run.requests]

    @property
    def _answer_limit(self) -> int:
        controls = [self._control_of(request) for request in self._objects]
        return min(_region_limit(control, self.settings) for control in controls)

    @property
    def has_enough(self) -> bool:
        if self.is_done:
            return True
        return bool(self.runs) and all(run.has_nearest(self._answer_limit) for run in self.runs)

    def open_results(self) -> list[Result]:
        return [r for r in self.results if asked(r) is not None]

    def signature(self) -> list[Any]:
        return [asked(r) for r in self.open_results()]

    @property
    def has_more(self) -> bool:
        found = sum(len(track.masks) for run in self.runs for track in run.tracked().tracks)
        return found > self._answer_limit if self.runs else False

    def region_limit(self, is_limited: bool) -> int | None:
        if not self.runs:
            return None
        return self._answer_limit if is_limited else self.settings.max_prediction_regions

    def regions(self, limit: int | None, is_final: bool) -> list[dict[str, Any]]:
        if limit is None:
            return []
        tracks = [track for run in self.runs for track in run.tracked().tracks]
        chosen = nearest_to_prompts(tracks, self._objects, limit)
        regions: list[dict[str, Any]] = []
        for request, track in zip(self._objects, tracks):
            regions += track_to_frame_regions(
                track,
                control=self._control_of(request),
                info=self.runs[0].info,
                frame_indices=chosen[track.object_id],
                to_name=self.tag.name,
            )
        return regions


def track_scores(tracks: Iterable[Track]) -> Iterator[float]:
    """How sure each object that was seen is, in [0, 1]: low where some frames are doubtful."""
    for track in tracks:
        seen = [track.scores[index] for index in track.masks if index in track.scores]
        if seen:
            yield probability_of(float(np.quantile(seen, _DOUBTFUL_SHARE)))


def _towards(frame_index: int, request: ObjectRequest) -> TrackingOptions:
    """Which way and how far a frame lies from an object's prompts."""
    prompted = [prompt.frame_index for prompt in request.prompts]
    if frame_index < min(prompted):
        return TrackingOptions(
            direction=Direction.BACKWARD, frame_limit=min(prompted) - frame_index
        )
    return TrackingOptions(frame_limit=max(1, frame_index - max(prompted)))


def _by_video(
    results: Sequence[Result], config: LabelConfig, types: Sequence[str], left_out: LeftOut
) -> Iterator[tuple[VideoTag, list[Result]]]:
    """(a <Video>, regions of these types on it and their labels), where there are any."""
    names: list[str] = []
    for region in results:
        if region.get("type") in types and region.get("to_name") not in names:
            with left_out.leaving_out("regions"), named(f"region {region.get('id')!r}"):
                names.append(config.video(region.get("to_name")).name)
    kept = (*types, "labels")
    for name in names:
        yield config.video(name), [
            r for r in results if r.get("to_name") == name and r.get("type") in kept
        ]


def _by_image(
    results: Sequence[Result], config: LabelConfig
) -> Iterator[tuple[ImageTag, list[Result]]]:
    kinds = [kind.result_type for kind in ImageControlKind]
    for tag in config.images:
        group = [r for r in results if r.get("to_name") == tag.name and r.get("type") in kinds]
        if group:
            yield tag, group


def output_control(
    config: LabelConfig, image_name: str, labels: Sequence[str]
) -> ImageControl:
    """Where an object's masks go: the first of BrushLabels, BitmaskLabels,
    PolygonLabels, VectorLabels and RectangleLabels that has its labels.

    Raises UnsupportedConfigError when no such control on the image does.
    """
    for kind in _OUTPUT_KINDS:
        for control in config.image_controls_of(kind):
            known = control.has_dynamic_labels or set(labels) <= set(control.labels)
            if image_name in control.to_names and known:
                return control
    raise UnsupportedConfigError(
        f"none of {', '.join(_OUTPUT_KINDS)} on {image_name!r} has the "
        f"labels {list(labels)}: the masks have no place to go"
    )


def _region_limit(control: ImageControl, settings: Settings) -> int:
    if control.kind is ImageControlKind.BRUSH:
        return settings.max_brush_regions
    return settings.max_bitmask_regions
