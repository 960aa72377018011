"""Files under a folder, by what Label Studio calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping, Sequence

from converters.label_studio.references import (
    UPLOAD_PREFIX,
    clash_of,
    comparable,
    paths_of,
    steps_of,
    upload_keys,
)

_SHORTENED_FROM = 60
"""Characters of a name that Label Studio leaves at least where it cuts one off at 100 in all."""


def find_media(root: Path, media: str) -> Path | None:
    """The file under the root that a task's media means, or None: see `MediaFolder.find`."""
    return MediaFolder(root).find(media)


class MediaFolder:
    """Files under a folder, by what Label Studio calls them. Each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, Mapping[str, list[Path]]] = {}

    def find(self, media: str) -> Path | None:
        """The file that a task's media means, or None.

        Its path is that of the URL or the bucket's key, or its `d` parameter (local
        files); as much of the path's end counts as there is under the root. The prefix
        that Label Studio gives uploads may be missing, and the characters be there
        that it takes out of their names.

        Raises ValueError when two files may be meant.
        """
        for path in paths_of(media):
            steps = steps_of(path)
            for start in range(len(steps)):
                *folders, name = steps[start:]
                if ".." not in folders and (found := self._in(self.root.joinpath(*folders), name)):
                    return found
        return None

    def _in(self, folder: Path, name: str) -> Path | None:
        own = UPLOAD_PREFIX.sub("", name, count=1) if UPLOAD_PREFIX.match(name) else name
        for candidate in dict.fromkeys((name, own)):
            path = folder / candidate
            if self._is_ours(path):
                return path
        listed = self._files_of(folder)
        for candidate in dict.fromkeys((name, own)):
            if found := listed.get(comparable(candidate)):
                return _only(found, name)
        clash = clash_of(own) if own != name else None
        if clash is not None and (found := _named_like(listed, *clash)):
            return _only(found, name)
        return None

    def _is_ours(self, path: Path) -> bool:
        try:
            return path.is_file() and is_under(path, self.root)
        except OSError:  # such as a name that is too long for any file
            return False

    def _files_of(self, folder: Path) -> Mapping[str, list[Path]]:
        """What uploads may be called -> the files that would be."""
        if folder not in self._listed:
            files: dict[str, list[Path]] = {}
            for path in self._inside(folder):
                for key in upload_keys(path.name):
                    files.setdefault(key, []).append(path)
            self._listed[folder] = files
        return self._listed[folder]

    def _inside(self, folder: Path) -> list[Path]:
        try:
            if not folder.is_dir() or not is_under(folder, self.root):
                return []
            return sorted(path for path in folder.iterdir() if self._is_ours(path))
        except OSError:
            return []


def _named_like(listed: Mapping[str, list[Path]], begin: str, suffix: str) -> list[Path]:
    """Files whose uploads begin so: all of the name, else as much as was not cut off."""
    whole = listed.get(begin + suffix)
    if whole:
        return whole
    found = [p for key, paths in listed.items() if key.startswith(begin) for p in paths
             if key.endswith(suffix)]
    return list(dict.fromkeys(found)) if len(begin) >= _SHORTENED_FROM else []


def _only(found: Sequence[Path], name: str) -> Path:
    if len(set(found)) > 1:
        raise ValueError(
            f"{name!r} may be {found[0]} or {found[1]}: move one of them out of the media root"
        )
    return found[0]


def is_under(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())
