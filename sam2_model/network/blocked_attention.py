"""softmax(query key^T / sqrt(C)) value, the fastest way each device has.

GPUs use torch's fused kernels. On a CPU, without a gradient, plain matrix
products on blocks that fit the cache beat them: up to five times in bfloat16
where the processor has AVX512-BF16 but no AMX, a fifth in float32. So they do
in bfloat16 training, where the scores of small maps are kept for the gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

_BLOCK_SCORES = 2**22
"""Scores held at once in bfloat16: 8 MiB, a cache's worth."""
_QUERY_BLOCK, _KEY_BLOCK = 1024, 4096
"""Scores held at once in float32, with the softmax kept up from block to block: 16 MiB."""
_TRAINING_SCORES = 2**24
"""Scores kept for the gradient in bfloat16: 32 MiB a layer."""


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention of several heads.

    Args:
        query: (B, heads, N, C). key: (B, heads, M, C). value: (B, heads, M, C).

    Returns:
        (B, heads, N, C).
    """
    if not (_on_cpu_without_gradient(query) and query.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(query, key, value)
    attended = _attend_bfloat16(query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1))
    return attended.unflatten(0, query.shape[:2])


def attend_one_head(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """Attention of one head.

    Args:
        query: (B, N, C). key: (B, M, C). value: (B, M, D); D may differ from C
            (fast where `takes_narrow_values`).

    Returns:
        (B, N, D).
    """
    if _trains_in_bfloat16(query) and len(query) * query.shape[1] * key.shape[1] <= _TRAINING_SCORES:
        # Autocast would take the softmax, and with it every score, to float32.
        with torch.autocast("cpu", enabled=False):
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(1, 2)
            return torch.softmax(scores, dim=-1) @ value
    if not takes_narrow_values(query):
        return F.scaled_dot_product_attention(
            query[:, None], key[:, None], value[:, None]
        )[:, 0]
    if query.dtype == torch.bfloat16:
        return _attend_bfloat16(query, key, value)
    return _attend_float32(query, key, value)


def takes_narrow_values(query: torch.Tensor) -> bool:
    """Whether `attend_one_head` gains from values narrower than its keys."""
    return _on_cpu_without_gradient(query) and query.dtype in (torch.float32, torch.bfloat16)


def _trains_in_bfloat16(query: torch.Tensor) -> bool:
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad


def _on_cpu_without_gradient(query: torch.Tensor) -> bool:
    return query.device.type == "cpu" and not torch.is_grad_enabled()


def _attend_bfloat16(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """(B, N, C), (B, M, C), (B, M, D) -> (B, N, D), B heads and objects alike.

    Products in bfloat16 are so fast that passes over the scores are what
    costs. One softmax over whole rows reads them once; it computes in float32.
    """
    query = query * query.shape[-1] ** -0.5
    (batch, count, _), key_count = query.shape, key.shape[1]
    rows = min(count, max(64, _BLOCK_SCORES // key_count))
    group = max(1, _BLOCK_SCORES // (rows * key_count)) if rows == count else 1
    out = query.new_empty(batch, count, value.shape[-1])
    buffer = query.new_empty(min(group, batch) * rows * key_count)
    for first in range(0, batch, group):
        some = slice(first, first + group)
        for start in range(0, count, rows):
            part = query[some, start : start + rows]
            shape = (*part.shape[:2], key_count)
            scores = buffer[: shape[0] * shape[1] * key_count].view(shape)
            torch.bmm(part, key[some].transpose(1, 2), out=scores)
            torch.softmax(scores, dim=-1, out=scores)
            out[some, start : start + rows] = torch.bmm(scores, value[some])
    return out


def _attend_float32(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """The same in float32, where products cost most and a narrow value saves them."""
    query = query * query.shape[-1] ** -0.5
    out = query.new_empty(*query.shape[:2], value.shape[-1])
    scores = query.new_empty(
        min(query.shape[1], _QUERY_BLOCK) * min(key.shape[1], _KEY_BLOCK)
    )
    for rows, keys, values, answer in zip(query, key, value, out):
        for start in range(0, len(rows), _QUERY_BLOCK):
            stop = start + _QUERY_BLOCK
            answer[start:stop] = _attend_rows(rows[start:stop], keys, values, scores)
    return out


def _attend_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: torch.Tensor
) -> torch.Tensor:
    """One block of scaled queries (n, C) over all keys (M, C) and values (M, D) -> (n, D).

    The softmax is kept up from block to block (online softmax,
    https://arxiv.org/abs/1805.02867).
    """
    highest = total = summed = None
    for start in range(0, len(key), _KEY_BLOCK):
        keys, values = key[start : start + _KEY_BLOCK], value[start : start + _KEY_BLOCK]
        part = scores[: len(query) * len(keys)].view(len(query), len(keys))
        torch.mm(query, keys.t(), out=part)
        block_highest = part.amax(dim=1, keepdim=True)
        if highest is not None:
            block_highest = torch.maximum(highest, block_highest)
        part.sub_(block_highest).exp_()
        block_total = part.sum(dim=1, keepdim=True)
        if highest is None:
            total, summed = block_total, part @ values
        else:
            shrink = torch.exp(highest - block_highest)
            total = total * shrink + block_total
            summed = torch.addmm(summed.mul_(shrink), part, values)
        highest = block_highest
    return summed / total
