"""Files of the Hugging Face hub, by way of huggingface_hub (an optional extra)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sam2_model.checkpoints.errors import CheckpointDownloadError
from sam2_model.checkpoints.published import REMOTE_CHECKPOINTS, verify_existing


def fetch_from_hub(
    hub_id: str,
    *,
    filename: str | None = None,
    revision: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    token: str | bool | None = False,
) -> Path:
    """The local copy of a file in the Hugging Face hub repository `hub_id` (`org/name`).

    filename: may be left out only for the repositories of `REMOTE_CHECKPOINTS`, whose official
    `.pt` is then meant and compared with the published hash. revision: branch, tag or commit.
    cache: the copy goes to `cache/hub`; by default to huggingface_hub's own cache, shared with other
    programs. endpoint: another hub server. token: as in huggingface_hub; False sends none.

    Raises `CheckpointDownloadError` if huggingface_hub (an optional extra) is not installed or the
    file cannot be had, `CheckpointFileError` if an official file has another hash.
    """
    remote = next((known for known in REMOTE_CHECKPOINTS.values() if known.hub_id == hub_id), None)
    if filename is None:
        if remote is None:
            raise ValueError(f"hub_id={hub_id!r}: name the file too, as {hub_id}:FILE or with filename=")
        filename = remote.file_name
    if Path(filename).is_absolute() or ".." in Path(filename).parts:
        raise ValueError(f"filename={filename!r}: must be a path inside the repository")
    try:
        import huggingface_hub
        from huggingface_hub import errors as hub_errors
    except ImportError as error:
        raise CheckpointDownloadError(
            f"{hub_id} is a hub id, which needs huggingface_hub: pip install sam2-label-studio[hub]"
        ) from error
    # Its HTTP library differs between major versions; the base of its errors is in this module.
    transport_error = getattr(hub_errors, "HTTPError", OSError)
    try:
        with _without_progress_bars():
            local = huggingface_hub.hf_hub_download(
                hub_id,
                filename,
                revision=revision,
                cache_dir=Path(cache).expanduser().absolute() / "hub" if cache is not None else None,
                endpoint=endpoint,
                token=token,
            )
    except (OSError, ValueError, transport_error) as error:
        by_hand = "give the path of a copy put on this machine by hand instead"
        if remote is not None:
            by_hand = f"use the name {remote.name!r} or {by_hand}"
        reason = " ".join(str(error).split())  # some of its messages run over several lines
        raise CheckpointDownloadError(
            f"could not get {filename} of {hub_id} from the hub: {reason}; {by_hand}"
        ) from error
    path = Path(local)
    if remote is not None and filename == remote.file_name:
        verify_existing(path, remote)
    return path


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """huggingface_hub draws a bar on stderr by default, which is for a command line to decide."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
