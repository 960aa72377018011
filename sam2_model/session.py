"""What a predictor knows of one video: prompts, memories, cached features.

Everything here is bounded. Frames are read when needed; features live in a
cache of so many bytes; of what was tracked, the frames that the model can
still look at stay, and older ones as far as the history's budget goes.
"""

from __future__ import annotations

import bisect
import itertools
import math
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Hashable, Iterable, Iterator

import torch

from sam2_model.frames import FrameReader, normalise
from sam2_model.meta_state import MetaState, View
from sam2_model.network import ImageFeatures, SAM2Network
from sam2_model.video import FrameSource, VideoInfo

ObjectId = Hashable


@dataclass(frozen=True, kw_only=True)
class StateLimits:
    """How much an inference state may hold."""

    feature_cache_bytes: int = 2**30
    """Encoder features of frames near prompts, for corrections without encoding again."""
    history_bytes: int = 128 * 2**20
    """Memories and mask logits of frames tracked earlier, over all objects.

    A correction on a frame inside the history sees exactly what Meta's
    predictor would; on an older one it sees the prompted frames' memories.
    What the next frame needs is kept whatever this says.
    """

    @classmethod
    def least(cls) -> StateLimits:
        """Only what the next frame needs: for a state that nobody corrects."""
        return cls(feature_cache_bytes=0, history_bytes=0)

    def __post_init__(self) -> None:
        for name in ("feature_cache_bytes", "history_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be >= 0")


@dataclass(frozen=True)
class PointPrompt:
    """Clicks and box corners on one frame, in pixels of the model's image."""

    points_xy: torch.Tensor
    """(1, P, 2) float32."""
    labels: torch.Tensor
    """(1, P) int32: 1 and 0 clicks, 2 and 3 box corners."""


_serials = itertools.count(secrets.randbits(62))
"""Begins anywhere: outputs that another process has made keep theirs (`kept_state`)."""


@dataclass
class FrameOutput:
    """One object on one frame, as later frames and corrections may need it."""

    mask_logits: torch.Tensor
    """(1, 1, S / 4, S / 4) float32."""
    object_pointer: torch.Tensor
    """(1, C)."""
    object_score_logits: torch.Tensor
    """(1, 1)."""
    memory: torch.Tensor | None = None
    """(1, H * W, memory_dim); None until the prompts on this frame are final."""
    looked_at: Hashable | None = None
    """Which outputs, by serial and role, a tracked frame was conditioned on, and how."""
    serial: int = field(default_factory=lambda: next(_serials))
    """Names this output in other outputs' `looked_at`; never given twice."""

    @property
    def byte_count(self) -> int:
        tensors = (self.mask_logits, self.object_pointer, self.memory)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


@dataclass
class ObjectState:
    """One object's prompts and outputs."""

    object_id: ObjectId
    points: dict[int, PointPrompt] = field(default_factory=dict)
    masks: dict[int, torch.Tensor] = field(default_factory=dict)
    """Mask prompts by frame, (1, 1, S, S) float32, 0 or 1."""
    conditioning: dict[int, FrameOutput] = field(default_factory=dict)
    """Outputs of prompted frames: every later frame may look at them."""
    history: OrderedDict[int, FrameOutput] = field(default_factory=OrderedDict)
    """Outputs of tracked frames, the longest untouched first."""
    pending_conditioning: dict[int, FrameOutput] = field(default_factory=dict)
    """Outputs of prompts since the last propagation, without memory yet."""
    pending_history: dict[int, FrameOutput] = field(default_factory=dict)
    """The same for corrections of tracked frames."""
    tracked_reverse: dict[int, bool] = field(default_factory=dict)
    """Frames tracked so far, and whether backward."""
    history_bytes: int = 0

    def pending(self, is_conditioning: bool) -> dict[int, FrameOutput]:
        return self.pending_conditioning if is_conditioning else self.pending_history

    def output_at(self, frame_index: int) -> FrameOutput | None:
        """The frame's final output, prompted or tracked."""
        return self.conditioning.get(frame_index) or self.history.get(frame_index)

    def remember(self, frame_index: int, output: FrameOutput) -> None:
        """Put a tracked frame's output at the fresh end of the history."""
        self.forget(frame_index)
        self.history[frame_index] = output
        self.history_bytes += output.byte_count

    def forget(self, frame_index: int) -> None:
        """Drop a tracked frame's output, if it is there."""
        output = self.history.pop(frame_index, None)
        if output is not None:
            self.history_bytes -= output.byte_count

    def trim_history(
        self, budget_bytes: int, keep: range, also_keep: range = range(0)
    ) -> None:
        """Drop outputs over the budget, but none in `keep` or `also_keep`.

        The longest untouched go first; those around prompted frames after all
        others, the nearest last, because a pass in the other direction begins there.
        """
        if self.history_bytes <= budget_bytes:
            return
        prompted = sorted(self.conditioning)
        droppable = [
            index for index in self.history if index not in keep and index not in also_keep
        ]
        reach = len(keep)
        away = {index: _distance(index, prompted) for index in droppable}
        droppable.sort(key=lambda index: max(0, reach + 1 - away[index]))
        for frame_index in droppable:
            if self.history_bytes <= budget_bytes:
                return
            self.forget(frame_index)


