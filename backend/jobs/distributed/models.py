"""Fine-tuned models and which of them serves, in the storage that all processes reach."""

from __future__ import annotations

from backend.jobs.blobs import Blobs, FolderBlobs
from sam2_model.checkpoints.finetuned import finetuned_path

_CHOICE = "models/choice"


class SharedModels:
    """What `ModelChoice` keeps, for many machines."""

    def __init__(self, storage: Blobs, *, needs_weights: bool) -> None:
        """`needs_weights`: whether this process loads models."""
        self._storage = storage
        self._needs_weights = needs_weights

    def read(self) -> bytes | None:
        """The choice; None when there is none. Raises OSError."""
        return self._storage.load(_CHOICE)

    def write(self, choice: bytes, name: str) -> None:
        """Keep a choice of a model, whose weights are on this machine. Raises OSError."""
        self._storage.save(_weights(name), finetuned_path(name).read_bytes())
        self._storage.save(_CHOICE, choice)

    def has(self, name: str) -> bool:
        """Whether there is such a model; then it is also on this machine, if it is needed.

        Raises ValueError for what cannot be a name, OSError.
        """
        path = finetuned_path(name)
        if not self._needs_weights or path.is_file():
            return True
        weights = self._storage.load(_weights(name))
        if weights is None:
            return False
        FolderBlobs(path.parent).save(path.name, weights)
        return True


def _weights(name: str) -> str:
    return f"models/{name}.safetensors"
