"""What the service keeps is its own: jobs, and signed addresses in them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from backend.settings import Settings

_OWNER_ALONE = 0o700


def keep_private(settings: Settings) -> None:
    """Files that this process and its children make are the owner's alone from now on, and
    so are the data folder and the media cache, with what an earlier version left there.

    For programs, not libraries. Raises OSError for a folder that cannot be made.
    """
    os.umask(0o777 & ~_OWNER_ALONE)
    for folder in (settings.data_folder, settings.media_cache):
        _make_private(folder)


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = folder.stat()
    # Another's folder, as a mounted volume may be, or one like /tmp stays as it is.
    if found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
        folder.chmod(_OWNER_ALONE)
