"""Annotated data sets of any format, and as the videos that training and evaluation take."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from backend.data_set_media import frame_numbers, locate, media_infos
from converters.folders import image_files
from converters.formats import Format, image_folder, open_source, recognise
from converters.label_studio.references import path_of
from converters.mask_store import MaskStore, store_masks
from converters.masks import decode_mask
from converters.frame_names import natural_order
from converters.report import Report
from converters.types import AnnotatedVideo, VideoInfo
from sam2_model.video import open_frame_source

if TYPE_CHECKING:
    from converters.label_studio.exported import Resegment

_FILLED = {
    "rectangle": "masks missing or out of date, written as their box",
    "resegment": "masks missing or out of date, tracked again",
}


_MASK_FORMATS = (Format.DAVIS, Format.SAV)
"""Every frame of their videos has been looked at: where there is no mask, there is no object."""
_JUDGED_RESOLUTION = "480p"
"""What DAVIS is measured at, where a data set has several."""


@dataclass(frozen=True)
class AnnotatedCase:
    """An annotated video and where its pictures are (`evaluation.TrueVideo`).

    Frame indices are those of the pictures, of which those that were annotated
    may be some, as every fourth in SA-V: a model sees all of them.
    """

    video: AnnotatedVideo
    source: Path | list[Path]
    """A video file, a folder of frames, or one picture a frame."""
    places: Sequence[int] | None = None
    """Where in the source the video's frames are; None: as the source says itself."""
    is_complete: bool = False
    """Whether a frame without masks shows no object, wherever it is in the video."""

    @property
    def name(self) -> str:
        return self.video.name

    @property
    def frame_count(self) -> int:
        return len(self.source) if isinstance(self.source, list) else self.video.info.frame_count

    @cached_property
    def annotations(self) -> Sequence[int]:
        """Frames whose masks are known, ascending.

        Unless the video is complete: from the first marked one to the last.
        One in between that shows no object is one without it, unless all
        marked frames lie a fixed number apart (SA-V marks every fourth).
        """
        unknown = self.video.unknown_frames
        return [place for place, frame in self._frames.items()
                if frame in self._annotated and frame not in unknown]

    @cached_property
    def _annotated(self) -> range:
        """In the video's own frame indices."""
        if self.is_complete:
            return range(self.video.info.frame_count)
        marked = sorted(
            {frame for track in self.video.tracks for frame in (*track.masks, *track.scores)}
        )
        if not marked:
            return range(0)
        apart = math.gcd(*(later - earlier for earlier, later in zip(marked, marked[1:]))) or 1
        return range(marked[0], marked[-1] + 1, apart)

    @cached_property
    def _frames(self) -> Mapping[int, int]:
        """Index of a picture -> of the video's frame that it is."""
        frames = range(self.video.info.frame_count)
        places: Sequence[int] = frames
        if self.places is not None:
            places = self.places
        elif not isinstance(self.source, list):
            with open_frame_source(self.source) as source:
                places = frame_numbers(source, self.video, frames)
        return dict(zip(places, frames))

    def masks(self, frame_index: int) -> dict[object, np.ndarray]:
        """Object id -> (H, W) bool, not empty."""
        frame = self._frames.get(frame_index)
        decoded = {
            track.object_id: decode_mask(track.masks[frame])
            for track in self.video.tracks
            if frame in track.masks
        }
        return {key: mask for key, mask in decoded.items() if mask.any()}

    def picture(self, frame_index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        with open_frame_source(self.source) as source:
            return source.frame(frame_index)


def read_videos(
    source: Path,
    *,
    label_config: str | None = None,
    media_root: Path | None = None,
    stale: str = "rectangle",
    resegment: Resegment | None = None,
    results: Sequence[str] = ("annotations",),
    report: Report | None = None,
    only: Collection[str] | None = None,
    resolution: str | None = None,
) -> Iterator[tuple[AnnotatedVideo, Sequence[str]]]:
    """The videos of a data set in any format, each with what Label Studio calls its media.

    Args:
        label_config: XML, where a Label Studio export needs one.
        media_root: where the videos of a Label Studio export are looked for, for
            their sizes and times.
        stale: what becomes of masks that a person's change has made out of date:
            "rectangle", "leave-out" or "resegment".
        resegment: tracks such frames again (`resegment.resegment_with`); goes
            with stale="resegment".
        results: which of a Label Studio task's are read: the first kind that it
            has of these, of "annotations", "drafts" and "predictions".
        report: told what is left out or changed. Without one, or with a strict
            one, the first malformed value raises.
        only: names of videos, others need not come: see `open_source`.
        resolution: of DAVIS: see `load_davis`.

    Raises:
        ValueError, OSError: as the readers do.
    """
    if recognise(source) == Format.LABEL_STUDIO:
        return _read_label_studio(
            source, label_config, media_root, stale, resegment, tuple(results),
            report or Report(strict=True),
        )
    videos = open_source(source, report=report, only=only, resolution=resolution)
    return ((video, ()) for video in videos)


def _read_label_studio(
    source: Path,
    label_config: str | None,
    media_root: Path | None,
    stale: str,
    resegment: Resegment | None,
    results: tuple[str, ...],
    report: Report,
) -> Iterator[tuple[AnnotatedVideo, Sequence[str]]]:
    from converters.label_studio.config import parse_label_config
    from converters.label_studio.export import ExportOptions, SkippedTask, read_export

    options = ExportOptions(
        label_config=None if label_config is None else parse_label_config(label_config),
        video_infos=None if media_root is None else _told_infos(media_root, report),
        stale=stale,
        resegment=resegment,
        sources=results,
    )
    store = MaskStore()
    for item in read_export(source, options, report=report):
        for region in item.dropped:
            report.drop(f"regions ({region.reason})")
        if isinstance(item, SkippedTask):
            report.drop(f"tasks ({item.reason})")
            continue
        count = sum(len(frames) for frames in item.stale.values())
        filled = sum(
            index in track.masks
            for track in item.video.tracks
            for index in item.stale.get(track.object_id, ())
        )
        if filled:
            report.change(_FILLED[stale], filled)
        report.drop("masks (missing or out of date)", count - filled)
        report.drop("masks (hidden by a person)", sum(map(len, item.hidden.values())))
        yield store_masks(item.video, store), item.media


def _told_infos(root: Path, report: Report) -> Callable[[str], VideoInfo | None]:
    """`media_infos`, with what is not there in the report: by the first one's name."""
    infos = media_infos(root)
    missing: dict[str, str] = {}

    def info(media: str) -> VideoInfo | None:
        found = infos(media)
        if found is None and media not in missing:
            name = path_of(media).rpartition("/")[2] or media
            missing[media] = next(iter(missing.values()), name)
            report.change(
                f"videos or images not under {root} (such as {missing[media]!r}): "
                "sizes and times are what their regions say"
            )
        return found

    return info


def cases_of(
    source: Path,
    *,
    label_config: str | None = None,
    media_root: Path | None = None,
    only: Sequence[str] | None = None,
    report: Report | None = None,
) -> list[AnnotatedCase]:
    """The videos of a data set that show an object, with their pictures.

    Masks that are out of date are left out: nothing is to be learned from them.
    So are crowds (COCO's `iscrowd`): nobody is asked to find them as one object.

    Args:
        media_root: where the pictures are; None: where the format has them.
        only: names of videos to take; None: all.

    Raises:
        ValueError: a name in `only` that no video has, or as the readers do.
        FileNotFoundError: a video's pictures are not there.
    """
    root = media_root or image_folder(source, resolution=_JUDGED_RESOLUTION)
    has_all_masks = recognise(source) in _MASK_FORMATS
    found, names = [], []
    for video, media in read_videos(
        source, label_config=label_config, media_root=root, stale="leave-out", report=report,
        only=only, resolution=_JUDGED_RESOLUTION,
    ):
        names.append(video.name)
        if only is not None and video.name not in only:
            continue
        objects = tuple(track for track in video.tracks if not track.is_crowd)
        if report is not None:
            report.drop("objects (crowds, by iscrowd)", len(video.tracks) - len(objects))
        video = dataclasses.replace(video, tracks=objects)
        if any(len(track.masks) for track in video.tracks):
            place = locate(root, video, media)
            is_list = has_all_masks and isinstance(place, list)
            pictures, places = _all_pictures(place) if is_list else (place, None)
            found.append(AnnotatedCase(video, pictures, places, has_all_masks))
    missing = sorted(set(only or ()) - set(names))
    if missing:
        raise ValueError(f"video {missing[0]!r} is not in the data set: it has {names}")
    return found


def _all_pictures(pictures: list[Path]) -> tuple[list[Path], Sequence[int] | None]:
    """All pictures of the folder that these are of, in order; and where in it these are."""
    if len({path.parent for path in pictures}) != 1:
        return pictures, None
    everything = sorted(image_files(pictures[0].parent), key=lambda path: natural_order(path.name))
    places = {path.name: place for place, path in enumerate(everything)}
    return everything, [places[path.name] for path in pictures]
