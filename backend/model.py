"""The one model of the process: loaded in a thread, shared frame by frame."""

from __future__ import annotations

import contextlib
import enum
import functools
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Hashable, Iterator, Protocol, Sequence

from backend.deadlines import Deadline
from backend.decoding import open_media
from backend.errors import DeviceFull, NotReady
from backend.scheduler import DeviceScheduler, Priority, in_turns
from backend.settings import Settings
from backend.states import StateCache
from converters.types import FrameMasks, FrameRange, Prompt
from sam2_model.video import FrameSource

if TYPE_CHECKING:
    from sam2_model.bookmark import Bookmark
    from sam2_model.tracker import StopRules
    from sam2_model.video_predictor import SAM2VideoPredictor

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """`sam2_model.tracker.track` with its predictor filled in."""

    def __call__(
        self,
        source: FrameSource,
        prompts: Sequence[Prompt],
        frame_range: FrameRange | None = None,
        *,
        bookmark: Bookmark | None = ...,
        is_cancelled: Callable[[], bool] = ...,
    ) -> Iterator[FrameMasks]: ...


class StepTracker(Protocol):
    """`sam2_model.tracker.track_steps` with its predictor filled in."""

    def __call__(
        self,
        source: Any,
        prompts: Sequence[Prompt],
        frame_range: FrameRange | None = None,
        *,
        bookmark: Bookmark | None = ...,
        is_cancelled: Callable[[], bool] = ...,
    ) -> Iterator[FrameMasks | None]: ...


@dataclass(frozen=True)
class LoadedModel:
    """A predictor as the service uses it."""

    track: StepTracker
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
    from sam2_model.interactive import InteractiveVideo
    from sam2_model.session import InferenceState, StateLimits
    from sam2_model.tracker import track_steps

    predictor, stop = _load_predictor(settings), _stop_rules(settings)
    limits = StateLimits(
        feature_cache_bytes=settings.feature_cache_bytes // settings.kept_states
    )

    def init_state(files: Path | Sequence[Path]) -> InferenceState:
        return InferenceState(open_media(files, settings), predictor.model, limits=limits)

    def open_video(files: Path | Sequence[Path]) -> InteractiveVideo:
        source = open_media(files, settings)
        return InteractiveVideo.open(source, predictor=predictor, limits=limits, stop=stop)

    return LoadedModel(
        functools.partial(track_steps, predictor=predictor, stop=stop), init_state, open_video
    )


def load_tracker(settings: Settings) -> Tracker:
    """For those who track one video and are done. Raises as `load_model`."""
    from sam2_model.tracker import track

    return functools.partial(
        track, predictor=_load_predictor(settings), stop=_stop_rules(settings)
    )


def _load_predictor(settings: Settings) -> SAM2VideoPredictor:
    import torch

    from sam2_model.build import DOWNLOAD, build_sam2_video_predictor
    from sam2_model.checkpoints import resolve_checkpoint

    checkpoint = settings.checkpoint
    return build_sam2_video_predictor(
        settings.model,
        DOWNLOAD if checkpoint is None else resolve_checkpoint(checkpoint),
        device=settings.device,
        dtype=None if settings.dtype is None else getattr(torch, settings.dtype),
    )


def _stop_rules(settings: Settings) -> StopRules:
    from sam2_model.tracker import StopRules

    return StopRules(
        lost_frames=settings.stop_lost_frames, area_share=settings.stop_area_share
    )


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
                return self._frames(
                    model.track(state, prompts, frame_range, **options), priority
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

    def _frames(
        self, steps: Iterator[FrameMasks | None], priority: Callable[[], Priority]
    ) -> Iterator[FrameMasks]:
        """What steps show, each of them a turn on the device."""
        scheduler = self.scheduler
        with contextlib.closing(in_turns(steps, lambda: scheduler.turn(priority()))) as made:
            for step in made:
                if step is not None:
                    scheduler.listener.frame_tracked(priority())
                    yield step

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
