"""A folder or a bucket that all processes reach, by fsspec."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from backend.jobs.blobs import Blobs, FolderBlobs


def open_storage(url: str) -> Blobs:
    """
    Args:
        url: a folder, or what fsspec takes: "s3://bucket/prefix".

    Raises ValueError for a scheme that fsspec does not know, or whose package is
    not installed.
    """
    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ValueError(f"storage={url!r} cannot be used: {error}") from None
    if isinstance(files, LocalFileSystem):
        # fsspec would write to another file system, and copy that into its place.
        return FolderBlobs(Path(root))
    return _Storage(files, root)


class _Storage:
    """Objects by name below one path. Each is there whole, or not at all."""

    def __init__(self, files: fsspec.AbstractFileSystem, root: str) -> None:
        self._files, self._root = files, root.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def save(self, name: str, body: bytes) -> None:
        # One who reads meanwhile gets the old one.
        with self._files.open(self._path(name), "wb", autocommit=False) as file:
            file.write(body)
        file.commit()

    def load(self, name: str) -> bytes | None:
        """None when there is none."""
        try:
            return self._files.cat_file(self._path(name))
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def delete_old(self, prefix: str, age_seconds: float) -> None:
        """What below "prefix/" nobody has written for so long."""
        oldest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age_seconds)
        self._files.invalidate_cache()  # others have written meanwhile
        for path in self._files.find(self._path(prefix)):
            with contextlib.suppress(FileNotFoundError):
                modified = self._files.modified(path)
                if modified.tzinfo is None:
                    modified = modified.replace(tzinfo=datetime.UTC)
                if modified < oldest:
                    self._files.rm_file(path)
