"""Checkpoint files: a name, a path or a hub id -> a verified file -> weights in a module.

The eight published SAM 2 checkpoints (https://github.com/facebookresearch/sam2#download-checkpoints)
are known by name. A name becomes a file in the cache folder, downloaded once however many processes
ask, continued after a cut, and compared with its published SHA-256 before it gets its final name.
In the cache folder, next to `NAME.pt`:

    NAME.pt.part       bytes received so far
    NAME.pt.part.json  what those bytes are part of, so that a changed file is never mixed into them
    NAME.pt.lock       held by the process that downloads

Nothing here prints or keeps global state, and `cache_folder` is the one function that reads the
environment. Downloading does not import torch.
"""

from __future__ import annotations

import contextlib
import email.message
import errno
import hashlib
import http.client
import ipaddress
import json
import logging
import os
import pickle
import re
import shutil
import ssl
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

DEMO_CHECKPOINT_NAME = "demo"
"""The small model that ships inside this package, as `demo.safetensors`."""

MAX_DOWNLOAD_BYTES = 4 * 1024**3
"""A download larger than this is refused; the largest published checkpoint has 0.9 GiB."""

MIN_BYTES_PER_SECOND = 1024
"""A transfer slower than this over a whole timeout counts as hanging."""

_READ_BYTES = 1024 * 1024
_GAIN_THAT_RESETS_RETRIES_BYTES = 1024 * 1024
_MAX_BACKOFF_SECONDS = 30.0
_RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CHECKPOINT_SUFFIXES = (".pt", ".pth", ".safetensors")
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<filename>[\w./+-]+))?", re.ASCII)

Progress = Callable[[int, "int | None"], None]
"""Called with (bytes on disk, bytes in the whole file or None while unknown). What it raises stops
the download and reaches the caller; the next call continues from the bytes already on disk."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be had or cannot be used."""


class CheckpointDownloadError(CheckpointError):
    """A checkpoint could not be brought to this machine."""


class CheckpointFileError(CheckpointError, ValueError):
    """A file is missing, or is not a checkpoint, or is not the one it should be."""


class CheckpointMismatchError(CheckpointError, ValueError):
    """A checkpoint's keys or shapes are not those of the model asked for.

    `missing`: keys the model has and the file lacks. `unexpected`: keys only the file has.
    `misshaped`: (key, shape in the file, shape in the model).
    """

    def __init__(
        self,
        path: Path,
        model_name: str,
        *,
        missing: tuple[str, ...],
        unexpected: tuple[str, ...],
        misshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...],
    ) -> None:
        self.path, self.model_name = path, model_name
        self.missing, self.unexpected, self.misshaped = missing, unexpected, misshaped
        parts = []
        if missing:
            parts.append(f"{len(missing)} missing key(s), first {missing[0]!r}")
        if unexpected:
            parts.append(f"{len(unexpected)} unexpected key(s), first {unexpected[0]!r}")
        if misshaped:
            key, found, expected = misshaped[0]
            parts.append(
                f"{len(misshaped)} mis-shaped key(s), first {key!r}: "
                f"{found} in the file, {expected} in the model"
            )
        super().__init__(f"{path} is not a checkpoint of model {model_name!r}: " + "; ".join(parts))


# --------------------------------------------------------------------------------------------------
# What is published
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RemoteCheckpoint:
    """A checkpoint that can be downloaded."""

    name: str
    file_name: str
    """The file's name in the cache folder, at the end of `url` and in the hub repository."""
    url: str
    sha256: str | None
    """64 lower-case hex digits, or None where no trustworthy source is known."""
    size_bytes: int | None
    hub_id: str | None

    def __post_init__(self) -> None:
        if Path(self.file_name).name != self.file_name:
            raise ValueError(f"file_name={self.file_name!r}: must be a plain file name")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256={self.sha256!r}: must be 64 lower-case hex digits or None")


