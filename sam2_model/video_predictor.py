"""The video predictor: prompts on any frames, masks on all of them.

The methods, arguments and returned values are those of Meta's predictor
(https://github.com/facebookresearch/sam2), so that scripts written for it run
here. Underneath, frames are read as they are needed, several objects go
through the network together, and what is kept of the past is bounded.
"""

from __future__ import annotations

import dataclasses
import logging
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import AbstractSet, Iterable, Iterator, Sequence

import torch

from sam2_model.device_memory import within_memory
from sam2_model.masks import (
    fill_holes,
    remove_specks,
    resize_logits,
    without_ghosts,
    without_overlaps,
)
from sam2_model.meta_predictor import MetaPredictor
from sam2_model.network import MaskPrediction, SAM2Network
from sam2_model.network.sam2 import NO_OBJECT_LOGIT, MemoryTokens
from sam2_model.prompts import (
    PREVIOUS_LOGIT_BOUND,
    as_cpu_tensor,
    box_corners,
    check_inside,
    points_and_labels,
)
from sam2_model.session import (
    FrameOutput,
    InferenceState,
    ObjectId,
    ObjectState,
    PointPrompt,
    StateLimits,
)
from sam2_model.video import FrameSource, open_frame_source

logger = logging.getLogger(__name__)

_CPU_BATCH_CELLS = 4096
"""Feature-map cells, over all objects, that keep a CPU busy: one object at 1024 px."""


