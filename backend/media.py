"""Task data -> local files, safely.

Task data is other people's text. A file is read only from inside a folder that
the settings name, with symlinks resolved. A URL is fetched only as
`http_client` allows; what it gave is kept in the cache folder under the hash
of the URL, and appears there whole or not at all.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Sequence
from urllib.parse import parse_qs, urlsplit

from filelock import FileLock, Timeout

from backend.deadlines import Deadline
from backend.errors import (
    MediaNotFound,
    MediaRefused,
    MediaTooLarge,
    MediaUnreachable,
    UnusableTask,
)
from backend.http_client import Access, Origin, download, without_query
from backend.label_studio_auth import LabelStudioAuthorization
from backend.settings import Settings

logger = logging.getLogger(__name__)

_LABEL_STUDIO_PATHS = ("/data/upload/", "/data/local-files/", "/static/", "/tasks/", "/api/")
_LOCAL_FILES = "/data/local-files/"
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_DOWNLOADS_AT_ONCE = 6


class MediaStore:
    """Finds or fetches the files that task data names."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        url, key = settings.label_studio_url, settings.label_studio_api_key
        self._access = Access(
            home=Origin.of(url) if url else None,
            authorization=LabelStudioAuthorization(url, key) if url and key else None,
            private_hosts=settings.allow_private_media_hosts,
        )

    def video_file(self, reference: object) -> Path:
        """The local file of a video.

        Raises UnusableTask, MediaRefused, MediaNotFound, MediaTooLarge or
        MediaUnreachable, naming the reference and the rule.
        """
        return self._file(reference, self._settings.max_download_bytes)

    def frame_files(self, references: object) -> list[Path]:
        """The local files of a `valueList`, in order. Raises as `video_file` does."""
        limit = self._settings.max_frames
        if not isinstance(references, Sequence) or isinstance(references, str) or not references:
            raise UnusableTask(f"frames {references!r:.80} must be a list of image references")
        if len(references) > limit:
            raise MediaTooLarge(f"the task has {len(references)} frames, may have {limit}")
        # Each may be as large as all may be together; their sum is looked at as they come.
        whole = self._settings.max_download_bytes
        files, total = [], 0
        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, "frame-download") as pool:
            try:
                for file in pool.map(lambda item: self._file(item, whole), references):
                    files.append(file)
                    total += file.stat().st_size
                    if total > whole:
                        raise MediaTooLarge(f"the task's frames have more than {whole} bytes")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return files

    def _file(self, reference: object, max_bytes: int) -> Path:
        if not isinstance(reference, str) or not reference.strip():
            raise UnusableTask(f"media reference {reference!r:.80} must be a path or a URL")
        path = self._path_on_label_studio(reference)
        if path is not None:
            return self._label_studio_file(path, max_bytes)
        scheme = _SCHEME.match(reference)
        if scheme is None:
            return file_within(Path(reference), self._settings.media_roots, "SAM2_MEDIA_ROOTS")
        if scheme[1].lower() not in ("http", "https"):
            raise MediaRefused(
                f"{scheme[0]} media cannot be fetched; http, https, Label Studio's uploads "
                "and local files can"
            )
        return self._downloaded(reference, max_bytes)

    def _path_on_label_studio(self, reference: str) -> str | None:
        """Path and query below Label Studio's own URL; None for what lies elsewhere."""
        base = self._settings.label_studio_url
        prefix = urlsplit(base).path if base else ""
        is_absolute = base is not None and reference.startswith(("http:", "https:"))
        if is_absolute and Origin.of(reference) == self._access.home:
            parts = urlsplit(reference)
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            return path.removeprefix(prefix) if path.startswith(prefix + "/") else None
        path = reference.removeprefix(prefix) if reference.startswith(prefix + "/") else reference
        return path if path.startswith(_LABEL_STUDIO_PATHS) else None

    def _label_studio_file(self, path: str, max_bytes: int) -> Path:
        root, base = self._settings.label_studio_local_files_root, self._settings.label_studio_url
        parts = urlsplit(path)
        if root is not None and parts.path == _LOCAL_FILES:
            names = parse_qs(parts.query).get("d", [])
            if len(names) != 1:
                raise MediaRefused(f"{_LOCAL_FILES} must have one ?d=, the file's path")
            file = root / names[0].lstrip("/")
            return file_within(file, (root,), "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT")
        if base is None:
            raise UnusableTask(f"{parts.path} lies on Label Studio: set LABEL_STUDIO_URL")
        return self._downloaded(base + path, max_bytes)

    def _downloaded(self, url: str, max_bytes: int) -> Path:
        Origin.of(url)  # refused before anything is written
        folder = self._settings.media_cache
        suffix = Path(urlsplit(url).path).suffix.lower()
        suffix = suffix if _SUFFIX.fullmatch(suffix) else ""
        target = folder / (hashlib.sha256(url.encode("utf-8")).hexdigest()[:40] + suffix)
        if target.is_file():
            return target
        folder.mkdir(parents=True, exist_ok=True)
        deadline = Deadline(self._settings.download_seconds)
        try:
            with FileLock(f"{target}.lock", timeout=deadline.remaining_seconds):
                if not target.is_file():
                    self._fetch(url, target, max_bytes, deadline)
        except Timeout:
            raise MediaUnreachable(
                f"{without_query(url)}: another request has been fetching it for too long"
            ) from None
        return target

    def _fetch(self, url: str, target: Path, max_bytes: int, deadline: Deadline) -> None:
        handle, partial = tempfile.mkstemp(dir=target.parent, suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                size = download(
                    url, file, access=self._access, max_bytes=max_bytes, deadline=deadline
                )
            os.replace(partial, target)
        finally:
            Path(partial).unlink(missing_ok=True)
        logger.info("fetched %s, %d bytes", without_query(url), size)


def file_within(path: Path, roots: Sequence[Path], setting: str) -> Path:
    """The real path of a regular file that lies inside one of the folders.

    Raises MediaRefused for one outside, wherever `..` or symlinks lead, and
    MediaNotFound for one that is not there. What is refused is said without
    telling whether it exists.
    """
    try:
        real = path.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a null byte
        raise MediaRefused(f"{str(path)!r:.200} is not a path") from None
    if not path.is_absolute() or not any(
        real.is_relative_to(root.resolve()) for root in roots
    ):
        raise MediaRefused(f"{str(path)!r:.200} must lie inside a folder of {setting}")
    if not real.is_file():
        raise MediaNotFound(f"{str(path)!r:.200}: no such file")
    return real
