"""Fine-tuned models: weights that know which network they are for, found by a name.

A fine-tuned model is one safetensors file. Its header names the network it
belongs to, so that the file alone is enough; a file in the cache's
`finetuned` folder goes by its file name wherever a model's name is asked for.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Mapping

from sam2_model.checkpoints.cache import cache_folder
from sam2_model.checkpoints.errors import CheckpointFileError
from sam2_model.configs import ALIASES, CONFIGS

if TYPE_CHECKING:
    import torch

_NETWORK_KEY = "sam2_network"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def save_finetuned(
    path: Path, state_dict: Mapping[str, torch.Tensor], *, network: str
) -> None:
    """Write weights with the name of their network (a key of `CONFIGS`), whole or not at all."""
    from safetensors.torch import save_file

    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in state_dict.items()},
            partial,
            metadata={_NETWORK_KEY: network},
        )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def network_of(path: Path) -> str:
    """The name of the network that a fine-tuned file's weights are for.

    Raises:
        CheckpointFileError: not a safetensors file, or one that does not say.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            network = (file.metadata() or {}).get(_NETWORK_KEY)
    except (OSError, SafetensorError) as error:
        raise CheckpointFileError(f"{path} cannot be read as safetensors: {error}") from error
    if network not in CONFIGS:
        raise CheckpointFileError(
            f"{path} does not say which network it is for ({network!r}): "
            "give the model's name and this file as its checkpoint"
        )
    return network


def finetuned_folder() -> Path:
    """Where fine-tuned models are found by name."""
    return cache_folder() / "finetuned"


def finetuned_path(name: str) -> Path:
    """Where the fine-tuned model of that name is, or would be.

    Raises:
        ValueError: not a name a model can have, or one that is taken.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"model name {name!r} must be 1 to 64 letters, digits, '.', '_' or '-', "
            "the first a letter or digit"
        )
    if name in CONFIGS or name in ALIASES:
        raise ValueError(f"model name {name!r} is that of a published model")
    return finetuned_folder() / f"{name}.safetensors"


def finetuned_names() -> list[str]:
    """The names of the fine-tuned models that are there, sorted."""
    return sorted(path.stem for path in finetuned_folder().glob("*.safetensors"))
