"""`state["obj_id_to_idx"]` and the like: Meta's names for what an inference state holds.

In Meta's package a state is a dict of dicts, and scripts read it. Here its values are
typed; this is a window on them under the other names. Nothing is stored twice: views are
live, and make what they show when it is looked at. What may be deleted through them is what
the predictor can do without; everything else is set by its methods, and a view says so.
docs/meta-scripts.md lists the keys.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from sam2_model.session import FrameOutput, InferenceState, ObjectState

_PROMPT_METHODS = (
    "prompts come and go by add_new_points_or_box, add_new_mask, clear_all_prompts_in_frame, "
    "remove_object and reset_state"
)
_NOT_KEPT = (
    "no output of that frame is kept: StateLimits(history_bytes=...) says how much of what was "
    "tracked is, and propagate_in_video yields every frame"
)
_OLDER_KEYS = {
    "output_dict": 'outputs are kept for each object: use state["output_dict_per_obj"]',
    "consolidated_frame_inds": 'use state["output_dict_per_obj"][index]["cond_frame_outputs"]',
    "frames_already_tracked": 'use state["frames_tracked_per_obj"]',
    "tracking_has_started": "objects and prompts may be added at any time, and "
    'state["frames_tracked_per_obj"] says what is tracked',
    "first_ann_frame_idx": 'use state["point_inputs_per_obj"] and state["mask_inputs_per_obj"]',
}
"""Keys of sam2 1.0 and of packages made from it, and what to use instead."""


class View(MutableMapping):
    """A live mapping, read-only unless entries may be deleted."""

    def __init__(
        self,
        keys: Callable[[], Collection],
        read: Callable[[Any], Any],
        *,
        instead: str,
        delete: Callable[[Any], object] | None = None,
        missing: str = "there is no such key",
    ) -> None:
        """
        Args:
            keys: the keys of now, with a quick `in`.
            read: an entry's value.
            instead: what to use for changes, for the message.
            delete: drops an entry; None where that is refused.
            missing: what to say of a key that is not there.
        """
        self._keys = keys
        self._read = read
        self._instead = instead
        self._delete = delete
        self._missing = missing

    def __getitem__(self, key):
        if key not in self._keys():
            raise KeyError(f"{key!r}: {self._missing}; there are {_some(self._keys())}")
        return self._read(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys()

    def __iter__(self) -> Iterator:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def __setitem__(self, key, value) -> None:
        raise ValueError(f"{key!r} cannot be set in what the state shows: {self._instead}")

    def __delitem__(self, key) -> None:
        if self._delete is None:
            raise ValueError(f"{key!r} cannot be deleted: {self._instead}")
        if key not in self._keys():
            raise KeyError(f"{key!r}: {self._missing}")
        self._delete(key)

    def clear(self) -> None:
        # Not by `popitem`, which would make each value only to drop it.
        for key in list(self._keys()):
            del self[key]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {_some(self._keys())}>"


def _some(keys: Collection) -> str:
    shown = ", ".join(repr(key) for key in itertools.islice(keys, 20))
    return f"[{shown}{', ...' if len(keys) > 20 else ''}]"


class FrameImages(Sequence):
    """`state["images"]`: the frames as the network reads them, decoded when looked at.

    Each is (3, S, S) float32 with the training set's mean and deviation removed, S the
    model's image size; a slice is (n, 3, S, S).
    """

    dtype = torch.float32

    def __init__(self, state: InferenceState) -> None:
        self._state = state

    @property
    def device(self) -> torch.device:
        return torch.device("cpu") if self._state.offload_video_to_cpu else self._state.device

    @property
    def shape(self) -> torch.Size:
        size = self._state.network.image_size
        return torch.Size((len(self), 3, size, size))

    def size(self, dim: int | None = None) -> torch.Size | int:
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return self._state.num_frames

    def __getitem__(self, index: int | slice) -> torch.Tensor:
        if isinstance(index, slice):
            frames = [self[at] for at in range(*index.indices(len(self)))]
            return torch.stack(frames) if frames else torch.zeros(0, *self.shape[1:])
        at = operator.index(index)
        if not -len(self) <= at < len(self):
            raise IndexError(f"frame {at} must be in [0, {len(self)}), the video's frames")
        return self._state.image(at % len(self), self.device)


class MetaState(MutableMapping):
    """What makes an `InferenceState` answer as Meta's dict does.

    Scripts may keep values of their own under other keys.
    """

    # A state is itself and no other, whatever two of them show.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self) -> None:
        self._scripts_own: dict[str, object] = {}

    def __getitem__(self, name: str):
        if name in _ANSWERS:
            return _ANSWERS[name](self)
        if name in self._scripts_own:
            return self._scripts_own[name]
        why = _OLDER_KEYS.get(name, f"it answers {sorted(_ANSWERS)}")
        raise KeyError(f"{name!r} is not kept in the inference state: {why}")

    def __contains__(self, name: object) -> bool:
        return name in _ANSWERS or name in self._scripts_own

    def __iter__(self) -> Iterator[str]:
        return itertools.chain(_ANSWERS, self._scripts_own)

    def __len__(self) -> int:
        return len(_ANSWERS) + len(self._scripts_own)

    def __setitem__(self, name: str, value: object) -> None:
        if name == "cached_features" and isinstance(value, Mapping) and not value:
            self[name].clear()  # how scripts free memory
            return
        self._check_own(name)
        self._scripts_own[name] = value

    def __delitem__(self, name: str) -> None:
        self._check_own(name)
        if name not in self._scripts_own:
            raise KeyError(f"{name!r} is not kept in the inference state")
        del self._scripts_own[name]

    def clear(self) -> None:
        raise ValueError(
            "a state cannot be cleared: predictor.reset_state forgets objects and prompts, "
            "state.close() ends it"
        )

    def _check_own(self, name: str) -> None:
        if name not in _ANSWERS:
            return
        instead = _PROMPT_METHODS
        if name in ("images", "num_frames", "video_height", "video_width"):
            instead = "init_state takes a file, a folder, a list of images or a frame source"
        elif name in ("device", "storage_device", "offload_video_to_cpu", "offload_state_to_cpu"):
            instead = "init_state takes offload_video_to_cpu and offload_state_to_cpu"
        elif name in ("cached_features", "constants"):
            instead = 'state["cached_features"].clear() frees the features'
        raise ValueError(f"state[{name!r}] cannot be set or deleted: {instead}")


# --- what the keys show --------------------------------------------------------


def _by_object(read: Callable[[InferenceState, ObjectState], object]):
    """An answer that is a mapping from an object's place to something of it."""

    def answer(state: InferenceState) -> View:
        def of_place(place: int):
            return read(state, next(itertools.islice(state.objects.values(), place, None)))

        return View(
            lambda: range(len(state.objects)), of_place, instead=_PROMPT_METHODS,
            missing="no object has that place",
        )

    return answer


