"""The folder downloads go to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sam2_model.checkpoints.errors import CheckpointError


def cache_folder() -> Path:
    """The folder downloads go to: `SAM2_CACHE`, or `sam2-label-studio` in the user's cache folder.

    The folder need not exist. The only function of this package that reads the environment.
    """
    chosen = os.environ.get("SAM2_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        user_cache = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        user_cache = "~/Library/Caches"
    else:
        user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(user_cache).expanduser().absolute() / "sam2-label-studio"
    except RuntimeError as error:
        raise CheckpointError("no home folder found: set SAM2_CACHE to a folder for checkpoints") from error
