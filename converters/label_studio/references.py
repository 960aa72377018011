"""How task data names media: URLs, uploads, local files, keys in a bucket, paths of any machine."""

from __future__ import annotations

import base64
import re
import unicodedata
from pathlib import PurePosixPath
from urllib.parse import parse_qs, quote, unquote, urlsplit

from converters.media_kinds import kind_of_name

CLOUD_SCHEMES = ("s3", "gs", "azure-blob")
"""Of storages that Label Studio resolves; what follows the bucket is the key, as it is."""

UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(?=[^.])")
"""What Label Studio puts before the names of uploaded files."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\[^\\]")
_NOT_IN_UPLOADS = re.compile(r"[^-\w.]")
_CLASH = re.compile(r"(?P<stem>.+)_[A-Za-z0-9]{7}(?P<suffix>(\.[^.]*)?)")


def scheme_of(reference: str) -> str | None:
    """In lower case; None for a path, also one of Windows (`C:\\clips`)."""
    found = None if is_windows_path(reference) else _SCHEME.match(reference)
    return None if found is None else found[1].lower()


def is_windows_path(reference: str) -> bool:
    """`C:\\clips\\a.mp4`, `C:/clips/a.mp4` or `\\\\server\\share\\a.mp4`."""
    return _WINDOWS.match(reference) is not None


def is_cloud(reference: str) -> bool:
    return scheme_of(reference) in CLOUD_SCHEMES


def path_of(reference: str) -> str:
    """The path that a reference means, with `/` between its steps.

    That of a URL, decoded; of local files what follows `d=`; of a bucket the key.
    """
    return paths_of(reference)[0]


def paths_of(reference: str) -> list[str]:
    """All that it may mean, the likeliest first: a `#` may begin a fragment or be a name's."""
    reference = reference.strip()
    scheme = scheme_of(reference)
    if scheme is not None and scheme not in ("http", "https", "file"):
        rest = reference.partition(":")[2]
        return [rest.removeprefix("//").partition("/")[2] if rest.startswith("//") else rest]
    if is_windows_path(reference):
        return [_with_slashes(reference)]
    try:
        parts = urlsplit(reference)
        query = parse_qs(parts.query)
    except ValueError:  # such as "http://[": a name like any other
        return [reference]
    whole, meant = unquote(reference), unquote(parts.path)
    uri = resolved_uri(query.get("fileuri", [""])[-1])
    if uri is not None and is_cloud(uri):
        return paths_of(uri)
    if kind_of_name(meant) is not None:
        found = [meant]
    elif "d" in query:
        return list(dict.fromkeys([_with_slashes(query["d"][0]), query["d"][0]]))
    else:
        found = [whole, meant] if scheme is None and kind_of_name(whole) else [meant]
    if scheme is None:
        found += [whole, reference]
    return list(dict.fromkeys([_with_slashes(found[0]), *found]))


def steps_of(path: str) -> list[str]:
    """Folders and name of a path, without root or drive."""
    steps = [step for step in path.split("/") if step not in ("", ".")]
    return steps[1:] if steps and re.fullmatch("[A-Za-z]:", steps[0]) else steps


def filled(template: str, **names: str) -> str:
    """A reference with `{name}`s filled in: encoded in a URL, as they are in a bucket's key."""

    def written(found: re.Match[str]) -> str:
        name = names.get(found[1], found[0])
        return name if is_cloud(template) or found[1] not in names else quote(name)

    return re.sub(r"\{(\w+)\}", written, template)


def uploaded_name(name: str) -> str:
    """What Label Studio's storage (Django's `get_valid_filename`) makes of a file's name."""
    return _NOT_IN_UPLOADS.sub("", name.strip().replace(" ", "_"))


def comparable(name: str) -> str:
    """Equal for a name with its letters composed or not, and its suffix in any case."""
    name = unicodedata.normalize("NFC", name)
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) + suffix.lower() if suffix else name


def upload_keys(name: str) -> set[str]:
    """What a file of this name may be called after its upload, `comparable`, without prefix."""
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return {comparable(name), *(comparable(uploaded_name(form)) for form in forms)}


def clash_of(name: str) -> tuple[str, str] | None:
    """(how the name began, its suffix) of an upload that was shortened, or had a taken name.

    Label Studio cuts long names off and puts seven random characters behind.
    """
    found = _CLASH.fullmatch(comparable(name))
    return None if found is None else (found["stem"], found["suffix"])


def _with_slashes(path: str) -> str:
    return path.replace("\\", "/")


def resolved_uri(encoded: str) -> str | None:
    """What `fileuri` says in Label Studio's own address of a file in a bucket; None for what
    it has not encoded."""
    try:
        padded = encoded + "=" * (-len(encoded) % 4)
        return base64.urlsafe_b64decode(padded).decode("utf-8")
    except ValueError:  # base64's and UTF-8's errors are such
        return None