def _places(state: InferenceState) -> View:
    return View(
        lambda: state.objects, lambda object_id: list(state.objects).index(object_id),
        instead=_PROMPT_METHODS, missing="no object has that id",
    )


def _by_frame(kept: Mapping[int, Any], read: Callable[[Any], object], **options) -> View:
    return View(
        lambda: kept, lambda frame_index: read(kept[frame_index]),
        **{"instead": _PROMPT_METHODS, "missing": "no such frame is kept", **options},
    )


def _points(state: InferenceState, item: ObjectState) -> View:
    return _by_frame(
        item.points,
        lambda prompt: {"point_coords": prompt.points_xy, "point_labels": prompt.labels},
    )


def _masks(state: InferenceState, item: ObjectState) -> View:
    return _by_frame(item.masks, lambda mask: mask)


def _tracked(state: InferenceState, item: ObjectState) -> View:
    return _by_frame(item.tracked_reverse, lambda reverse: {"reverse": reverse})


def _outputs(state: InferenceState, item: ObjectState) -> dict[str, View]:
    def shown(output: FrameOutput) -> View:
        return _output(state, output)

    return {
        "cond_frame_outputs": _by_frame(
            item.conditioning, shown, delete=item.conditioning.pop, missing=_NOT_KEPT
        ),
        "non_cond_frame_outputs": _by_frame(
            item.history, shown, delete=item.forget, missing=_NOT_KEPT
        ),
    }


def _pending_outputs(state: InferenceState, item: ObjectState) -> dict[str, View]:
    def shown(output: FrameOutput) -> View:
        return _output(state, output)

    return {
        "cond_frame_outputs": _by_frame(item.pending_conditioning, shown),
        "non_cond_frame_outputs": _by_frame(item.pending_history, shown),
    }


def _output(state: InferenceState, output: FrameOutput) -> View:
    """One object on one frame; no number is copied."""
    features = positions = None
    if output.memory is not None:
        config = state.network.config
        side = config.feature_size
        memory = output.memory[..., : config.memory_dim]
        features = memory.transpose(1, 2).unflatten(2, (side, side))
        positions = _memory_positions(state)
    values = {
        "maskmem_features": features,  # (1, memory_dim, S / 16, S / 16) bfloat16
        "maskmem_pos_enc": positions,
        "pred_masks": output.mask_logits,  # (1, 1, S / 4, S / 4) float32
        "obj_ptr": output.object_pointer,  # (1, C)
        "object_score_logits": output.object_score_logits,  # (1, 1)
    }
    return View(
        lambda: values, values.__getitem__,
        instead="an output is what the network made; keep your own values elsewhere",
    )


def _memory_positions(state: InferenceState) -> list[torch.Tensor]:
    network = state.network
    return [network.position_grid(network.config.memory_dim)[None]]


_ANSWERS: dict[str, Callable[[InferenceState], object]] = {
    "images": FrameImages,
    "num_frames": lambda state: state.num_frames,
    "offload_video_to_cpu": lambda state: state.offload_video_to_cpu,
    "offload_state_to_cpu": lambda state: state.offload_state_to_cpu,
    "video_height": lambda state: state.info.height,
    "video_width": lambda state: state.info.width,
    "device": lambda state: state.device,
    "storage_device": lambda state: state.storage_device,
    "point_inputs_per_obj": _by_object(_points),
    "mask_inputs_per_obj": _by_object(_masks),
    "cached_features": lambda state: state.cached_features,
    "constants": lambda state: {"maskmem_pos_enc": _memory_positions(state)},
    "obj_id_to_idx": _places,
    "obj_idx_to_id": _by_object(lambda state, item: item.object_id),
    "obj_ids": lambda state: state.obj_ids,
    "output_dict_per_obj": _by_object(_outputs),
    "temp_output_dict_per_obj": _by_object(_pending_outputs),
    "frames_tracked_per_obj": _by_object(_tracked),
}
"""Every key of sam2 1.1's dict, and how it is answered."""
