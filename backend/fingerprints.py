"""Names of media by content: the same picture files give the same name, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Sequence

_SAMPLE_BYTES = 2**20


def content_fingerprint(files: Path | Sequence[Path]) -> str:
    """A name of a video file's, or of a list of images', content.

    Of each file its size and its first and last MiB are read: a video of hours is
    named in milliseconds, and any new encoding of it changes both.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in [files] if isinstance(files, Path) else files:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            digest.update(b"%d:" % size)
            digest.update(file.read(_SAMPLE_BYTES))
            if size > 2 * _SAMPLE_BYTES:
                file.seek(-_SAMPLE_BYTES, 2)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def media_stamp(files: Path | Sequence[Path]) -> str:
    """Where the files lie and what they look like now, for `is_unchanged`."""
    paths = [files] if isinstance(files, Path) else list(files)
    return json.dumps([[str(path), *_stat(path)] for path in paths])


def is_unchanged(stamp: str) -> bool:
    """Whether the files of a `media_stamp` still look the same."""
    try:
        return all(_stat(Path(path)) == rest for path, *rest in json.loads(stamp))
    except OSError:
        return False


def _stat(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
