"""Which paths below LABEL_STUDIO_URL are media of the task at hand, and which get the key.

Task data is other people's text, and the service's key opens every project that its owner
sees: it goes to what Label Studio serves media under, and to nothing else there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from backend.errors import MediaRefused
from backend.http_client import Origin

LOCAL_FILES = "/data/local-files/"
UPLOADS = "/data/upload/"

_LIKE_MEDIA = re.compile(
    r"/(data/upload|data/local-files|storage-data/uploaded|static|"
    r"(tasks|projects)/[0-9]+/(presign|resolve))/"
)
_WITH_KEY = re.compile(r"/data/upload/.+|/(data/local-files|storage-data/uploaded)/?")
_RESOLVED = re.compile(r"/(tasks|projects)/([0-9]{1,18})/(presign|resolve)/?")
_OPEN = re.compile(r"/static/.+")
_MOST_DECODINGS = 5
"""Of a path that is encoded again and again; each would take as long as the path is."""


def find_media_path(reference: str) -> re.Match[str] | None:
    """Where something that looks like one of Label Studio's media paths begins."""
    return _LIKE_MEDIA.search(reference)


@dataclass(frozen=True)
class LabelStudioPaths:
    """The media paths of one Label Studio that are for one task.

    Args:
        url: LABEL_STUDIO_URL, if there is one.
        task_id: the task at hand; `/tasks/21/...` is for task 21 alone.
        project_id: its project, likewise.
    """

    url: str | None
    task_id: object = None
    project_id: object = None

    def below(self, url: str) -> str | None:
        """Path and query of a URL below LABEL_STUDIO_URL, begins with "/"; None elsewhere.

        Raises MediaRefused as `Origin.of`.
        """
        if self.url is None or Origin.of(url) != Origin.of(self.url):
            return None
        parts, prefix = urlsplit(url), urlsplit(self.url).path
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return path.removeprefix(prefix) if path.startswith(prefix + "/") else None

    def gets_key(self, url: str) -> bool:
        """Whether the service's key goes to a URL, also one that a redirect leads to."""
        path = self.below(url)
        if path is None or _OPEN.fullmatch(urlsplit(path).path):
            return False
        try:
            self.check(path)
        except MediaRefused:
            return False
        return True

    def check(self, path: str) -> None:
        """Raises MediaRefused, with the rule, for a path (and query) that is no media of the
        task at hand."""
        parts = urlsplit(path)
        shown = f"{parts.path!r:.200}"
        for text in (parts.path, *(value for _, value in parse_qsl(parts.query))):
            if _has_parent(text):
                raise MediaRefused(f"{shown} must not hold .., nor be encoded again and again")
        if _WITH_KEY.fullmatch(parts.path) or _OPEN.fullmatch(parts.path):
            return
        found = _RESOLVED.fullmatch(parts.path)
        if found is None:
            raise MediaRefused(
                f"{shown} on Label Studio is no media: its uploads, local files, static files and "
                "the addresses of a task's files in cloud storages are"
            )
        kind = found[1].removesuffix("s")
        own = self.task_id if kind == "task" else self.project_id
        if type(own) is not int or int(found[2]) != own:
            raise MediaRefused(
                f"{shown} is of {kind} {int(found[2])}, must be of the {kind} at hand"
                + ("" if own is None else f", {own!r:.40}")
            )


def _has_parent(text: str) -> bool:
    """Also one that a server would see after decoding once more."""
    for _ in range(_MOST_DECODINGS):
        if ".." in re.split(r"[/\\]", text):
            return True
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True
