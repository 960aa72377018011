"""Why a checkpoint cannot be had or used."""

from __future__ import annotations

from pathlib import Path


class CheckpointError(RuntimeError):
    """A checkpoint cannot be had or cannot be used."""


class CheckpointDownloadError(CheckpointError):
    """A checkpoint could not be brought to this machine."""


class CheckpointFileError(CheckpointError, ValueError):
    """A file is missing, or is not a checkpoint, or is not the one it should be."""


class CheckpointMismatchError(CheckpointError, ValueError):
    """A checkpoint's keys or shapes are not those of the model asked for.

    `missing`: keys the model has and the file lacks. `unexpected`: keys only the file has.
    `misshaped`: (key, shape in the file, shape in the model).
    """

    def __init__(
        self,
        path: Path,
        model_name: str,
        *,
        missing: tuple[str, ...],
        unexpected: tuple[str, ...],
        misshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...],
    ) -> None:
        self.path, self.model_name = path, model_name
        self.missing, self.unexpected, self.misshaped = missing, unexpected, misshaped
        parts = []
        if missing:
            parts.append(f"{len(missing)} missing key(s), first {missing[0]!r}")
        if unexpected:
            parts.append(f"{len(unexpected)} unexpected key(s), first {unexpected[0]!r}")
        if misshaped:
            key, found, expected = misshaped[0]
            parts.append(
                f"{len(misshaped)} mis-shaped key(s), first {key!r}: "
                f"{found} in the file, {expected} in the model"
            )
        super().__init__(f"{path} is not a checkpoint of model {model_name!r}: " + "; ".join(parts))
