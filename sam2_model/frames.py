"""From a video's pictures to what the network reads, a few frames ahead."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Callable, Iterator

import numpy as np
import torch
from PIL import Image

from sam2_model.video import FrameSource

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""ImageNet's channel means and deviations, which SAM 2 was trained with."""


def resize_frame(frame: np.ndarray, image_size: int) -> torch.Tensor:
    """An RGB picture (H, W, 3) uint8 -> (3, S, S) uint8, bicubic, aspect not kept.

    The same resize as SAM 2's loader of JPEG folders, so that results compare.
    """
    resized = Image.fromarray(frame).resize((image_size, image_size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def normalise(
    frames: torch.Tensor, device: torch.device | None = None
) -> torch.Tensor:
    """(..., 3, S, S) uint8 -> float32 with the training set's mean and deviation removed."""
    device = frames.device if device is None else device
    mean = torch.tensor(IMAGE_MEAN, device=device)[:, None, None]
    std = torch.tensor(IMAGE_STD, device=device)[:, None, None]
    return (frames.to(device).float() / 255 - mean) / std


class FrameReader:
    """Resized frames of a source, singly or in a row with a thread reading ahead."""

    def __init__(self, source: FrameSource, image_size: int, *, ahead: int = 3) -> None:
        self.source = source
        self.image_size = image_size
        self.ahead = ahead

    def read(self, frame_index: int) -> torch.Tensor:
        """One frame, (3, S, S) uint8."""
        return resize_frame(self.source.frame(frame_index), self.image_size)

    def read_in_order(
        self, order: range, needed: Callable[[int], bool]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Frames of a contiguous `order` (step 1 or -1) that are `needed`, as tensors.

        Decoding and resizing happen in a thread, at most `ahead` frames before
        the consumer. Closing the generator ends the thread.
        """
        if not order:
            return
        slots: queue.Queue = queue.Queue(self.ahead)
        stopped = threading.Event()
        thread = threading.Thread(
            target=self._fill, args=(order, needed, slots, stopped), daemon=True
        )
        thread.start()
        try:
            while True:
                item = slots.get()
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            thread.join()

    def _fill(self, order, needed, slots: queue.Queue, stopped: threading.Event) -> None:
        def put(item) -> bool:
            while not stopped.is_set():
                try:
                    slots.put(item, timeout=0.05)
                    return True
                except queue.Full:
                    continue
            return False

        first, last = min(order[0], order[-1]), max(order[0], order[-1])
        try:
            frames = self.source.frames(first, last + 1, step=order.step)
            with contextlib.closing(frames):
                for frame_index, frame in frames:
                    if stopped.is_set():
                        return
                    if needed(frame_index):
                        if not put((frame_index, resize_frame(frame, self.image_size))):
                            return
            put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            put(error)
