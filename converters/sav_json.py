"""One JSON file of SA-V's training layout: its masklets, as tracks, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator, Sequence

from converters.files import write_json
from converters.json_stream import Part, read_parts
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
from converters.masks import encode_runs, mask_area
from converters.report import Report
from converters.types import AnnotatedVideo, Track

_FRAME = "masklet[]"
_MASK = "masklet[][]"
_FIELDS = (
    "video_id",
    "video_duration",
    "video_frame_count",
    "video_height",
    "video_width",
    "masklet_id",
    "masklet_labels",
    "masklet_frame_step",
)
_USUAL_STEP = 4
"""SA-V annotates every fourth frame of 24 a second."""


_LOADER_RATE = 24
"""The frame rate SAM 2's training loader takes every video to have."""


def save_sav_json(
    path: Path,
    video: AnnotatedVideo,
    visible: Sequence[Sequence[int]],
    *,
    video_id: str,
    split: str,
    report: Report,
) -> None:
    """Writes `<video>_manual.json`, a frame at a time; whole or not at all.

    `visible` has the sorted frame indices of each track's masks. Raises
    ValueError when the file is there already.
    """
    if path.exists():
        raise ValueError(f"{path} exists: write elsewhere, or remove it first")
    info = video.info
    areas = [
        sum(mask_area(track.masks[i]) for i in frames) / max(len(frames), 1)
        for track, frames in zip(video.tracks, visible)
    ]
    document = {
        "video_id": video_id,
        # Of its frames: SA-V counts them, and has no time at which they begin.
        "video_duration": float(info.duration_seconds - info.start_seconds),
        "video_frame_count": float(info.frame_count),
        "video_height": float(info.height),
        "video_width": float(info.width),
        "video_resolution": float(info.height * info.width),
        "video_environment": [],
        "video_split": split,
        # SAM 2's loader takes masks for every fourth frame's, unless it reads
        # here that they come at the rate it takes all frames to have.
        "fps": float(_LOADER_RATE),
        "masklet_frame_step": 1,
        "masklet": _frames(video, report),
        "masklet_id": list(range(len(video.tracks))),
        "masklet_labels": [list(track.labels) for track in video.tracks],
        "masklet_size_rel": [area / (info.height * info.width) for area in areas],
        "masklet_size_abs": areas,
        "masklet_size_bucket": [_size_bucket(area) for area in areas],
        "masklet_visibility_changes": [_changes(f, info.frame_count) for f in visible],
        "masklet_first_appeared_frame": [frames[0] if frames else 0 for frames in visible],
        "masklet_frame_count": [int(info.frame_count)] * len(video.tracks),
        "masklet_edited_frame_count": [0] * len(video.tracks),
        "masklet_type": ["manual"] * len(video.tracks),
        "masklet_stability_score": None,
        "masklet_num": len(video.tracks),
    }
    write_json(path, document)


def _frames(video: AnnotatedVideo, report: Report) -> Iterator[list[dict[str, Any]]]:
    for frame_index in range(video.info.frame_count):
        yield _frame_masks(video, frame_index)
        report.progress(1)


def _frame_masks(video: AnnotatedVideo, frame_index: int) -> list[dict[str, Any]]:
    height, width = int(video.info.height), int(video.info.width)
    nothing = encode_runs([height * width], height, width)
    masks = (track.masks.get(frame_index, nothing) for track in video.tracks)
    return [{"size": [height, width], "counts": mask.counts} for mask in masks]


def _size_bucket(area: float) -> str:
    return "small" if area < 32**2 else "medium" if area < 96**2 else "large"


def _changes(visible: Sequence[int], frame_count: int) -> int:
    """How often the object goes or comes after it first appeared."""
    gaps = sum(1 for before, after in zip(visible, visible[1:]) if after > before + 1)
    leaves = bool(visible) and visible[-1] < frame_count - 1
    return 2 * gaps + int(leaves)


