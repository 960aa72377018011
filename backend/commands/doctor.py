"""`sam2-label-studio doctor`."""

from __future__ import annotations

import argparse
from typing import Any

from backend.commands.options import (
    add_label_studio_options,
    add_model_options,
    with_options,
)
from backend.settings import Settings


def add_doctor(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor", help="what works, what does not, and the fix",
        description="Look at this machine, the model, Label Studio and its projects. Changes "
        "nothing. The exit status is 1 when something is broken.",
    )
    parser.add_argument(
        "--backend-url", default="http://localhost:9090", metavar="URL",
        help="this service, as Label Studio's machine sees it",
    )
    parser.add_argument(
        "--no-media", action="store_true", help="do not download a video of each project"
    )
    add_model_options(parser)
    add_label_studio_options(parser)
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace, settings: Settings) -> int:
    from backend.doctor import examine
    from backend.findings import Level

    settings = with_options(settings, options)
    print("settings")
    for name, value in settings.shown():
        print(f"  {name} = {value}")
    is_broken = False
    parts = examine(
        settings, backend_url=options.backend_url.rstrip("/"), with_media=not options.no_media
    )
    for title, findings in parts:
        print(title)
        for finding in findings:
            is_broken |= finding.level is Level.BROKEN
            print(f"  {finding.level:6}  {finding.text}", flush=True)
            if finding.fix:
                print(f"          -> {finding.fix}", flush=True)
    print("something is broken: see above" if is_broken else "nothing is broken")
    return 1 if is_broken else 0
