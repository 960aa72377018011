"""Counts of what a conversion wrote, what it left out, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable

from converters.dataset import visible_frames
from converters.types import Track


@dataclass
class Report:
    """Filled while a data set is written; nothing is left out without a line here."""

    videos: int = 0
    frames: int = 0
    objects: int = 0
    masks: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """What was left out and why, e.g. "masks (empty)" -> 3."""
    changed: dict[str, int] = field(default_factory=dict)
    """What was written otherwise than it was, e.g. "pixels given to a smaller object" -> 90."""
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
