"""Outputs of tracked frames as bytes: what bookmarks and kept states are made of.

A body is one safetensors file (https://github.com/huggingface/safetensors): tensors by
name, and a JSON header of the writer's own. Nothing in it is ever executed.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from sam2_model.network import SAM2Network
from sam2_model.session import FrameOutput

Tensors = dict[str, torch.Tensor]


def pack(key: str, header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> bytes:
    """One body; `key` says what it is."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(on_cpu, metadata={key: json.dumps(header)})


def unpack(key: str, body: bytes, *, version: int) -> tuple[dict[str, Any], Tensors]:
    """The header and the tensors.

    Raises:
        ValueError: it was not written by `pack` with this key, or its header has
            another "version".
    """
    try:
        tensors = load(body)
        length = struct.unpack("<Q", body[:8])[0]
        metadata = json.loads(body[8 : 8 + length])["__metadata__"]
        header = json.loads(metadata[key])
    except (SafetensorError, KeyError, ValueError, TypeError, struct.error) as error:
        raise ValueError(f"not a {key}: {error}") from None
    if header.get("version") != version:
        raise ValueError(f"the {key} has version {header.get('version')!r}, must have {version}")
    return header, tensors


def output_tensors(
    prefix: str, output: FrameOutput, *, with_memory: bool = True, with_logits: bool = True
) -> Tensors:
    """An output's tensors by name; `output_of` reads them back."""
    tensors = {
        f"{prefix}pointer": output.object_pointer, f"{prefix}score": output.object_score_logits
    }
    if with_memory and output.memory is not None:
        tensors[f"{prefix}memory"] = output.memory
    if with_logits:
        tensors[f"{prefix}logits"] = output.mask_logits
    return tensors


def output_of(
    prefix: str,
    tensors: Mapping[str, torch.Tensor],
    *,
    network: SAM2Network,
    storage_device: torch.device,
) -> FrameOutput:
    """The output as the network goes on with it. Raises KeyError."""
    logits, memory = tensors.get(f"{prefix}logits"), tensors.get(f"{prefix}memory")
    if logits is None:  # nobody looks at those of an older frame
        size = network.config.low_res_mask_size
        logits = torch.zeros(1).expand(1, 1, size, size)
    on_device = {"device": network.device, "dtype": network.dtype}
    return FrameOutput(
        mask_logits=logits.to(storage_device),
        object_pointer=tensors[f"{prefix}pointer"].to(**on_device),
        object_score_logits=tensors[f"{prefix}score"].to(network.device),
        memory=None if memory is None else memory.to(storage_device),
    )
