"""`sam2-label-studio convert`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from backend.commands.options import (
    add_model_options,
    add_strict_option,
    say_malformed,
    with_options,
)
from backend.commands.preview import results_option
from backend.settings import Settings

if TYPE_CHECKING:
    from tqdm import tqdm

    from backend.convert import ConvertOptions

FORMATS = ("coco", "youtube-vis", "sav", "davis", "label-studio", "tracks")


def add_convert(commands: Any) -> None:
    parser = commands.add_parser("convert", help="a data set or export in another format")
    _add_options(parser)
    parser.set_defaults(run=_convert)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, help="file or folder; its format is told by its content")
    add("--to", required=True, choices=FORMATS, help="the format to write")
    add("--out", required=True, type=Path, help="file; for sav and davis a folder")
    add("--label-config", type=Path, metavar="FILE", help="the project's XML")
    add("--media-url", metavar="URL", help="label-studio: of {name}, or of each {file_name}")
    _add_label_studio_options(parser)
    add_content_options(parser)


def _add_label_studio_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("to label-studio").add_argument
    add(
        "--keyframes", choices=["thin", "all"], default="thin",
        help="on video: as few keyframes as keep the box right (default), or all",
    )
    add(
        "--keyframe-min-iou", type=float, default=0.9, metavar="IOU",
        help="how close thin keyframes keep the box, above 0 to 1; default 0.9",
    )
    add(
        "--image-control", metavar="NAME",
        help="on images: the control that takes the masks; default the most exact",
    )
    add(
        "--polygon-tolerance", type=float, default=1.0, metavar="PIXELS",
        help="how far polygons may leave the mask's edge; default 1, 0 is exact",
    )


def add_content_options(parser: argparse.ArgumentParser) -> None:
    """What of the source is written, and how: for `convert` and `export`."""
    add = parser.add_argument
    add("--quiet", action="store_true", help="no progress bar, no summary")
    add_strict_option(parser)

    what = parser.add_argument_group("what is written")
    add = what.add_argument
    add("--every", type=int, default=1, metavar="N", help="only frames 0, N, 2N, ...")
    add("--annotated-only", action="store_true", help="only frames with a mask")
    add(
        "--category", type=_renamed, action="append", default=[], metavar="OLD=NEW",
        help="rename a label; OLD= leaves it out; repeat for more",
    )
    add(
        "--categories", metavar="A,B,...",
        help="all categories, in the order of their ids; default: those of the source or the "
        "label config, with their ids",
    )
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
    add_model_options(parser.add_argument_group("the model of --stale resegment"))


def _renamed(text: str) -> tuple[str, str | None]:
    old, equals, new = text.partition("=")
    if not old or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} must be OLD=NEW or OLD=")
    return old, new or None


def _convert(options: argparse.Namespace, settings: Settings) -> int:
    config = options.label_config
    conversion = conversion_of(
        options,
        source=options.source,
        to=options.to,
        out=options.out,
        label_config=None if config is None else config.read_text("utf-8"),
    )
    conversion = dataclasses.replace(
        conversion,
        media_url=options.media_url,
        keyframes=options.keyframes,
        keyframe_min_iou=options.keyframe_min_iou,
        image_control=options.image_control,
        polygon_tolerance_pixels=options.polygon_tolerance,
    )
    return run_conversion(conversion, options, settings)


def conversion_of(
    options: argparse.Namespace, *, source: Path, to: str, out: Path, label_config: str | None
) -> ConvertOptions:
    """What the content options say. Raises ValueError."""
    from backend.convert import ConvertOptions
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
    categories = options.categories
    return ConvertOptions(
        source=source,
        to=to,
        out=out,
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
        label_config=label_config,
        stale=options.stale,
        results=options.results,
    )


def run_conversion(
    conversion: ConvertOptions, options: argparse.Namespace, settings: Settings
) -> int:
    """Convert, with bars and a summary unless `options.quiet`; the exit status."""
    from tqdm import tqdm

    from backend.convert import convert
    from converters.report import Report

    with contextlib.ExitStack() as bars:

        def new_bar(unit: str) -> tqdm:
            # None: no bar where nobody watches.
            bar = tqdm(unit=unit, disable=True if options.quiet else None)
            return bars.enter_context(bar)

        conversion = _with_resegment(conversion, options, settings, new_bar)
        report = Report(progress=new_bar(" masks").update, strict=options.strict)
        try:
            convert(conversion, report)
        finally:
            # Also where nothing good is left, which is an error.
            say_malformed(report, counts=False)
    if not options.quiet:
        print(report.summary())
    return 0


def _with_resegment(
    conversion: ConvertOptions,
    options: argparse.Namespace,
    settings: Settings,
    new_bar: Callable[[str], tqdm],
) -> ConvertOptions:
    """With the model loaded, where `--stale resegment` asks for one."""
    if conversion.stale != "resegment":
        for name in ("model", "checkpoint", "device"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} is for --stale resegment alone")
        return conversion
    if conversion.media_root is None:
        raise ValueError("--stale resegment tracks in the videos: say where with --media-root")

    from backend.convert import check_options
    from backend.model import load_tracker
    from backend.resegment import resegment_with

    # Mistakes are said before the model is loaded.
    check_options(conversion)
    tracker = load_tracker(with_options(settings, options))
    progress = new_bar(" frames tracked again").update
    resegment = resegment_with(tracker, media_root=conversion.media_root, progress=progress)
    return dataclasses.replace(conversion, resegment=resegment)
