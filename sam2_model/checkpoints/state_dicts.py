"""From a checkpoint file to tensors, and into a module."""

from __future__ import annotations

import logging
import os
import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_model.checkpoints.errors import CheckpointFileError, CheckpointMismatchError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_ZIP_MAGIC = b"PK\x03\x04"

# A pickle of protocol 2 holding torch's magic number: `torch.save` before 1.6.
_LEGACY_TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

# What torch.load lets through for damaged archives and pickles, besides its own RuntimeError.
_DAMAGED = (
    RuntimeError, OSError, EOFError, pickle.UnpicklingError, struct.error,
    ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError,
)  # fmt: skip


def load_state_dict_file(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint file on the CPU, by key, in the order and dtypes of the file.

    Reads what `torch.save` writes, either `{"model": state_dict}` as published or a bare state
    dict, without ever running code from it (`weights_only`), and safetensors. The content decides,
    not the suffix. The tensors may be mapped from the file: copy them before changing it.

    Raises `CheckpointFileError`, naming the file, if it is missing, damaged or something else.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if head.startswith((_ZIP_MAGIC, _LEGACY_TORCH_MAGIC)):
        return _named_tensors(_load_torch(path, is_zip=head.startswith(_ZIP_MAGIC)), path)
    what = _what_else(head)
    if head[8:9] == b"{" or (path.suffix == ".safetensors" and what is None):
        return _named_tensors(_load_safetensors(path), path)
    what = what or "neither a PyTorch nor a safetensors file"
    raise CheckpointFileError(f"{path} is not a checkpoint: {what}")


def _what_else(head: bytes) -> str | None:
    if not head:
        return "the file is empty"
    if head.lstrip()[:1] == b"<":
        return "it holds a web page or XML, often the error page of a failed download"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; run `git lfs pull` to get the file itself"
    return None


def _load_torch(path: Path, *, is_zip: bool) -> object:
    import torch

    try:
        # Only the zip format can be mapped; mapping keeps a second copy of the weights out of memory.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({forbidden[1]})" if forbidden else ""
        raise CheckpointFileError(
            f"{path} is refused: it holds more than tensors{what}, and reading that could run any "
            "code. Save only its state dict, or convert it to safetensors"
        ) from error
    except _DAMAGED as error:
        raise CheckpointFileError(
            f"{path} is damaged or not a PyTorch checkpoint: {str(error).partition(chr(10))[0]}"
        ) from error


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except (SafetensorError, *_DAMAGED) as error:
        raise CheckpointFileError(f"{path} is damaged or not a safetensors file: {error}") from error


def _named_tensors(loaded: object, path: Path) -> dict[str, torch.Tensor]:
    import torch

    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        loaded = loaded["model"]
    if not isinstance(loaded, Mapping) or not loaded:
        kind = "an empty dict" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise CheckpointFileError(
            f'{path} is not a checkpoint: it holds {kind}; expected {{"model": state dict}} or a state dict'
        )
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointFileError(
                f"{path} is not a checkpoint: under {key!r} it holds a value of type "
                f"{type(value).__name__}, expected tensors under string keys"
            )
    return {key: value.detach() for key, value in loaded.items()}


def load_into(module: torch.nn.Module, path: str | os.PathLike[str], *, model_name: str) -> None:
    """Copies a checkpoint file's weights into `module`, which keeps its device and dtypes.

    Strict: the keys and shapes must be exactly those of `module`. Half-precision tensors are cast.

    Raises `CheckpointMismatchError` naming the file, `model_name` and the first key of each kind of
    difference, or what `load_state_dict_file` raises; `module` is then as it was.
    """
    path = Path(path)
    expected = module.state_dict()
    if any(tensor.is_meta for tensor in expected.values()):
        raise ValueError("module: has tensors on the meta device, which hold no weights; use to_empty first")
    found = load_state_dict_file(path)
    missing = tuple(key for key in expected if key not in found)
    unexpected = tuple(key for key in found if key not in expected)
    misshaped = tuple(
        (key, tuple(found[key].shape), tuple(expected[key].shape))
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    )
    if missing or unexpected or misshaped:
        raise CheckpointMismatchError(
            path, model_name, missing=missing, unexpected=unexpected, misshaped=misshaped
        )
    for key, tensor in expected.items():
        # Casting between precisions is meant; from integers it would pass quantised codes as weights.
        if found[key].is_floating_point() != tensor.is_floating_point():
            raise CheckpointFileError(
                f"{path} is not a checkpoint of model {model_name!r}: {key!r} is {found[key].dtype} "
                f"in the file, {tensor.dtype} in the model"
            )
    module.load_state_dict(found, strict=True)
    logger.info("loaded %s into model %s", path, model_name)
