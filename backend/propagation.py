"""Task and context -> prompts -> masks -> tracks -> regions.

The one meeting point of `converters` and `sam2_model`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from backend.deadlines import Deadline
from backend.errors import NotReady, UnusableTask
from backend.media import MediaStore
from backend.model import ModelService, Tracker
from backend.settings import Settings
from converters.label_studio.config import (
    ImageControl,
    ImageControlKind,
    ImageTag,
    LabelConfig,
    UnsupportedConfigError,
    resolve_framerate,
    resolve_value,
)
from converters.label_studio.regions import track_to_frame_regions, track_to_video_region
from converters.label_studio.results import ObjectRequest, frame_requests, video_requests
from converters.masks import encode_mask
from converters.types import (
    Direction,
    FrameMasks,
    FrameRange,
    MaskRLE,
    ObjectId,
    Track,
    VideoInfo,
)
from sam2_model.video import FrameSource, open_frame_source

logger = logging.getLogger(__name__)

Result = Mapping[str, Any]

_OUTPUT_KINDS = (ImageControlKind.BRUSH, ImageControlKind.BITMASK, ImageControlKind.RECTANGLE)
"""What can carry an answer on images, the best first."""

_VIDEO_TYPE = "videorectangle"


@dataclass(frozen=True)
class Answer:
    """What goes back to Label Studio for one task."""

    regions: tuple[dict[str, Any], ...]
    is_complete: bool
    """False when time ran out before the last frame."""

    @property
    def score(self) -> float:
        """Mean of the regions' scores, in [0, 1]; 0.0 when there is none."""
        scores = [region["score"] for region in self.regions if "score" in region]
        return round(sum(scores) / len(scores), 6) if scores else 0.0


NOTHING = Answer((), is_complete=True)


def answer_task(
    task: Mapping[str, Any],
    results: Sequence[Result],
    *,
    config: LabelConfig,
    media: MediaStore,
    model: ModelService,
    settings: Settings,
    deadline: Deadline,
) -> Answer:
    """Track what the results ask for through the task's video or frames.

    VideoRectangle regions come back under their own ids; marks on frames come
    back as one region an object and frame. Results that ask for nothing give
    an empty answer, without the media being touched.

    Raises:
        UnsupportedConfigError: nothing in the config can take the answer.
        VideoDecodeError: the media gives no pictures.
        ValueError: a malformed result; names the region and the rule.
        ServiceError: the media or the model cannot be had, or a limit is passed.
    """
    data = task.get("data")
    if not isinstance(data, Mapping):
        raise ValueError(f"task {task.get('id')!r}: data must be an object")
    context = _Context(data, config, media, model, settings, deadline)
    answers = [
        *(_answer_on_video(name, group, context) for name, group in _by_video(results, config)),
        *(_answer_on_frames(tag, group, context) for tag, group in _by_image(results, config)),
    ]
    regions = tuple(itertools.chain.from_iterable(answer.regions for answer in answers))
    # A region's own text would be lost with the region that replaces it.
    ids = [region["id"] for region in regions]
    echoed = tuple(dict(r) for r in results if r.get("type") == "textarea" and r.get("id") in ids)
    return Answer(regions + echoed, all(answer.is_complete for answer in answers))


@dataclass(frozen=True)
class _Context:
    data: Mapping[str, Any]
    config: LabelConfig
    media: MediaStore
    model: ModelService
    settings: Settings
    deadline: Deadline


def _by_video(
    results: Sequence[Result], config: LabelConfig
) -> Iterator[tuple[str, list[Result]]]:
    """(name of a <Video>, results on it), where there is a VideoRectangle among them."""
    names: list[str] = []
    for region in results:
        if region.get("type") == _VIDEO_TYPE and region.get("to_name") not in names:
            names.append(config.video(region.get("to_name")).name)  # raises for an unknown one
    for name in names:
        yield name, [r for r in results if r.get("to_name") == name]


def _by_image(
    results: Sequence[Result], config: LabelConfig
) -> Iterator[tuple[ImageTag, list[Result]]]:
    kinds = [kind.result_type for kind in ImageControlKind]
    for tag in config.images:
        group = [r for r in results if r.get("to_name") == tag.name and r.get("type") in kinds]
        if group:
            yield tag, group


