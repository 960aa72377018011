"""`sam2-label-studio track`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence

from backend.commands.options import add_model_options, with_options
from backend.commands.preview import draw, output_kind
from backend.settings import Settings
from converters.types import Direction, FrameMasks, FrameRange, MaskRLE, ObjectId, Track

if TYPE_CHECKING:
    from backend.prompt_specs import PromptSpec


def add_track(commands: Any) -> None:
    parser = commands.add_parser(
        "track", help="follow objects through a video",
        description="Follow objects through a video and write their masks as tracks.json, which "
        "convert turns into COCO, YouTube-VIS, SA-V or DAVIS and preview draws.",
    )
    add = parser.add_argument
    add("video", type=Path, help="video file or folder of images")
    add(
        "--box", type=_spec("parse_box"), action="append", default=[], dest="prompts",
        metavar="FRAME:X1,Y1,X2,Y2[:ID[:LABEL]]",
        help="0-based frame, maxima exclusive; without an ID a new object; repeat for more",
    )
    add(
        "--point", type=_spec("parse_point"), action="append", dest="prompts",
        metavar="FRAME:X,Y[:-][:ID]", help="with - it is not on the object",
    )
    add(
        "--mask", type=_spec("parse_mask"), action="append", dest="prompts",
        metavar="FRAME:FILE[:ID]",
        help="an image of the video's size, the object not transparent, or not black",
    )
    add("--prompts", type=Path, dest="prompt_file", metavar="FILE", help="JSON list of prompts")
    add("--percent", action="store_true", help="coordinates are percent of the picture")
    add("--label", default="object", help="of objects without one")
    add("--start", type=int, metavar="FRAME", help="first frame, 0-based")
    add("--stop", type=int, metavar="FRAME", help="frame to stop before")
    add(
        "--direction", choices=[str(item) for item in Direction],
        help="which way to track from the prompts; default by the settings",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="tracks.json to write")
    add("--preview", type=Path, metavar="FILE", help="also draw it: .mp4, .gif or .png")
    add_model_options(parser)
    parser.set_defaults(run=_track)


def _spec(name: str) -> Callable[[str], PromptSpec]:
    def parse(written: str) -> PromptSpec:
        from backend import prompt_specs

        try:
            return getattr(prompt_specs, name)(written)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{written!r}: {error}") from None

    return parse


def _track(options: argparse.Namespace, settings: Settings) -> int:
    from tqdm import tqdm

    from backend.model import load_tracker
    from backend.prompt_specs import object_requests, read_prompt_file
    from converters.tracks_json import save_tracks
    from converters.types import AnnotatedVideo
    from sam2_model.video import open_frame_source

    settings = with_options(settings, options)
    _check_output(options)
    specs = list(options.prompts)
    if options.prompt_file is not None:
        specs += read_prompt_file(options.prompt_file)
    if not specs:
        raise ValueError("nothing to follow: give --box, --point, --mask or --prompts")
    with open_frame_source(options.video) as source:
        requests = object_requests(
            specs, source.info, is_percent=options.percent, default_label=options.label
        )
        prompts = [prompt for request in requests for prompt in request.prompts]
        frames = _frame_range(
            [prompt.frame_index for prompt in prompts], source.info.frame_count, options, settings
        )
        tracker = load_tracker(settings)
        begin = time.perf_counter()
        masks = tracker(source, prompts, frames)
        shown = tqdm(masks, total=frames.stop - frames.start, unit="frame", disable=None)
        tracks = tracks_of(requests, shown, frames.direction)
        seconds = time.perf_counter() - begin
        video = AnnotatedVideo(options.video.stem, source.info, tracks)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_tracks(options.out, [video])
    count = len({frame for track in tracks for frame in track.scores})
    print(f"{count} frames in {seconds:.1f} s, {count / seconds:.1f} frames per second")
    for track in tracks:
        print(f"object {track.object_id} ({track.labels[0]}): on {len(track.masks)} frames")
    print(options.out)
    if options.preview is not None:
        draw(options.out, options.video, options.preview)
    return 0


def _check_output(options: argparse.Namespace) -> None:
    """Before minutes of work, not after."""
    if options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder, must be a file such as tracks.json")
    if options.preview is not None:
        output_kind(options.preview)
        if options.preview == options.out:
            raise ValueError(f"--preview {options.preview} would overwrite --out")


def _frame_range(
    prompted: Sequence[int], frame_count: int, options: argparse.Namespace, settings: Settings
) -> FrameRange:
    """Where nothing else is said: from the prompts to the video's end, or start, or both."""
    if max(prompted) >= frame_count:
        raise ValueError(
            f"there is a prompt on frame {max(prompted)}: the video has frames [0, {frame_count})"
        )
    direction = settings.direction
    start = min(prompted) if direction is Direction.FORWARD else 0
    stop = max(prompted) + 1 if direction is Direction.BACKWARD else frame_count
    start = start if options.start is None else options.start
    stop = stop if options.stop is None else options.stop
    if not 0 <= start < stop <= frame_count:
        raise ValueError(
            f"--start {start} and --stop {stop} must hold 0 <= start < stop <= {frame_count}"
        )
    return FrameRange(start, stop, direction)


def tracks_of(
    requests: Sequence[Any], frames: Iterable[FrameMasks], direction: Direction
) -> tuple[Track, ...]:
    """One track a request; forward it begins at the object's first prompt, backward it ends
    at its last."""
    from converters.masks import encode_mask

    masks: dict[ObjectId, dict[int, MaskRLE]] = {item.object_id: {} for item in requests}
    scores: dict[ObjectId, dict[int, float]] = {item.object_id: {} for item in requests}
    prompted = {item.object_id: [p.frame_index for p in item.prompts] for item in requests}
    for frame in frames:
        index = frame.frame_index
        for object_id, mask, score in zip(frame.object_ids, frame.masks, frame.scores):
            is_early = direction is Direction.FORWARD and index < min(prompted[object_id])
            is_late = direction is Direction.BACKWARD and index > max(prompted[object_id])
            if is_early or is_late:
                continue
            scores[object_id][index] = float(score)
            if mask.any():
                masks[object_id][index] = encode_mask(mask)
    return tuple(
        Track(
            item.object_id,
            item.labels,
            dict(sorted(masks[item.object_id].items())),
            dict(sorted(scores[item.object_id].items())),
        )
        for item in requests
    )
