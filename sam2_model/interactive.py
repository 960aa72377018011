"""One person's work on a video: prompts that come and go, masks that follow.

What a prompted frame shows is a function of the frame and its own prompts
alone: the same before and after tracking, after an undo, and after a restart.
A correction of a tracked frame also looks at the mask that was there
(`FramePrompt.mask_before`). Every prompted frame, corrected ones too, is one that
all other frames look at.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from converters.types import FrameMasks, ObjectId, Prompt, VideoInfo
from sam2_model.device_memory import within_memory
from sam2_model.kept_state import KeptState, save_state
from sam2_model.masks import masks_at_size
from sam2_model.session import FeatureCache, InferenceState, StateLimits
from sam2_model.tracker import Follower, StopRules, apply_clicks, apply_prompts
from sam2_model.video import FrameSource
from sam2_model.video_predictor import SAM2VideoPredictor

KnownMask = Callable[[ObjectId, int], "np.ndarray | None"]
"""(object id, frame index) -> the mask found there earlier, (H, W) bool, or None."""


@dataclass(frozen=True, eq=False)
class FramePrompt:
    """What a person said of an object on a frame."""

    prompt: Prompt
    mask_before: np.ndarray | None = None
    """(H, W) bool: the tracked mask that the prompt's points correct."""

    @cached_property
    def fingerprint(self) -> str:
        """Equal for two prompts exactly if they say the same."""
        prompt = self.prompt
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((prompt.object_id, prompt.frame_index, prompt.box)).encode())
        for array in (prompt.points_xy, prompt.point_labels, prompt.mask, self.mask_before):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
            digest.update(b"/")
        return digest.hexdigest()

    def adds_clicks_to(self, other: FramePrompt) -> bool:
        """Whether it is the other one with more points after its own."""
        old, new = other.prompt, self.prompt
        count = len(old.points_xy)
        return (
            (old.object_id, old.frame_index, old.box) == (new.object_id, new.frame_index, new.box)
            and old.mask is None
            and new.mask is None
            and 0 < count <= len(new.points_xy)
            and np.array_equal(old.points_xy, new.points_xy[:count])
            and np.array_equal(old.point_labels, new.point_labels[:count])
            and _same_mask(self.mask_before, other.mask_before)
        )


@dataclass
class _Run:
    """One propagation, as far as it has come."""

    name: str
    follower: Follower
    left: list[range]
    """Of its passes; the first one may have begun."""
    has_begun: bool = False
    """Whether it has."""

    def move(self, frame_index: int) -> None:
        """A frame of the first pass is done."""
        order = self.left[0]
        is_over = self.follower.has_ended(frame_index, order)
        self.left[0] = order[len(order) :] if is_over else order[order.index(frame_index) + 1 :]
        self.has_begun = True

    def drop_finished(self) -> None:
        while self.left and not self.left[0]:
            del self.left[0]
            self.has_begun = False

    def go_on_with(self, passes: Sequence[range]) -> None:
        """What is left in the caller's eyes: a frame more where it has not seen the last one."""
        self.drop_finished()
        is_same_pass = (
            bool(self.left and passes)
            and (passes[0].stop, passes[0].step) == (self.left[0].stop, self.left[0].step)
        )
        self.left, self.has_begun = list(passes), self.has_begun and is_same_pass
        objects = self.follower.state.objects
        self.follower.stopped.intersection_update(objects)

    def to_json(self) -> dict[str, Any]:
        """Reads back as `from_json`. Object ids must be texts."""
        return {
            "name": self.name,
            "left": [[order.start, order.stop, order.step] for order in self.left],
            "has_begun": self.has_begun,
            "stopped": list(self.follower.stopped),
            "lost_for": self.follower.lost_for,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], follower: Follower) -> _Run:
        follower.stopped.update(value["stopped"])
        follower.lost_for.update(value["lost_for"])
        left = [range(*order) for order in value["left"]]
        return cls(value["name"], follower, left, value["has_begun"])


