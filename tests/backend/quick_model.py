"""A model for tests of what is around it: each object's mask is its box, moved by a pixel a frame.

Media are real. What is tracked is noted, and a test may hold it up.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from backend.model import LoadedModel
from converters.types import Box, FrameMasks
from sam2_model.tracker import merge_prompts, passes
from sam2_model.video import open_frame_source

SECONDS = 60
"""Longer than anything here takes; a test that waits for so long has failed."""


class _State:
    def __init__(self, files) -> None:
        self._stack = contextlib.ExitStack()
        self.source = self._stack.enter_context(open_frame_source(files))

    def close(self) -> None:
        self._stack.close()


@dataclass
class QuickModel:
    """`load` is what `create_app` takes; `before_frame` is called within the turn on the device."""

    before_frame: Callable[[tuple, int], None] = lambda object_ids, frame_index: None
    before_prompt: Callable[[tuple, int], None] = lambda object_ids, frame_index: None
    """The same, before a prompt is given."""
    before_open: Callable[[object], None] = lambda files: None
    """Called before a video is opened; then the device is free."""
    runs: list[tuple] = field(default_factory=list)
    """The object ids of each run."""
    frames: list[tuple[tuple, int]] = field(default_factory=list)
    """(object ids, frame index), in the order in which they were tracked."""
    prompted: list[tuple[object, int]] = field(default_factory=list)
    """(object id, frame index), in the order in which they were given."""
    states: list[_State] = field(default_factory=list)

    def load(self, settings=None) -> LoadedModel:
        return LoadedModel(self.track_steps, self.init_state, self.open_video)

    def open_video(self, files):
        raise AssertionError("no session is opened on this model")

    def init_state(self, files) -> _State:
        self.before_open(files)
        state = _State(files)
        self.states.append(state)
        return state

    def track_steps(self, state, prompts, *arguments, **options):
        for prompt in merge_prompts(prompts):
            self.before_prompt((prompt.object_id,), prompt.frame_index)
            self.prompted.append((prompt.object_id, prompt.frame_index))
            yield None
        yield from self.track(state, prompts, *arguments, **options)

    def track(
        self, state, prompts, frame_range=None, *, bookmark=None, is_cancelled=lambda: False
    ):
        info, merged = state.source.info, merge_prompts(prompts)
        boxes = {}
        for prompt in merged:
            boxes.setdefault(prompt.object_id, prompt.box or Box(20, 20, 60, 60))
        ids = tuple(boxes)
        self.runs.append(ids)
        for order in passes(frame_range, [prompt.frame_index for prompt in merged]):
            for index in order:
                if is_cancelled():
                    return
                self.before_frame(ids, index)
                self.frames.append((ids, index))
                masks = np.zeros((len(ids), info.height, info.width), bool)
                for mask, box in zip(masks, boxes.values()):
                    x = int(box.x_min) + index
                    mask[int(box.y_min) : int(box.y_max), x : x + int(box.width)] = True
                yield FrameMasks(index, ids, masks, np.full(len(ids), 3.0, np.float32))


class Hold:
    """`before_frame` or `before_prompt` that stops at one frame until the test lets it go on."""

    def __init__(self, frame_index: int, object_id: object = None) -> None:
        self.reached, self._may_go_on = threading.Event(), threading.Event()
        self._where = frame_index, object_id

    def __call__(self, object_ids: tuple, frame_index: int) -> None:
        wanted, object_id = self._where
        if frame_index == wanted and object_id in (None, *object_ids):
            self.reached.set()
            assert self._may_go_on.wait(SECONDS)

    def wait(self) -> None:
        assert self.reached.wait(SECONDS)

    def release(self) -> None:
        self._may_go_on.set()
