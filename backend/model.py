"""The one model of the process: loaded in a thread, shared frame by frame."""

from __future__ import annotations

import contextlib
import enum
import functools
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Hashable, Iterator, Protocol, Sequence

from backend.deadlines import Deadline
from backend.errors import DeviceFull, NotReady
from backend.scheduler import DeviceScheduler, Priority, in_turns
from backend.settings import Settings
from backend.states import StateCache
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


@dataclass(frozen=True)
class LoadedModel:
    """A predictor as the service uses it."""

    track: Tracker
    init_state: Callable[[Path | Sequence[Path]], Any]
    """A video file or the images of its frames -> an inference state, which `track`
    takes as its source; closing it closes them."""
    open_video: Callable[[Path | Sequence[Path]], Any]
    """The same -> a `sam2_model.interactive.InteractiveVideo`."""


class ModelState(enum.StrEnum):
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


def load_model(settings: Settings) -> LoadedModel:
    """The model that the settings ask for; takes seconds, or minutes with a download.

    Raises ValueError for an unknown model or device, and CheckpointError.
    """
    # Imported here: torch takes seconds, and /health answers meanwhile.
    import torch

    from sam2_model.build import DOWNLOAD, build_sam2_video_predictor
    from sam2_model.checkpoints import resolve_checkpoint
    from sam2_model.interactive import InteractiveVideo
    from sam2_model.session import StateLimits
    from sam2_model.tracker import StopRules, track

    checkpoint = settings.checkpoint
    predictor = build_sam2_video_predictor(
        settings.model,
        DOWNLOAD if checkpoint is None else resolve_checkpoint(checkpoint),
        device=settings.device,
        dtype=None if settings.dtype is None else getattr(torch, settings.dtype),
    )
    limits = StateLimits(
        feature_cache_bytes=settings.feature_cache_bytes // settings.kept_states
    )
    stop = StopRules(
        lost_frames=settings.stop_lost_frames, area_share=settings.stop_area_share
    )
    return LoadedModel(
        functools.partial(track, predictor=predictor, stop=stop),
        functools.partial(predictor.init_state, limits=limits),
        functools.partial(InteractiveVideo.open, predictor=predictor, limits=limits, stop=stop),
    )


def load_tracker(settings: Settings) -> Tracker:
    """`load_model`, for those who track one video and are done."""
    return load_model(settings).track


class ModelService:
    """Loads the model once and shares it: frame by frame, the most urgent first."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[Settings], LoadedModel] = load_model,
        *,
        scheduler: DeviceScheduler | None = None,
    ) -> None:
        """`scheduler`: that of another model on the same device."""
        self._settings = settings
        self._load = load
        self._finished = threading.Event()
        self._model: LoadedModel | None = None
        self._states = StateCache(
            max_idle=settings.kept_states, idle_seconds=settings.kept_state_seconds
        )
        self.scheduler = DeviceScheduler() if scheduler is None else scheduler
        self.failure: str | None = None
        """Why the model could not be loaded; None otherwise."""

    @property
    def state(self) -> ModelState:
        if not self._finished.is_set():
            return ModelState.LOADING
        return ModelState.READY if self._model is not None else ModelState.FAILED

    def start(self, when_ready: Callable[[], None] = lambda: None) -> None:
        """Begin to load, in a thread, which then calls `when_ready`."""
        threading.Thread(
            target=self._run, args=(when_ready,), name="model-loader", daemon=True
        ).start()

    def _run(self, when_ready: Callable[[], None]) -> None:
        try:
            self._model = self._load(self._settings)
            logger.info("model %s is ready", self._settings.model_version)
        except Exception as error:  # the boundary of the loading job: told by /health and /predict
            self.failure = f"{type(error).__name__}: {error}"
            logger.exception("model %s cannot be loaded", self._settings.model_version)
        finally:
            self._finished.set()
        if self._model is not None:
            when_ready()

    def wait(self, deadline: Deadline | None = None) -> LoadedModel:
        """The model. Raises NotReady when it could not be loaded, or not in time."""
        if not self._finished.wait(None if deadline is None else deadline.remaining_seconds):
            raise NotReady(
                f"model {self._settings.model_version} is still loading; try again later"
            )
        if self._model is None:
            raise NotReady(
                f"model {self._settings.model_version} could not be loaded "
                f"({self.failure}); mend that and start the service again"
            )
        return self._model

    @contextlib.contextmanager
    def tracker(
        self,
        files: Path | Sequence[Path],
        key: Hashable,
        priority: Callable[[], Priority],
    ) -> Iterator[tuple[FrameSource, Tracker]]:
        """A video's frames, and a tracker over them that takes turns on the device.

        Args:
            files: a video file, or the images of its frames.
            key: names their content: what is still known of these files is used again.
            priority: asked for each frame; may change meanwhile.

        Raises NotReady when the model could not be loaded, VideoDecodeError.
        """
        model = self.wait()
        # A kept state goes on reading the files it was made with.
        paths = (files,) if isinstance(files, Path) else tuple(files)
        with (
            self._making_room_for_others(),
            self._states.borrowed((key, paths), lambda: model.init_state(files)) as state,
        ):

            def track(source, prompts, frame_range=None, **options):
                frames = model.track(state, prompts, frame_range, **options)
                scheduler = self.scheduler
                return in_turns(
                    frames,
                    lambda: scheduler.turn(priority()),
                    lambda: scheduler.listener.frame_tracked(priority()),
                )

            yield state.source, track

    @contextlib.contextmanager
    def _making_room_for_others(self) -> Iterator[None]:
        """What is kept for later must not stand in the way of the next attempt."""
        try:
            yield
        except DeviceFull:
            self._states.close_idle()
            raise

    def close_old(self) -> None:
        """Let go of videos that nobody has asked about for long."""
        self._states.close_old()

    @property
    def open_count(self) -> int:
        """How many videos are kept open unused."""
        return len(self._states)

    def close(self) -> None:
        """Let go of all videos, those still in use when they are given back."""
        self._states.close()