# The publisher lists no hashes or sizes. Each SHA-256 below was found identical in at least two
# independent public places that pin the official address:
#   all eight  computational-cell-analytics/micro-sam, micro_sam/v2/util.py, HASHES (2.0 only in
#              earlier revisions), which downloads from these URLs
#   all 2.0    mazurowski-lab/SlicerSegmentWithSAM, SegmentWithSAM.py, likewise
#   all 2.1    manifests of several other projects, each with the byte count; for small, one states
#              that the official file and the one in the facebook/ hub repository are identical
# The sizes are from such manifests, one of which lists all eight. None was recomputed here.
_PUBLISHED = (
    # release, size, sha256, bytes
    ("sam2", "tiny", "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125", 155906050),
    ("sam2", "small", "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3", 184309650),
    ("sam2", "base_plus", "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071", 323493298),
    ("sam2", "large", "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b", 897952466),
    ("sam2.1", "tiny", "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69", 156008466),
    ("sam2.1", "small", "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38", 184416285),
    ("sam2.1", "base_plus", "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5", 323606802),
    ("sam2.1", "large", "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318", 898083611),
)
_RELEASE_FOLDERS = {
    "sam2": "https://dl.fbaipublicfiles.com/segment_anything_2/072824",
    "sam2.1": "https://dl.fbaipublicfiles.com/segment_anything_2/092824",
}


def _published(release: str, size: str, sha256: str, size_bytes: int) -> RemoteCheckpoint:
    name = f"{release}_hiera_{size}"
    return RemoteCheckpoint(
        name=name,
        file_name=f"{name}.pt",
        url=f"{_RELEASE_FOLDERS[release]}/{name}.pt",
        sha256=sha256,
        size_bytes=size_bytes,
        hub_id=f"facebook/{release}-hiera-{size.replace('_', '-')}",
    )


REMOTE_CHECKPOINTS: Mapping[str, RemoteCheckpoint] = MappingProxyType(
    {remote.name: remote for remote in (_published(*row) for row in _PUBLISHED)}
)
"""Name -> published checkpoint, e.g. `sam2.1_hiera_base_plus`."""


