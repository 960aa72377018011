"""The one model of the process: loaded in a thread, lent to one request at a time."""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
from typing import Callable, Iterator, Protocol, Sequence

from backend.deadlines import Deadline
from backend.errors import NotReady
from backend.settings import Settings
from converters.types import FrameMasks, FrameRange, Prompt
from sam2_model.video import FrameSource

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """`sam2_model.tracker.track` with its predictor filled in."""

    def __call__(
        self,
        source: FrameSource,
        prompts: Sequence[Prompt],
        frame_range: FrameRange | None = None,
        *,
        is_cancelled: Callable[[], bool] = ...,
    ) -> Iterator[FrameMasks]: ...


class ModelState(enum.StrEnum):
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


def load_tracker(settings: Settings) -> Tracker:
    """The tracker that the settings ask for; takes seconds, or minutes with a download.

    Raises ValueError for an unknown model or device, and CheckpointError.
    """
    # Imported here: torch takes seconds, and /health answers meanwhile.
    import functools

    import torch

    from sam2_model.build import DOWNLOAD, build_sam2_video_predictor
    from sam2_model.checkpoints import resolve_checkpoint
    from sam2_model.tracker import track

    checkpoint = settings.checkpoint
    predictor = build_sam2_video_predictor(
        settings.model,
        DOWNLOAD if checkpoint is None else resolve_checkpoint(checkpoint),
        device=settings.device,
        dtype=None if settings.dtype is None else getattr(torch, settings.dtype),
    )
    return functools.partial(track, predictor=predictor)


class ModelService:
    """Loads the tracker once and lends it out.

    One request at a time: the lock stands where a scheduler will.
    """

    def __init__(
        self, settings: Settings, load: Callable[[Settings], Tracker] = load_tracker
    ) -> None:
        self._settings = settings
        self._load = load
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._tracker: Tracker | None = None
        self.failure: str | None = None
        """Why the model could not be loaded; None otherwise."""

    @property
    def state(self) -> ModelState:
        if not self._finished.is_set():
            return ModelState.LOADING
        return ModelState.READY if self._tracker is not None else ModelState.FAILED

    def start(self) -> None:
        """Begin to load, in a thread."""
        threading.Thread(target=self._run, name="model-loader", daemon=True).start()

    def _run(self) -> None:
        try:
            self._tracker = self._load(self._settings)
            logger.info("model %s is ready", self._settings.model_version)
        except Exception as error:  # the boundary of the loading job: told by /health and /predict
            self.failure = f"{type(error).__name__}: {error}"
            logger.exception("model %s cannot be loaded", self._settings.model_version)
        finally:
            self._finished.set()

    @contextlib.contextmanager
    def tracker(self, deadline: Deadline) -> Iterator[Tracker]:
        """The tracker, this caller's alone.

        Raises NotReady when it could not be loaded, or is not free in time.
        """
        if not self._finished.wait(deadline.remaining_seconds):
            raise NotReady(
                f"model {self._settings.model_version} is still loading; try again later"
            )
        if self._tracker is None:
            raise NotReady(
                f"model {self._settings.model_version} could not be loaded "
                f"({self.failure}); mend that and start the service again"
            )
        if not self._lock.acquire(timeout=deadline.remaining_seconds):
            raise NotReady("the model is busy with other requests; try again later")
        try:
            yield self._tracker
        finally:
            self._lock.release()
