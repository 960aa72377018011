"""Options that several commands have."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from typing import TYPE_CHECKING

from backend.settings import Settings

if TYPE_CHECKING:
    from converters.report import Report

_SETTINGS = (
    "model", "checkpoint", "device", "dtype", "direction", "label_studio_url",
    "label_studio_local_files_root",
)  # fmt: skip


def add_model_options(parser: argparse._ActionsContainer) -> None:
    """--model, --checkpoint, --device; what is left out stays as the settings say."""
    parser.add_argument("--model", help="e.g. demo, sam2.1_hiera_tiny")
    parser.add_argument("--checkpoint", help="file, checkpoint name or hub id")
    parser.add_argument("--device", help="cpu, cuda, cuda:1")


def add_label_studio_options(parser: argparse.ArgumentParser) -> None:
    """--label-studio-url; the key comes from the environment, where nobody else sees it."""
    parser.add_argument(
        "--label-studio-url", metavar="URL", help="default LABEL_STUDIO_URL; the key is "
        "LABEL_STUDIO_API_KEY",
    )


def add_strict_option(parser: argparse._ActionsContainer) -> None:
    """--strict, of all commands that read a data set."""
    parser.add_argument(
        "--strict", action="store_true",
        help="stop at the first malformed value of the data set; default: leave out what it "
        "spoils, count it and say where",
    )  # fmt: skip


def say_malformed(report: Report, *, counts: bool = True) -> None:
    """On standard error: what was left out or changed, and where the first malformed values are.

    Without `counts` for commands whose summary has them.
    """
    for line in report.remarks() if counts else ():
        print(line, file=sys.stderr)
    for place in report.malformed:
        print(f"malformed: {place}", file=sys.stderr)
    more = report.malformed_count - len(report.malformed)
    if more:
        print(f"malformed: ... and {more} more", file=sys.stderr)


def with_options(settings: Settings, options: argparse.Namespace) -> Settings:
    """The settings, changed by those of the options that name one. Raises ValueError."""
    given = {
        name: value for name in _SETTINGS if (value := getattr(options, name, None)) is not None
    }
    return dataclasses.replace(settings, **given)


def at_least_one(text: str) -> int:
    """For argparse: a whole number above 0."""
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)