@dataclass(frozen=True, kw_only=True)
class PredictorOptions:
    """What Meta's predictor takes as constructor arguments, by the same names."""

    fill_hole_area: int = 0
    """Fill holes of up to so many low-resolution pixels."""
    remove_speck_area: int = 0
    """Remove separate specks of up to so many low-resolution pixels."""
    non_overlap_masks: bool = False
    """Give each output pixel to one object at most."""
    non_overlap_masks_for_mem_enc: bool = False
    """The same for what is remembered."""
    clear_non_cond_mem_around_input: bool = False
    """A new prompt drops the tracked frames' memories around it, now out of date."""
    add_all_frames_to_correct_as_cond: bool = False
    """A corrected frame counts as a prompted one for all later frames."""
    binarize_mask_from_pts_for_mem_enc: bool = False
    """Prompted frames are remembered with the mask people saw, not its logits."""
    dynamic_multimask_via_stability: bool = False
    """Where the single mask is unstable, take the best of three."""
    memory_temporal_stride_for_eval: int = 1
    """Look at every r-th recent frame instead of each."""
    max_objects_per_batch: int | None = None
    """Objects that go through the network together; None: as many as pay.

    On a GPU 32. On a CPU only as many as fill its cores: more push each
    other's values out of the cache.
    """

    def __post_init__(self) -> None:
        for name, least in (
            ("fill_hole_area", 0),
            ("remove_speck_area", 0),
            ("memory_temporal_stride_for_eval", 1),
            ("max_objects_per_batch", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be >= {least}")


class SAM2VideoPredictor(MetaPredictor):
    """Follows objects through a video from points, boxes and masks."""

    def __init__(
        self,
        model: SAM2Network,
        options: PredictorOptions = PredictorOptions(),
        *,
        limits: StateLimits = StateLimits(),
    ) -> None:
        self.model = model
        self.options = options
        self.limits = limits

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs) -> SAM2VideoPredictor:
        """The predictor of a model on the Hugging Face hub, e.g. `facebook/sam2.1-hiera-tiny`."""
        from sam2_model.build import build_sam2_video_predictor_hf

        return build_sam2_video_predictor_hf(model_id, **kwargs)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def image_size(self) -> int:
        return self.model.image_size

    # --- the state -----------------------------------------------------------

    def init_state(
        self,
        video_path: str | Path | Sequence | FrameSource,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
        *,
        limits: StateLimits | None = None,
        upright: bool = False,
    ) -> InferenceState:
        """Open a video for annotation.

        Args:
            video_path: a video file, a folder of frames as image files, a list of
                images, or a frame source.
            offload_video_to_cpu: frames are read when needed and never kept on
                the device; it says where `state["images"]` gives them.
            offload_state_to_cpu: keep memories in main memory instead of the GPU's.
            async_loading_frames: accepted likewise; frames are always read
                ahead in a thread.
            limits: bytes to spend on caches; the predictor's own if None.
            upright: image files of a folder or list are turned by their EXIF
                orientation, as browsers and `track` turn them. By default they are
                read as stored, as SAM 2 reads them.

        Raises:
            VideoDecodeError: nothing in the file can be decoded.
            FileNotFoundError: there is no such file or folder.
        """
        source = open_frame_source(video_path, upright=upright)
        state = InferenceState(
            source,
            self.model,
            limits=limits or self.limits,
            storage_device=torch.device("cpu") if offload_state_to_cpu else None,
            owns_source=source is not video_path,
        )
        state.offload_video_to_cpu = offload_video_to_cpu
        state.offload_state_to_cpu = offload_state_to_cpu
        return state

    def reset_state(self, inference_state: InferenceState) -> None:
        """Remove all objects and prompts; the video stays open."""
        inference_state.reset()

    # --- prompts -------------------------------------------------------------

    @torch.inference_mode()
    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: ObjectId,
        points=None,
        labels=None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box=None,
    ) -> tuple[int, list[ObjectId], torch.Tensor]:
        """Prompt an object on a frame with clicks, a box, or both.

        Args:
            inference_state: from `init_state`.
            frame_idx: 0-based.
            obj_id: any hashable value; a new one adds an object, also after
                tracking has started.
            points: (P, 2) or (1, P, 2), x and y in pixels of the video, or in
                [0, 1] if `normalize_coords` is False.
            labels: (P,) or (1, P): 1 inside the object, 0 outside, -1 ignored;
                2 and 3 are a box's top left and bottom right corners.
            clear_old_points: replace this object's points on this frame;
                False adds to them.
            normalize_coords: coordinates are pixels of the video.
            box: x_min, y_min, x_max, y_max; needs `clear_old_points`.

        Returns:
            The frame, all object ids, and their logits (N, 1, H, W) float32 at
            video size; > 0 is inside.

        Raises:
            ValueError: no such frame, neither points nor box, coordinates that
                are not finite or not in the frame, an unknown label, or a box
                whose maximum is under its minimum.
        """
        frame_idx = self._checked_frame(inference_state, frame_idx)
        coords, point_labels = self._point_tensors(
            inference_state, points, labels, box, clear_old_points, normalize_coords
        )
        state = inference_state.object_state(obj_id)
        old = None if clear_old_points else state.points.get(frame_idx)
        if old is not None:
            coords = torch.cat((old.points_xy, coords), dim=1)
            point_labels = torch.cat((old.labels, point_labels), dim=1)
        is_first_look = frame_idx not in state.tracked_reverse
        is_conditioning = self._will_condition(state, frame_idx)
        previous = state.pending(is_conditioning).get(frame_idx) or state.output_at(frame_idx)
        mask_logits = None
        if previous is not None:
            bound = PREVIOUS_LOGIT_BOUND
            mask_logits = previous.mask_logits.to(self.device).clamp(-bound, bound)

        def predict(_: int) -> FrameOutput:
            frame = inference_state.features(frame_idx, self.model)
            prediction = self.model.predict_masks(
                self._look_back(inference_state, [state], frame_idx, frame.top, is_first_look),
                frame.high_res,
                points_xy=coords,
                point_labels=point_labels,
                mask_logits=mask_logits,
                multimask=coords.shape[1] <= 1,
                stability_fallback=self.options.dynamic_multimask_via_stability,
            )
            return self._outputs(inference_state, prediction)[0]

        output = within_memory(inference_state, 1, predict)
        # Nothing is kept before everything that can fail is done.
        inference_state.objects[obj_id] = state
        state.points[frame_idx] = PointPrompt(coords, point_labels)
        state.masks.pop(frame_idx, None)
        state.pending(is_conditioning)[frame_idx] = output
        return self._frame_answer(inference_state, frame_idx, is_conditioning)

    def add_new_points(self, *args, **kwargs) -> tuple[int, list[ObjectId], torch.Tensor]:
        """The older name of `add_new_points_or_box`."""
        return self.add_new_points_or_box(*args, **kwargs)

    @torch.inference_mode()
    def add_new_mask(
        self, inference_state: InferenceState, frame_idx: int, obj_id: ObjectId, mask
    ) -> tuple[int, list[ObjectId], torch.Tensor]:
        """Prompt an object on a frame with its mask.

        Args:
            mask: (h, w) bool or 0/1, any size; resized to the model's as Meta
                does. An empty mask says that the object is not on this frame.

        Returns:
            As `add_new_points_or_box`.

        Raises:
            ValueError: no such frame, a mask that is not (height, width), has no
                pixels or holds negative values.
        """
        frame_idx = self._checked_frame(inference_state, frame_idx)
        model_mask = self._mask_tensor(mask)
        state = inference_state.object_state(obj_id)
        is_conditioning = self._will_condition(state, frame_idx)

        def predict(_: int) -> FrameOutput:
            frame = inference_state.features(frame_idx, self.model)
            prediction = self.model.mask_as_prediction(frame.top, frame.high_res, model_mask)
            return self._outputs(inference_state, prediction)[0]

        output = within_memory(inference_state, 1, predict)
        inference_state.objects[obj_id] = state
        state.masks[frame_idx] = model_mask
        state.points.pop(frame_idx, None)
        state.pending(is_conditioning)[frame_idx] = output
        return self._frame_answer(inference_state, frame_idx, is_conditioning)

    def _will_condition(self, state: ObjectState, frame_idx: int) -> bool:
        """Whether a prompt on this frame is one that every other frame looks at.

        A correction of a frame that already is must stay one: Meta's predictor
        files it under the tracked frames and then drops it.
        """
        return (
            frame_idx not in state.tracked_reverse
            or frame_idx in state.conditioning
            or self.options.add_all_frames_to_correct_as_cond
        )

    @torch.inference_mode()
    def clear_all_prompts_in_frame(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: ObjectId,
        need_output: bool = True,
    ) -> tuple[int, list[ObjectId], torch.Tensor] | None:
        """Take back an object's prompts on a frame, if it has any there.

        Returns:
            As `add_new_points_or_box`, or None if `need_output` is False.
        """
        frame_idx = self._checked_frame(inference_state, frame_idx)
        state = inference_state.object_state(obj_id)
        state.points.pop(frame_idx, None)
        state.masks.pop(frame_idx, None)
        state.pending_conditioning.pop(frame_idx, None)
        state.pending_history.pop(frame_idx, None)
        output = state.conditioning.pop(frame_idx, None)
        if output is not None:
            # It is an ordinary frame now, and may still serve as a memory.
            state.remember(frame_idx, output)
            state.tracked_reverse.pop(frame_idx, None)
        if not need_output:
            return None
        return self._frame_answer(
            inference_state, frame_idx, _is_pending_conditioning(inference_state, frame_idx)
        )

    @torch.inference_mode()
    def remove_object(
        self,
        inference_state: InferenceState,
        obj_id: ObjectId,
        strict: bool = False,
        need_output: bool = True,
    ) -> tuple[list[ObjectId], list[tuple[int, torch.Tensor]]]:
        """Forget an object.

        Returns:
            The ids that remain, and for each frame where the object had
            prompts the others' logits there, (frame, (N, 1, H, W)).

        Raises:
            RuntimeError: `strict` and there is no such object.
        """
        state = inference_state.objects.get(obj_id)
        if state is None:
            if strict:
                raise RuntimeError(
                    f"cannot remove object {obj_id!r}: the objects are "
                    f"{inference_state.obj_ids}"
                )
            return inference_state.obj_ids, []
        frames = sorted({*state.points, *state.masks})
        del inference_state.objects[obj_id]
        updated: list[tuple[int, torch.Tensor]] = []
        if need_output and inference_state.objects:
            for frame_idx in frames:
                is_conditioning = _is_pending_conditioning(inference_state, frame_idx)
                answer = self._frame_answer(inference_state, frame_idx, is_conditioning)
                updated.append((frame_idx, answer[2]))
        return inference_state.obj_ids, updated

    # --- propagation ---------------------------------------------------------

    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[int, list[ObjectId], torch.Tensor]]:
        """Track all objects, frame after frame.

        Args:
            start_frame_idx: the first frame; default the earliest prompted one.
            max_frame_num_to_track: how many frames after the first; so one
                more is answered (as Meta's predictor does).
            reverse: go towards the beginning. Backward from frame 0 answers
                nothing (as Meta's does).

        Yields:
            Frame, object ids, logits (N, 1, H, W) float32 at video size.

        Raises:
            RuntimeError: an object has no prompt, or there is no object.
        """
        order = self.plan_propagation(
            inference_state, start_frame_idx, max_frame_num_to_track, reverse
        )
        size_hw = (inference_state.info.height, inference_state.info.width)
        for frame_idx, object_ids, logits, _ in self.propagate_low_res(inference_state, order):
            masks = resize_logits(logits, size_hw)
            if self.options.non_overlap_masks:
                masks = without_overlaps(masks)
            yield frame_idx, object_ids, masks

    def plan_propagation(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> range:
        """The frames `propagate_in_video` would visit, in order; prompts become final.

        Raises:
            RuntimeError, ValueError: as `propagate_in_video`.
        """
        self._check_autocast()
        self.finish_prompts(inference_state)
        count = inference_state.num_frames
        if start_frame_idx is None:
            objects = inference_state.objects.values()
            start_frame_idx = min(t for state in objects for t in state.conditioning)
        start_frame_idx = self._checked_frame(inference_state, start_frame_idx)
        length = count if max_frame_num_to_track is None else max_frame_num_to_track
        if length < 0:
            raise ValueError(f"max_frame_num_to_track={length} must be >= 0")
        if not reverse:
            return range(start_frame_idx, min(start_frame_idx + length, count - 1) + 1)
        if start_frame_idx == 0:
            return range(0, 0, -1)
        return range(start_frame_idx, max(start_frame_idx - length, 0) - 1, -1)

    def propagate_low_res(
        self,
        inference_state: InferenceState,
        order: range,
        skipped: AbstractSet[ObjectId] = frozenset(),
    ) -> Iterator[tuple[int, list[ObjectId], torch.Tensor, torch.Tensor]]:
        """Track objects over the frames of `order` (step 1 or -1).

        Args:
            skipped: objects left out but for frames where they have a prompt;
                may change between frames.

        Yields:
            Frame, ids of the N objects answered, logits (N, 1, S / 4, S / 4)
            float32, and object-presence logits (N,) float32; both on the
            network's device.
        """
        if not order:
            return
        reverse = order.step < 0
        inference_state.start_reading(order)
        try:
            for frame_idx in order:
                with torch.inference_mode():
                    outputs = self._visit_frame(inference_state, frame_idx, reverse, skipped)
                    logits, scores = self._stack(outputs.values())
                yield frame_idx, list(outputs), logits, scores
        finally:
            inference_state.stop_reading()

    @torch.inference_mode()
    def finish_prompts(self, inference_state: InferenceState) -> None:
        """Make memories of the frames prompted since the last propagation.

        Raises:
            RuntimeError: there is no object, or one has no prompt.
            ValueError: not a state of this predictor, or made before it was moved.
        """
        self._check_state(inference_state)
        if not inference_state.objects:
            raise RuntimeError(
                "no object has a prompt: add points, a box or a mask before propagating"
            )
        for state in inference_state.objects.values():
            for is_conditioning in (False, True):
                pending = state.pending(is_conditioning)
                for frame_idx, output in pending.items():
                    self._finish_frame(
                        inference_state, state, frame_idx, output, is_conditioning
                    )
                pending.clear()
            if not state.conditioning:
                raise RuntimeError(
                    f"object {state.object_id!r} has no prompt: add points, a box or a "
                    "mask for it before propagating, or remove it"
                )
            for frame_idx in state.conditioning:
                state.forget(frame_idx)

    def _finish_frame(self, inference_state, state, frame_idx, output, is_conditioning):
        def encode(_: int) -> torch.Tensor:
            frame = inference_state.features(frame_idx, self.model)
            memory = self.model.encode_memory(
                frame.top,
                output.mask_logits.to(self.device),
                output.object_score_logits,
                binarize=self.options.binarize_mask_from_pts_for_mem_enc,
            )
            return self._stored(inference_state, memory)

        output.memory = within_memory(inference_state, 1, encode)
        if is_conditioning:
            state.conditioning[frame_idx] = output
        else:
            state.remember(frame_idx, output)
        if self.options.clear_non_cond_mem_around_input:
            self._clear_memories_around(state, frame_idx)

    def _stack(self, outputs: Iterable[FrameOutput]) -> tuple[torch.Tensor, torch.Tensor]:
        size = self.model.config.low_res_mask_size
        logits = [torch.zeros(0, 1, size, size, device=self.device)]
        scores = [torch.zeros(0, 1, device=self.device)]
        for output in outputs:
            logits.append(output.mask_logits.to(self.device))
            scores.append(output.object_score_logits.float())
        return torch.cat(logits), torch.cat(scores)[:, 0]

    def _visit_frame(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        reverse: bool,
        skipped: AbstractSet[ObjectId],
    ) -> dict[ObjectId, FrameOutput]:
        """Every object's output on a frame: the prompted one, or tracked now."""
        states = [
            state
            for state in inference_state.objects.values()
            # An object added since propagation began has its turn in the next one.
            if state.conditioning
            and (state.object_id not in skipped or frame_idx in state.conditioning)
        ]
        open_states = [state for state in states if frame_idx not in state.conditioning]
        tracked = within_memory(
            inference_state,
            self.options.max_objects_per_batch or self._objects_that_pay(),
            lambda limit: self._track(inference_state, open_states, frame_idx, reverse, limit),
        )
        outputs = dict(zip((state.object_id for state in open_states), tracked))
        for state in states:
            if state.object_id in outputs:
                state.remember(frame_idx, outputs[state.object_id])
            else:
                outputs[state.object_id] = state.conditioning[frame_idx]
                if self.options.clear_non_cond_mem_around_input:
                    self._clear_memories_around(state, frame_idx)
            state.tracked_reverse[frame_idx] = reverse
        inference_state.trim(self.frames_needed_after(frame_idx, reverse))
        return {state.object_id: outputs[state.object_id] for state in states}

    def _track(
        self,
        inference_state: InferenceState,
        states: list[ObjectState],
        frame_idx: int,
        reverse: bool,
        limit: int,
    ) -> list[FrameOutput]:
        """Track objects onto a frame, up to `limit` together, as their memories allow."""
        if not states:
            return []
        recalled = [self._recall(inference_state, s, frame_idx, reverse) for s in states]
        outputs = self._still_true(states, recalled, frame_idx)
        if len(outputs) == len(states):
            return [outputs[index] for index in range(len(states))]
        frame = inference_state.features(frame_idx, self.model)
        groups: dict[tuple, list[int]] = {}
        for index, recall in enumerate(recalled):
            if index not in outputs:
                groups.setdefault(recall.layout, []).append(index)
        for members in groups.values():
            for start in range(0, len(members), limit):
                batch = members[start : start + limit]
                tokens = _batch_tokens([recalled[index] for index in batch])
                carried = self.model.carried_mask(
                    _previous_logits([recalled[index] for index in batch], self.device)
                )
                prediction = self.model.predict_masks(
                    self.model.condition_on_memory(frame.top, tokens),
                    frame.high_res,
                    mask_logits=carried,
                    multimask=True,
                )
                if carried is not None:
                    prediction = dataclasses.replace(
                        prediction, mask_logits=without_ghosts(prediction.mask_logits, carried)
                    )
                outputs.update(zip(batch, self._outputs(inference_state, prediction)))
                if not self.options.non_overlap_masks_for_mem_enc:
                    self._remember_frame(
                        inference_state, frame, prediction.mask_logits,
                        [outputs[index] for index in batch],
                    )
        ordered = [outputs[index] for index in range(len(states))]
        for output, recall in zip(ordered, recalled):
            output.looked_at = self._looked_at(recall)
        if self.options.non_overlap_masks_for_mem_enc:
            size = (self.image_size, self.image_size)
            logits = torch.cat([output.mask_logits for output in ordered]).to(self.device)
            logits = without_overlaps(resize_logits(logits, size))
            self._remember_frame(inference_state, frame, logits, ordered)
        return ordered

    def _still_true(
        self, states: list[ObjectState], recalled: list[_Recall], frame_idx: int
    ) -> dict[int, FrameOutput]:
        """Outputs of an earlier pass that would come out the same again, by place in `states`.

        An object's frame is a function of the frame, the outputs it looks at
        and the options. After a correction, or with another object added, all
        that looks at nothing new is answered without the network.
        """
        if self.options.non_overlap_masks_for_mem_enc:
            # What is remembered then depends on the other objects too.
            return {}
        kept = {}
        for index, (state, recall) in enumerate(zip(states, recalled)):
            output = state.history.get(frame_idx)
            if output is not None and output.looked_at == self._looked_at(recall):
                kept[index] = output
        return kept

    def _looked_at(self, recall: _Recall) -> tuple:
        # Plain values: kept states are JSON.
        return recall.fingerprint, dataclasses.astuple(self.options)

    def _objects_that_pay(self) -> int:
        """How many objects to take through the network at once on this device."""
        if self.device.type != "cpu":
            return 32
        return max(1, _CPU_BATCH_CELLS // self.model.config.feature_size**2)

    # --- memory --------------------------------------------------------------

    def _recall(
        self,
        inference_state: InferenceState,
        state: ObjectState,
        frame_idx: int,
        reverse: bool,
    ) -> _Recall:
        """What an object's frame may look at: memories and pointers of other frames.

        Prompted frames come first, then the recent ones from the oldest on;
        pointers of prompted frames only from the side tracking comes from.
        """
        config = self.model.config
        chosen, others = _nearest_conditioning(
            state.conditioning, frame_idx, config.max_cond_frames_in_attn
        )
        maps = [(0, output) for output in chosen.values()]
        nearest = 0
        if config.match_memories and chosen:
            away = [abs(frame_idx - t) for t in chosen]
            nearest = away.index(min(away))
        step = -1 if reverse else 1
        for recency in range(1, config.num_maskmem):
            earlier = self._recent_frame(frame_idx, config.num_maskmem - recency, reverse)
            output = state.history.get(earlier) or others.get(earlier)
            if output is not None:
                maps.append((recency, output))
        pointers = [
            ((frame_idx - t) * step, output)
            for t, output in chosen.items()
            if (frame_idx - t) * step >= 0
        ]
        count = inference_state.num_frames
        pointer_limit = min(count, config.max_object_pointers)
        for offset in range(1, pointer_limit):
            earlier = frame_idx - offset * step
            if not 0 <= earlier < count:
                break
            output = state.history.get(earlier) or others.get(earlier)
            if output is not None:
                pointers.append((offset, output))
        return _Recall(tuple(maps), tuple(pointers), pointer_limit - 1, nearest)

    def _recent_frame(self, frame_idx: int, frames_ago: int, reverse: bool) -> int:
        """The frame that counts as `frames_ago` before this one, given the stride."""
        stride = self.options.memory_temporal_stride_for_eval
        if frames_ago == 1:
            return frame_idx + 1 if reverse else frame_idx - 1
        if reverse:
            return -(-(frame_idx + 2) // stride) * stride + (frames_ago - 2) * stride
        return (frame_idx - 2) // stride * stride - (frames_ago - 2) * stride

    @property
    def memory_reach(self) -> int:
        """So many frames away a tracked frame's memory may still be looked at."""
        return self.model.config.num_maskmem * self.options.memory_temporal_stride_for_eval

    def frames_needed_after(self, frame_idx: int, reverse: bool) -> range:
        """Frames that the next one may look at, this one being just done."""
        reach = max(self.memory_reach, self.model.config.max_object_pointers)
        if reverse:
            return range(frame_idx, frame_idx + reach)
        return range(frame_idx - reach + 1, frame_idx + 1)

    def _look_back(
        self,
        inference_state: InferenceState,
        states: list[ObjectState],
        frame_idx: int,
        top: torch.Tensor,
        is_first_look: bool,
    ) -> torch.Tensor:
        """A prompted frame's features: alone at first, with memories once tracked."""
        state = states[0]
        if is_first_look:
            return self.model.without_memory(top)
        reverse = state.tracked_reverse[frame_idx]
        recall = self._recall(inference_state, state, frame_idx, reverse)
        if not recall.maps:
            return self.model.without_memory(top)
        return self.model.condition_on_memory(top, _batch_tokens([recall]))

    def _outputs(
        self, inference_state: InferenceState, prediction: MaskPrediction
    ) -> list[FrameOutput]:
        """A prediction of B objects as B outputs, holes and specks mended."""
        logits = fill_holes(prediction.mask_logits, self.options.fill_hole_area)
        logits = remove_specks(logits, self.options.remove_speck_area)
        logits = self._stored_logits(inference_state, logits)
        return [
            FrameOutput(
                mask_logits=logits[i : i + 1],
                object_pointer=prediction.object_pointer[i : i + 1],
                object_score_logits=prediction.object_score_logits[i : i + 1],
            )
            for i in range(len(logits))
        ]

    def _remember_frame(self, inference_state, frame, mask_logits, outputs) -> None:
        """Give outputs of tracked objects their memories, all encoded together."""
        scores = torch.cat([output.object_score_logits for output in outputs])
        memory = self.model.encode_memory(frame.top, mask_logits, scores)
        memory = self._stored(inference_state, memory)
        for i, output in enumerate(outputs):
            output.memory = memory[i : i + 1]

    def _stored(self, inference_state: InferenceState, memory: torch.Tensor) -> torch.Tensor:
        # SAM 2 keeps memories in bfloat16 whatever it computes in.
        return memory.to(inference_state.storage_device, torch.bfloat16)

    def _stored_logits(self, inference_state, logits: torch.Tensor) -> torch.Tensor:
        return logits.to(inference_state.storage_device)

    def _clear_memories_around(self, state: ObjectState, frame_idx: int) -> None:
        reach = self.model.config.num_maskmem * self.options.memory_temporal_stride_for_eval
        for near in range(frame_idx - reach, frame_idx + reach + 1):
            state.forget(near)

    # --- answers and checks --------------------------------------------------

    def _frame_answer(
        self, inference_state: InferenceState, frame_idx: int, is_conditioning: bool
    ) -> tuple[int, list[ObjectId], torch.Tensor]:
        """All objects' logits on a frame at video size; absent ones far below zero."""
        size_hw = (inference_state.info.height, inference_state.info.width)
        planes = [torch.zeros(0, 1, *size_hw, device=self.device)]
        for state in inference_state.objects.values():
            output = state.pending(is_conditioning).get(frame_idx)
            output = output or state.output_at(frame_idx)
            if output is None:
                planes.append(torch.full((1, 1, *size_hw), NO_OBJECT_LOGIT, device=self.device))
            else:
                planes.append(resize_logits(output.mask_logits.to(self.device), size_hw))
        masks = torch.cat(planes)
        if self.options.non_overlap_masks:
            masks = without_overlaps(masks)
        return frame_idx, inference_state.obj_ids, masks

    def _check_state(self, inference_state: InferenceState) -> None:
        if not isinstance(inference_state, InferenceState):
            raise ValueError(
                f"inference_state is a {type(inference_state).__name__}, must be what init_state "
                "returns; it takes a file, a folder, a list of images or a frame source"
            )
        if inference_state.network is not self.model:
            raise ValueError("inference_state was made by another predictor: use its own")
        if inference_state.network_condition != self.model.condition:
            raise ValueError(
                "the predictor was moved, cast or given other weights after inference_state was "
                "made: make a new one with init_state"
            )

    def _check_autocast(self) -> None:
        kind = self.device.type
        if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
            raise ValueError(
                "torch.autocast to float16 does not take the memories, which are bfloat16: use "
                "autocast to bfloat16, or predictor.half() without autocast"
            )

    def _checked_frame(self, inference_state: InferenceState, frame_idx: int) -> int:
        self._check_state(inference_state)
        count = inference_state.num_frames
        try:
            index = operator.index(frame_idx)
        except TypeError:
            raise ValueError(f"frame_idx={frame_idx!r} must be a whole number") from None
        if not 0 <= index < count:
            raise ValueError(f"frame_idx={index} must be in [0, {count}), the video's frames")
        return index

    def _point_tensors(
        self, inference_state, points, labels, box, clear_old_points, normalize_coords
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Checked prompts as (1, P, 2) float32 pixels of the model's image and (1, P) int32."""
        if (points is None) != (labels is None):
            raise ValueError("points and labels must be given together")
        if points is None and box is None:
            raise ValueError("a prompt needs points or a box")
        if box is not None and not clear_old_points:
            raise ValueError(
                "a box must come with clear_old_points=True: it stands before any point"
            )
        coords = torch.zeros(1, 0, 2)
        point_labels = torch.zeros(1, 0, dtype=torch.int32)
        if points is not None:
            coords, point_labels = points_and_labels(points, labels)
            if len(coords) != 1:
                raise ValueError(
                    f"points have shape {tuple(coords.shape)}, must be (P, 2) or "
                    "(1, P, 2): one object at a time"
                )
        if box is not None:
            corners = box_corners(box)
            if len(corners) != 1:
                raise ValueError(
                    f"box has {corners.numel()} numbers, must have 4: one object at a time"
                )
            coords = torch.cat((corners, coords), dim=1)
            corner_labels = torch.tensor([[2, 3]], dtype=torch.int32)
            point_labels = torch.cat((corner_labels, point_labels), dim=1)
        if coords.shape[1] == 0:
            raise ValueError("a prompt needs at least one point or a box")
        width, height = inference_state.info.width, inference_state.info.height
        size = torch.tensor([width, height]) if normalize_coords else torch.ones(2)
        check_inside(coords, point_labels, size)
        coords = coords / size * self.image_size
        return coords.to(self.device), point_labels.to(self.device)

    def _mask_tensor(self, mask) -> torch.Tensor:
        """(1, 1, S, S) float32, 0 or 1."""
        mask = as_cpu_tensor(mask, torch.float32)
        if mask.dim() != 2 or 0 in mask.shape:
            raise ValueError(f"mask has shape {tuple(mask.shape)}, must be (height, width)")
        if not (mask >= 0).all():
            raise ValueError(
                f"mask has the value {mask[~(mask >= 0)][0].item():g}, must be bool or 0 and 1: "
                "logits are to be compared with 0 first"
            )
        mask = (mask != 0).float().to(self.device)[None, None]
        size = self.image_size
        if mask.shape[-2:] != (size, size):
            mask = torch.nn.functional.interpolate(
                mask, size=(size, size), mode="bilinear", align_corners=False, antialias=True
            )
            mask = (mask >= 0.5).float()
        return mask


@dataclass(frozen=True)
class _Recall:
    """An object's memories and pointers for one frame."""

    maps: tuple[tuple[int, FrameOutput], ...]
    pointers: tuple[tuple[int, FrameOutput], ...]
    pointer_offset_scale: int
    nearest_prompted: int
    """Which of the maps is the nearest prompted frame's."""

    @property
    def fingerprint(self) -> tuple:
        """Equal for two recalls exactly if the network would see the same."""
        return (
            tuple((recency, output.serial) for recency, output in self.maps),
            tuple((offset, output.serial) for offset, output in self.pointers),
            self.pointer_offset_scale,
            self.nearest_prompted,
        )

    @property
    def layout(self) -> tuple:
        """Objects with equal layouts can go through the network together."""
        return (
            tuple(recency for recency, _ in self.maps),
            tuple(offset for offset, _ in self.pointers),
            self.nearest_prompted,
        )


def _batch_tokens(recalled: list[_Recall]) -> MemoryTokens:
    first = recalled[0]
    device = first.maps[0][1].object_pointer.device
    return MemoryTokens(
        maps=tuple(
            torch.cat([recall.maps[i][1].memory for recall in recalled]).to(device)
            for i in range(len(first.maps))
        ),
        map_recency=first.layout[0],
        pointers=tuple(
            torch.cat([recall.pointers[i][1].object_pointer for recall in recalled])
            for i in range(len(first.pointers))
        ),
        pointer_offsets=first.layout[1],
        pointer_offset_scale=first.pointer_offset_scale,
        nearest_prompted=first.nearest_prompted,
    )


def _previous_logits(recalled: list[_Recall], device: torch.device) -> torch.Tensor | None:
    """(B, 1, S / 4, S / 4) of the frame just before, for recalls of one layout."""
    outputs = [
        output for recall in recalled for offset, output in recall.pointers if offset == 1
    ]
    if not outputs:
        return None
    return torch.cat([output.mask_logits for output in outputs]).to(device)


def _nearest_conditioning(
    outputs: dict[int, FrameOutput], frame_idx: int, limit: int
) -> tuple[dict[int, FrameOutput], dict[int, FrameOutput]]:
    """The prompted frames to look at, and the rest.

    Over the limit: the nearest before, the nearest at or after, then the next
    nearest on either side.
    """
    if limit == -1 or len(outputs) <= limit:
        return outputs, {}
    before = [t for t in outputs if t < frame_idx]
    after = [t for t in outputs if t >= frame_idx]
    chosen = [max(before)] if before else []
    chosen += [min(after)] if after else []
    rest = sorted((t for t in outputs if t not in chosen), key=lambda t: abs(t - frame_idx))
    chosen += rest[: limit - len(chosen)]
    return (
        {t: outputs[t] for t in chosen},
        {t: output for t, output in outputs.items() if t not in chosen},
    )


def _is_pending_conditioning(inference_state: InferenceState, frame_idx: int) -> bool:
    return any(
        frame_idx in state.pending_conditioning for state in inference_state.objects.values()
    )
