"""`sam2-label-studio import`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.commands.options import add_label_studio_options, with_options
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.label_studio_client import LabelStudioClient
    from converters.label_studio.config import LabelConfig


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
    add("--again", action="store_true", help="also files that were imported before")
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
    from backend.imports import (
        FINGERPRINT,
        TaskFields,
        check_use,
        file_fingerprint,
        imported_already,
    )
    from backend.label_studio_client import LabelStudioClient
    from converters.label_studio.config import parse_label_config

    missing = [path for path in options.videos if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} is not there")
    if options.reference and len(options.videos) > 1 and "{name}" not in options.reference:
        raise ValueError("--reference must have {name} in it, or all tasks show one video")
    client = LabelStudioClient.from_settings(with_options(settings, options))
    config = parse_label_config(client.project(options.project)["label_config"])
    check_use(TaskFields.of(config), every=options.every, reference=options.reference)
    every = options.every or 1
    known = {} if options.again else imported_already(client.task_heads(options.project))
    failed = 0
    for path in options.videos:
        try:
            fingerprint = file_fingerprint(path)
            task_id = known.get((fingerprint, every))
            if task_id is not None:
                print(f"task {task_id}: {path.name}, imported before")
                continue
            data = _task_data(path, client, config, options) | {FINGERPRINT: fingerprint}
        except (ValueError, OSError) as error:
            # The others are imported all the same, and a repeat leaves them out.
            failed += 1
            print(f"not imported: {path}: {error}", file=sys.stderr)
            continue
        (task_id,) = client.import_tasks(options.project, [{"data": data}])
        known[fingerprint, every] = task_id
        print(f"task {task_id}: {path.name}")
    print(f"{client.url}/projects/{options.project}/data")
    if failed:
        print(
            f"{failed} of {len(options.videos)} were not imported; the same command again "
            "imports what is missing",
            file=sys.stderr,
        )
    return 0 if not failed else 1 if failed < len(options.videos) else 2


def _task_data(
    path: Path, client: LabelStudioClient, config: LabelConfig, options: argparse.Namespace
) -> dict[str, Any]:
    """What the video becomes, uploaded. Raises as `make_task`."""
    from tqdm import tqdm

    from backend.imports import make_task

    with tqdm(desc=path.name, unit="frame", disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return make_task(
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
