"""What of a video goes into a data set: labels, masks, frames, and which part it is in.

Pure functions on `AnnotatedVideo`; masks are not read but for their area, and
whatever is left out is counted in a `Report`.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import math
from dataclasses import dataclass, field
from typing import Iterator, Mapping, Sequence

from converters.dataset import file_names_of, visible_frames
from converters.mask_store import RenumberedMasks
from converters.masks import mask_area
from converters.report import Report
from converters.types import AnnotatedVideo, Category, Track, VideoInfo


class LabelPolicy(enum.StrEnum):
    """What becomes of an object with several labels."""

    ATTRIBUTES = "attributes"
    """The first is its category, all are written beside it where the format has room."""
    FIRST = "first"
    """The first alone; the others are counted as dropped."""
    EACH = "each"
    """One object a label, with the same masks."""
    JOINED = "joined"
    """One category of all of them: `Car|Red`."""
    REFUSE = "refuse"
    """ValueError."""


@dataclass(frozen=True)
class Selection:
    """Options that all writers share; the defaults change nothing."""

    every: int = 1
    """Take frames 0, n, 2n, ..."""
    annotated_only: bool = False
    """Take only frames with a mask, after the other options."""
    category_map: Mapping[str, str | None] = field(default_factory=dict)
    """Label -> its new name; None drops the label, and objects left without one."""
    default_label: str | None = None
    """For objects without a label."""
    label_policy: LabelPolicy = LabelPolicy.ATTRIBUTES
    min_score: float = 0.0
    """Probability in [0, 1]; masks that score less are dropped, those without a score kept."""
    min_area: int = 0
    """Pixels; smaller masks are dropped."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_policy", LabelPolicy(self.label_policy))
        if self.every < 1:
            raise ValueError(f"every={self.every} must be >= 1")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score={self.min_score} must be in [0, 1]")
        if self.min_area < 0:
            raise ValueError(f"min_area={self.min_area} must be >= 0")


@dataclass(frozen=True)
class SelectedVideo:
    """A video after selection, and where its frames come from."""

    video: AnnotatedVideo
    source_frames: tuple[int, ...]
    """For each of its frames, the frame index in the video it was selected from."""


def select(video: AnnotatedVideo, selection: Selection, report: Report) -> SelectedVideo:
    """Labels, then masks, then frames.

    Raises ValueError for several labels under LabelPolicy.REFUSE.
    """
    video = map_labels(video, selection, report)
    video = drop_masks(video, selection, report)
    frames = range(0, video.info.frame_count, selection.every)
    if selection.annotated_only:
        annotated = {frame for track in video.tracks for frame in visible_frames(track)}
        frames = [frame for frame in frames if frame in annotated]
    return SelectedVideo(keep_frames(video, frames, report), tuple(frames))


def map_labels(video: AnnotatedVideo, selection: Selection, report: Report) -> AnnotatedVideo:
    """The video with its objects' labels mapped, and the policy applied."""
    tracks = []
    for track in video.tracks:
        labels = track.labels
        if not labels and selection.default_label is not None:
            labels = (selection.default_label,)
        new = [selection.category_map.get(label, label) for label in labels]
        kept = tuple(dict.fromkeys(label for label in new if label is not None))
        if labels and not kept:
            report.drop("objects (all labels left out by the category map)")
            continue
        report.drop("labels (left out by the category map)", new.count(None))
        tracks += _apply_policy(dataclasses.replace(track, labels=kept), video, selection, report)
    categories = _renamed(video.categories, selection.category_map)
    return dataclasses.replace(video, tracks=tuple(tracks), categories=categories)


def _renamed(
    categories: tuple[Category, ...], category_map: Mapping[str, str | None]
) -> tuple[Category, ...]:
    """The categories with their new names, and the ids that they had.

    Of several that have one name now, the id is that of the one that had the
    name before, else of the first.
    """
    if not category_map:
        return categories
    own = {category.name for category in categories if category.name not in category_map}
    renamed: dict[str, Category] = {}
    for category in categories:
        name = category_map.get(category.name, category.name)
        if name is not None and (name == category.name or name not in own):
            renamed.setdefault(name, dataclasses.replace(category, name=name))
    return tuple(renamed.values())