def _answer_on_video(name: str, results: Sequence[Result], context: _Context) -> Answer:
    tag, settings = context.config.video(name), context.settings
    path = context.media.video_file(resolve_value(tag.value, context.data))
    framerate = resolve_framerate(tag, context.data)
    with _opened(path, settings) as source:
        info = source.info
        requests = _with_prompts(
            video_requests(results, config=context.config, info=info, framerate=framerate),
            settings,
        )
        if not requests:
            return NOTHING
        tracked = _track(source, requests, context)
    regions = []
    for request, track in zip(requests, tracked.tracks):
        region = track_to_video_region(
            track,
            control=context.config.video_rectangle(request.source_region.get("from_name")),
            info=info,
            framerate=framerate,
            source_region=request.source_region,
            keyframes=settings.keyframes,
            min_iou=settings.keyframe_min_iou,
        )
        if region is not None:
            regions.append(region)
    return Answer(tuple(regions), tracked.is_complete)


def _answer_on_frames(tag: ImageTag, results: Sequence[Result], context: _Context) -> Answer:
    settings = context.settings
    files = context.media.frame_files(_frame_references(tag, context.data))
    with _opened(files, settings) as source:
        info = source.info
        requests = _with_prompts(
            frame_requests(results, config=context.config, info=info), settings
        )
        if not requests:
            return NOTHING
        controls = [output_control(context.config, tag.name, r.labels) for r in requests]
        limit = min(_region_limit(control, settings) for control in controls)
        tracked = _track(source, requests, context, region_limit=limit)
    chosen = nearest_to_prompts(tracked.tracks, requests, limit)
    regions: list[dict[str, Any]] = []
    for control, track in zip(controls, tracked.tracks):
        regions += track_to_frame_regions(
            track,
            control=control,
            info=info,
            frame_indices=chosen[track.object_id],
            to_name=tag.name,
        )
    return Answer(tuple(regions), tracked.is_complete)


def _frame_references(tag: ImageTag, data: Mapping[str, Any]) -> object:
    if tag.value_list is not None:
        return resolve_value(tag.value_list, data)
    return [resolve_value(tag.value or "", data)]


def output_control(
    config: LabelConfig, image_name: str, labels: Sequence[str]
) -> ImageControl:
    """Where an object's masks go: BrushLabels, else BitmaskLabels, else RectangleLabels.

    Raises UnsupportedConfigError when no such control on the image has its labels.
    """
    for kind in _OUTPUT_KINDS:
        for control in config.image_controls_of(kind):
            known = control.has_dynamic_labels or set(labels) <= set(control.labels)
            if image_name in control.to_names and known:
                return control
    raise UnsupportedConfigError(
        f"no BrushLabels, BitmaskLabels or RectangleLabels on {image_name!r} has the "
        f"labels {list(labels)}: the masks have no place to go"
    )


def _region_limit(control: ImageControl, settings: Settings) -> int:
    if control.kind is ImageControlKind.BRUSH:
        return settings.max_brush_regions
    return settings.max_bitmask_regions


@contextlib.contextmanager
def _opened(source: object, settings: Settings) -> Iterator[FrameSource]:
    with open_frame_source(source) as opened:
        if len(opened) > settings.max_frames:
            raise UnusableTask(
                f"the video has {len(opened)} frames, may have {settings.max_frames}"
            )
        yield opened


def _with_prompts(
    requests: Iterable[ObjectRequest], settings: Settings
) -> tuple[ObjectRequest, ...]:
    asked = tuple(request for request in requests if request.prompts)
    if len(asked) > settings.max_objects:
        raise UnusableTask(
            f"the request has {len(asked)} objects, may have {settings.max_objects}"
        )
    return asked


# --- tracking ----------------------------------------------------------------


@dataclass(frozen=True)
class Tracked:
    """Tracks in the order of their requests."""

    tracks: tuple[Track, ...]
    is_complete: bool
    """False when it was cancelled."""


