"""`sam2-label-studio serve` that a test can hold up, in a process of its own.

`FAULTS` names a folder; files in it say what goes wrong:

    gate    while it is there, no frame is tracked past the second one, or past the one whose
            index is in it
    clock   seconds that the machine's clock is set forward by, or back
    memory  how many objects the device bears at once (of the real model alone)

`FAULTS_MODEL=quick` serves with `tests.backend.quick_model` in place of the real one.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path

_FOLDER = Path(os.environ["FAULTS"])
_GATED_FRAME = 2
_real_time = time.time


def _number(name: str, default: float) -> float:
    try:
        return float((_FOLDER / name).read_text())
    except (FileNotFoundError, ValueError):  # not there, or just being written
        return default


def _set_clock() -> None:
    time.time = lambda: _real_time() + _number("clock", 0.0)


def _hurry() -> None:
    """What is tried again is so after tenths of a second."""
    from backend.jobs import outbox, queue, store

    outbox._FIRST_DELAY_SECONDS = 0.2
    outbox._SHORTEST_SLEEP_SECONDS = 0.05
    outbox._FULL_SECONDS = queue._FULL_SECONDS = 0.2
    store._LONGEST_DELAY_SECONDS = 1.0


def _wait_at_the_gate(object_ids: tuple, frame_index: int) -> None:
    gate = _FOLDER / "gate"
    if not gate.exists() or frame_index != int(_number("gate", _GATED_FRAME)):
        return
    (_FOLDER / "reached").touch()
    while gate.exists():
        time.sleep(0.02)


def _serve_quick_model() -> None:
    from backend import server
    from tests.backend.quick_model import QuickModel

    model = QuickModel(before_frame=_wait_at_the_gate)
    server.create_app = functools.partial(server.create_app, load=model.load)


def _limit_memory() -> None:
    import torch

    from sam2_model.network import SAM2Network

    condition = SAM2Network.condition_on_memory

    def limited(network, top, tokens):
        if len(tokens.maps[0]) > _number("memory", 1000):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return condition(network, top, tokens)

    SAM2Network.condition_on_memory = limited


def _hold_frames() -> None:
    """The gate, where the real model serves: the frame is found, and not shown yet."""
    from sam2_model.tracker import Follower

    follow = Follower.follow

    def held(follower, order, is_cancelled, **options):
        for frame_masks in follow(follower, order, is_cancelled, **options):
            _wait_at_the_gate(frame_masks.object_ids, frame_masks.frame_index)
            yield frame_masks

    Follower.follow = held


def main() -> int:
    _set_clock()  # before anything takes the real one for a default
    from backend import cli

    _hurry()
    if os.environ.get("FAULTS_MODEL") == "quick":
        _serve_quick_model()
    else:
        _limit_memory()
        _hold_frames()
    return cli.main(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
