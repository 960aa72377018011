"""All that an inference state remembers of its objects, as bytes, for another process.

Unlike a bookmark, which goes on at one place, it serves whatever is tracked next: every
output that the state holds is in it, with what each was made from. So what the state's
history is allowed (`StateLimits.history_bytes`) bounds its size, beside the prompted frames.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Mapping

import torch

from sam2_model.network import SAM2Network
from sam2_model.session import FrameOutput, InferenceState, ObjectState
from sam2_model.stored_outputs import Tensors, output_of, output_tensors, pack, unpack

_VERSION = 1
_KEY = "kept state"
_MEMORY_MAKERS = ("memory_encoder.", "obj_ptr_proj.")
"""Parts of the network whose outputs are remembered."""


class OtherModel(ValueError):
    """What is remembered was made by another model."""


@dataclass(frozen=True)
class KeptState:
    """What was read; `restore` puts it into a state."""

    header: Mapping[str, Any]
    tensors: Tensors

    @classmethod
    def parse(cls, body: bytes) -> KeptState:
        """Raises ValueError when `save_state` has not written it."""
        return cls(*unpack(_KEY, body, version=_VERSION))

    @property
    def note(self) -> Any:
        """What was given to `save_state`."""
        return self.header["note"]

    def restore(self, state: InferenceState) -> None:
        """Make the state's objects those that were saved.

        Raises:
            OtherModel: the state's network is not the one whose memories they are.
            ValueError: something is missing.
        """
        if self.header["model"] != _model_name(state.network):
            raise OtherModel("the memories are of another model")
        try:
            objects = [
                self._object(state, position, item)
                for position, item in enumerate(self.header["objects"])
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the kept state is broken: {error!r}") from None
        state.objects = OrderedDict((item.object_id, item) for item in objects)

    def _object(
        self, state: InferenceState, position: int, item: Mapping[str, Any]
    ) -> ObjectState:
        restored = ObjectState(item["id"])

        def output(frame_index: int, serial: int, looked_at: Any) -> FrameOutput:
            found = output_of(
                f"{position}/{frame_index}/", self.tensors,
                network=state.network, storage_device=state.storage_device,
            )
            found.serial, found.looked_at = serial, _hashable(looked_at)
            return found

        for entry in item["conditioning"]:
            restored.conditioning[entry[0]] = output(*entry)
        for entry in item["history"]:
            restored.remember(entry[0], output(*entry))
        for is_reverse, frames in zip((False, True), item["tracked"]):
            restored.tracked_reverse.update(dict.fromkeys(frames, is_reverse))
        return restored


def save_state(state: InferenceState, note: Any = None) -> bytes:
    """The state's outputs, and `note`, a JSON value. Object ids must be texts.

    Prompts that no propagation has seen yet are not in it. Not to be called while a frame
    is being tracked.
    """
    tensors: Tensors = {}
    objects = []
    for position, item in enumerate(state.objects.values()):
        for outputs in (item.conditioning, item.history):
            for index, output in outputs.items():
                tensors |= output_tensors(f"{position}/{index}/", output)
        objects.append(
            {
                "id": item.object_id,
                # The order of both counts: what is looked at, and what is forgotten first.
                "conditioning": _entries(item.conditioning),
                "history": _entries(item.history),
                "tracked": [
                    [index for index, way in item.tracked_reverse.items() if way is is_reverse]
                    for is_reverse in (False, True)
                ],
            }
        )
    header = {
        "version": _VERSION, "model": _model_name(state.network), "objects": objects, "note": note
    }
    return pack(_KEY, header, tensors)


def _entries(outputs: Mapping[int, FrameOutput]) -> list[list[Any]]:
    """[frame index, serial, what it looked at], in their order."""
    return [[index, output.serial, output.looked_at] for index, output in outputs.items()]


def _hashable(value: Any) -> Any:
    """JSON has lists for the tuples that `FrameOutput.looked_at` is made of."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _model_name(network: SAM2Network) -> str:
    """Changes with the weights that make memories: training changes them all."""
    digest = hashlib.blake2b(repr(network.config).encode(), digest_size=16)
    for name, tensor in network.state_dict().items():
        if name.startswith(_MEMORY_MAKERS):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
