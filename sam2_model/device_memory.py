"""When the device's memory does not suffice: the same work in smaller pieces.

PyTorch says so with an exception, in the middle of a frame. Nothing of that frame has been
kept then, so it can be done again once there is more room.
"""

from __future__ import annotations

import logging
from typing import Callable, TypeVar

import torch

from sam2_model.errors import DeviceMemoryError
from sam2_model.session import InferenceState

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


def within_memory(
    state: InferenceState, objects_at_once: int, work: Callable[[int], _Result]
) -> _Result:
    """What `work` returns, tried again with less memory each time that it does not suffice.

    First what is cached goes; then fewer objects go through the network together, down to
    one; then memories of earlier frames move to main memory. The masks stay the same, but
    for the rounding of another batch size. A state goes on with what it came to.

    Args:
        objects_at_once: what is taken without need.
        work: is given how many objects may go through the network together; what it does
            before an exception must not count.

    Raises:
        DeviceMemoryError: nothing of this was enough.
    """
    while True:
        limit = min(objects_at_once, state.max_objects_per_batch or objects_at_once)
        try:
            return work(limit)
        except torch.OutOfMemoryError as error:
            what = _make_room(state, limit)
            if what is None:
                raise DeviceMemoryError(
                    "the device has too little memory for this video, even for one object at a "
                    "time with nothing cached: use a smaller model, or end what else uses the "
                    f"device ({_first_line(error)})"
                ) from None
            logger.warning("the device is out of memory: %s", what)
        if state.device.type == "cuda":
            torch.cuda.empty_cache()


def _make_room(state: InferenceState, limit: int) -> str | None:
    """What was done about it; None when there is nothing left to do."""
    if state.drop_features():
        return "cached features are dropped, and no more are kept"
    if limit > 1:
        state.max_objects_per_batch = limit // 2
        return f"{limit // 2} objects at a time from now on, not {limit}"
    if state.offload():
        return "memories of earlier frames are in main memory from now on"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
