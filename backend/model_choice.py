"""Which model serves: that of the settings, or one that was fine-tuned since."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from typing import Any

from backend.settings import Settings
from sam2_model.checkpoints.finetuned import finetuned_path

logger = logging.getLogger(__name__)

_FILE = "model.json"


class ModelChoice:
    """Kept in a small file of the data folder; survives a restart.

    It holds as long as the settings name the model that it was made in place
    of: another model in the settings is an operator's newer word.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.data_folder / _FILE
        self._names = self._read()

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
        names = [*(other for other in self._names if other != name), name]
        content = {"instead_of": self._settings.model_version, "models": names}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, self._path)
        self._names = names

    def _read(self) -> list[str]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            logger.error("%s cannot be read, the settings' model serves: %s", self._path, error)
            return []
        if not isinstance(content, dict) or content.get("instead_of") != self._settings.model_version:
            logger.warning("%s was made with another model in the settings: not used", self._path)
            return []
        names = content.get("models")
        return [name for name in names if _is_there(name)] if isinstance(names, list) else []


def _is_there(name: Any) -> bool:
    try:
        is_there = isinstance(name, str) and finetuned_path(name).is_file()
    except ValueError:  # not a name a model can have
        is_there = False
    if not is_there:
        logger.error("the fine-tuned model %r is no longer there: an earlier one serves", name)
    return is_there
