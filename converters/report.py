"""Counts of what a conversion wrote, what it left out, and why."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Callable, Iterator

from converters.dataset import visible_frames
from converters.malformed import MalformedValue
from converters.types import Track

PLACES_KEPT = 20
"""Of the values that were malformed; all are counted."""


@dataclass
class Report:
    """Filled while a data set is read and written; nothing is left out without a line here."""

    videos: int = 0
    frames: int = 0
    objects: int = 0
    masks: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """What was left out and why, e.g. "masks (empty)" -> 3."""
    changed: dict[str, int] = field(default_factory=dict)
    """What was written otherwise than it was, e.g. "pixels given to a smaller object" -> 90."""
    strict: bool = False
    """Whether the first malformed value stops the reading instead of being left out."""
    malformed: list[str] = field(default_factory=list)
    """The first `PLACES_KEPT` malformed values, each by its place and the rule it breaks."""
    malformed_count: int = 0
    """Of all of them."""
    progress: Callable[[int], None] = field(default=lambda done: None, repr=False, compare=False)
    """Called with the number of masks (in DAVIS and SA-V frames) just written."""

    def add_video(self, frame_count: int) -> None:
        self.videos += 1
        self.frames += int(frame_count)

    def add_object(self, mask_count: int) -> None:
        self.objects += 1
        self.masks += mask_count

    def drop(self, what: str, count: int = 1) -> None:
        if count:
            self.dropped[what] = self.dropped.get(what, 0) + int(count)

    def change(self, what: str, count: int = 1) -> None:
        if count:
            self.changed[what] = self.changed.get(what, 0) + int(count)

    @contextlib.contextmanager
    def leaving_out(self, what: str) -> Iterator[None]:
        """A malformed value that is met in the block costs no more than the block.

        The block reads one thing of a file: an annotation, a video, a region;
        `what` names such things ("annotations"). When a `MalformedValue` leaves
        the block, one of them is counted as dropped, by the rule that was
        broken, and its place is kept. With `strict` it is raised on.
        """
        try:
            yield
        except MalformedValue as error:
            self.leave_out(what, error)

    @contextlib.contextmanager
    def making_do(self, what: str) -> Iterator[None]:
        """The same where nothing is lost but the value: `what` says what stands for it.

        Counted as changed: "frame rates taken for unknown (fps: must be >= 0, is …)".
        """
        try:
            yield
        except MalformedValue as error:
            self._note(error)
            self.change(f"{what} ({error.reason})")

    def leave_out(self, what: str, error: MalformedValue) -> None:
        """Count what `error` spoiled. Raises it when strict."""
        self._note(error)
        self.drop(f"{what} ({error.reason})")

    def _note(self, error: MalformedValue) -> None:
        if self.strict:
            raise error
        self.malformed_count += 1
        if len(self.malformed) < PLACES_KEPT:
            self.malformed.append(str(error))

    def visible_frames(self, track: Track) -> list[int]:
        """Sorted frame indices with a mask that is not empty; the track is counted."""
        visible = visible_frames(track)
        self.drop("masks (empty)", len(track.masks) - len(visible))
        if visible:
            self.add_object(len(visible))
        else:
            self.drop("objects (on no frame)")
        return visible

    def summary(self) -> str:
        """One line: `2 videos, 20 frames, 4 objects, 16 masks; dropped: 3 masks (empty)`."""
        names = ("video", "frame", "object", "mask")
        counts = (self.videos, self.frames, self.objects, self.masks)
        line = ", ".join(
            f"{count} {name}{'' if count == 1 else 's'}" for count, name in zip(counts, names)
        )
        return "; ".join([line, *self.remarks()])

    def remarks(self) -> list[str]:
        """What is not as it was: `["dropped: 3 masks (empty)", "changed: ..."]`."""
        return [
            f"{title}: " + ", ".join(f"{count} {what}" for what, count in entries.items())
            for title, entries in (("dropped", self.dropped), ("changed", self.changed))
            if entries
        ]
