"""One JSON file of SA-V's training layout: its masklets, as tracks, and back."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

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
from converters.masks import encode_runs, mask_area
from converters.report import Report
from converters.segmentations import is_missing, read_mask
from converters.types import AnnotatedVideo, MaskRLE, Track

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
    must have. What breaks a rule is left out as `report` says: a mask, a
    masklet whose id is missing, the labels. Lengths that are missing are taken
    from the masks, a missing `masklet_id` from the order.

    Raises MalformedValue naming the file, the value's place in it
    (`masklet[12][3].counts`) and the rule it breaks, for what costs the file.
    """

    def __init__(self, path: Path, store: MaskStore, report: Report) -> None:
        self.path = path
        self._store = store
        self._report = report
        self._header: dict[str, Any] = {}
        self._masks: list[StoredMasks | None] = []
        self._masks_on_first: int | None = None
        self._masks_on_frame = 0
        self._frame_count = 0
        self._unknown: set[int] = set()
        with naming_file(path):
            for part in read_parts(path, [*_FIELDS, _FRAME, _MASK]):
                if part.pattern == _MASK:
                    self._take_mask(part)
                elif part.pattern == _FRAME:
                    self._end_frame(part)
                else:
                    self._header[part.pattern] = part.value
            self._read_header()

    def tracks(self, default_label: str) -> list[Track]:
        """One a masklet, in the order of the file."""
        return [
            Track(object_id, self._labels.get(number, (default_label,)), self._masks[number] or {})
            for number, object_id in self._object_ids.items()
        ]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, number of annotated frames)."""
        return self._height, self._width, self._frame_count

    @property
    def unknown_frames(self) -> frozenset[int]:
        """Frames with a mask that was left out."""
        return frozenset(self._unknown)

    @contextlib.contextmanager
    def _leaving_out(self, what: str) -> Iterator[None]:
        """As `Report.leaving_out`, with the file's name in the place."""
        with self._report.leaving_out(what), naming_file(self.path):
            yield

    def _take_mask(self, part: Part) -> None:
        number = self._masks_on_frame
        self._masks_on_frame += 1
        if number == len(self._masks):
            self._masks.append(None)
        if _is_nothing(part.value):
            return
        is_read = False
        with self._leaving_out("masks"):
            self._add_mask(number, self._mask(part.value, part.location), part)
            is_read = True
        if not is_read:
            self._unknown.add(self._frame_count)

    def _mask(self, value: Any, where: Location) -> MaskRLE:
        """`{size, counts}`; with the video's size before it also COCO's polygons, or a `bbox`."""
        size = self._given_size()
        if size is None or not isinstance(value, dict) or value.get("counts") is not None:
            return run_length_mask(_without_bytes(value), where)
        segmentation, bbox = (*where, "segmentation"), (*where, "bbox")
        return read_mask(
            value.get("segmentation"), value.get("bbox"), size, segmentation, bbox, self._report
        )

    def _add_mask(self, number: int, mask: MaskRLE, part: Part) -> None:
        masks, size = self._masks[number], (mask.height, mask.width)
        wanted = self._given_size() or (masks.size_hw if masks is not None else size)
        if size != wanted:
            rule = f"mask has size {size[0]} x {size[1]}, must be {wanted[0]} x {wanted[1]}"
            raise BadValue(part.location, rule)
        if masks is None:
            masks = self._masks[number] = StoredMasks(self._store, *size)
        # SA-V has empty masks where an object is not visible.
        if mask_area(mask):
            masks.add(self._frame_count, mask)

    def _given_size(self) -> tuple[int, int] | None:
        """(height, width) where the file has said it by now."""
        try:
            height, width = (
                whole(self._header.get(key), (key,), minimum=1)
                for key in ("video_height", "video_width")
            )
            return height, width
        except BadValue:
            return None

    def _end_frame(self, part: Part) -> None:
        count, self._masks_on_frame = self._masks_on_frame, 0
        self._frame_count += 1
        if self._masks_on_first is None:
            self._masks_on_first = count
        elif count != self._masks_on_first:
            if self._report.strict:
                rule = f"has {count} masks, the first frame {self._masks_on_first}"
                raise BadValue(part.location, rule)
            self._report.change("frames with more or fewer masks than the first")

    def _read_header(self) -> None:
        sizes = Counter(masks.size_hw for masks in self._masks if masks is not None)
        height, width = sizes.most_common(1)[0][0] if sizes else (None, None)
        self._height = self._length("video_height", height)
        self._width = self._length("video_width", width)
        usual = self._frame_count * (self._header.get("masklet_frame_step") or _USUAL_STEP)
        all_frames = self._length("video_frame_count", usual) if self._frame_count else 1
        self.step = self._frame_step(all_frames)
        self.fps = 0.0
        with self._leaving_out("lengths"):
            self.fps = self._frame_rate(all_frames)
        self.video_id = ""
        with self._leaving_out("names of videos"):
            self.video_id = text(member(self._header, "video_id", ()), ("video_id",))
        self._object_ids = self._read_ids()
        self._labels: dict[int, tuple[str, ...]] = {}
        with self._leaving_out("labels"):
            self._labels = self._read_labels()

    def _length(self, key: str, guess: int | None) -> int:
        """A whole number of the header; the guess where it has none."""
        if guess is None:
            return whole(member(self._header, key, ()), (key,), minimum=1)
        with self._leaving_out("lengths"):
            return whole(member(self._header, key, ()), (key,), minimum=1)
        return guess

    def _frame_step(self, all_frames: int) -> int:
        """Every how many frames of the video there are masks."""
        count, given = self._frame_count, self._header.get("masklet_frame_step")
        if given is not None:
            steps = [whole(given, ("masklet_frame_step",), minimum=1)]
        else:
            steps = [_USUAL_STEP, 1, *range(2, all_frames + 1)] if count != all_frames else [1]
        for step in steps:
            if -(-all_frames // step) == count or count == 0:
                return step
        raise BadValue(
            ("masklet",),
            f"has {count} frames, which no step makes of video_frame_count {all_frames}",
        )

    def _frame_rate(self, all_frames: int) -> float:
        if self._header.get("video_duration") is None:
            return 0.0
        duration = finite(self._header["video_duration"], ("video_duration",))
        if duration < 0:
            raise BadValue(("video_duration",), f"must be >= 0, is {duration}")
        return all_frames / duration / self.step if duration else 0.0

    def _read_ids(self) -> dict[int, int | str]:
        """Number of the masklet -> its id."""
        where, count = ("masklet_id",), len(self._masks)
        given: Sequence[Any] = range(count)
        with self._leaving_out("lists of ids"):
            given = array(member(self._header, "masklet_id", ()), where)
        if not self._frame_count:
            count = len(given)
            self._masks = [None] * count
        ids: dict[int, int | str] = {}
        for number in range(max(count, len(given))):
            with self._leaving_out("objects"):
                if not number < min(count, len(given)):
                    raise BadValue(where, f"has {len(given)} items for {count} masklets")
                ids[number] = self._read_id(given[number], (*where, number), ids)
        is_auto = self.path.stem.endswith("_auto")
        return {number: f"auto {value}" if is_auto else value for number, value in ids.items()}

    def _read_id(self, value: Any, where: Location, ids: Mapping[int, int | str]) -> int | str:
        object_id = identifier(value, where)
        if object_id in ids.values():
            raise BadValue(where, f"{object_id!r} repeats")
        masks = self._masks[where[-1]]
        if masks is not None and masks.size_hw != (self._height, self._width):
            raise BadValue(
                ("masklet", 0, where[-1]),
                f"masks are {masks.size_hw[0]} x {masks.size_hw[1]}, the video "
                f"{self._height} x {self._width}",
            )
        return object_id

    def _read_labels(self) -> dict[int, tuple[str, ...]]:
        """Number of the masklet -> its labels."""
        if self._header.get("masklet_labels") is None:
            return {}
        where = ("masklet_labels",)
        given = array(self._header["masklet_labels"], where)
        if len(given) != len(self._masks):
            raise BadValue(where, f"has {len(given)} items for {len(self._masks)} masklets")
        labels: dict[int, tuple[str, ...]] = {}
        for number, value in enumerate(given):
            if value is not None:
                with self._leaving_out("labels"):
                    labels[number] = texts(value, (*where, number))
        return labels


def _is_nothing(mask: Any) -> bool:
    """Whether an object is not on a frame: null, `[]`, or counts that are null and no box."""
    if isinstance(mask, dict):
        return all(mask.get(key) is None for key in ("counts", "segmentation", "bbox"))
    return is_missing(mask)


def _without_bytes(mask: Any) -> Any:
    """The mask, with counts that are Python's `b'...'` as the text in it."""
    counts = mask.get("counts") if isinstance(mask, dict) else None
    if isinstance(counts, str) and counts.startswith("b'") and counts.endswith("'"):
        return {**mask, "counts": counts[2:-1].replace("\\\\", "\\")}
    return mask
