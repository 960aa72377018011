"""Keys in links: what a browser may do at this service without a password.

A `<video>` or a frame in Label Studio's pages can send no header of ours, so the
right is in its URL: a project's id and two times, signed for one purpose. Those of a
project that were made up to now can be revoked; the data folder remembers when.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from filelock import FileLock

from backend.errors import ServiceError
from backend.settings import Settings
from converters.files import write_json

logger = logging.getLogger(__name__)

DEFAULT_DAYS = 90.0
"""How long a key holds; `doctor` says when it is about to end."""

_SECRET_FILE = "link_secret"
_SECRET_BYTES = 32
_KEY = re.compile(
    r"(?P<project>0|[1-9][0-9]{0,18})\.(?:(?P<made>[1-9][0-9]{0,11})\.)?"
    r"(?P<expires>[1-9][0-9]{0,11})\.(?P<signature>[A-Za-z0-9_-]{43})",
    re.ASCII,
)
"""The first keys had no time at which they were made."""
_REVOKED_FILE = "revoked_links.json"
_DAY_SECONDS = 86400.0


STAND_ALONE = 0
"""In a panel's key for the project: sessions without a task, and no project."""


class KeyPurpose(enum.StrEnum):
    """What a key is for; a key for one is none for another."""

    PREVIEW = "preview"
    """Videos with masks drawn in."""
    PANEL = "panel"
    """Tasks and sessions of a project."""


class KeyRefused(ServiceError):
    """A link without a key of ours, or with one that has expired."""

    status, name = 403, "key refused"


@dataclass(frozen=True)
class LinkKey:
    """What a key that was checked says."""

    project_id: int
    expires_at: int
    """Seconds since 1970."""

    @property
    def days_left(self) -> float:
        return (self.expires_at - time.time()) / _DAY_SECONDS


def make_key(
    settings: Settings, project_id: int, purpose: KeyPurpose, *, days: float = DEFAULT_DAYS
) -> str:
    """A key for the links of a project, of characters that no URL has to escape.

    Raises ValueError for days that are not above 0, OSError when the secret
    cannot be kept in the data folder.
    """
    if not 0 < days <= 36500:
        raise ValueError(f"days={days!r} must be above 0 and at most 36500")
    made_at = int(time.time())
    said = f"{project_id}.{made_at}.{int(made_at + days * _DAY_SECONDS)}"
    return f"{said}.{_signature(settings, said, purpose)}"


def check_key(settings: Settings, key: str, purpose: KeyPurpose) -> LinkKey:
    """Whose key it is. Raises KeyRefused, without repeating the key."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise KeyRefused("the link must have a key: key=..., as `project create` makes it")
    project_id, expires_at = int(found["project"]), int(found["expires"])
    said = key.rpartition(".")[0]
    if not hmac.compare_digest(found["signature"], _signature(settings, said, purpose)):
        raise KeyRefused(f"the link's key is not one of this service for a {purpose}")
    is_revoked = int(found["made"] or 0) <= _revoked_at(settings, project_id, purpose)
    if is_revoked or expires_at < time.time():
        raise KeyRefused(
            f"the link's key {'was revoked' if is_revoked else 'has expired'}; project "
            f"{project_id} needs a new one: sam2-label-studio project connect {project_id}"
        )
    return LinkKey(project_id, expires_at)


def revoke_keys(settings: Settings, project_id: int, purposes: Iterable[KeyPurpose]) -> None:
    """No key of the project for these purposes that was made up to now holds any longer.

    What runs on this data folder knows at once. Raises OSError.
    """
    path = settings.data_folder / _REVOKED_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        now = int(time.time())
        times = _read_times(path) | {_revocation(project_id, p): now for p in purposes}
        write_json(path, times)
    # A key of this very second would be one of those.
    time.sleep(max(0.0, now + 1 - time.time()))


def _revocation(project_id: int, purpose: KeyPurpose) -> str:
    return f"{purpose} {project_id}"


def _revoked_at(settings: Settings, project_id: int, purpose: KeyPurpose) -> int:
    """Seconds since 1970; -1: never."""
    times = _read_times(settings.data_folder / _REVOKED_FILE)
    return times.get(_revocation(project_id, purpose), -1)


def _read_times(path: Path) -> dict[str, int]:
    try:
        return json.loads(path.read_text("ascii"))
    except FileNotFoundError:
        return {}


def bound_to_project(settings: Settings, project_id: int, name: str) -> str:
    """What proves that a name of this service's was given to someone with a project's key."""
    return _signature(settings, f"{project_id} {name}", KeyPurpose.PREVIEW)


def _signature(settings: Settings, said: str, purpose: KeyPurpose) -> str:
    signed = f"sam2-label-studio {purpose}\0{said}".encode("ascii")
    digest = hmac.digest(_secret(settings), signed, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _secret(settings: Settings) -> bytes:
    """That of the settings, else the data folder's, made when there is none."""
    if settings.link_secret is not None:
        return settings.link_secret.encode("utf-8")
    path = settings.data_folder / _SECRET_FILE
    try:
        return _read(path)
    except FileNotFoundError:
        _write_new(path)
        return _read(path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            logger.warning("%s can be read by others, must have mode 0600", path)
        secret = file.read()
    if len(secret) < _SECRET_BYTES:
        raise ValueError(f"{path} has {len(secret)} bytes, must have {_SECRET_BYTES}: remove it")
    return secret


def _write_new(path: Path) -> None:
    """Whole or not at all, and only where there is none: two processes may begin at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(begun, path)
    finally:
        begun.unlink()
