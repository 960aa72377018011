"""Task data -> local files, safely.

Task data is other people's text. A file is read only from inside a folder that
the settings name, with symlinks resolved. A URL is fetched only as
`http_client` allows, and kept as `media_cache` does.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import dataclasses
import functools
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator, Sequence
from urllib.parse import parse_qs, urlsplit

from backend.deadlines import Deadline
from backend.decoding import open_media
from backend.errors import (
    MediaNotFound,
    MediaRefused,
    MediaTooLarge,
    ServiceError,
    UnusableTask,
)
from backend.http_client import Access, Origin, download, without_query
from backend.label_studio_auth import LabelStudioAuthorization
from backend.label_studio_paths import LOCAL_FILES, UPLOADS, LabelStudioPaths, find_media_path
from backend.media_cache import MediaCache
from backend.settings import Settings
from converters.label_studio.references import (
    CLOUD_SCHEMES,
    is_cloud,
    is_windows_path,
    path_of,
    scheme_of,
)
from converters.media_kinds import suffix_of
from sam2_model.video import FrameSource

_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
_DOWNLOADS_AT_ONCE = 6


class MediaStore:
    """Finds or fetches the files that task data names."""

    def __init__(
        self, settings: Settings, authorization: LabelStudioAuthorization | None = None
    ) -> None:
        """
        Args:
            authorization: default one of the settings' own key.
        """
        self._settings = settings
        url = settings.label_studio_url
        if authorization is None and url:
            authorization = LabelStudioAuthorization(url, settings.label_studio_api_key)
        self.authorization = authorization
        self._access = Access(
            home=Origin.of(url) if url else None,
            authorization=authorization,
            private_hosts=settings.allow_private_media_hosts,
        )
        self._cache = MediaCache(
            settings.media_cache,
            max_bytes=settings.media_cache_bytes,
            fresh_seconds=settings.media_fresh_seconds,
        )
        self._lease: str | None = None

    @contextlib.contextmanager
    def in_use(self) -> Iterator[MediaStore]:
        """A store whose files stay on disk until the block ends.

        Of a store outside such a block, the cache may remove them when it needs
        the room, the least recently used first.
        """
        if self._lease is not None:
            yield self
            return
        with self._cache.lease() as lease:
            leased = copy.copy(self)
            leased._lease = lease
            yield leased

    def video_file(
        self, reference: object, *, task_id: object = None, project_id: object = None
    ) -> Path:
        """The local file of a video.

        Args:
            task_id: the task at hand: Label Studio resolves cloud URIs (s3://...) by it, and
                what it gave is that task's alone.
            project_id: the task's; of both, only their own addresses on Label Studio are fetched.

        Raises UnusableTask, MediaRefused, MediaNotFound, MediaTooLarge or
        MediaUnreachable, naming the reference and the rule.
        """
        paths = self._paths(task_id, project_id)
        with self.in_use() as store:
            return store._file(reference, paths, self._settings.max_download_bytes)

    def opened(
        self, files: Path | Sequence[Path], *, decoder_threads: int | None = None
    ) -> FrameSource:
        """The frames of files that this gave. Raises VideoDecodeError."""
        return open_media(files, self._settings, decoder_threads=decoder_threads)

    def frame_files(
        self, references: object, *, task_id: object = None, project_id: object = None
    ) -> list[Path]:
        """The local files of a `valueList`, in order. Raises as `video_file` does."""
        limit = self._settings.max_frames
        if not isinstance(references, Sequence) or isinstance(references, str) or not references:
            raise UnusableTask(f"frames {references!r:.80} must be a list of image references")
        if len(references) > limit:
            raise MediaTooLarge(f"the task has {len(references)} frames, may have {limit}")
        with self.in_use() as store:
            return store._frames(references, self._paths(task_id, project_id))

    def _paths(self, task_id: object, project_id: object) -> LabelStudioPaths:
        return LabelStudioPaths(self._settings.label_studio_url, task_id, project_id)

    def _frames(self, references: Sequence[object], paths: LabelStudioPaths) -> list[Path]:
        # Each may be as large as all may be together; their sum is looked at as they come.
        whole = self._settings.max_download_bytes
        files, total = [], 0
        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, "frame-download") as pool:
            try:
                for file in pool.map(lambda item: self._file(item, paths, whole), references):
                    files.append(file)
                    total += file.stat().st_size
                    if total > whole:
                        raise MediaTooLarge(f"the task's frames have more than {whole} bytes")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return files

    def _file(self, reference: object, paths: LabelStudioPaths, max_bytes: int) -> Path:
        if not isinstance(reference, str) or not reference.strip():
            raise UnusableTask(f"media reference {reference!r:.80} must be a path or a URL")
        reference = reference.strip()  # as browsers do
        if reference.startswith(UPLOADS.removeprefix("/data/")):  # as exports have it
            reference = f"/data/{reference}"
        path = self._path_on_label_studio(reference, paths)
        if path is not None:
            return self._label_studio_file(path, paths, max_bytes)
        scheme = scheme_of(reference)
        if scheme is None:
            return self._path(reference)
        if scheme in CLOUD_SCHEMES:
            return self._cloud_file(reference, paths, max_bytes)
        if scheme not in ("http", "https"):
            raise MediaRefused(
                f"{scheme}: media cannot be fetched; http, https, Label Studio's uploads, "
                f"local files and cloud storage ({', '.join(CLOUD_SCHEMES)}) can"
            )
        return self._downloaded(reference, paths, max_bytes)

    def _path(self, reference: str) -> Path:
        """A file inside the roots. Raises as `file_within`, with what may be meant instead."""
        roots = self._settings.media_roots
        try:
            return file_within(Path(reference), roots, "SAM2_MEDIA_ROOTS")
        except (MediaRefused, MediaNotFound) as error:
            hint = self._meant_instead(reference)
            if not hint:
                raise
            raise type(error)(f"{error.detail}; {hint}") from None

    def _meant_instead(self, reference: str) -> str:
        if is_windows_path(reference):
            return "it is a path of a Windows machine: give tasks a path or URL that is one here"
        below = find_media_path(reference)
        if below is None or not reference.startswith("/"):
            return ""
        base, prefix = self._settings.label_studio_url, reference[: below.start()]
        return (
            f"if Label Studio is under {prefix}, set LABEL_STUDIO_URL to "
            f"{base or 'http://HOST'}{prefix}"
        )

    def _path_on_label_studio(self, reference: str, paths: LabelStudioPaths) -> str | None:
        """Path and query below Label Studio's own URL; None for what lies elsewhere."""
        if scheme_of(reference) in ("http", "https"):
            return paths.below(reference)
        prefix = urlsplit(paths.url or "").path
        path = reference.removeprefix(prefix) if reference.startswith(prefix + "/") else reference
        found = find_media_path(path)
        return path if found is not None and found.start() == 0 else None

    def _label_studio_file(self, path: str, paths: LabelStudioPaths, max_bytes: int) -> Path:
        root, base = self._settings.label_studio_local_files_root, self._settings.label_studio_url
        parts = urlsplit(path)
        name = parts.path
        if f"{parts.path.rstrip('/')}/" == LOCAL_FILES:
            names = parse_qs(parts.query).get("d", [])
            if len(names) != 1:
                raise MediaRefused(f"{LOCAL_FILES} must have one ?d=, the file's path")
            name = names[0]
            if root is not None:
                return _local_file(root, name)
        paths.check(path)
        if base is None:
            raise UnusableTask(f"{parts.path} lies on Label Studio: set LABEL_STUDIO_URL")
        # An upload's name is unique, and it comes without ETag or Last-Modified.
        is_fixed = parts.path.startswith(UPLOADS)
        with _naming(name):
            return self._downloaded(base + path, paths, max_bytes, name=name, is_fixed=is_fixed)

    def _cloud_file(self, uri: str, paths: LabelStudioPaths, max_bytes: int) -> Path:
        """Label Studio knows the bucket's keys: it redirects to a signed URL, or passes it on.

        label-studio-sdk knows the same address, but sends a personal access token
        as it is, follows any redirect, and keeps the file in memory.
        """
        base, shown, task_id = self._settings.label_studio_url, _shown(uri), paths.task_id
        if base is None:
            raise UnusableTask(f"{shown!r} is resolved by Label Studio: set LABEL_STUDIO_URL")
        if type(task_id) is not int or task_id < 1:
            raise UnusableTask(
                f"{shown!r} is resolved by Label Studio for a task: its id is {task_id!r:.40}, "
                "must be a positive whole number"
            )
        encoded = base64.urlsafe_b64encode(uri.encode("utf-8", "surrogatepass")).decode("ascii")
        url = f"{base}/tasks/{task_id}/presign/?fileuri={encoded}"
        try:
            with _naming(shown):
                # The signed URL is another one each time; this one is not. It is the task's own:
                # whether another task may have the file is for Label Studio to say.
                return self._downloaded(url, paths, max_bytes, uri=uri)
        except MediaNotFound as error:
            raise MediaNotFound(
                f"{error.detail}; has the project a source storage for it, and is the file there?"
            ) from None

    def _downloaded(
        self,
        url: str,
        paths: LabelStudioPaths,
        max_bytes: int,
        *,
        uri: str | None = None,
        name: str | None = None,
        is_fixed: bool = False,
    ) -> Path:
        """
        Args:
            uri: the reference that is meant, where the URL is not it.
            name: what errors call it.
        """
        Origin.of(url)  # refused before anything is written
        identity = url.partition("#")[0]
        suffix = suffix_of(name or path_of(uri or identity))
        deadline = Deadline(self._settings.download_seconds)
        assert self._lease is not None  # `_file` is called inside `in_use` alone
        return self._cache.file(
            identity,
            functools.partial(
                download,
                url,
                access=dataclasses.replace(self._access, gets_key=paths.gets_key),
                max_bytes=max_bytes,
                deadline=deadline,
            ),
            suffix=suffix if _SUFFIX.fullmatch(suffix) else "",
            shown=f"{name!r:.200}" if name else _shown(uri or identity),
            lease=self._lease,
            deadline=deadline,
            is_fixed=is_fixed,
        )


def _shown(reference: str) -> str:
    """For messages: without what may be a key to it, which in a bucket's may be a name too."""
    if not is_cloud(reference):
        return without_query(reference)
    before, mark, _ = reference.partition("?")
    return without_query(before.replace("#", "%23")).replace("%23", "#") + (mark and "?...")


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Errors say which file they are about, where the URL does not tell."""
    try:
        yield
    except ServiceError as error:
        raise type(error)(f"{name!r:.200}: {error.detail}") from error


def _local_file(root: Path, name: str) -> Path:
    """Label Studio on Windows writes `dir\\file`, which may be a name of its own here."""
    names = dict.fromkeys((name, name.replace("\\", "/")))
    *others, last = [root / name.lstrip("/") for name in names]
    setting = "LABEL_STUDIOLOCAL_FILES_DOCUMENT_ROOT"
    for file in others:
        with contextlib.suppress(MediaNotFound):
            return file_within(file, (root,), setting)
    return file_within(last, (root,), setting)


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
    if not os.path.isfile(real):  # False too for a name that no file can have
        raise MediaNotFound(f"{str(path)!r:.200}: no such file")
    return real
