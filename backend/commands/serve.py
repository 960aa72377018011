"""`sam2-label-studio serve`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from backend.commands.options import add_model_options, port_or_any, with_options
from backend.settings import Settings


def add_serve(commands: Any) -> None:
    parser = commands.add_parser("serve", help="run the ML backend for Label Studio")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=port_or_any, default=9090, help="default 9090")
    parser.add_argument("--threads", type=int, help="request threads; default by the settings")
    parser.add_argument(
        "--local-files-root", type=Path, metavar="DIR", dest="label_studio_local_files_root",
        help="Label Studio's local files folder, as this machine sees it",
    )
    add_model_options(parser)
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace, settings: Settings) -> int:
    from backend.private_files import keep_private
    from backend.server import Server

    settings = with_options(settings, options)
    keep_private(settings)
    Server(settings, host=options.host, port=options.port, threads=options.threads).run()
    return 0
