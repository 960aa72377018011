"""What a task's regions are on: which media, how many frames, what size.

The label config says which field of the task's data it is. Without one it is
the only one there that can be it. Where the media itself cannot be asked, its
size and frames are what the regions say: a frame for each of the editor's.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Iterable, Mapping, Sequence

from converters.label_studio.config import LabelConfig, resolve_framerate, resolve_value
from converters.label_studio.keyframes import (
    MAX_LS_FRAME,
    is_number,
    read_sequence,
    shown_keyframes,
)
from converters.label_studio.paths import InputError, at
from converters.label_studio.references import UPLOAD_PREFIX, path_of
from converters.label_studio.video_clock import inferred_clock, told_clock
from converters.media_kinds import MediaKind, is_image_name, kind_of_name
from converters.types import VideoInfo

Results = Sequence[tuple[str, Mapping[str, Any]]]
"""(path from the task, result) of each."""

_MAX_PIXELS = 1 << 27  # 16,384 x 8,192; a file may claim any size
_MAX_FRAMES_WITHOUT_VIDEO = 1_000_000
_DEFAULT_FRAMERATE = 24.0
_MIN_FRAMERATE, _MAX_FRAMERATE = 0.001, 1000.0


@dataclass(frozen=True)
class TaskMedia:
    """What the regions of one `<Video>` or `<Image>` are on."""

    tag: str | None
    references: tuple[str, ...]
    """The video, or the images in order, as the task's data names them."""
    is_video: bool
    framerate: float | None = None
    """The config's, Label Studio frames a second; None without a config."""

    def name(self, task: str, suffix: str = "") -> str:
        """A folder's name that begins with the task's, so that it is unique."""
        first = PurePosixPath(path_of(self.references[0]))
        stem = first.parent.name if len(self.references) > 1 else first.stem
        text = re.sub(r"[^\w.-]+", "_", (f"{task}-{stem}" if stem else task) + suffix)
        return text.strip("-.") or "task"

    def file_names(self, folder: str) -> tuple[str, ...]:
        """`<folder>/<image's name>` of images; none for a video, or where these are not unique.

        Label Studio puts eight random characters before the name of an uploaded
        file, which are left off: readers sort frames by name.
        """
        names = [PurePosixPath(path_of(reference)).name for reference in self.references]
        if self.is_video or len(set(names)) < len(names) or not all(names):
            return ()
        return tuple(f"{folder}/{name}" for name in _in_frame_order(names))


def _in_frame_order(names: Sequence[str]) -> Sequence[str]:
    """The names without upload prefixes, or numbers where these do not tell frames apart."""
    are_uploads = [bool(UPLOAD_PREFIX.match(name)) for name in names]
    if not any(are_uploads):
        return names
    own = [UPLOAD_PREFIX.sub("", name) for name in names]
    is_sorted = list(names) == sorted(names)
    if all(are_uploads) and len({PurePosixPath(name).stem for name in own}) == len(own):
        # A date looks like a prefix too, but then the frames are in its order.
        return own if own == sorted(own) or not is_sorted else names
    if is_sorted:
        return names
    return [f"{index:05d}{PurePosixPath(name).suffix}" for index, name in enumerate(names)]


def media_of(
    tag_name: object, is_video: bool | None, data: Mapping[str, Any], config: LabelConfig | None
) -> TaskMedia | None:
    """The media of the tag of this name; for None that of the first tag, or None.

    Raises ValueError when the data lacks it, or without a config does not say
    which it is.
    """
    if config is None:
        return _guessed_media(tag_name, is_video, data)
    for tag in config.videos:
        if (tag.name == tag_name and is_video) or tag_name is None:
            reference = resolve_value(tag.value, data)
            return TaskMedia(tag.name, (str(reference),), True, resolve_framerate(tag, data))
    for image in config.images:
        if (image.name == tag_name and not is_video) or tag_name is None:
            if image.value_list is not None:
                frames = _frame_list(resolve_value(image.value_list, data))
                return TaskMedia(image.name, frames, False)
            return TaskMedia(image.name, (str(resolve_value(image.value or "", data)),), False)
    raise ValueError(f"the label config has no tag named {tag_name!r} for these regions")


