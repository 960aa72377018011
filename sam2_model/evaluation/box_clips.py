"""Video files with boxes drawn by hand on some of their frames.

Listed in a JSON file beside them: `{"clips": {"<file>": {"prompt": <frame>,
"boxes": {"<frame>": [x_min, y_min, x_max, y_max], ...}}, ...}}`, in percent of
the frame.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping

from converters.types import Box, FrameRange, Prompt
from sam2_model.evaluation.semi_supervised import box_around
from sam2_model.tracker import track
from sam2_model.video import open_frame_source
from sam2_model.video_predictor import SAM2VideoPredictor


@dataclass(frozen=True)
class BoxClip:
    path: Path
    prompt_frame: int
    boxes: Mapping[int, tuple[float, float, float, float]]
    """frame index -> x_min, y_min, x_max, y_max in percent."""


@dataclass(frozen=True)
class BoxResult:
    video: str
    mean_iou: float
    """Over the frames after the prompted one that have a box."""
    ious: Mapping[int, float]


def lists_boxes(path: Path) -> bool:
    """Whether a path is a file of the form above, to judge by how it begins.

    A data set's JSON may be gigabytes: it is not read for this.
    """
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return '"clips"' in file.read(4096)


def load_box_clips(path: Path) -> list[BoxClip]:
    """The clips of a JSON file.

    Raises:
        ValueError: the file does not have the form above; the message says where.
    """
    try:
        clips = json.loads(path.read_text())["clips"]
        return [_box_clip(path.parent / name, entry) for name, entry in clips.items()]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not list clips with boxes: {error!r}") from error


def _box_clip(path: Path, entry: Mapping) -> BoxClip:
    boxes = {int(frame): tuple(map(float, box)) for frame, box in entry["boxes"].items()}
    prompt_frame = int(entry["prompt"])
    if prompt_frame not in boxes:
        raise ValueError(f"clip {path.name!r}: no box on its prompt frame {prompt_frame}")
    for frame, box in boxes.items():
        if len(box) != 4 or not (0 <= box[0] < box[2] <= 100 and 0 <= box[1] < box[3] <= 100):
            raise ValueError(
                f"clip {path.name!r}, frame {frame}: box {list(box)} must be x_min, y_min, "
                "x_max, y_max in percent"
            )
    if max(boxes) <= prompt_frame:
        raise ValueError(f"clip {path.name!r}: no box after its prompt frame {prompt_frame}")
    return BoxClip(path, prompt_frame, boxes)


def evaluate_boxes(
    predictor: SAM2VideoPredictor,
    clip: BoxClip,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BoxResult:
    """Prompt with the first box, and compare the masks' boxes with the later ones."""
    with open_frame_source(clip.path) as video:
        first, last = clip.prompt_frame, max(clip.boxes)
        if last >= len(video):
            raise ValueError(f"clip {clip.path.name!r} has a box on frame {last} of {len(video)}")
        drawn = {
            frame: _in_pixels(box, video.info.width, video.info.height)
            for frame, box in clip.boxes.items()
        }
        ious = {}
        for answer in track(
            video, [Prompt(1, first, box=drawn[first])], FrameRange(first, last + 1),
            predictor=predictor, progress=progress,
        ):
            if answer.frame_index > first and answer.frame_index in drawn:
                mask, wanted = answer.masks[0], drawn[answer.frame_index]
                found = mask.any()
                ious[answer.frame_index] = box_iou(box_around(mask), wanted) if found else 0.0
    return BoxResult(clip.path.name, sum(ious.values()) / len(ious), ious)


def box_iou(one: Box, other: Box) -> float:
    """The area two boxes share, over the area they cover together."""
    width = min(one.x_max, other.x_max) - max(one.x_min, other.x_min)
    height = min(one.y_max, other.y_max) - max(one.y_min, other.y_min)
    shared = max(0.0, width) * max(0.0, height)
    together = one.area + other.area - shared
    return shared / together if together else 0.0


def _in_pixels(percent: tuple[float, float, float, float], width: int, height: int) -> Box:
    x_min, y_min, x_max, y_max = percent
    return Box(
        x_min * width / 100, y_min * height / 100, x_max * width / 100, y_max * height / 100
    )
