"""How exports are read, and what comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Literal, Mapping, get_args

import numpy as np

from converters.label_studio.config import LabelConfig
from converters.types import AnnotatedVideo, MaskRLE, ObjectId, Prompt, VideoInfo

StaleChoice = Literal["rectangle", "resegment", "leave-out"]
AnnotationChoice = Literal["one", "all"]
Source = Literal["annotations", "predictions", "drafts"]


@dataclass(frozen=True, eq=False)
class ResegmentRequest:
    """One object's stale frames, for a callback that tracks them again."""

    media: str
    """The video, as the task's data names it."""
    info: VideoInfo
    object_id: ObjectId
    prompts: tuple[Prompt, ...]
    """The boxes a person drew since the object was last tracked, sorted by
    frame; none where a person only took away a keyframe of ours."""
    masks: Mapping[int, MaskRLE]
    """frame index -> mask that is up to date, to start from."""
    frame_indices: tuple[int, ...]
    """The frames to fill, sorted."""


Resegment = Callable[[ResegmentRequest], Mapping[int, "MaskRLE | np.ndarray"]]
"""frame index -> mask ((H, W) bool or RLE); frames it leaves out show no object."""

VideoInfos = Callable[[str], VideoInfo | None]
"""A media reference, as the task's data has it -> what is known of it, or None.

Called for a video, and for the first of a task's images, of which only the
size counts."""


@dataclass(frozen=True)
class ExportOptions:
    """How exports are read. Values are checked when made."""

    label_config: LabelConfig | None = None
    """Without one, labels are not checked and the media is the only one in the data."""
    video_infos: VideoInfos | None = None
    """Without it, frames are taken to be the editor's, one each, and sizes to
    be as the regions say; right where the config's frame rate is the video's."""
    stale: StaleChoice = "rectangle"
    """What stands on frames whose mask is missing or out of date: the box that
    the editor shows, what `resegment` gives, or nothing. Always listed."""
    resegment: Resegment | None = None
    annotations: AnnotationChoice = "one"
    sources: tuple[Source, ...] = ("annotations",)

    def __post_init__(self) -> None:
        for name, choices in (("stale", StaleChoice), ("annotations", AnnotationChoice)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name}={getattr(self, name)!r} must be one of {list(get_args(choices))}"
                )
        unknown = [source for source in self.sources if source not in get_args(Source)]
        if unknown or not self.sources or isinstance(self.sources, str):
            raise ValueError(
                f"sources={self.sources!r} must hold one or more of {list(get_args(Source))}"
            )
        if (self.stale == "resegment") != (self.resegment is not None):
            raise ValueError(
                f"stale={self.stale!r} and resegment={self.resegment!r} must go together: "
                "the callback is called for stale='resegment', and for nothing else"
            )


@dataclass(frozen=True)
class DroppedRegion:
    """A well-formed region that is not in the video; malformed ones are in the `Report`."""

    region_id: str | None
    reason: str


@dataclass(frozen=True, eq=False)
class ExportedVideo:
    """A video of an export, with all that is not as a person left it."""

    video: AnnotatedVideo
    task_id: int | str | None
    source: str
    """Which annotation: "annotations 11" (its kind and id)."""
    media: tuple[str, ...]
    """The video, or its frames, as the task's data names them."""
    stale: Mapping[ObjectId, tuple[int, ...]]
    """object id -> frames whose mask was missing or out of date, and which
    hold what `ExportOptions.stale` says."""
    hidden: Mapping[ObjectId, tuple[int, ...]]
    """object id -> frames whose mask is left out, as a person hid the object there."""
    dropped: tuple[DroppedRegion, ...]


@dataclass(frozen=True)
class SkippedTask:
    """A task that gave no video."""

    task_id: int | str | None
    reason: str
    dropped: tuple[DroppedRegion, ...] = ()