# --------------------------------------------------------------------------------------------------
# From a name, a path or a hub id to a file
# --------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """The folder downloads go to: `SAM2_CACHE`, or `sam2-label-studio` in the user's cache folder.

    The folder need not exist. The only function of this package that reads the environment.
    """
    chosen = os.environ.get("SAM2_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        user_cache = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        user_cache = "~/Library/Caches"
    else:
        user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(user_cache).expanduser().absolute() / "sam2-label-studio"
    except RuntimeError as error:
        raise CheckpointError("no home folder found: set SAM2_CACHE to a folder for checkpoints") from error


def resolve_checkpoint(
    checkpoint: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """The local file that `checkpoint` means, downloaded where needed.

    In this order: an existing file; `demo`, the packaged model; a name in `REMOTE_CHECKPOINTS`; a
    hub id, `org/name` for a published checkpoint or `org/name:file` for any other. A `Path`, and
    anything that looks like one (absolute, `./`, `~`, or ending in .pt, .pth or .safetensors
    without a hub id before a colon), is never sent to the network.

    Raises `ValueError` listing the names for anything else, `CheckpointFileError` for a path that
    is not there, and what `fetch_checkpoint` and `fetch_from_hub` raise.
    """
    text = os.fspath(checkpoint)
    path = Path(os.path.expanduser(text))
    if path.is_file():
        return path
    if not isinstance(checkpoint, os.PathLike):
        if text == DEMO_CHECKPOINT_NAME:
            return _packaged_demo()
        if text in REMOTE_CHECKPOINTS:
            return fetch_checkpoint(text, cache=cache, progress=progress)
        hub = _HUB_ID.fullmatch(text)
        if hub and _means_hub(hub, path):
            return fetch_from_hub(hub["repo"], filename=hub["filename"], cache=cache)
    looks_like_path = (
        path.is_absolute() or path.is_dir() or text.startswith(".") or path.suffix in _CHECKPOINT_SUFFIXES
    )
    if isinstance(checkpoint, os.PathLike) or looks_like_path:
        kind = "is a folder, not a checkpoint file" if path.is_dir() else "no such checkpoint file"
        raise CheckpointFileError(f"{path.absolute()}: {kind}")
    names = ", ".join((DEMO_CHECKPOINT_NAME, *REMOTE_CHECKPOINTS))
    raise ValueError(
        f"checkpoint={text!r}: must be the path of an existing file, a hub id "
        f"(org/name or org/name:file), or one of {names}"
    )


def _means_hub(hub: re.Match[str], path: Path) -> bool:
    """Whether `a/b` is a hub id rather than a relative path that is not there or is a folder."""
    if hub["filename"]:
        return True
    return path.suffix not in _CHECKPOINT_SUFFIXES and path.parts[0][0] != "." and not path.is_dir()


def _packaged_demo() -> Path:
    path = Path(__file__).with_name("demo.safetensors")
    if not path.is_file():
        raise CheckpointFileError(f"{path}: the demo model is missing from this installation; reinstall it")
    return path


def fetch_checkpoint(
    name: str,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    base_url: str | None = None,
    timeout_seconds: float = 30.0,
    retries: int = 3,
) -> Path:
    """The local file of the published checkpoint `name`; see `download_checkpoint`.

    Raises `ValueError` if `name` is not in `REMOTE_CHECKPOINTS`.
    """
    if name not in REMOTE_CHECKPOINTS:
        raise ValueError(f"name={name!r}: must be one of {', '.join(REMOTE_CHECKPOINTS)}")
    return download_checkpoint(
        REMOTE_CHECKPOINTS[name],
        cache=cache,
        progress=progress,
        base_url=base_url,
        timeout_seconds=timeout_seconds,
        retries=retries,
    )


def download_checkpoint(
    remote: RemoteCheckpoint,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    base_url: str | None = None,
    timeout_seconds: float = 30.0,
    retries: int = 3,
    backoff_seconds: float = 1.0,
) -> Path:
    """The file of `remote` in the folder `cache` (default `cache_folder()`), downloaded if absent.

    A file already there, downloaded or put by hand, is compared with the known size and hash on
    every call and never overwritten or deleted. A read-only folder that holds the file is enough.

    base_url: a mirror, the folder that holds `remote.file_name`. Everything is https; only a mirror
    on a loopback address may be http. timeout_seconds: for connecting, for each wait for bytes, and
    for a transfer slower than `MIN_BYTES_PER_SECOND`. retries: failures in a row forgiven, each
    after twice the wait of the one before; a download that gains a megabyte starts counting anew.

    After a cut the received bytes stay and the next try, or the next call, continues from them.
    After a wrong hash or on a full disk they are removed.

    Raises `CheckpointDownloadError`, or `CheckpointFileError` if the file already there is wrong,
    or `ValueError` for an argument or a URL that breaks these rules.
    """
    if timeout_seconds <= 0:
        raise ValueError(f"timeout_seconds={timeout_seconds}: must be positive")
    if retries < 0:
        raise ValueError(f"retries={retries}: must not be negative")
    if base_url is not None:
        remote = replace(remote, url=f"{base_url.rstrip('/')}/{remote.file_name}")
    _require_safe_url(remote.url, allow_loopback_http=base_url is not None)

    folder = Path(cache).expanduser().absolute() if cache is not None else cache_folder()
    target = folder / remote.file_name
    if target.is_file():  # appears only whole, by rename, so no lock is needed to see it
        _verify_existing(target, remote)
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointDownloadError(
            f"cannot make the cache folder {folder} ({error}); set SAM2_CACHE to a folder that can be written"
        ) from error
    with _only_one_process(target):
        if target.is_file():  # another process brought it while this one waited
            _verify_existing(target, remote)
            return target
        _Download(
            remote=remote,
            target=target,
            progress=progress,
            timeout_seconds=timeout_seconds,
            retries=retries,
            backoff_seconds=backoff_seconds,
            opener=_https_opener(remote.url),
        ).run()
    return target


def fetch_from_hub(
    hub_id: str,
    *,
    filename: str | None = None,
    revision: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    token: str | bool | None = False,
) -> Path:
    """The local copy of a file in the Hugging Face hub repository `hub_id` (`org/name`).

    filename: may be left out only for the repositories of `REMOTE_CHECKPOINTS`, whose official
    `.pt` is then meant and compared with the published hash. revision: branch, tag or commit.
    cache: the copy goes to `cache/hub`; by default to huggingface_hub's own cache, shared with other
    programs. endpoint: another hub server. token: as in huggingface_hub; False sends none.

    Raises `CheckpointDownloadError` if huggingface_hub (an optional extra) is not installed or the
    file cannot be had, `CheckpointFileError` if an official file has another hash.
    """
    remote = next((known for known in REMOTE_CHECKPOINTS.values() if known.hub_id == hub_id), None)
    if filename is None:
        if remote is None:
            raise ValueError(f"hub_id={hub_id!r}: name the file too, as {hub_id}:FILE or with filename=")
        filename = remote.file_name
    if Path(filename).is_absolute() or ".." in Path(filename).parts:
        raise ValueError(f"filename={filename!r}: must be a path inside the repository")
    try:
        import huggingface_hub
        from huggingface_hub import errors as hub_errors
    except ImportError as error:
        raise CheckpointDownloadError(
            f"{hub_id} is a hub id, which needs huggingface_hub: pip install sam2-label-studio[hub]"
        ) from error
    # Its HTTP library differs between major versions; the base of its errors is in this module.
    transport_error = getattr(hub_errors, "HTTPError", OSError)
    try:
        with _without_progress_bars():
            local = huggingface_hub.hf_hub_download(
                hub_id,
                filename,
                revision=revision,
                cache_dir=Path(cache).expanduser().absolute() / "hub" if cache is not None else None,
                endpoint=endpoint,
                token=token,
            )
    except (OSError, ValueError, transport_error) as error:
        by_hand = "give the path of a copy put on this machine by hand instead"
        if remote is not None:
            by_hand = f"use the name {remote.name!r} or {by_hand}"
        reason = " ".join(str(error).split())  # some of its messages run over several lines
        raise CheckpointDownloadError(
            f"could not get {filename} of {hub_id} from the hub: {reason}; {by_hand}"
        ) from error
    path = Path(local)
    if remote is not None and filename == remote.file_name:
        _verify_existing(path, remote)
    return path


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """huggingface_hub draws a bar on stderr by default, which is for a command line to decide."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _verify_existing(path: Path, remote: RemoteCheckpoint) -> None:
    """Compares a whole file with what is known of it; the size first, since it costs nothing."""
    try:
        size_bytes = path.stat().st_size
        if remote.size_bytes is not None and size_bytes != remote.size_bytes:
            found, expected = f"{size_bytes} bytes", f"{remote.size_bytes} bytes"
        elif remote.sha256 is not None and (digest := _sha256(path)) != remote.sha256:
            found, expected = f"sha256 {digest}", f"sha256 {remote.sha256}"
        else:
            return
    except OSError as error:
        raise CheckpointFileError(f"{path}: cannot be read: {error}") from error
    raise CheckpointFileError(
        f"{path} is not the published {remote.name}: expected {expected}, found {found}; "
        f"delete it to have it downloaded, or replace it with {remote.url}"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --------------------------------------------------------------------------------------------------
# The download
# --------------------------------------------------------------------------------------------------


class _InterruptedTransfer(Exception):
    """The network or the server failed in a way that another try may cure."""


class _StaleResume(Exception):
    """The server cannot continue the partial file; start from zero."""


class _DiskError(Exception):
    """Wraps an OSError of the disk, to tell it from one of the network."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextlib.contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _DiskError(error) from error


@contextlib.contextmanager
def _only_one_process(target: Path) -> Iterator[None]:
    """Holds the download lock of `target`, waiting for as long as another process has it.

    The lock is the operating system's, on an open file: it goes when its holder dies, even by
    SIGKILL, so a lock file left in the folder means nothing and is never a reason to wait.
    """
    lock = FileLock(target.with_name(target.name + ".lock"))
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("%s is being downloaded by another process; waiting for it", target)
            lock.acquire()
    except OSError as error:
        raise CheckpointDownloadError(
            f"cannot write in the cache folder {target.parent} ({error}); "
            "set SAM2_CACHE to a folder that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _ResumePoint:
    offset: int
    """Bytes already on disk, > 0."""
    total_bytes: int | None
    validator: str | None
    """A strong ETag or a Last-Modified date, for If-Range (RFC 9110, 13.1.5)."""


@dataclass(frozen=True)
class _PartialFile:
    """The bytes received so far, and the note of what they belong to."""

    path: Path

    @property
    def note_path(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def size_bytes(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def resume_point(self, url: str) -> _ResumePoint | None:
        """Where to continue a download from `url`; None where nothing trustworthy is on disk."""
        size_bytes = self.size_bytes()
        try:
            note = json.loads(self.note_path.read_text("utf-8"))
        except (FileNotFoundError, ValueError):  # the writer was killed in between
            return None
        if size_bytes == 0 or not isinstance(note, dict) or note.get("url") != url:
            return None
        total_bytes, validator = note.get("total_bytes"), note.get("validator")
        return _ResumePoint(
            offset=size_bytes,
            total_bytes=total_bytes if isinstance(total_bytes, int) else None,
            validator=validator if isinstance(validator, str) else None,
        )

    def write_note(self, *, url: str, total_bytes: int | None, validator: str | None) -> None:
        note = {"url": url, "total_bytes": total_bytes, "validator": validator}
        self.note_path.write_text(json.dumps(note), "utf-8")

    def discard(self) -> None:
        # The bytes first: a note without bytes is harmless, bytes with a wrong note are not.
        self.path.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Body:
    """What a response is about to send, already checked."""

    start: int
    """Offset in the file of its first byte."""
    stop: int | None
    """Offset after its last byte; None where the server does not say."""
    total_bytes: int | None
    validator: str | None


@dataclass
class _Download:
    """One download, run once."""

    remote: RemoteCheckpoint
    target: Path
    progress: Progress | None
    timeout_seconds: float
    retries: int
    backoff_seconds: float
    opener: urllib.request.OpenerDirector
    expected_bytes: int | None = None
    """Size of the whole file, once the server or the registry has said it."""

    @property
    def partial(self) -> _PartialFile:
        return _PartialFile(self.target.with_name(self.target.name + ".part"))

    def run(self) -> None:
        """Leaves the verified file at `target`, or raises CheckpointDownloadError."""
        logger.info("downloading %s from %s to %s", self.remote.name, self.remote.url, self.target)
        try:
            resumed = self._receive()
            digest = self._digest()
            if not self._is_right(digest) and resumed:
                # Bytes of two files may have been joined; whole from one answer, they may be right.
                logger.warning("%s was continued and has a wrong hash; downloading it anew", self.target)
                self.partial.discard()
                self._receive()
                digest = self._digest()
            if not self._is_right(digest):
                self.partial.discard()
                raise CheckpointDownloadError(
                    f"{self.remote.url} is not the published {self.remote.name}: expected sha256 "
                    f"{self.remote.sha256}, received {digest}; the received file was removed"
                )
            self._install()
        except _DiskError as error:
            raise self._explain_disk(error.cause) from error.cause

    def _digest(self) -> str | None:
        if self.remote.sha256 is None:
            return None
        with _on_disk():
            return _sha256(self.partial.path)

    def _is_right(self, digest: str | None) -> bool:
        return digest == self.remote.sha256

    def _install(self) -> None:
        with _on_disk():
            os.replace(self.partial.path, self.target)
            self.partial.discard()
            _sync_folder(self.target.parent)

    def _receive(self) -> bool:
        """Fills the partial file, trying again as allowed; returns whether it was ever continued."""
        failures, resumed = 0, False
        furthest = self.partial.size_bytes()
        while True:
            try:
                return self._try_once() or resumed
            except _InterruptedTransfer as error:
                resumed = True
                # Against the furthest ever reached: a server that always cuts and never continues
                # must not count as progress.
                size_bytes = self.partial.size_bytes()
                if size_bytes >= furthest + _GAIN_THAT_RESETS_RETRIES_BYTES:
                    failures, furthest = 0, size_bytes
                if failures >= self.retries:
                    raise CheckpointDownloadError(
                        self._explain_network(str(error), failures + 1)
                    ) from error.__cause__
                wait_seconds = min(self.backoff_seconds * 2**failures, _MAX_BACKOFF_SECONDS)
                failures += 1
                logger.warning(
                    "%s: %s; try %d of %d in %.1f s",
                    self.remote.url, error, failures, self.retries, wait_seconds,
                )  # fmt: skip
                time.sleep(wait_seconds)

    def _try_once(self) -> bool:
        """Brings the rest, or all where that cannot be; returns whether it continued."""
        with _on_disk():
            resume = self.partial.resume_point(self.remote.url)
        if resume is not None and resume.offset == resume.total_bytes:
            return True  # killed between the last byte and the rename
        if resume is not None and (resume.validator or self.remote.sha256):
            try:
                self._request(resume)
                return True
            except _StaleResume as reason:
                logger.info("%s: %s; starting from zero", self.remote.url, reason)
        self._request(None)
        return False

    def _request(self, resume: _ResumePoint | None) -> None:
        request = urllib.request.Request(self.remote.url, headers=_request_headers(resume))
        with self._open(request, resume) as response:
            body = self._accept(response, resume)
            self.expected_bytes = body.total_bytes
            with _on_disk():
                if body.start == 0:
                    self.partial.discard()
                _require_free_space(self.target.parent, body)
                self.partial.write_note(
                    url=self.remote.url, total_bytes=body.total_bytes, validator=body.validator
                )
                file = self.partial.path.open("ab", buffering=0)
            with file:
                self._copy(response, file, body)
                with _on_disk():
                    os.fsync(file.fileno())

    def _open(
        self, request: urllib.request.Request, resume: _ResumePoint | None
    ) -> http.client.HTTPResponse:
        try:
            return self.opener.open(request, timeout=self.timeout_seconds)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and resume is not None:
                raise _StaleResume("the server has no bytes after those received") from error
            reason = f"the server answered {error.code} {error.msg}".strip()
            if error.code in _RETRIED_STATUSES:
                raise _InterruptedTransfer(reason) from error
            raise CheckpointDownloadError(self._explain_network(reason, 1)) from error
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            cause = getattr(error, "reason", error)
            if isinstance(cause, ssl.SSLCertVerificationError):
                reason = f"the server's certificate was not accepted: {cause.verify_message}"
                raise CheckpointDownloadError(self._explain_network(reason, 1)) from error
            raise _InterruptedTransfer(_describe(cause)) from error

    def _accept(self, response: http.client.HTTPResponse, resume: _ResumePoint | None) -> _Body:
        """Checks a response's head before a byte of its body is kept."""
        headers = response.headers
        encoding = headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            self._refuse(f"the server sent Content-Encoding {encoding}, which was not asked for")
        length = _content_length(headers)
        if response.status == 206 and resume is not None:
            start, total_bytes = _continued_from(headers, resume)
        elif response.status == 200:
            # Also the answer to a Range that is ignored, or whose If-Range no longer holds.
            start, total_bytes = 0, length
        else:
            self._refuse(f"the server answered {response.status} {response.reason}")
        known_bytes = self.remote.size_bytes
        if None not in (total_bytes, known_bytes) and total_bytes != known_bytes:
            self._refuse(f"the server's file has {total_bytes} bytes, the published one {known_bytes}")
        total_bytes = known_bytes if total_bytes is None else total_bytes
        if total_bytes is not None and total_bytes > MAX_DOWNLOAD_BYTES:
            self._refuse(f"the file has {total_bytes} bytes, more than the limit of {MAX_DOWNLOAD_BYTES}")
        stop = start + length if length is not None else total_bytes
        return _Body(start, stop, total_bytes, _validator(headers))

    def _copy(self, response: http.client.HTTPResponse, file, body: _Body) -> None:
        """Appends the body to `file` and reports it, refusing a byte too many or too few."""
        position = body.start
        window_seconds, window_position = time.monotonic(), position
        self._report(position, body.total_bytes)
        while body.stop is None or position < body.stop:
            wanted = _READ_BYTES if body.stop is None else min(_READ_BYTES, body.stop - position)
            try:
                # read1 returns what has arrived; read would sit in a trickle until all `wanted` have.
                chunk = response.read1(wanted)
            except (OSError, http.client.HTTPException) as error:
                raise _InterruptedTransfer(f"cut after {position} bytes: {_describe(error)}") from error
            if not chunk:
                break
            position += len(chunk)
            if position > MAX_DOWNLOAD_BYTES:
                self.partial.discard()
                self._refuse(f"the server sent more than the limit of {MAX_DOWNLOAD_BYTES} bytes")
            _write_all(file, chunk)
            self._report(position, body.total_bytes)
            elapsed_seconds = time.monotonic() - window_seconds
            if elapsed_seconds >= self.timeout_seconds:
                if position - window_position < MIN_BYTES_PER_SECOND * elapsed_seconds:
                    raise _InterruptedTransfer(
                        f"slower than {MIN_BYTES_PER_SECOND} bytes/s for {elapsed_seconds:.1f} s"
                    )
                window_seconds, window_position = time.monotonic(), position
        expected = body.total_bytes if body.total_bytes is not None else body.stop
        if expected is not None and position != expected:
            raise _InterruptedTransfer(f"cut after {position} of {expected} bytes")

    def _report(self, done_bytes: int, total_bytes: int | None) -> None:
        if self.progress is not None:
            self.progress(done_bytes, total_bytes)

    def _refuse(self, reason: str) -> None:
        raise CheckpointDownloadError(self._explain_network(reason, 1))

    def _explain_network(self, reason: str, tries: int) -> str:
        kept = self.partial.size_bytes()
        message = (
            f"could not download {self.remote.name} from {self.remote.url}"
            + (f" in {tries} tries" if tries > 1 else "")
            + f": {reason}. Without a network, bring {self.remote.url} by other means and save it "
            f"as {self.target}"
        )
        if kept:
            message += f". The {kept} bytes received are kept in {self.partial.path} for the next try"
        return message

    def _explain_disk(self, error: OSError) -> CheckpointDownloadError:
        """The error to raise; on a full disk the partial file goes, so as not to leave it full."""
        folder = self.target.parent
        if error.errno not in _DISK_FULL_ERRNOS:
            return CheckpointDownloadError(f"cannot write {self.remote.name} in {folder}: {error}")
        needed = self.expected_bytes or f"more than {self.partial.size_bytes()}"
        self.partial.discard()
        free_bytes = shutil.disk_usage(folder).free
        return CheckpointDownloadError(
            f"no room for {self.remote.name} in {folder} ({error.strerror}): needs {needed} bytes, "
            f"{free_bytes} are free. The partial file was removed. Free some space, or set "
            "SAM2_CACHE to a folder on another disk"
        )


def _require_free_space(folder: Path, body: _Body) -> None:
    """Fails before the first byte rather than after the last that fits."""
    if body.total_bytes is not None and shutil.disk_usage(folder).free < body.total_bytes - body.start:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write_all(file, chunk: bytes) -> None:
    """Writes to an unbuffered file: a buffered one would fail a second time on a full disk, at close."""
    rest = memoryview(chunk)
    while rest:
        with _on_disk():
            rest = rest[file.write(rest) :]


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut, where the system can open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _describe(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error) or type(error).__name__


# --------------------------------------------------------------------------------------------------
# HTTP
# --------------------------------------------------------------------------------------------------


_SENT_HEADERS = frozenset({"user-agent", "accept-encoding", "range", "if-range"})


def _request_headers(resume: _ResumePoint | None) -> dict[str, str]:
    """All this module ever sends (`_SENT_HEADERS`): no cookie, no credential."""
    headers = {"User-Agent": "sam2-label-studio", "Accept-Encoding": "identity"}
    if resume is not None:
        headers["Range"] = f"bytes={resume.offset}-"
        if resume.validator is not None:
            headers["If-Range"] = resume.validator
    return headers


def _validator(headers: email.message.Message) -> str | None:
    etag = headers.get("ETag")
    if etag and not etag.startswith("W/"):  # a weak one does not promise equal bytes
        return etag
    return headers.get("Last-Modified")


def _content_length(headers: email.message.Message) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else None


def _continued_from(headers: email.message.Message, resume: _ResumePoint) -> tuple[int, int | None]:
    """(offset, whole size) of a 206 answer; raises `_StaleResume` unless it continues the same file."""
    text = headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", text, re.ASCII)
    if match is None or int(match[1]) != resume.offset:
        raise _StaleResume(f"Content-Range {text!r} is not from byte {resume.offset}")
    total_bytes = None if match[2] == "*" else int(match[2])
    if None not in (total_bytes, resume.total_bytes) and total_bytes != resume.total_bytes:
        raise _StaleResume(f"the file has {total_bytes} bytes now, {resume.total_bytes} before")
    validator = _validator(headers)
    if None not in (validator, resume.validator) and validator != resume.validator:
        raise _StaleResume("the file changed on the server")
    return resume.offset, resume.total_bytes if total_bytes is None else total_bytes


def _require_safe_url(url: str, *, allow_loopback_http: bool) -> None:
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise ValueError(f"url={url!r}: must have a host, and no user name or password")
    if parts.scheme == "https":
        return
    if not (allow_loopback_http and parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError(f"url={url!r}: must be https")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to any https host; to http only on loopback, and only from there."""

    max_redirections = 5

    def __init__(self, *, allow_loopback_http: bool) -> None:
        self._allow_loopback_http = allow_loopback_http

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        try:
            _require_safe_url(newurl, allow_loopback_http=self._allow_loopback_http)
        except ValueError as error:
            reason = f"redirect refused, {error}"
            raise urllib.error.HTTPError(req.full_url, code, reason, headers, fp) from error
        # Only what this module set: urllib may have added the credentials of a proxy.
        kept = {name: value for name, value in req.headers.items() if name.lower() in _SENT_HEADERS}
        return urllib.request.Request(newurl, headers=kept, unverifiable=True)


def _https_opener(url: str) -> urllib.request.OpenerDirector:
    """An opener that knows http(s) only: urllib's own would also follow into ftp, and open file."""
    is_loopback_http = urllib.parse.urlsplit(url).scheme == "http"
    opener = urllib.request.OpenerDirector()
    handlers: list[urllib.request.BaseHandler] = [
        # The system's proxies, but never for a mirror on this machine.
        urllib.request.ProxyHandler({} if is_loopback_http else None),
        _SafeRedirects(allow_loopback_http=is_loopback_http),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ]
    if is_loopback_http:
        handlers.append(urllib.request.HTTPHandler())
    for handler in handlers:
        opener.add_handler(handler)
    return opener


# --------------------------------------------------------------------------------------------------
# From a file to weights in a module
# --------------------------------------------------------------------------------------------------

_ZIP_MAGIC = b"PK\x03\x04"
# A pickle of protocol 2 holding torch's magic number: `torch.save` before 1.6.
_LEGACY_TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
# What torch.load lets through for damaged archives and pickles, besides its own RuntimeError.
_DAMAGED = (
    RuntimeError, OSError, EOFError, pickle.UnpicklingError, struct.error,
    ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError,
)  # fmt: skip


def load_state_dict_file(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint file on the CPU, by key, in the order and dtypes of the file.

    Reads what `torch.save` writes, either `{"model": state_dict}` as published or a bare state
    dict, without ever running code from it (`weights_only`), and safetensors. The content decides,
    not the suffix. The tensors may be mapped from the file: copy them before changing it.

    Raises `CheckpointFileError`, naming the file, if it is missing, damaged or something else.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if head.startswith((_ZIP_MAGIC, _LEGACY_TORCH_MAGIC)):
        return _named_tensors(_load_torch(path, is_zip=head.startswith(_ZIP_MAGIC)), path)
    what = _what_else(head)
    if head[8:9] == b"{" or (path.suffix == ".safetensors" and what is None):
        return _named_tensors(_load_safetensors(path), path)
    what = what or "neither a PyTorch nor a safetensors file"
    raise CheckpointFileError(f"{path} is not a checkpoint: {what}")


def _what_else(head: bytes) -> str | None:
    if not head:
        return "the file is empty"
    if head.lstrip()[:1] == b"<":
        return "it holds a web page or XML, often the error page of a failed download"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; run `git lfs pull` to get the file itself"
    return None


def _load_torch(path: Path, *, is_zip: bool) -> object:
    import torch

    try:
        # Only the zip format can be mapped; mapping keeps a second copy of the weights out of memory.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({forbidden[1]})" if forbidden else ""
        raise CheckpointFileError(
            f"{path} is refused: it holds more than tensors{what}, and reading that could run any "
            "code. Save only its state dict, or convert it to safetensors"
        ) from error
    except _DAMAGED as error:
        raise CheckpointFileError(
            f"{path} is damaged or not a PyTorch checkpoint: {str(error).partition(chr(10))[0]}"
        ) from error


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except (SafetensorError, *_DAMAGED) as error:
        raise CheckpointFileError(f"{path} is damaged or not a safetensors file: {error}") from error


def _named_tensors(loaded: object, path: Path) -> dict[str, torch.Tensor]:
    import torch

    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        loaded = loaded["model"]
    if not isinstance(loaded, Mapping) or not loaded:
        kind = "an empty dict" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise CheckpointFileError(
            f'{path} is not a checkpoint: it holds {kind}; expected {{"model": state dict}} or a state dict'
        )
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointFileError(
                f"{path} is not a checkpoint: under {key!r} it holds a value of type "
                f"{type(value).__name__}, expected tensors under string keys"
            )
    return {key: value.detach() for key, value in loaded.items()}


def load_into(module: torch.nn.Module, path: str | os.PathLike[str], *, model_name: str) -> None:
    """Copies a checkpoint file's weights into `module`, which keeps its device and dtypes.

    Strict: the keys and shapes must be exactly those of `module`. Half-precision tensors are cast.

    Raises `CheckpointMismatchError` naming the file, `model_name` and the first key of each kind of
    difference, or what `load_state_dict_file` raises; `module` is then as it was.
    """
    path = Path(path)
    expected = module.state_dict()
    if any(tensor.is_meta for tensor in expected.values()):
        raise ValueError("module: has tensors on the meta device, which hold no weights; use to_empty first")
    found = load_state_dict_file(path)
    missing = tuple(key for key in expected if key not in found)
    unexpected = tuple(key for key in found if key not in expected)
    misshaped = tuple(
        (key, tuple(found[key].shape), tuple(expected[key].shape))
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    )
    if missing or unexpected or misshaped:
        raise CheckpointMismatchError(
            path, model_name, missing=missing, unexpected=unexpected, misshaped=misshaped
        )
    for key, tensor in expected.items():
        # Casting between precisions is meant; from integers it would pass quantised codes as weights.
        if found[key].is_floating_point() != tensor.is_floating_point():
            raise CheckpointFileError(
                f"{path} is not a checkpoint of model {model_name!r}: {key!r} is {found[key].dtype} "
                f"in the file, {tensor.dtype} in the model"
            )
    module.load_state_dict(found, strict=True)
    logger.info("loaded %s into model %s", path, model_name)
