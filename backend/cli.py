"""`sam2-label-studio`: from the service to the data sets, in one program."""

from __future__ import annotations

import argparse
import sys
from typing import Sequence

from backend.commands.convert import add_convert
from backend.commands.annotate import add_annotate
from backend.commands.doctor import add_doctor
from backend.commands.export import add_export
from backend.commands.imports import add_import
from backend.commands.models import add_models
from backend.commands.panel import add_open
from backend.commands.preview import add_preview_parser
from backend.commands.project import add_project
from backend.commands.serve import add_serve
from backend.commands.track import add_track
from backend.commands.training import add_evaluate, add_finetune
from backend.commands.worker import add_worker
from backend.errors import ServiceError
from backend.logs import configure_logging
from backend.settings import Settings
from sam2_model.checkpoints import CheckpointError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.from_environment()
        configure_logging(settings.secrets, is_json=settings.log_format == "json")
        return options.run(options, settings)
    except (ValueError, OSError, CheckpointError, ServiceError) as error:
        print(f"sam2-label-studio: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sam2-label-studio", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        add_serve,
        add_open,
        add_worker,
        add_track,
        add_project,
        add_import,
        add_annotate,
        add_export,
        add_convert,
        add_preview_parser,
        add_finetune,
        add_evaluate,
        add_models,
        add_doctor,
    ):
        add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
