"""`sam2-label-studio models`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Iterator

from backend.settings import Settings

_MIB = 2**20


@dataclass(frozen=True)
class ModelEntry:
    """A name that --model takes."""

    name: str
    kind: str
    """"embedded", "published" or "fine-tuned"."""
    size_bytes: int | None
    """Of its weights; None: not known before they are here."""
    path: str | None
    """Where the weights are; None: they come with the first use."""


def add_models(commands: Any) -> None:
    parser = commands.add_parser("models", help="the models that --model takes, and which are here")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_models)


def _models(options: argparse.Namespace, settings: Settings) -> int:
    entries = list(known_models())
    if options.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=1))
        return 0
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        size = "" if entry.size_bytes is None else f"{entry.size_bytes / _MIB:.0f} MiB"
        mark = "*" if entry.name == settings.model else " "
        where = entry.path or "not here yet"
        print(f"{mark} {entry.name:{width}}  {entry.kind:10} {size:>8}  {where}")
    print("* is the one of the settings (SAM2_MODEL)")
    return 0


def known_models() -> Iterator[ModelEntry]:
    """Embedded, published, fine-tuned."""
    from sam2_model.checkpoints import REMOTE_CHECKPOINTS, cache_folder, resolve_checkpoint
    from sam2_model.checkpoints.finetuned import finetuned_names, finetuned_path

    demo = resolve_checkpoint("demo")
    yield ModelEntry("demo", "embedded", demo.stat().st_size, str(demo))
    for name, remote in REMOTE_CHECKPOINTS.items():
        path = cache_folder() / remote.file_name
        yield ModelEntry(name, "published", remote.size_bytes, _if_file(path))
    for name in finetuned_names():
        path = finetuned_path(name)
        yield ModelEntry(name, "fine-tuned", path.stat().st_size, str(path))


def _if_file(path: Path) -> str | None:
    return str(path) if path.is_file() else None
