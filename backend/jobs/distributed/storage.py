"""Where the results' bodies lie: a folder or a bucket that all processes reach, by fsspec."""

from __future__ import annotations

import contextlib

import fsspec


class Storage:
    """Files by name below one path. Each is there whole, or not at all."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: a folder, or what fsspec takes: "s3://bucket/prefix".

        Raises ValueError for a scheme that fsspec does not know, or whose package is
        not installed.
        """
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, auto_mkdir=True)
        except (ValueError, ImportError) as error:
            raise ValueError(f"storage={url!r} cannot be used: {error}") from None

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def save(self, name: str, body: bytes) -> None:
        # Written beside its place first: one who reads meanwhile gets the old one.
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