def info_of(media: TaskMedia, group: Results, known: VideoInfo | None) -> VideoInfo | None:
    """Frames and size; None when neither the media nor a region says them.

    `known` is what is known of the media itself; without it most regions' size
    counts, and none may claim what `check_claims` refuses. Raises InputError
    where the config's frame rate is seen not to be the video's.
    """
    if media.is_video:
        return known if known is not None else _assumed_video_info(media, group)
    size = (known.height, known.width) if known is not None else _original_size(group)
    if size is None:
        return None
    count = len(media.references)
    return VideoInfo(
        width=size[1],
        height=size[0],
        frame_count=count,
        fps=0.0,
        frame_times_seconds=tuple(map(float, range(count))),
        duration_seconds=float(count),
    )


def check_claims(result: Mapping[str, Any], *, is_video: bool) -> None:
    """Raises InputError for a size or count that no media has, or a malformed sequence."""
    if not is_video:
        _size_of_image(result)
        return
    count = _count_of_video(result)
    if count > _MAX_FRAMES_WITHOUT_VIDEO:
        raise ValueError(
            f"must not speak of {count} frames, may be {_MAX_FRAMES_WITHOUT_VIDEO} where no "
            "video_infos say how many there are"
        )
    _size_of_video(result)
    if result.get("type") == "videorectangle":
        read_sequence(result)


def framerate_of(media: TaskMedia, group: Results) -> float:
    """The config's; without one, what the keyframes' `frame` and `time` come to.

    The editor writes time = frame / framerate. Where that gives no one rate,
    it is framesCount / duration, else 24.
    """
    if media.framerate is not None:
        return media.framerate
    keyframes = [item for _, result in group for item in _sequence(result) if _is_timed(item)]
    rates = {item["frame"]: item["frame"] / item["time"] for item in keyframes}
    if rates and max(rates.values()) - min(rates.values()) <= 0.01 * max(rates.values()):
        # The last is the most exact; `time` has been through decimals: 24.9999 is 25.
        rate = rates[max(rates)]
        return float(round(rate)) if abs(rate - round(rate)) < 1e-3 <= rate else rate
    for _, result in group:
        count, duration = result["value"].get("framesCount"), result["value"].get("duration")
        if is_number(count) and is_number(duration) and duration > 0:
            if _MIN_FRAMERATE * duration <= count <= _MAX_FRAMERATE * duration:
                return count / duration
    return _DEFAULT_FRAMERATE


def _is_timed(item: object) -> bool:
    if not isinstance(item, Mapping) or item.get("auto") is True:
        return False
    frame, time = item.get("frame"), item.get("time")
    if not (is_number(frame) and is_number(time) and 1 <= frame <= MAX_LS_FRAME):
        return False
    return frame / _MAX_FRAMERATE <= time <= frame / _MIN_FRAMERATE


# --- which media -------------------------------------------------------------


def _frame_list(frames: object) -> tuple[str, ...]:
    if isinstance(frames, str):
        frames = [part.strip() for part in frames.split(",")]
    if not isinstance(frames, list) or not frames or not all(isinstance(f, str) for f in frames):
        raise ValueError(f"the task's frames {str(frames)[:60]!r} must be a list of image names")
    return tuple(frames)


def _guessed_media(
    tag_name: object, is_video: bool | None, data: Mapping[str, Any]
) -> TaskMedia | None:
    """The only media in the data that it can be."""
    tag = tag_name if isinstance(tag_name, str) and tag_name else None
    texts = [value for value in data.values() if isinstance(value, str) and value]
    lists = [value for value in data.values() if _is_list_of_texts(value)]
    videos = [text for text in texts if kind_of_name(path_of(text)) is MediaKind.VIDEO]
    images = [text for text in texts if is_image_name(path_of(text))]
    if is_video is not False and len(videos) == 1:
        return TaskMedia(tag, (videos[0],), True)
    if is_video is not True and len(lists) == 1:
        return TaskMedia(tag, tuple(lists[0]), False)
    if is_video is not True and len(images) == 1 and not lists:
        return TaskMedia(tag, (images[0],), False)
    if is_video is None:
        return None
    if len(texts) == 1 and not lists:
        return TaskMedia(tag, (texts[0],), is_video)
    raise InputError(
        "data",
        f"fields {sorted(data)[:20]} do not say which is the "
        f"{'video' if is_video else 'image'}: pass the label config",
    )


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


# --- sizes and counts from the regions ---------------------------------------


def _original_size(group: Results) -> tuple[int, int] | None:
    return _most_common(_size_of_image(result) for _, result in group)


