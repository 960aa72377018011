"""`sam2-label-studio convert`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from backend.commands.preview import results_option
from backend.settings import Settings

FORMATS = ("coco", "youtube-vis", "sav", "davis", "label-studio", "tracks")


def add_convert(commands: Any) -> None:
    parser = commands.add_parser("convert", help="a data set or export in another format")
    _add_options(parser)
    parser.set_defaults(run=_convert)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, help="file or folder; its format is told by its content")
    add("--to", required=True, choices=FORMATS)
    add("--out", required=True, type=Path, help="file; for sav and davis a folder")
    add("--label-config", type=Path, metavar="FILE", help="the project's XML")
    add("--media-url", metavar="URL", help="label-studio: of {name}, or of each {file_name}")
    add_content_options(parser)


def add_content_options(parser: argparse.ArgumentParser) -> None:
    """What of the source is written, and how: for `convert` and `export`."""
    add = parser.add_argument
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
    add("--min-score", type=float, default=0.0, metavar="P", help="probability, 0 to 1")
    add("--min-area", type=int, default=0, metavar="PIXELS")
    add("--val", type=float, metavar="PART", help="write about this part as a validation set")
    add("--seed", type=int, default=0, help="of the choice of validation videos")
    add("--polygons", action="store_true", help="coco: polygons where they hold the mask")
    add("--compressed", action="store_true", help="youtube-vis: compressed masks")
    add("--sav-layout", choices=["json", "folders"], default="json")

    media = parser.add_argument_group("videos, images and Label Studio")
    add = media.add_argument
    add("--images", action="store_true", help="write the frame images too")
    add("--jpeg-quality", type=int, default=95)
    add("--media-root", type=Path, metavar="DIR", help="where the videos and images are")
    add(
        "--stale", choices=["rectangle", "leave-out"], default="rectangle",
        help="masks that a later edit made out of date: their box, or nothing",
    )
    add(
        "--results", type=results_option, default=("annotations",), metavar="KIND,...",
        help="what of a Label Studio task is read: the first that it has of these kinds, of "
        "annotations (default), drafts, predictions",
    )


def _renamed(text: str) -> tuple[str, str | None]:
    old, equals, new = text.partition("=")
    if not old or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} must be OLD=NEW or OLD=")
    return old, new or None


def _convert(options: argparse.Namespace, settings: Settings) -> int:
    config = options.label_config
    return run_conversion(
        options,
        source=options.source,
        to=options.to,
        out=options.out,
        label_config=None if config is None else config.read_text("utf-8"),
        media_url=options.media_url,
    )


def run_conversion(
    options: argparse.Namespace,
    *,
    source: Path,
    to: str,
    out: Path,
    label_config: str | None,
    media_url: str | None = None,
) -> int:
    """Convert as the content options say, with a bar and a summary; the exit status."""
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
    categories = options.categories
    converted = ConvertOptions(
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
        media_url=media_url,
        stale=options.stale,
        results=options.results,
    )
    # None: no bar where nobody watches.
    with tqdm(unit=" masks", disable=True if options.quiet else None) as bar:
        report = convert(converted, Report(progress=bar.update))
    if not options.quiet:
        print(report.summary())
    return 0