class SavJson:
    """A `_manual` or `_auto` file, read as a stream, its masks in a temporary file.

    Its fields may stand in any order, so masks may come before the size they
    must have.

    Raises ValueError naming the file, the value's place in it
    (`masklet[12][3].counts`) and the rule it breaks.
    """

    def __init__(self, path: Path, store: MaskStore) -> None:
        self.path = path
        self._store = store
        self._masks: list[StoredMasks | None] = []
        self._masks_on_frame = 0
        self._frame_count = 0
        header: dict[str, Any] = {}
        with naming_file(path):
            for part in read_parts(path, [*_FIELDS, _FRAME, _MASK]):
                if part.pattern == _MASK:
                    self._add_mask(part)
                elif part.pattern == _FRAME:
                    self._end_frame(part)
                else:
                    header[part.pattern] = part.value
            self._read_header(header)

    def tracks(self, default_label: str) -> list[Track]:
        """One a masklet, in the order of the file."""
        return [
            Track(
                object_id, self._labels[number] if self._labels else (default_label,), masks or {}
            )
            for number, (object_id, masks) in enumerate(zip(self._object_ids, self._masks))
        ]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, number of annotated frames)."""
        return self._height, self._width, self._frame_count

    def _add_mask(self, part: Part) -> None:
        number = self._masks_on_frame
        self._masks_on_frame += 1
        if self._frame_count == 0:
            self._masks.append(None)
        if number >= len(self._masks):
            raise BadValue(part.location, f"the first frame has {len(self._masks)} masks")
        if part.value is None:
            return
        mask = run_length_mask(part.value, part.location)
        masks = self._masks[number]
        if masks is None:
            masks = self._masks[number] = StoredMasks(self._store, mask.height, mask.width)
        try:
            # SA-V has empty masks where an object is not visible.
            if mask_area(mask):
                masks.add(self._frame_count, mask)
        except ValueError as error:
            raise BadValue(part.location, str(error)) from None

    def _end_frame(self, part: Part) -> None:
        if self._masks_on_frame != len(self._masks):
            raise BadValue(
                part.location,
                f"has {self._masks_on_frame} masks, the first frame {len(self._masks)}",
            )
        self._masks_on_frame = 0
        self._frame_count += 1

    def _read_header(self, header: dict[str, Any]) -> None:
        def number(key: str) -> int:
            return whole(member(header, key, ()), (key,), minimum=1)

        self._height, self._width = number("video_height"), number("video_width")
        for position, masks in enumerate(self._masks):
            if masks is not None and masks.size_hw != (self._height, self._width):
                raise BadValue(
                    ("masklet", 0, position),
                    f"masks are {masks.size_hw[0]} x {masks.size_hw[1]}, the video "
                    f"{self._height} x {self._width}",
                )
        all_frames = number("video_frame_count") if self._frame_count else 1
        self.step = self._frame_step(header, all_frames)
        self.fps = self._frame_rate(header, all_frames)
        self.video_id = text(member(header, "video_id", ()), ("video_id",))
        self._object_ids = self._read_ids(header)
        self._labels = self._read_labels(header)

    def _frame_step(self, header: dict[str, Any], all_frames: int) -> int:
        """Every how many frames of the video there are masks."""
        count = self._frame_count
        if header.get("masklet_frame_step") is not None:
            steps = [whole(header["masklet_frame_step"], ("masklet_frame_step",), minimum=1)]
        else:
            steps = [_USUAL_STEP, 1, *range(2, all_frames + 1)] if count != all_frames else [1]
        for step in steps:
            if -(-all_frames // step) == count or count == 0:
                return step
        raise BadValue(
            ("masklet",),
            f"has {count} frames, which no step makes of video_frame_count {all_frames}",
        )

    def _frame_rate(self, header: dict[str, Any], all_frames: int) -> float:
        if header.get("video_duration") is None:
            return 0.0
        duration = finite(header["video_duration"], ("video_duration",))
        if duration < 0:
            raise BadValue(("video_duration",), f"must be >= 0, is {duration}")
        return all_frames / duration / self.step if duration else 0.0

    def _read_ids(self, header: dict[str, Any]) -> list[int | str]:
        where = ("masklet_id",)
        given = array(member(header, "masklet_id", ()), where)
        ids = [identifier(value, (*where, i)) for i, value in enumerate(given)]
        if self._frame_count and len(ids) != len(self._masks):
            raise BadValue(where, f"has {len(ids)} items for {len(self._masks)} masklets")
        if len(set(ids)) != len(ids):
            raise BadValue(where, f"{ids} repeat")
        self._masks += [None] * (len(ids) - len(self._masks))
        is_auto = self.path.stem.endswith("_auto")
        return [f"auto {value}" if is_auto else value for value in ids]

    def _read_labels(self, header: dict[str, Any]) -> list[tuple[str, ...]]:
        if header.get("masklet_labels") is None:
            return []
        where = ("masklet_labels",)
        given = array(header["masklet_labels"], where)
        if len(given) != len(self._masks):
            raise BadValue(where, f"has {len(given)} items for {len(self._masks)} masklets")
        return [texts(labels, (*where, i)) for i, labels in enumerate(given)]
