"""A storage that may be away: those who ask are told within seconds, and wait together.

Clients of buckets try again for a minute or more, and a share that hangs answers never. So
before one that has not been heard of for a while is used, a small question finds out whether
it answers at all. What is moved then may take as long as it takes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import Iterator

from backend.errors import StorageUnavailable
from backend.jobs.blobs import Blobs

logger = logging.getLogger(__name__)

_PROBE = "results/is-there"
"""A name that nobody saves under."""
_ANSWER_SECONDS = 5.0
_TRUSTED_SECONDS = 10.0
"""How long an answer, or that there was none, counts for the next questions."""


class GuardedBlobs:
    """As `Blobs`; what goes wrong is StorageUnavailable."""

    def __init__(
        self,
        blobs: Blobs,
        *,
        answer_seconds: float = _ANSWER_SECONDS,
        trusted_seconds: float = _TRUSTED_SECONDS,
    ) -> None:
        self._blobs = blobs
        self._answer_seconds, self._trusted_seconds = answer_seconds, trusted_seconds
        self._lock = threading.Lock()
        self._probe: _Probe | None = None
        """The last one."""

    def check(self) -> None:
        """Raises StorageUnavailable when it does not answer."""
        with self._lock:
            probe = self._probe
            if probe is None or probe.age_seconds > self._trusted_seconds:
                probe = self._probe = _Probe(self._blobs)
        error = probe.outcome(self._answer_seconds)
        if error is not None:
            raise _unavailable(error) from error

    def save(self, name: str, body: bytes) -> None:
        with self._asked():
            self._blobs.save(name, body)

    def load(self, name: str) -> bytes | None:
        with self._asked():
            return self._blobs.load(name)

    def delete(self, name: str) -> None:
        with self._asked():
            self._blobs.delete(name)

    def delete_old(self, prefix: str, age_seconds: float) -> None:
        with self._asked():
            self._blobs.delete_old(prefix, age_seconds)

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        self.check()
        try:
            yield
        except Exception as error:  # each kind of storage has its own
            logger.warning("the storage fails", exc_info=True)
            with self._lock:
                if self._probe is not None and self._probe.has_ended:
                    self._probe = None  # the next one finds out whether it is away
            raise _unavailable(error) from error


class _Probe:
    """One small question, in a thread: it may never be answered."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._begun_at = time.monotonic()
        self._ended_at: float | None = None
        self._error: Exception | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._ask, name="storage-probe", daemon=True).start()

    def _ask(self) -> None:
        try:
            self._blobs.load(_PROBE)
        except Exception as error:  # each kind of storage has its own
            logger.warning("the storage is away", exc_info=True)
            self._error = error
        self._ended_at = time.monotonic()
        self._ended.set()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    @property
    def age_seconds(self) -> float:
        """Since its end; 0 while it waits: no second thread is to hang beside it."""
        return 0.0 if self._ended_at is None else time.monotonic() - self._ended_at

    def outcome(self, seconds: float) -> Exception | None:
        """What went wrong; all who ask wait for the one probe, `seconds` from its beginning."""
        left = self._begun_at + seconds - time.monotonic()
        if not self._ended.wait(max(left, 0.0)):
            return TimeoutError(f"no answer in {seconds:g} s")
        return self._error


def _unavailable(error: Exception) -> StorageUnavailable:
    told = str(error) if isinstance(error, TimeoutError) else type(error).__name__
    return StorageUnavailable(f"the storage (SAM2_STORAGE) is away: {told}")