def _apply_policy(
    track: Track, video: AnnotatedVideo, selection: Selection, report: Report
) -> Iterator[Track]:
    policy = selection.label_policy
    if len(track.labels) < 2 or policy == LabelPolicy.ATTRIBUTES:
        yield track
    elif policy == LabelPolicy.FIRST:
        report.drop("labels (after an object's first)", len(track.labels) - 1)
        yield dataclasses.replace(track, labels=track.labels[:1])
    elif policy == LabelPolicy.JOINED:
        yield dataclasses.replace(track, labels=("|".join(track.labels),))
    elif policy == LabelPolicy.EACH:
        report.change("objects written once a label")
        for label in track.labels:
            object_id = f"{track.object_id}/{label}"
            yield dataclasses.replace(track, object_id=object_id, labels=(label,))
    else:
        raise ValueError(
            f"video {video.name!r}, object {track.object_id!r}: has labels {list(track.labels)}, "
            "must have one"
        )


def drop_masks(video: AnnotatedVideo, selection: Selection, report: Report) -> AnnotatedVideo:
    """The video without masks of too low a score or too small an area."""
    if not selection.min_score and not selection.min_area:
        return video
    tracks = []
    for track in video.tracks:
        kept = []
        for frame in sorted(track.masks):
            if frame in track.scores and _probability(track.scores[frame]) < selection.min_score:
                report.drop(f"masks (score below {selection.min_score:g})")
            elif selection.min_area and mask_area(track.masks[frame]) < selection.min_area:
                report.drop(f"masks (smaller than {selection.min_area} pixels)")
            else:
                kept.append(frame)
        masks = RenumberedMasks(track.masks, {frame: frame for frame in kept})
        tracks.append(dataclasses.replace(track, masks=masks))
    return dataclasses.replace(video, tracks=tuple(tracks))


def keep_frames(video: AnnotatedVideo, frames: Sequence[int], report: Report) -> AnnotatedVideo:
    """The video of these frames only (ascending), numbered anew, with their own image names."""
    info = video.info
    if len(frames) == info.frame_count:
        return video
    new_index = {frame: index for index, frame in enumerate(frames)}
    report.drop("frames (not selected)", info.frame_count - len(frames))
    tracks = []
    for track in video.tracks:
        sources = {new_index[f]: f for f in sorted(track.masks) if f in new_index}
        report.drop("masks (on frames not selected)", len(track.masks) - len(sources))
        scores = {new_index[f]: score for f, score in track.scores.items() if f in new_index}
        crowd = frozenset(new_index[f] for f in track.crowd_frames if f in new_index)
        masks = RenumberedMasks(track.masks, sources)
        tracks.append(
            dataclasses.replace(track, masks=masks, scores=scores, crowd_frames=crowd)
        )
    names = file_names_of(video)
    return dataclasses.replace(
        video,
        info=_info_of(info, frames),
        tracks=tuple(tracks),
        file_names=tuple(names[frame] for frame in frames),
        unknown_frames=frozenset(new_index[f] for f in video.unknown_frames if f in new_index),
    )


def _info_of(info: VideoInfo, frames: Sequence[int]) -> VideoInfo:
    """Times from the first frame on; the last lasts as long as frames are apart on average."""
    if not frames:
        return VideoInfo(info.width, info.height, 0, info.fps, (), 0.0)
    first = info.frame_times_seconds[frames[0]]
    times = tuple(info.frame_times_seconds[frame] - first for frame in frames)
    apart = (frames[-1] - frames[0]) / (len(frames) - 1) if len(frames) > 1 else 1
    seconds_a_frame = (info.duration_seconds - info.start_seconds) / info.frame_count
    duration = times[-1] + apart * seconds_a_frame
    fps = info.fps / apart if info.fps else 0.0
    return VideoInfo(info.width, info.height, len(frames), fps, times, duration)


def is_validation(name: str, fraction: float, seed: int) -> bool:
    """Whether the video of this name is of the validation part.

    A matter of name and seed alone (SHA-256), so that a video stays on its
    side when others come; of many videos about `fraction` are. Raises
    ValueError when the fraction is not in [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"validation fraction {fraction} must be in [0, 1]")
    digest = hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _probability(logit: float) -> float:
    # tanh is the sigmoid that does not overflow.
    return 0.5 + 0.5 * math.tanh(float(logit) / 2)
