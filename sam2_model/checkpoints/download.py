"""A remote checkpoint to a verified file: tried again after a failure, continued after a cut."""

from __future__ import annotations

import errno
import http.client
import logging
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sam2_model.checkpoints.cache import cache_folder
from sam2_model.checkpoints.errors import CheckpointDownloadError
from sam2_model.checkpoints.https import (
    ResumePoint,
    StaleResume,
    content_length,
    continued_from,
    https_opener,
    request_headers,
    require_safe_url,
    validator_of,
)
from sam2_model.checkpoints.partial_file import (
    DiskError,
    PartialFile,
    on_disk,
    only_one_process,
    sync_folder,
    write_all,
)
from sam2_model.checkpoints.published import RemoteCheckpoint, file_sha256, verify_existing

logger = logging.getLogger(__name__)

MAX_DOWNLOAD_BYTES = 4 * 1024**3
"""A download larger than this is refused; the largest published checkpoint has 0.9 GiB."""

MIN_BYTES_PER_SECOND = 1024
"""A transfer slower than this over a whole timeout counts as hanging."""

_READ_BYTES = 1024 * 1024
_GAIN_THAT_RESETS_RETRIES_BYTES = 1024 * 1024
_MAX_BACKOFF_SECONDS = 30.0
_RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Progress = Callable[[int, "int | None"], None]
"""Called with (bytes on disk, bytes in the whole file or None while unknown). What it raises stops
the download and reaches the caller; the next call continues from the bytes already on disk."""


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
    require_safe_url(remote.url, allow_loopback_http=base_url is not None)

    folder = Path(cache).expanduser().absolute() if cache is not None else cache_folder()
    target = folder / remote.file_name
    if target.is_file():  # appears only whole, by rename, so no lock is needed to see it
        verify_existing(target, remote)
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointDownloadError(
            f"cannot make the cache folder {folder} ({error}); set SAM2_CACHE to a folder that can be written"
        ) from error
    with only_one_process(target):
        if target.is_file():  # another process brought it while this one waited
            verify_existing(target, remote)
            return target
        _Download(
            remote=remote,
            target=target,
            progress=progress,
            timeout_seconds=timeout_seconds,
            retries=retries,
            backoff_seconds=backoff_seconds,
            opener=https_opener(remote.url),
        ).run()
    return target


class _InterruptedTransfer(Exception):
    """The network or the server failed in a way that another try may cure."""


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
    def partial(self) -> PartialFile:
        return PartialFile(self.target.with_name(self.target.name + ".part"))

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
        except DiskError as error:
            raise self._explain_disk(error.cause) from error.cause

    def _digest(self) -> str | None:
        if self.remote.sha256 is None:
            return None
        with on_disk():
            return file_sha256(self.partial.path)

    def _is_right(self, digest: str | None) -> bool:
        return digest == self.remote.sha256

    def _install(self) -> None:
        with on_disk():
            os.replace(self.partial.path, self.target)
            self.partial.discard()
            sync_folder(self.target.parent)

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
        with on_disk():
            resume = self.partial.resume_point(self.remote.url)
        if resume is not None and resume.offset == resume.total_bytes:
            return True  # killed between the last byte and the rename
        if resume is not None and (resume.validator or self.remote.sha256):
            try:
                self._request(resume)
                return True
            except StaleResume as reason:
                logger.info("%s: %s; starting from zero", self.remote.url, reason)
        self._request(None)
        return False

    def _request(self, resume: ResumePoint | None) -> None:
        request = urllib.request.Request(self.remote.url, headers=request_headers(resume))
        with self._open(request, resume) as response:
            body = self._accept(response, resume)
            self.expected_bytes = body.total_bytes
            with on_disk():
                if body.start == 0:
                    self.partial.discard()
                _require_free_space(self.target.parent, body)
                self.partial.write_note(
                    url=self.remote.url, total_bytes=body.total_bytes, validator=body.validator
                )
                file = self.partial.path.open("ab", buffering=0)
            with file:
                self._copy(response, file, body)
                with on_disk():
                    os.fsync(file.fileno())

    def _open(
        self, request: urllib.request.Request, resume: ResumePoint | None
    ) -> http.client.HTTPResponse:
        try:
            return self.opener.open(request, timeout=self.timeout_seconds)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and resume is not None:
                raise StaleResume("the server has no bytes after those received") from error
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

    def _accept(self, response: http.client.HTTPResponse, resume: ResumePoint | None) -> _Body:
        """Checks a response's head before a byte of its body is kept."""
        headers = response.headers
        encoding = headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            self._refuse(f"the server sent Content-Encoding {encoding}, which was not asked for")
        length = content_length(headers)
        if response.status == 206 and resume is not None:
            start, total_bytes = continued_from(headers, resume)
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
        return _Body(start, stop, total_bytes, validator_of(headers))

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
            write_all(file, chunk)
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


def _describe(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error) or type(error).__name__