class InteractiveVideo:
    """A video's frames, features and masks. One thread at a time may use it.

    Videos made by `sibling` share the source and the encoder features, which
    depend on the frames alone, and nothing else; all of them together may be used
    by one thread at a time.
    """

    def __init__(
        self,
        predictor: SAM2VideoPredictor,
        source: FrameSource,
        features: FeatureCache,
        *,
        limits: StateLimits,
        stop: StopRules = StopRules(),
        owns_source: bool = False,
    ) -> None:
        self.source = source
        self._predictor = predictor
        self._features = features
        self._limits = limits
        self._stop = stop
        self._owns_source = owns_source
        # Looking at a frame must not disturb the frames that are being tracked.
        self._looking = self._new_state()
        self._looked_at: FramePrompt | None = None
        """What `_looking` has been told."""
        self._tracking = self._new_state()
        self._applied: dict[tuple[ObjectId, int], str | None] = {}
        """What `_tracking` has been told, by `FramePrompt.fingerprint`; None for a mask of
        an earlier run."""
        self._run: _Run | None = None
        """The last one."""
        self._behind = 0
        """So many frames of it were found after what was restored had been saved."""

    @classmethod
    def open(
        cls,
        source: FrameSource,
        *,
        predictor: SAM2VideoPredictor,
        limits: StateLimits,
        stop: StopRules = StopRules(),
    ) -> InteractiveVideo:
        """Takes the source over: closing the video closes it."""
        features = FeatureCache(limits.feature_cache_bytes)
        return cls(predictor, source, features, limits=limits, stop=stop, owns_source=True)

    def sibling(self) -> InteractiveVideo:
        """Another person's work on the same frames; close it before this one."""
        return InteractiveVideo(
            self._predictor, self.source, self._features, limits=self._limits, stop=self._stop
        )

    def _new_state(self) -> InferenceState:
        return InferenceState(
            self.source,
            self._predictor.model,
            limits=self._limits,
            owns_source=False,
            features=self._features,
        )

    @property
    def info(self) -> VideoInfo:
        return self.source.info

    @property
    def encoded_frame_count(self) -> int:
        """How often the image encoder ran for this video, siblings not counted."""
        return self._looking.encoded_frame_count + self._tracking.encoded_frame_count

    @property
    def feature_room(self) -> int | None:
        """How many frames' features the cache holds; None before the first one."""
        count = len(self._features)
        if not count:
            return None
        return max(1, self._features.budget_bytes * count // self._features.byte_count)

    def has_features(self, frame_index: int) -> bool:
        """Whether the frame's features are there, so that a prompt needs the decoder only."""
        return self._looking.has_features(frame_index)

    @torch.inference_mode()
    def encode(self, frame_index: int) -> None:
        """Have the frame's features ready."""
        within_memory(
            self._looking, 1,
            lambda _: self._looking.features(frame_index, self._predictor.model),
        )

    def look(self, item: FramePrompt) -> tuple[np.ndarray, float]:
        """What a prompt shows on its frame.

        Returns:
            (H, W) bool at video size, and the logit that the object is there.

        Raises:
            ValueError: as `sam2_model.tracker.track`.
        """
        state, prompt, last = self._looking, item.prompt, self._looked_at
        self._looked_at = None
        if last is not None and item.adds_clicks_to(last):
            count = len(last.prompt.points_xy)
            apply_clicks(self._predictor, state, prompt, known_count=count)
        else:
            state.reset()
            self._tell(state, item)
        self._looked_at = item
        output = state.objects[prompt.object_id].pending_conditioning[prompt.frame_index]
        size_hw = (self.info.height, self.info.width)
        mask = masks_at_size(output.mask_logits, size_hw)[0]
        return mask, float(output.object_score_logits)

    def _tell(self, state: InferenceState, item: FramePrompt) -> None:
        """Prompt an object on a frame as if nothing were known of the frame."""
        prompt = item.prompt
        self._forget(state, prompt.object_id, prompt.frame_index)
        if item.mask_before is not None:
            before = Prompt(prompt.object_id, prompt.frame_index, mask=item.mask_before)
            apply_prompts(self._predictor, state, [before])
        apply_prompts(self._predictor, state, [prompt])

    def _forget(self, state: InferenceState, object_id: ObjectId, frame_index: int) -> None:
        self._predictor.clear_all_prompts_in_frame(
            state, frame_index, object_id, need_output=False
        )
        known = state.objects.get(object_id)
        if known is not None:
            known.forget(frame_index)
            known.tracked_reverse.pop(frame_index, None)

    def follow(
        self,
        items: Sequence[FramePrompt],
        passes: Sequence[range],
        *,
        name: str = "",
        known_mask: KnownMask = lambda object_id, frame_index: None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[FrameMasks | None]:
        """Track the prompted objects over frames (ranges of step 1 or -1).

        What earlier calls found goes on to count: only what the prompts have
        changed is computed again. A pass that begins where nothing is remembered of
        an object goes on from the mask that was known one frame before.

        Args:
            items: all prompts there are, one an object and frame.
            name: of the run; with that of the call before, this one goes on with it, and
                `passes` are what is left.
            known_mask: what earlier runs, also of another process, have found.
            is_cancelled: asked before each frame.

        Yields:
            A frame's masks, or None when there is nothing to show for a step yet.

        Raises:
            ValueError: as `sam2_model.tracker.track`.
        """
        yield from self._make_up(known_mask, is_cancelled)
        if is_cancelled():
            return
        run = self._run if self._run is not None and self._run.name == name else None
        wanted = {(item.prompt.object_id, item.prompt.frame_index): item for item in items}
        yield from self._catch_up(wanted, is_same_run=run is not None)
        if run is None:
            follower = Follower(self._predictor, self._tracking, self._stop)
            run = self._run = _Run(name, follower, list(passes))
        else:
            run.go_on_with(passes)
        yield from self._follow(run, known_mask, is_cancelled)

    def _follow(
        self, run: _Run, known_mask: KnownMask, is_cancelled: Callable[[], bool]
    ) -> Iterator[FrameMasks]:
        run.drop_finished()
        while run.left and self._tracking.objects and not is_cancelled():
            order = run.left[0]
            if not run.has_begun:
                self._go_on_from_known(order, known_mask)
            with contextlib.closing(
                run.follower.follow(order, is_cancelled, has_begun=run.has_begun)
            ) as frames:
                for frame_masks in frames:
                    run.move(frame_masks.frame_index)
                    yield frame_masks
            if is_cancelled():
                return
            run.left[0] = order[len(order) :]  # all objects may have been given up before
            run.drop_finished()

    def _make_up(
        self, known_mask: KnownMask, is_cancelled: Callable[[], bool]
    ) -> Iterator[None]:
        """Track once more what came after the restored state had been saved."""
        if not self._behind:
            return
        with contextlib.closing(self._follow(self._run, known_mask, is_cancelled)) as frames:
            while self._behind and next(frames, None) is not None:
                self._behind -= 1
                yield None
        if not is_cancelled():
            self._behind = 0

    def _catch_up(
        self, wanted: Mapping[tuple[ObjectId, int], FramePrompt], *, is_same_run: bool
    ) -> Iterator[None]:
        """Bring `_tracking` to these prompts, one at a step."""
        state = self._tracking
        for object_id in {object_id for object_id, _ in self._applied}:
            if not any(other == object_id for other, _ in wanted):
                self._predictor.remove_object(state, object_id, need_output=False)
                self._applied = {
                    key: said for key, said in self._applied.items() if key[0] != object_id
                }
        for key, item in wanted.items():
            if self._applied.get(key) != item.fingerprint:
                self._tell(state, item)
                self._applied[key] = item.fingerprint
                yield
        for key, said in list(self._applied.items()):
            # A run that goes on keeps the masks that it began with.
            if key not in wanted and not (is_same_run and said is None):
                self._forget(state, *key)
                del self._applied[key]

    def _go_on_from_known(self, order: range, known_mask: KnownMask) -> None:
        if not order:
            return
        frame_before = order[0] - order.step
        for object_id, known in self._tracking.objects.items():
            prompted = [*known.conditioning, *known.pending_conditioning]
            has_begun = any((index - order[0]) * order.step < 0 for index in prompted)
            if order[0] in prompted or not has_begun:
                continue
            if frame_before in prompted or known.output_at(frame_before) is not None:
                continue
            mask = known_mask(object_id, frame_before)
            if mask is not None and mask.any():
                apply_prompts(
                    self._predictor, self._tracking, [Prompt(object_id, frame_before, mask=mask)]
                )
                self._applied[object_id, frame_before] = None

    # --- for another process ---------------------------------------------------

    def save(self) -> bytes:
        """What `follow` remembers, for `restore`. To be called between its steps, or after
        it. Object ids must be texts.

        As large as what is remembered: `StateLimits.history_bytes`, and the prompted frames.
        """
        objects = self._tracking.objects
        told = [
            [object_id, index, said]
            for (object_id, index), said in self._applied.items()
            # A prompt whose output is not finished is not saved: it is to be told again.
            if said is None or index in objects[object_id].conditioning
        ]
        run = None if self._run is None else self._run.to_json()
        return save_state(self._tracking, {"applied": told, "run": run})

    @staticmethod
    def run_of(kept: KeptState) -> str | None:
        """The name of the run that was the last one when it was saved."""
        run = kept.note["run"]
        return None if run is None else run["name"]

    def restore(self, kept: KeptState, rest: Sequence[range] | None) -> None:
        """Go on from what another video of the same frames has saved.

        Args:
            rest: what the caller has not seen yet of the saved run's passes; when more
                than that was left as it was saved, the next `follow` begins by tracking
                the frames between once more. None: it has seen no other frame.

        Raises:
            OtherModel: it was saved by another model.
            ValueError: it is broken.
        """
        kept.restore(self._tracking)
        note = kept.note
        self._applied = {(object_id, index): said for object_id, index, said in note["applied"]}
        follower = Follower(self._predictor, self._tracking, self._stop)
        self._run = None if note["run"] is None else _Run.from_json(note["run"], follower)
        if self._run is not None and rest is not None:
            left = sum(map(len, self._run.left))
            self._behind = max(0, left - sum(map(len, rest)))

    def close(self) -> None:
        """Let go of all; of the source too, if this video opened it."""
        for state in (self._looking, self._tracking):
            state.close()
        self._looked_at = None
        self._applied.clear()
        self._run = None
        if self._owns_source:
            self._features.clear()
            self.source.close()


def _same_mask(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)
