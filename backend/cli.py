"""`sam2-label-studio`: serve, track, convert, preview, finetune, evaluate."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Sequence

from backend.logs import configure_logging
from backend.preview_command import add_preview_parser, results_option
from backend.settings import Settings
from backend.training_commands import add_evaluate, add_finetune
from converters.types import Box, Direction, Prompt
from sam2_model.checkpoints import CheckpointError

if TYPE_CHECKING:
    from tqdm import tqdm

    from backend.convert import ConvertOptions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.from_environment()
        configure_logging(settings.secrets)
        return options.run(options, settings)
    except (ValueError, OSError, CheckpointError) as error:
        print(f"sam2-label-studio: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sam2-label-studio", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the ML backend for Label Studio")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=int, default=9090, help="default 9090")
    serve.add_argument("--threads", type=int, help="request threads; default by the settings")
    serve.add_argument(
        "--local-files-root", type=Path, metavar="DIR", dest="label_studio_local_files_root",
        help="Label Studio's local files folder, as this machine sees it",
    )
    _add_model_options(serve)
    serve.set_defaults(run=_serve)

    track = commands.add_parser("track", help="follow boxes through a video, write data sets")
    track.add_argument("video", type=Path, help="video file or folder of images")
    track.add_argument(
        "--box", type=_box, action="append", required=True, metavar="X1,Y1,X2,Y2",
        help="pixels, maxima exclusive; repeat for more objects",
    )
    track.add_argument("--frame", type=int, default=0, help="0-based frame of the boxes")
    track.add_argument("--label", default="object", help="category of the objects")
    track.add_argument(
        "--direction", choices=[str(item) for item in Direction],
        help="which way to track from the boxes; default by the settings",
    )
    track.add_argument("--out", type=Path, required=True, help="folder for the results")
    _add_model_options(track)
    track.set_defaults(run=_track)

    convert = commands.add_parser("convert", help="a data set or export in another format")
    _add_convert_options(convert)
    convert.set_defaults(run=_convert)

    add_finetune(commands)
    add_evaluate(commands)
    add_preview_parser(commands)
    return parser


def _add_convert_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, help="file or folder; its format is told by its content")
    formats = ["coco", "youtube-vis", "sav", "davis", "label-studio", "tracks"]
    add("--to", required=True, choices=formats, help="the format to write")
    add("--out", required=True, type=Path, help="file; for sav and davis a folder")
    add("--quiet", action="store_true", help="no progress bar, no summary")

    what = parser.add_argument_group("what is written")
    add = what.add_argument
    add("--every", type=int, default=1, metavar="N", help="only frames 0, N, 2N, ...")
    add("--annotated-only", action="store_true", help="only frames with a mask")
    add(
        "--category", type=_renamed, action="append", default=[], metavar="OLD=NEW",
        help="rename a label; OLD= leaves it out; repeat for more",
    )
    add("--categories", metavar="A,B,...", help="all categories, in the order of their ids")
    add("--default-label", metavar="LABEL", help="for objects without a label")
    add(
        "--labels", default="attributes",
        choices=["attributes", "first", "each", "joined", "refuse"],
        help="objects with several labels: first is the category and all are attributes "
        "(default), the first alone, one object each, joined to one category, or an error",
    )
    add(
        "--min-score", type=float, default=0.0, metavar="P",
        help="leave out masks of a lower score: a probability, 0 to 1",
    )
    add(
        "--min-area", type=int, default=0, metavar="PIXELS",
        help="leave out masks of fewer pixels",
    )
    add("--val", type=float, metavar="PART", help="write about this part as a validation set")
    add("--seed", type=int, default=0, help="of the choice of validation videos; default 0")
    add("--polygons", action="store_true", help="coco: polygons where they hold the mask")
    add("--compressed", action="store_true", help="youtube-vis: compressed masks")
    add(
        "--sav-layout", choices=["json", "folders"], default="json",
        help="sav: a JSON file a video, as its training set (default), or a folder of PNGs an "
        "object, as its validation set",
    )

    media = parser.add_argument_group("videos, images and Label Studio")
    add = media.add_argument
    add("--images", action="store_true", help="write the frame images too")
    add(
        "--jpeg-quality", type=int, default=95, metavar="Q",
        help="of images taken out of videos, 1 to 100; default 95",
    )
    add("--media-root", type=Path, metavar="DIR", help="where the videos and images are")
    add("--label-config", type=Path, metavar="FILE", help="the project's XML")
    add("--media-url", metavar="URL", help="label-studio: of {name}, or of each {file_name}")
    add(
        "--keyframes", choices=["thin", "all"], default="thin",
        help="label-studio, on video: as few keyframes as keep the box right (default), or all",
    )
    add(
        "--keyframe-min-iou", type=float, default=0.9, metavar="IOU",
        help="label-studio: how close thin keyframes keep the box, above 0 to 1; default 0.9",
    )
    add(
        "--image-control", metavar="NAME",
        help="label-studio, on images: the control that takes the masks; default the most exact",
    )
    add(
        "--polygon-tolerance", type=float, default=1.0, metavar="PIXELS",
        help="label-studio: how far polygons may leave the mask's edge; default 1, 0 is exact",
    )
    add(
        "--results", type=results_option, default=("annotations",), metavar="KIND,...",
        help="what of a Label Studio task is read: the first that it has of these kinds, of "
        "annotations (default), drafts, predictions",
    )
    add(
        "--stale", choices=["rectangle", "resegment", "leave-out"], default="rectangle",
        help="Label Studio masks that a later edit made out of date: their box (default), "
        "tracked again from the edit with the model below, or nothing",
    )
    _add_model_options(parser.add_argument_group("the model of --stale resegment"))


def _renamed(text: str) -> tuple[str, str | None]:
    old, equals, new = text.partition("=")
    if not old or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} must be OLD=NEW or OLD=")
    return old, new or None


def _add_model_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--model", help="e.g. demo, sam2.1_hiera_tiny")
    parser.add_argument("--checkpoint", help="file, checkpoint name or hub id")
    parser.add_argument("--device", help="cpu, cuda, cuda:1")


def _with_options(settings: Settings, options: argparse.Namespace) -> Settings:
    names = ("model", "checkpoint", "device", "direction", "label_studio_local_files_root")
    given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    return dataclasses.replace(settings, **given)


def _box(text: str) -> Box:
    try:
        x_min, y_min, x_max, y_max = (float(part) for part in text.split(","))
        return Box(x_min, y_min, x_max, y_max)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be x1,y1,x2,y2: {error}") from None


def _serve(options: argparse.Namespace, settings: Settings) -> int:
    from backend.server import Server

    settings = _with_options(settings, options)
    Server(settings, host=options.host, port=options.port, threads=options.threads).run()
    return 0


def _track(options: argparse.Namespace, settings: Settings) -> int:
    from backend.exports import save_tracks
    from backend.model import load_tracker
    from backend.tracking import track_requests
    from converters.label_studio.results import ObjectRequest
    from sam2_model.video import open_frame_source

    settings = _with_options(settings, options)
    requests = [
        ObjectRequest(number, (options.label,), (Prompt(number, options.frame, box=box),))
        for number, box in enumerate(options.box, start=1)
    ]
    tracker = load_tracker(settings)
    with open_frame_source(options.video) as source:
        begin = time.perf_counter()
        tracked = track_requests(
            source, requests, tracker=tracker, direction=settings.direction, progress=_show_progress
        )
        seconds = time.perf_counter() - begin
        prompts = [prompt for request in requests for prompt in request.prompts]
        name = options.video.stem
        files = save_tracks(options.out, name, source, tracked.tracks, prompts=prompts)
    frames = len({frame for track in tracked.tracks for frame in track.scores})
    print(file=sys.stderr)
    print(f"{frames} frames in {seconds:.1f} s, {frames / seconds:.1f} frames per second")
    for file in files:
        print(file)
    return 0


def _convert(options: argparse.Namespace, settings: Settings) -> int:
    from tqdm import tqdm

    from backend.convert import ConvertOptions, convert
    from converters.report import Report
    from converters.selection import Selection

    selection = Selection(
        every=options.every,
        annotated_only=options.annotated_only,
        category_map=dict(options.category),
        default_label=options.default_label,
        label_policy=options.labels,
        min_score=options.min_score,
        min_area=options.min_area,
    )
    config, categories = options.label_config, options.categories
    converted = ConvertOptions(
        source=options.source,
        to=options.to,
        out=options.out,
        selection=selection,
        categories=None if categories is None else tuple(categories.split(",")),
        validation=options.val,
        seed=options.seed,
        images=options.images,
        media_root=options.media_root,
        jpeg_quality=options.jpeg_quality,
        polygons=options.polygons,
        compressed=options.compressed,
        sav_layout=options.sav_layout,
        label_config=None if config is None else config.read_text("utf-8"),
        media_url=options.media_url,
        keyframes=options.keyframes,
        keyframe_min_iou=options.keyframe_min_iou,
        image_control=options.image_control,
        polygon_tolerance_pixels=options.polygon_tolerance,
        stale=options.stale,
        results=options.results,
    )
    with contextlib.ExitStack() as bars:

        def new_bar(unit: str) -> tqdm:
            # None: no bar where nobody watches.
            bar = tqdm(unit=unit, disable=True if options.quiet else None)
            return bars.enter_context(bar)

        converted = _with_resegment(converted, options, settings, new_bar)
        report = convert(converted, Report(progress=new_bar(" masks").update))
    if not options.quiet:
        print(report.summary())
    return 0


def _with_resegment(
    converted: ConvertOptions,
    options: argparse.Namespace,
    settings: Settings,
    new_bar: Callable[[str], tqdm],
) -> ConvertOptions:
    """With the model loaded, where `--stale resegment` asks for one."""
    if converted.stale != "resegment":
        for name in ("model", "checkpoint", "device"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} is for --stale resegment alone")
        return converted
    if converted.media_root is None:
        raise ValueError("--stale resegment tracks in the videos: say where with --media-root")

    from backend.convert import check_options
    from backend.model import load_tracker
    from backend.resegment import resegment_with

    # Mistakes are said before the model is loaded.
    check_options(converted)
    tracker = load_tracker(_with_options(settings, options))
    progress = new_bar(" frames tracked again").update
    resegment = resegment_with(tracker, media_root=converted.media_root, progress=progress)
    return dataclasses.replace(converted, resegment=resegment)


def _show_progress(done: int, total: int) -> None:
    print(f"\rframe {done} of {total}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