def _distance(frame_index: int, sorted_frames: list[int]) -> float:
    """How far the nearest of some frames is; infinite if there is none."""
    place = bisect.bisect_left(sorted_frames, frame_index)
    near = sorted_frames[max(0, place - 1) : place + 1]
    return min((abs(frame_index - other) for other in near), default=math.inf)


class FeatureCache:
    """Encoder features by frame, those nearest to prompted frames kept longest."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.byte_count = 0
        self._entries: OrderedDict[int, ImageFeatures] = OrderedDict()

    def __contains__(self, frame_index: int) -> bool:
        return frame_index in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[int]:
        return iter(self._entries)

    def get(self, frame_index: int) -> ImageFeatures | None:
        features = self._entries.get(frame_index)
        if features is not None:
            self._entries.move_to_end(frame_index)
        return features

    def put(
        self, frame_index: int, features: ImageFeatures, prompted_frames: Iterable[int]
    ) -> None:
        """Add a frame's features and drop others until the budget holds.

        Propagation runs through the video in order, so a plain "least recently
        used" rule would drop each frame just before the next run needs it.
        Dropped first is the frame farthest from any prompt, where corrections
        are least likely; the newest always stays.
        """
        old = self._entries.pop(frame_index, None)
        self.byte_count += features.byte_count - (0 if old is None else old.byte_count)
        self._entries[frame_index] = features
        if self.byte_count <= self.budget_bytes:
            return
        prompted = sorted(prompted_frames) or [frame_index]
        while self.byte_count > self.budget_bytes and len(self._entries) > 1:
            others = (index for index in self._entries if index != frame_index)
            farthest = max(others, key=lambda index: _distance(index, prompted))
            self.byte_count -= self._entries.pop(farthest).byte_count

    def drop(self, frame_index: int) -> None:
        """Free a frame's features, if they are there."""
        features = self._entries.pop(frame_index, None)
        self.byte_count -= 0 if features is None else features.byte_count

    def clear(self) -> None:
        self._entries.clear()
        self.byte_count = 0