def _size_of_image(result: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) as the region says it."""
    size = result.get("original_height"), result.get("original_width")
    return None if size == (None, None) else _checked_size(*size, "original_height")


def _most_common(sizes: Iterable[tuple[int, int] | None]) -> tuple[int, int] | None:
    """The first of several that are as common."""
    counts = Counter(size for size in sizes if size is not None)
    return max(counts, key=counts.__getitem__, default=None)


def _assumed_video_info(media: TaskMedia, group: Results) -> VideoInfo | None:
    """As the regions tell it; else a frame for each of the editor's. Of the size of the
    embedded masks."""
    size = _most_common(_size_of_video(result) for _, result in group)
    count = max((_count_of_video(result) for _, result in group), default=0)
    if size is None or not count:
        return None
    regions = [result for _, result in group]
    framerate = framerate_of(media, group)
    clock = told_clock(regions) or inferred_clock(regions, framerate)
    if clock is not None:
        return clock.info(size)
    for path, result in group:
        if result.get("type") == "videorectangle":
            with at(path):
                _check_one_frame_each(result)
    return VideoInfo(
        width=size[1],
        height=size[0],
        frame_count=count,
        fps=framerate,
        frame_times_seconds=tuple(i / framerate for i in range(count)),
        duration_seconds=count / framerate,
    )


def _size_of_video(result: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) of most of the masks that its keyframes carry."""
    return _most_common(
        _embedded_size(item, f"value.sequence[{number}]")
        for number, item in enumerate(_sequence(result))
    )


def _count_of_video(result: Mapping[str, Any]) -> int:
    return max([_frames_count(result), *map(_last_frame, _sequence(result))])


def _sequence(result: Mapping[str, Any]) -> list[Any]:
    sequence = result["value"].get("sequence")
    return sequence if isinstance(sequence, list) else []


def _checked_size(height: object, width: object, path: str) -> tuple[int, int]:
    for value in (height, width):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(path, f"{value!r} must be an integer >= 1")
    assert isinstance(height, int) and isinstance(width, int)
    if height * width > _MAX_PIXELS:
        raise InputError(path, f"{height} x {width} must be at most {_MAX_PIXELS} pixels")
    return height, width


def _embedded_size(item: object, where: str) -> tuple[int, int] | None:
    """The size of the first mask that a keyframe carries."""
    if not isinstance(item, Mapping):
        return None
    entries = [("mask", item.get("mask"))]
    if isinstance(item.get("masks"), Mapping):
        entries += [(f"masks.{key}", entry) for key, entry in item["masks"].items()]
    for path, entry in entries:
        size = entry.get("size") if isinstance(entry, Mapping) else None
        if isinstance(size, list) and len(size) == 2:
            return _checked_size(size[0], size[1], f"{where}.{path}.size")
    return None


def _last_frame(item: object) -> int:
    """The highest frame, counted from 1, that a keyframe speaks of."""
    if not isinstance(item, Mapping):
        return 0
    frames = [item.get("frame")]
    if isinstance(item.get("masks"), Mapping):
        frames += [int(k) + 1 for k in item["masks"] if k.isascii() and k.isdigit() and len(k) < 9]
    return max((int(f) for f in frames if is_number(f) and f <= MAX_LS_FRAME), default=0)


def _check_one_frame_each(region: Mapping[str, Any]) -> None:
    """Masks that ride on a keyframe are between it and the next, if frames are the editor's.

    Their keys are frames of the video, so that they tell when it has more or
    fewer of them. Raises InputError.
    """
    ours = [k for k in shown_keyframes(read_sequence(region)) if k.carries_own_masks]
    # On the first one masks of frames before it may ride, too.
    for keyframe, following in zip(ours[1:], ours[2:]):
        riding = keyframe.fields.get("masks")
        for key in riding if isinstance(riding, Mapping) else ():
            is_index = key.isascii() and key.isdigit()
            if is_index and not keyframe.ls_frame - 1 <= int(key) < following.ls_frame - 1:
                raise InputError(
                    f"value.sequence[{keyframe.position}].masks",
                    f"entry {key[:20]!r} is not between the frames of two keyframes: the "
                    "label config's frame rate is not the video's, and the regions do not tell "
                    "it: give the video, with --with-media or --media-root (video_infos)",
                )


def _frames_count(result: Mapping[str, Any]) -> int:
    count = result["value"].get("framesCount")
    if count is None:
        return 0
    if not is_number(count) or count < 0 or count > MAX_LS_FRAME:
        raise InputError("value.framesCount", f"{count!r} must be from 0 to {MAX_LS_FRAME}")
    return int(count)
