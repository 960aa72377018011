"""Where a tracking run is, and what it takes to go on from there: in another process too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator, Sequence

from sam2_model.session import InferenceState
from sam2_model.stored_outputs import Tensors, output_of, output_tensors, pack, unpack

if TYPE_CHECKING:
    from sam2_model.tracker import Follower

_VERSION = 1
_KEY = "bookmark"


class OtherRun(ValueError):
    """A bookmark was given to a run that it is not of."""


class Bookmark:
    """Kept up to date by `track`; given to another run of the same prompts, it goes on.

    What was tracked before is not answered again. What follows is what the first run
    would have answered, but for frames that a pass in the other direction looks at
    and that the state's history had no room for.
    """

    def __init__(self, saved: bytes | None = None) -> None:
        """
        Args:
            saved: by `save`; None: the run begins at its beginning.

        Raises:
            ValueError: it was not written by `save`.
        """
        self._saved = None if saved is None else _Saved.parse(saved)
        self._run: Follower | None = None
        self._orders: list[range] = []
        self._place: tuple[int, int] | None = None

    # --- for `track` ---------------------------------------------------------

    def resume(self, run: Follower, orders: Sequence[range]) -> Iterator[tuple[int, range, bool]]:
        """What is left to do: (number of the pass, its frames, whether it had begun).

        Raises:
            OtherRun: the bookmark is of another run.
        """
        self._run, self._orders = run, list(orders)
        saved = self._saved
        if saved is None:
            return ((number, order, False) for number, order in enumerate(orders))
        saved.check(run.state, self._orders)
        self._place = saved.number, saved.frame_index
        saved.restore(run)
        order = orders[saved.number]
        rest = range(saved.frame_index + order.step, order.stop, order.step)
        left = [(saved.number, rest, True)] if not run.has_ended(saved.frame_index, order) else []
        later = range(saved.number + 1, len(orders))
        return iter(left + [(number, orders[number], False) for number in later])

    def move(self, number: int, frame_index: int) -> None:
        """A frame of a pass is done."""
        self._place = number, frame_index

    # --- for those who iterate -----------------------------------------------

    @property
    def is_placed(self) -> bool:
        """Whether a frame is done, so that there is something to `save`."""
        return self._run is not None and self._place is not None

    def save(self) -> bytes:
        """What to go on with; call it between frames, from the thread that iterates.

        A few megabytes an object for the official models.

        Raises:
            ValueError: no frame is done yet, or the run has ended.
        """
        if not self.is_placed:
            raise ValueError("there is nothing to save before a frame is tracked")
        if not self._run.state.objects:
            raise ValueError("there is nothing to save of a run that has ended")
        run, (number, frame_index) = self._run, self._place
        predictor, state = run.predictor, run.state
        reverse = self._orders[number].step < 0
        kept = set(predictor.frames_needed_after(frame_index, reverse))
        places = [frame_index]
        if not reverse and number + 1 < len(self._orders):
            # The way back begins where this pass began, among what it found there.
            places.append(self._orders[number].start)
            kept |= set(predictor.frames_needed_after(places[-1], True))
        near = predictor.memory_reach
        tensors: Tensors = {}
        for position, item in enumerate(state.objects.values()):
            for index, output in item.history.items():
                if index not in kept:
                    continue
                tensors |= output_tensors(
                    f"{position}/{index}/",
                    output,
                    with_memory=min(abs(index - p) for p in places) <= near,
                    with_logits=index in places,
                )
        header = {
            "version": _VERSION,
            "orders": [[o.start, o.stop, o.step] for o in self._orders],
            "objects": len(state.objects),
            "memory": _memory_shape(state),
            "pass": number,
            "frame": frame_index,
            "stopped": [i for i, key in enumerate(state.objects) if key in run.stopped],
            "lost_for": [run.lost_for.get(key, 0) for key in state.objects],
        }
        return pack(_KEY, header, tensors)


@dataclass(frozen=True)
class _Saved:
    """A bookmark that was read."""

    header: dict[str, Any]
    tensors: Tensors

    @classmethod
    def parse(cls, body: bytes) -> _Saved:
        return cls(*unpack(_KEY, body, version=_VERSION))

    @property
    def number(self) -> int:
        return self.header["pass"]

    @property
    def frame_index(self) -> int:
        return self.header["frame"]

    def check(self, state: InferenceState, orders: Sequence[range]) -> None:
        """Raises OtherRun when it is not of this run."""
        for name, wanted in (
            ("orders", [[o.start, o.stop, o.step] for o in orders]),
            ("objects", len(state.objects)),
            ("memory", _memory_shape(state)),
        ):
            if self.header[name] != wanted:
                raise OtherRun(
                    f"the bookmark is of another run: its {name} are {self.header[name]}, "
                    f"must be {wanted}"
                )

    def restore(self, run: Follower) -> None:
        """Put the run where it was."""
        state = run.state
        ids = list(state.objects)
        run.stopped.update(ids[position] for position in self.header["stopped"])
        run.lost_for.update(zip(ids, self.header["lost_for"]))
        frames: dict[int, set[int]] = {position: set() for position in range(len(ids))}
        for name in self.tensors:
            position, index, _ = name.split("/")
            frames[int(position)].add(int(index))
        for position, indices in frames.items():
            item = state.objects[ids[position]]
            # The order in which they were tracked is the one they are forgotten in.
            for index in sorted(indices, key=lambda index: -abs(index - self.frame_index)):
                output = output_of(
                    f"{position}/{index}/", self.tensors,
                    network=state.network, storage_device=state.storage_device,
                )
                item.remember(index, output)


def _memory_shape(state: InferenceState) -> list[int]:
    """Of one frame's memory: it differs between models and image sizes."""
    outputs = (o for item in state.objects.values() for o in item.conditioning.values())
    return list(next(outputs).memory.shape)