class InferenceState(MetaState):
    """One video being annotated. Made by `SAM2VideoPredictor.init_state`.

    Answers `state["num_frames"]`, `state["obj_id_to_idx"]` and so on as Meta's dict
    does: see `meta_state`.
    """

    def __init__(
        self,
        source: FrameSource,
        network: SAM2Network,
        *,
        limits: StateLimits = StateLimits(),
        storage_device: torch.device | None = None,
        owns_source: bool = True,
        features: FeatureCache | None = None,
    ) -> None:
        """`features` may be shared with other states of the same video, as long as
        only one of them is used at a time."""
        super().__init__()
        self.source = source
        self.network = network
        """Whose features and memories are kept here."""
        self.limits = limits
        self.device = network.device
        self.network_condition = network.condition
        self.storage_device = storage_device or network.device
        self.offload_video_to_cpu = self.offload_state_to_cpu = False
        """What `init_state` was asked for."""
        self.objects: OrderedDict[ObjectId, ObjectState] = OrderedDict()
        self._reader = FrameReader(source, network.image_size)
        self._owns_features = features is None
        self._features = FeatureCache(limits.feature_cache_bytes) if features is None else features
        self._ahead: Iterator[tuple[int, torch.Tensor]] | None = None
        self._coming = range(0)
        """Frames that the reading thread has not brought yet."""
        self._owns_source = owns_source
        self.kept_frames = range(0)
        """Outputs of these frames stay whatever the history's budget says."""
        self.encoded_frame_count = 0
        """How often the image encoder ran for this state."""
        self.max_objects_per_batch: int | None = None
        """What the device's memory was found to bear; None: it has borne everything."""

    @property
    def info(self) -> VideoInfo:
        return self.source.info

    @property
    def num_frames(self) -> int:
        return self.info.frame_count

    @property
    def obj_ids(self) -> list[ObjectId]:
        return list(self.objects)

    @property
    def cached_features(self) -> View:
        """Encoder features (`ImageFeatures`) by frame; those deleted are made again when needed."""
        cache = self._features
        return View(
            lambda: cache, cache.get, delete=cache.drop,
            instead="features are made by the predictor", missing="no features are kept of it",
        )

    def image(self, frame_index: int, device: torch.device | None = None) -> torch.Tensor:
        """A frame as the network reads it, (3, S, S) float32, normalised; read from the video."""
        return normalise(self._reader.read(frame_index), device or self.device)

    def object_state(self, object_id: ObjectId) -> ObjectState:
        """The object of that id; a new one, not yet among `objects`, if there is none.

        Raises:
            ValueError: the id cannot be hashed.
        """
        try:
            state = self.objects.get(object_id)
        except TypeError:
            raise ValueError(f"object id {object_id!r} must be hashable") from None
        return ObjectState(object_id) if state is None else state

    def prompted_frames(self) -> set[int]:
        """Frames with a prompt for any object."""
        frames: set[int] = set()
        for state in self.objects.values():
            frames.update(state.points, state.masks, state.conditioning)
        return frames

    def features(self, frame_index: int, network: SAM2Network) -> ImageFeatures:
        """The frame's encoder features, from the cache or made now (batch of one)."""
        features = self._features.get(frame_index)
        if features is None:
            frame = self._frame_ahead(frame_index)
            if frame is None:
                frame = self._reader.read(frame_index)
            features = network.encode_image(normalise(frame, self.device)[None])
            self.encoded_frame_count += 1
            self._features.put(frame_index, features, self.prompted_frames())
        return features

    def has_features(self, frame_index: int) -> bool:
        return frame_index in self._features

    def drop_features(self) -> bool:
        """Free the encoder features, and keep one frame's at most from now on; False when
        that was done before."""
        was_kept = self._features.budget_bytes > 0
        self._features.budget_bytes = 0
        self._features.clear()
        return was_kept

    def offload(self) -> bool:
        """Keep memories in main memory from now on; False when they are there already."""
        if self.storage_device.type == "cpu":
            return False
        self.storage_device = torch.device("cpu")
        for state in self.objects.values():
            for outputs in (
                state.conditioning, state.history,
                state.pending_conditioning, state.pending_history,
            ):
                for output in outputs.values():
                    output.mask_logits = output.mask_logits.cpu()
                    if output.memory is not None:
                        output.memory = output.memory.cpu()
        return True

    def start_reading(self, order: range) -> None:
        """Begin to decode frames of `order` in a thread, as `features` will ask for them."""
        self.stop_reading()
        self._ahead = self._reader.read_in_order(
            order, lambda frame_index: frame_index not in self._features
        )
        self._coming = order

    def stop_reading(self) -> None:
        """End the reading thread, if there is one."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
            self._coming = range(0)

    def _frame_ahead(self, frame_index: int) -> torch.Tensor | None:
        """The frame from the reading thread, or None if the thread will not bring it."""
        while frame_index in self._coming:
            read_index, frame = next(self._ahead, (self._coming[-1], None))
            self._coming = self._coming[self._coming.index(read_index) + 1 :]
            if read_index == frame_index:
                return frame
            # Frames that nobody asked for (all objects are prompted there, or
            # the features came into the cache meanwhile) are passed over.
        return None

    def trim(self, keep: range) -> None:
        """Bound every object's history, sparing the frames in `keep` and `kept_frames`."""
        budget = self.limits.history_bytes // max(1, len(self.objects))
        for state in self.objects.values():
            state.trim_history(budget, keep, self.kept_frames)

    def reset(self) -> None:
        """Forget all objects and prompts; features stay, they depend on frames only."""
        self.stop_reading()
        self.objects.clear()

    def close(self) -> None:
        """End threads and close the source if this state opened it."""
        self.stop_reading()
        if self._owns_features:
            self._features.clear()
        self.objects.clear()
        if self._owns_source:
            self.source.close()

    def __enter__(self) -> InferenceState:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()
