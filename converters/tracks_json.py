"""`tracks.json`: the JSON form of annotated videos, which loses nothing.

    {"format": "sam2-tracks", "version": 1, "videos": [
        {"name": "clip",
         "info": {"width": 64, "height": 48, "frame_count": 3, "fps": 25.0,
                  "duration_seconds": 0.12, "frame_times_seconds": [0.0, 0.04, 0.08]},
         "file_names": ["clip/00000.jpg", ...],
         "tracks": [
             {"object_id": "a", "labels": ["Car"],
              "masks": [[0, "<COCO compressed counts>"], ...],
              "scores": [[0, 2.5], ...]}]}]}

Frames are 0-based indices, masks have the size of their video, scores are
logits. A track may have `crowd_frames` (see `types.Track`); `categories`, of the
file or else of a video, are `[{"id": 1, "name": "Car", "supercategory": ""}]`,
before what they are of. `format` and `version` come before `videos`, and `info` before
`tracks`, so that a reader never has to hold more than one mask.
"""

from __future__ import annotations

import itertools
import os
from typing import Any, Iterable, Iterator

from converters.categories import CategoryReader
from converters.dataset import category_entries, check_videos
from converters.files import write_json
from converters.json_stream import Location, Part, read_parts
from converters.json_values import (
    BadValue,
    array,
    finite,
    identifier,
    member,
    naming_file,
    run_length_mask,
    text,
    texts,
    whole,
)
from converters.mask_store import MaskStore, StoredMasks
from converters.reading import names_of_any_system
from converters.report import Report
from converters.types import AnnotatedVideo, Category, ObjectId, Track, VideoInfo

FORMAT = "sam2-tracks"
VERSION = 1

_CATEGORY = "categories[]"
_INFO = "videos[].info"
_MASK = "videos[].tracks[].masks[]"
_TRACK = "videos[].tracks[]"
_VIDEO = "videos[]"


def save_tracks(
    path: str | os.PathLike[str],
    videos: Iterable[AnnotatedVideo],
    *,
    report: Report | None = None,
) -> Report:
    """Writes the videos, a mask at a time; the file appears whole or not at all.

    Returns what was counted, added to `report` when one is given. Only one
    video is held at a time. Raises ValueError for what `dataset.check_videos`
    refuses but a track without a label, and for an object id that is neither a
    text nor a whole number.
    """
    report = report or Report()
    following = iter(videos)
    first = next(following, None)
    categories = () if first is None else first.categories
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    if categories:
        header["categories"] = category_entries(categories)
    every = () if first is None else itertools.chain((first,), following)
    written = (_video(video, categories, report) for video in every)
    write_json(path, {**header, "videos": written})
    return report


def load_tracks(
    path: str | os.PathLike[str], *, report: Report | None = None
) -> Iterator[AnnotatedVideo]:
    """The videos of a tracks.json, one at a time, masks read when asked for.

    A malformed mask, score, object or video is left out, with what depends on
    it, and counted in `report`; without one, or with a strict one, the first
    raises ValueError naming the value's place in the file
    (`videos[0].tracks[2].masks[7][1]`) and the rule it breaks.
    """
    reader = _Reader(report or Report(strict=True))
    patterns = ["format", "version", _CATEGORY, _INFO, _MASK, _TRACK, _VIDEO]
    with naming_file(path):
        for part in read_parts(path, patterns):
            video = reader.take(part)
            if video is not None:
                yield video
        reader.check_header(())


def _video(
    video: AnnotatedVideo, categories: tuple[Category, ...], report: Report
) -> dict[str, Any]:
    check_videos([video], labels_needed=False)
    report.add_video(video.info.frame_count)
    info = video.info
    own = {} if video.categories == categories else {
        "categories": category_entries(video.categories)
    }  # fmt: skip
    return {
        **own,
        "name": video.name,
        "info": {
            "width": int(info.width),
            "height": int(info.height),
            "frame_count": int(info.frame_count),
            "fps": float(info.fps),
            "duration_seconds": float(info.duration_seconds),
            "frame_times_seconds": [float(time) for time in info.frame_times_seconds],
        },
        "file_names": list(video.file_names),
        "tracks": (_track(track, video, report) for track in video.tracks),
    }


