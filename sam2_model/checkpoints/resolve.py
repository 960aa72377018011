"""From a name, a path or a hub id to a file on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sam2_model.checkpoints.download import Progress, download_checkpoint
from sam2_model.checkpoints.errors import CheckpointFileError
from sam2_model.checkpoints.hub import fetch_from_hub
from sam2_model.checkpoints.published import REMOTE_CHECKPOINTS

DEMO_CHECKPOINT_NAME = "demo"
"""The small model that ships inside `sam2_model`, as `demo.safetensors`."""

_CHECKPOINT_SUFFIXES = (".pt", ".pth", ".safetensors")
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<filename>[\w./+-]+))?", re.ASCII)


def resolve_checkpoint(
    checkpoint: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """The local file that `checkpoint` means, downloaded where needed.

    In this order: an existing file; `demo`, the packaged model; a name in `REMOTE_CHECKPOINTS`; a
    hub id, `org/name` for a published checkpoint or `org/name:file` for any other. A `Path`, and
    anything that looks like one (absolute, `./`, `~`, or ending in .pt, .pth or .safetensors
    without a hub id before a colon), is never sent to the network.

    Raises `ValueError` listing the names for anything else, `CheckpointFileError` for a path that
    is not there, and what `fetch_checkpoint` and `fetch_from_hub` raise.
    """
    text = os.fspath(checkpoint)
    path = Path(os.path.expanduser(text))
    if path.is_file():
        return path
    if not isinstance(checkpoint, os.PathLike):
        if text == DEMO_CHECKPOINT_NAME:
            return _packaged_demo()
        if text in REMOTE_CHECKPOINTS:
            return fetch_checkpoint(text, cache=cache, progress=progress)
        hub = _HUB_ID.fullmatch(text)
        if hub and _means_hub(hub, path):
            return fetch_from_hub(hub["repo"], filename=hub["filename"], cache=cache)
    looks_like_path = (
        path.is_absolute() or path.is_dir() or text.startswith(".") or path.suffix in _CHECKPOINT_SUFFIXES
    )
    if isinstance(checkpoint, os.PathLike) or looks_like_path:
        kind = "is a folder, not a checkpoint file" if path.is_dir() else "no such checkpoint file"
        raise CheckpointFileError(f"{path.absolute()}: {kind}")
    names = ", ".join((DEMO_CHECKPOINT_NAME, *REMOTE_CHECKPOINTS))
    raise ValueError(
        f"checkpoint={text!r}: must be the path of an existing file, a hub id "
        f"(org/name or org/name:file), or one of {names}"
    )


def _means_hub(hub: re.Match[str], path: Path) -> bool:
    """Whether `a/b` is a hub id rather than a relative path that is not there or is a folder."""
    if hub["filename"]:
        return True
    return path.suffix not in _CHECKPOINT_SUFFIXES and path.parts[0][0] != "." and not path.is_dir()


def _packaged_demo() -> Path:
    path = Path(__file__).parents[1] / "demo.safetensors"
    if not path.is_file():
        raise CheckpointFileError(f"{path}: the demo model is missing from this installation; reinstall it")
    return path


def fetch_checkpoint(
    name: str,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    base_url: str | None = None,
    timeout_seconds: float = 30.0,
    retries: int = 3,
) -> Path:
    """The local file of the published checkpoint `name`; see `download_checkpoint`.

    Raises `ValueError` if `name` is not in `REMOTE_CHECKPOINTS`.
    """
    if name not in REMOTE_CHECKPOINTS:
        raise ValueError(f"name={name!r}: must be one of {', '.join(REMOTE_CHECKPOINTS)}")
    return download_checkpoint(
        REMOTE_CHECKPOINTS[name],
        cache=cache,
        progress=progress,
        base_url=base_url,
        timeout_seconds=timeout_seconds,
        retries=retries,
    )
