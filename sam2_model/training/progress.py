"""A progress bar with the loss and J of the last steps."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Callable, Iterator

from tqdm import tqdm

_WINDOW = 50
"""Steps that the figures shown are means of."""


@contextlib.contextmanager
def training_bar(
    name: str, first_step: int, last_step: int, *, quiet: bool = False
) -> Iterator[Callable[[dict], None]]:
    """A bar on standard error from `first_step` to `last_step`; gives a `report` for
    `Trainer.train`. Where nobody looks (no terminal) a line now and then."""
    recent: dict[str, deque[float]] = {
        key: deque(maxlen=_WINDOW) for key in ("loss", "prompt_iou", "track_iou")
    }
    shown = {"loss": "loss", "prompt_iou": "J at prompt", "track_iou": "J tracked"}
    with tqdm(
        desc=name, initial=first_step, total=last_step, unit="step",
        mininterval=0.5, maxinterval=30, disable=quiet,
    ) as bar:

        def report(line: dict) -> None:
            for key, values in recent.items():
                if line[key] is not None:
                    values.append(line[key])
            bar.set_postfix(
                {
                    shown[key]: f"{sum(values) / len(values):.3f}"
                    for key, values in recent.items()
                    if values
                },
                refresh=False,
            )
            bar.update()

        yield report