def _track(track: Track, video: AnnotatedVideo, report: Report) -> dict[str, Any]:
    report.add_object(len(track.masks))
    return {
        "object_id": _json_id(track.object_id, video),
        "labels": list(track.labels),
        "masks": _masks(track, report),
        "scores": [[int(i), float(track.scores[i])] for i in sorted(track.scores)],
        **({"crowd_frames": sorted(map(int, track.crowd_frames))} if track.crowd_frames else {}),
    }


def _masks(track: Track, report: Report) -> Iterator[list[Any]]:
    for frame_index in sorted(track.masks):
        yield [int(frame_index), track.masks[frame_index].counts]
        report.progress(1)


def _json_id(object_id: ObjectId, video: AnnotatedVideo) -> int | str:
    if isinstance(object_id, str):
        return object_id
    if isinstance(object_id, bool) or not hasattr(object_id, "__index__"):
        raise ValueError(
            f"video {video.name!r}: object id {object_id!r} must be a text or a whole number"
        )
    return object_id.__index__()


class _Reader:
    """Puts the parts of the file together to videos."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._store = MaskStore()
        self._header: set[str] = set()
        self._categories = CategoryReader(report)
        self._start_video()

    def _start_video(self) -> None:
        self._info: VideoInfo | None = None
        self._is_left_out = False
        self._tracks: dict[ObjectId, Track] = {}
        self._masks: StoredMasks | None = None

    def check_header(self, location: Location) -> None:
        for key in ("format", "version"):
            if key not in self._header:
                raise BadValue(location, f"has no {key!r} before it: not a {FORMAT} file")

    def take(self, part: Part) -> AnnotatedVideo | None:
        known = {"format": FORMAT, "version": VERSION}
        if part.pattern in known:
            if part.value != known[part.pattern]:
                must = known[part.pattern]
                raise BadValue(part.location, f"is {part.value!r}, must be {must!r}")
            self._header.add(part.pattern)
            return None
        self.check_header(part.location)
        if part.pattern == _CATEGORY:
            self._categories.add(part)
        elif part.pattern == _VIDEO:
            return self._finish(part)
        elif self._is_left_out:
            if part.pattern == _TRACK:
                self._report.drop("objects (of videos that were left out)")
        else:
            self._take_of_video(part)
        return None

    def _take_of_video(self, part: Part) -> None:
        """Of a video that cannot be read nothing is kept."""
        try:
            if part.pattern == _INFO:
                self._info = _read_info(part.value, part.location)
            info = self._known_info(part.location)
        except BadValue as error:
            self._report.leave_out("videos", error)
            self._is_left_out = True
            if part.pattern == _TRACK:
                self._report.drop("objects (of videos that were left out)")
            return
        if part.pattern == _MASK:
            with self._report.leaving_out("masks"):
                self._add_mask(part, info)
        elif part.pattern == _TRACK:
            with self._report.leaving_out("objects"):
                self._add_track(part, info)
            self._masks = None

    def _known_info(self, location: Location) -> VideoInfo:
        if self._info is None:
            raise BadValue(location[:2], "must have 'info', and before 'tracks'")
        return self._info

    def _add_mask(self, part: Part, info: VideoInfo) -> None:
        where = part.location
        pair = array(part.value, where)
        if len(pair) != 2:
            raise BadValue(where, "must be [frame index, counts]")
        frame_index = _frame_index(pair[0], info, (*where, 0))
        if not isinstance(pair[1], str):
            raise BadValue((*where, 1), "must be a text: COCO compressed counts")
        mask = run_length_mask({"size": [info.height, info.width], "counts": pair[1]}, where)
        if self._masks is None:
            self._masks = StoredMasks(self._store, info.height, info.width)
        try:
            self._masks.add(frame_index, mask)
        except ValueError as error:
            raise BadValue(where, str(error)) from None

    def _add_track(self, part: Part, info: VideoInfo) -> None:
        value, where = part.value, part.location
        object_id = identifier(member(value, "object_id", where), (*where, "object_id"))
        if object_id in self._tracks:
            raise BadValue((*where, "object_id"), f"{object_id!r} is used twice in the video")
        labels = texts(member(value, "labels", where), (*where, "labels"))
        # A list of masks that was read item by item is not in the track any more.
        array(value.get("masks") or [], (*where, "masks"))
        crowd: frozenset[int] = frozenset()
        with self._report.making_do("objects taken for no crowds"):
            at = (*where, "crowd_frames")
            frames = array(value.get("crowd_frames") or [], at)
            crowd = frozenset(_frame_index(n, info, (*at, i)) for i, n in enumerate(frames))
        scores = _read_scores(value.get("scores") or [], info, (*where, "scores"), self._report)
        masks = self._masks or StoredMasks(self._store, info.height, info.width)
        self._tracks[object_id] = Track(object_id, labels, masks, scores, crowd)

    def _finish(self, part: Part) -> AnnotatedVideo | None:
        try:
            if not self._is_left_out:
                with self._report.leaving_out("videos"):
                    return self._video(part)
        finally:
            self._start_video()
        return None

    def _video(self, part: Part) -> AnnotatedVideo:
        value, where = part.value, part.location
        info = self._known_info(where)
        name = f"video-{where[1]}"
        with self._report.making_do("videos named by their place in the file"):
            name = text(member(value, "name", where), (*where, "name"))
        array(value.get("tracks") or [], (*where, "tracks"))
        file_names: tuple[str, ...] = ()
        with self._report.making_do("image names taken for unknown"):
            file_names = _read_file_names(value.get("file_names") or [], info, (*where, "file_names"))
        file_names = names_of_any_system(file_names, self._report)
        (name,) = names_of_any_system([name], self._report)
        categories = self._categories
        if "categories" in value:
            categories = CategoryReader(self._report)
            at = (*where, "categories")
            for position, entry in enumerate(array(value["categories"] or [], at)):
                categories.add(Part(_CATEGORY, (*at, position), entry))
        tracks = tuple(self._tracks.values())
        return AnnotatedVideo(name, info, tracks, file_names, categories.categories)


def _read_info(value: Any, where: Location) -> VideoInfo:
    width, height = (
        whole(member(value, side, where), (*where, side), minimum=1) for side in ("width", "height")
    )
    frame_count = whole(member(value, "frame_count", where), (*where, "frame_count"))
    times_at = (*where, "frame_times_seconds")
    times = tuple(
        finite(time, (*times_at, i))
        for i, time in enumerate(array(member(value, "frame_times_seconds", where), times_at))
    )
    if len(times) != frame_count:
        raise BadValue(times_at, f"has {len(times)} items for frame_count {frame_count}")
    fps = finite(member(value, "fps", where), (*where, "fps"))
    duration = finite(member(value, "duration_seconds", where), (*where, "duration_seconds"))
    return VideoInfo(width, height, frame_count, fps, times, duration)


def _read_scores(
    value: Any, info: VideoInfo, where: Location, report: Report
) -> dict[int, float]:
    scores: dict[int, float] = {}
    for position, pair in enumerate(array(value, where)):
        place = (*where, position)
        with report.leaving_out("scores"):
            if len(array(pair, place)) != 2:
                raise BadValue(place, "must be [frame index, score]")
            scores[_frame_index(pair[0], info, (*place, 0))] = finite(pair[1], (*place, 1))
    return scores


def _read_file_names(value: Any, info: VideoInfo, where: Location) -> tuple[str, ...]:
    file_names = texts(value, where)
    if file_names and len(file_names) != info.frame_count:
        raise BadValue(
            where,
            f"has {len(file_names)} items, must have one for each of {info.frame_count} frames",
        )
    return file_names


def _frame_index(value: Any, info: VideoInfo, where: Location) -> int:
    frame_index = whole(value, where)
    if frame_index >= info.frame_count:
        raise BadValue(where, f"is {frame_index}, must be in [0, {info.frame_count})")
    return frame_index