def track_requests(
    source: FrameSource,
    requests: Sequence[ObjectRequest],
    *,
    tracker: Tracker,
    direction: Direction = Direction.FORWARD,
    region_limit: int | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tracked:
    """Tracks of the requested objects; empty masks are left out.

    Forward, an object begins at its own first prompt, backward it ends at its
    last. With `region_limit`, tracking forward ends once the so many masks
    that are nearest to the prompts are known.

    Raises ValueError as `sam2_model.tracker.track` does.
    """
    objects = {r.object_id: _Object.of(r, direction) for r in requests}
    prompts = [prompt for request in requests for prompt in request.prompts]
    frame_range = _frame_range(objects.values(), source.info, direction)
    total = frame_range.stop - frame_range.start
    was_cancelled = False

    def is_stopped() -> bool:
        nonlocal was_cancelled
        was_cancelled = was_cancelled or is_cancelled()
        return was_cancelled

    frames = tracker(source, prompts, frame_range, is_cancelled=is_stopped)
    done = 0
    with contextlib.closing(frames):
        for done, frame_masks in enumerate(frames, start=1):
            _keep(frame_masks, objects)
            progress(done, total)
            if region_limit is not None and direction is Direction.FORWARD:
                if _has_enough(objects.values(), frame_masks.frame_index, region_limit):
                    logger.info(
                        "%d regions found, frames from %d on not tracked",
                        region_limit, frame_masks.frame_index + 1,
                    )
                    break
    is_complete = not was_cancelled or done == total
    if not is_complete:
        logger.warning("stopped early: %d of %d frames tracked", done, total)
    return Tracked(tuple(item.track() for item in objects.values()), is_complete)


@dataclass
class _Object:
    """One object while it is tracked."""

    request: ObjectRequest
    prompted: list[int]
    """Sorted frame indices of its prompts."""
    first: int
    """The frames [first, last] may show it."""
    last: float
    masks: dict[int, MaskRLE] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, request: ObjectRequest, direction: Direction) -> _Object:
        prompted = sorted(prompt.frame_index for prompt in request.prompts)
        return cls(
            request,
            prompted,
            first=prompted[0] if direction is Direction.FORWARD else 0,
            last=prompted[-1] if direction is Direction.BACKWARD else float("inf"),
        )

    def track(self) -> Track:
        masks = {index: self.masks[index] for index in sorted(self.masks)}
        scores = {index: self.scores[index] for index in sorted(self.scores)}
        return Track(self.request.object_id, self.request.labels, masks, scores)


def _frame_range(
    objects: Iterable[_Object], info: VideoInfo, direction: Direction
) -> FrameRange:
    prompted = [frame for item in objects for frame in item.prompted]
    if max(prompted) >= info.frame_count:
        raise ValueError(
            f"there is a prompt on frame {max(prompted)}: the video has frames "
            f"[0, {info.frame_count})"
        )
    start = min(prompted) if direction is Direction.FORWARD else 0
    stop = max(prompted) + 1 if direction is Direction.BACKWARD else info.frame_count
    return FrameRange(start, stop, direction)


def _keep(frame_masks: FrameMasks, objects: Mapping[ObjectId, _Object]) -> None:
    index = frame_masks.frame_index
    for object_id, mask, score in zip(
        frame_masks.object_ids, frame_masks.masks, frame_masks.scores
    ):
        item = objects[object_id]
        if not item.first <= index <= item.last:
            continue
        item.scores[index] = float(score)
        if mask.any():
            item.masks[index] = encode_mask(mask)


def _has_enough(objects: Iterable[_Object], frame_index: int, limit: int) -> bool:
    """Whether no later frame can be among the `limit` masks nearest to the prompts."""
    objects = list(objects)
    if any(frame_index < item.prompted[-1] for item in objects):
        return False
    next_distance = min(frame_index + 1 - item.prompted[-1] for item in objects)
    near = sum(
        _distance(index, item.prompted) <= next_distance
        for item in objects
        for index in item.masks
    )
    return near >= limit


def _distance(frame_index: int, prompted: Sequence[int]) -> int:
    return min(abs(frame_index - other) for other in prompted)


def nearest_to_prompts(
    tracks: Sequence[Track], requests: Sequence[ObjectRequest], limit: int
) -> dict[ObjectId, set[int]]:
    """object id -> frames to answer: the `limit` masks nearest to their own prompts.

    At one distance earlier frames come first. What is left out is logged.
    """
    prompted = {r.object_id: [p.frame_index for p in r.prompts] for r in requests}
    ranked = sorted(
        (_distance(frame_index, prompted[track.object_id]), frame_index, number)
        for number, track in enumerate(tracks)
        for frame_index in track.masks
    )
    if len(ranked) > limit:
        logger.warning(
            "%d masks found, the %d nearest to the prompts are answered", len(ranked), limit
        )
    chosen: dict[ObjectId, set[int]] = {track.object_id: set() for track in tracks}
    for _, frame_index, number in ranked[:limit]:
        chosen[tracks[number].object_id].add(frame_index)
    return chosen


def _track(
    source: FrameSource,
    requests: Sequence[ObjectRequest],
    context: _Context,
    region_limit: int | None = None,
) -> Tracked:
    with context.model.tracker(context.deadline) as tracker:
        tracked = track_requests(
            source,
            requests,
            tracker=tracker,
            direction=context.settings.direction,
            region_limit=region_limit,
            is_cancelled=context.deadline.has_passed,
        )
    if not tracked.is_complete and not any(track.scores for track in tracked.tracks):
        raise NotReady("the time for an answer ran out before the first frame was tracked")
    return tracked
