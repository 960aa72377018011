"""Opens media: other people's files, so decoded in a process of their own, within limits."""

from __future__ import annotations

import contextlib
import contextvars
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Sequence

from backend.deadlines import Deadline
from backend.settings import Settings
from sam2_model.video import DecodingLimits, FrameSource, IsolatedSource

_LEAST_SECONDS = 0.5


@dataclass(frozen=True)
class _Patience:
    """How long the current thread waits for a file to be opened."""

    deadline: Deadline | None = None
    is_given_up: Callable[[], bool] = lambda: False


_patience: contextvars.ContextVar[_Patience] = contextvars.ContextVar(
    "sam2_opening_patience", default=_Patience()
)


@contextlib.contextmanager
def opening_until(
    deadline: Deadline | None, is_given_up: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Inside the `with`, this thread opens media no longer than somebody waits for it.

    Args:
        deadline: None: as long as the settings allow.
        is_given_up: asked now and then; True ends it with `OpeningGivenUp`.
    """
    token = _patience.set(_Patience(deadline, is_given_up))
    try:
        yield
    finally:
        _patience.reset(token)


def begin_opening_until(deadline: Deadline | None) -> None:
    """The same from now on, where there is no `with` to put around it."""
    _patience.set(_Patience(deadline))


def open_media(
    files: Path | Sequence[Path], settings: Settings, *, decoder_threads: int | None = None
) -> FrameSource:
    """The frames of a video file, or of a list of images.

    Raises VideoDecodeError for what gives no pictures or is over a limit, and
    FileNotFoundError; OpeningGivenUp as `opening_until` says.
    """
    patience, open_seconds = _patience.get(), settings.decoder_open_seconds
    if patience.deadline is not None:
        waited_for = max(_LEAST_SECONDS, patience.deadline.remaining_seconds)
        open_seconds = min(open_seconds, waited_for)
    limits = DecodingLimits(
        memory_bytes=settings.decoder_memory_bytes,
        open_seconds=open_seconds,
        frame_seconds=settings.decoder_frame_seconds,
        max_pixels=settings.max_pixels,
        max_frames=settings.max_frames,
    )
    return IsolatedSource(
        files, limits=limits, decoder_threads=decoder_threads, is_given_up=patience.is_given_up
    )
