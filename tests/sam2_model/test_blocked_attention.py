"""Blocked attention against torch's own, over the sizes where blocks begin and end."""

import pytest
import torch
import torch.nn.functional as F

from sam2_model.network import blocked_attention
from sam2_model.network.blocked_attention import attend, attend_one_head

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocked_attention, "_BLOCK_SCORES", 512)
    monkeypatch.setattr(blocked_attention, "_QUERY_BLOCK", 8)
    monkeypatch.setattr(blocked_attention, "_KEY_BLOCK", 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("queries, keys", [(1, 1), (8, 16), (9, 17), (70, 5), (150, 33), (3, 600)])
@pytest.mark.parametrize("value_width", [32, 8])
def test_one_head_equals_the_fused_kernel(dtype, batch, queries, keys, value_width):
    torch.manual_seed(queries * keys)
    query, key = torch.randn(batch, queries, 32), torch.randn(batch, keys, 32)
    value = torch.randn(batch, keys, value_width)
    with torch.inference_mode():
        expected = F.scaled_dot_product_attention(query, key, value)
        answer = attend_one_head(query.to(dtype), key.to(dtype), value.to(dtype))
    assert answer.dtype == dtype
    torch.testing.assert_close(answer.float(), expected, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("queries, keys", [(4, 16), (64, 64), (100, 30)])
def test_heads_equal_the_fused_kernel(dtype, queries, keys):
    torch.manual_seed(0)
    # Strided as the layers make them: heads split from the channels.
    query = torch.randn(2, queries, 3, 16).transpose(1, 2)
    key, value = (torch.randn(2, keys, 3, 16).transpose(1, 2) for _ in range(2))
    with torch.inference_mode():
        expected = F.scaled_dot_product_attention(query, key, value)
        answer = attend(query.to(dtype), key.to(dtype), value.to(dtype))
    torch.testing.assert_close(answer.float(), expected, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_scores_do_not_overflow(dtype):
    query = torch.full((1, 20, 16), 100.0, dtype=dtype)
    key = torch.linspace(-100, 100, 40, dtype=dtype)[None, :, None].expand(1, 40, 16)
    value = torch.arange(40.0).to(dtype)[None, :, None].expand(1, 40, 16)
    with torch.inference_mode():
        answer = attend_one_head(query, key, value)
    torch.testing.assert_close(answer.float(), torch.full((1, 20, 16), 39.0))


def test_gradients_flow_in_training():
    query = torch.randn(1, 20, 16, requires_grad=True)
    attend_one_head(query, query, query).sum().backward()
    assert query.grad is not None and query.grad.isfinite().all()
