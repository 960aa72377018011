"""Which model serves: that of the settings, or one that was fine-tuned since."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any, Protocol

from backend.jobs.blobs import FolderBlobs
from backend.settings import Settings
from sam2_model.checkpoints.finetuned import finetuned_path

logger = logging.getLogger(__name__)

_FILE = "model.json"


class ChoicePlace(Protocol):
    """Where a choice is kept: `LocalModels`, `jobs.distributed.models.SharedModels`."""

    def read(self) -> bytes | None:
        """The choice; None when there is none. Raises OSError."""
        ...

    def write(self, choice: bytes, name: str) -> None:
        """Keep a choice of a model that is on this machine. Raises OSError."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a model. Raises ValueError, OSError."""
        ...


class LocalModels:
    """A small file of the data folder, and the models of this machine."""

    def __init__(self, data_folder: Path) -> None:
        self._files = FolderBlobs(data_folder)

    def read(self) -> bytes | None:
        return self._files.load(_FILE)

    def write(self, choice: bytes, name: str) -> None:
        self._files.save(_FILE, choice)

    def has(self, name: str) -> bool:
        return finetuned_path(name).is_file()


class ModelChoice:
    """Survives a restart.

    It holds as long as the settings name the model that it was made in place
    of: another model in the settings is an operator's newer word.
    """

    def __init__(self, settings: Settings, place: ChoicePlace | None = None) -> None:
        """`place`: None: in the data folder."""
        self._settings = settings
        self._place = place or LocalModels(settings.data_folder)
        self._names: list[str] = []
        self.refresh()

    @property
    def settings(self) -> Settings:
        """The service's settings, with the chosen model in them."""
        return self.settings_for(self._names[-1]) if self._names else self._settings

    def settings_for(self, name: str) -> Settings:
        """The same with a fine-tuned model."""
        return dataclasses.replace(self._settings, model=name, checkpoint=None)

    @property
    def versions(self) -> list[str]:
        """The version that serves, then those before it, the newest first."""
        chosen = [self.settings_for(name).model_version for name in reversed(self._names)]
        return list(dict.fromkeys([*chosen, self._settings.model_version]))

    def choose(self, name: str) -> None:
        """From now on this fine-tuned model. Raises OSError when that cannot be kept."""
        self.refresh()  # another process may have chosen meanwhile
        names = [*(other for other in self._names if other != name), name]
        content = {"instead_of": self._settings.model_version, "models": names}
        self._place.write((json.dumps(content, indent=2) + "\n").encode(), name)
        self._names = names

    def refresh(self) -> bool:
        """Look again at what was chosen, by whichever process; whether that has changed."""
        before, self._names = self._names, self._read()
        return self._names != before

    def _read(self) -> list[str]:
        try:
            body = self._place.read()
            content = None if body is None else json.loads(body)
        except (OSError, ValueError) as error:
            logger.error(
                "which model was chosen cannot be read, %s serves: %s",
                "the same" if self._names else "the settings' model", error,
            )
            return self._names
        if content is None:
            return []
        if not isinstance(content, dict) or content.get("instead_of") != self._settings.model_version:
            if not self._names:
                logger.warning(
                    "a model was chosen with another one in the settings: it is not used"
                )
            return []
        names = content.get("models")
        return [name for name in names if self._has(name)] if isinstance(names, list) else []

    def _has(self, name: Any) -> bool:
        if name in self._names:
            return True
        try:
            is_there = isinstance(name, str) and self._place.has(name)
        except (OSError, ValueError):  # not to be had, or not a name a model can have
            is_there = False
        if not is_there:
            logger.error("the fine-tuned model %r is not there: an earlier one serves", name)
        return is_there
