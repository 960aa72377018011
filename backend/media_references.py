"""How a video may be named: by tasks, by the addresses that browsers are given, escaped or not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from converters.label_studio.references import path_of, resolved_uri

_RESOLVED = re.compile(r"/tasks/(\d{1,18})/(?:presign|resolve)/", re.ASCII)
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class MediaReference:
    """A video as tasks name it."""

    reference: str
    task_id: int | None = None
    """By which Label Studio resolves a cloud URI."""


def meant_by(address: str, label_studio_url: str | None) -> MediaReference:
    """What a browser's address of a task's media means.

    Label Studio gives browsers another address for cloud URIs than us: turned back.
    """
    path = address.removeprefix(label_studio_url or "")
    found = _RESOLVED.match(path)
    if found is not None:
        uri = resolved_uri(parse_qs(urlsplit(path).query).get("fileuri", [""])[-1])
        if uri is not None:
            return MediaReference(uri, int(found[1]))
    return MediaReference(address)


def spellings(reference: str, label_studio_url: str | None) -> list[str]:
    """How tasks may name the same video of Label Studio: with its address or without."""
    if label_studio_url is not None and reference.startswith(f"{label_studio_url}/"):
        return [reference, reference.removeprefix(label_studio_url)]
    if label_studio_url is not None and reference.startswith("/"):
        return [reference, label_studio_url + reference]
    return [reference]


def short_name(reference: str) -> str:
    """A file's name, for people; of a path, a URL or Label Studio's local files."""
    name = path_of(reference).rstrip("/").rpartition("/")[2] or reference
    return name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "…"
