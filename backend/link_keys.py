"""Keys in links: what a browser may do at this service without a password.

A `<video>` or a frame in Label Studio's pages can send no header of ours, so the
right is in its URL: a project's id and a time, signed for one purpose.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from backend.errors import ServiceError
from backend.settings import Settings

logger = logging.getLogger(__name__)

DEFAULT_DAYS = 365.0
"""How long a key holds; a label config is seldom looked at again."""

_SECRET_FILE = "link_secret"
_SECRET_BYTES = 32
_KEY = re.compile(r"(0|[1-9][0-9]{0,18})\.([1-9][0-9]{0,11})\.([A-Za-z0-9_-]{43})", re.ASCII)
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
    expires_at = int(time.time() + days * _DAY_SECONDS)
    signature = _signature(settings, project_id, expires_at, purpose)
    return f"{project_id}.{expires_at}.{signature}"


def check_key(settings: Settings, key: str, purpose: KeyPurpose) -> LinkKey:
    """Whose key it is. Raises KeyRefused, without repeating the key."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise KeyRefused("the link must have a key: key=..., as `project create` makes it")
    project_id, expires_at = int(found[1]), int(found[2])
    if not hmac.compare_digest(found[3], _signature(settings, project_id, expires_at, purpose)):
        raise KeyRefused(f"the link's key is not one of this service for a {purpose}")
    if expires_at < time.time():
        raise KeyRefused(
            f"the link's key has expired; project {project_id} needs a new one: "
            f"sam2-label-studio project connect {project_id}"
        )
    return LinkKey(project_id, expires_at)


def _signature(
    settings: Settings, project_id: int, expires_at: int, purpose: KeyPurpose
) -> str:
    signed = f"sam2-label-studio {purpose}\0{project_id}.{expires_at}".encode("ascii")
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
