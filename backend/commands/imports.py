"""`sam2-label-studio import`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from backend.commands.options import add_label_studio_options, with_options
from backend.settings import Settings


def add_import(commands: Any) -> None:
    parser = commands.add_parser(
        "import", help="make Label Studio tasks of videos",
        description="Make one task a video, as the project's label config shows it: the video "
        "uploaded or referenced, its frame rate filled in, its frames cut and uploaded.",
    )
    add = parser.add_argument
    add("videos", type=Path, nargs="+", metavar="VIDEO", help="video files")
    add("--project", type=int, required=True, metavar="N", help="the project's number")
    add(
        "--frames", type=_every, metavar="every=N", dest="every",
        help="images of frames 0, N, 2N, ...; default all, of a video that is not long",
    )
    add(
        "--reference", metavar="URL",
        help="where Label Studio finds the video, in place of an upload; {name} is the file's",
    )
    add(
        "--jpeg-quality", type=int, default=95, choices=range(1, 101), metavar="Q",
        help="of cut frames, 1 to 100; default 95",
    )
    add_label_studio_options(parser)
    parser.set_defaults(run=_import)


def _every(text: str) -> int:
    name, equals, number = text.partition("=")
    if name != "every" or not equals or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be every=N with N from 1 on")
    return int(number)


def _import(options: argparse.Namespace, settings: Settings) -> int:
    from tqdm import tqdm

    from backend.imports import make_task
    from backend.label_studio_client import LabelStudioClient
    from converters.label_studio.config import parse_label_config

    missing = [path for path in options.videos if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} is not there")
    if options.reference and len(options.videos) > 1 and "{name}" not in options.reference:
        raise ValueError("--reference must have {name} in it, or all tasks show one video")
    client = LabelStudioClient.from_settings(with_options(settings, options))
    config = parse_label_config(client.project(options.project)["label_config"])
    for path in options.videos:
        with tqdm(desc=path.name, unit="frame", disable=None, leave=False) as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            data = make_task(
                path,
                options.project,
                client,
                config,
                every=options.every,
                reference=options.reference,
                jpeg_quality=options.jpeg_quality,
                warn=lambda text: print(f"warning: {text}", file=sys.stderr),
                progress=show,
            )
        (task_id,) = client.import_tasks(options.project, [{"data": data}])
        print(f"task {task_id}: {path.name}")
    print(f"{client.url}/projects/{options.project}/data")
    return 0
