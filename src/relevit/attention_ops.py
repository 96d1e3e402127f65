"""Scaled dot-product attention that hands out its weights, and the two operations that keep it lean on a CPU.

Torch's composed operations copy queries, keys and values for the backward pass and walk over the whole batch between
operations. `_Weights` and `_Apply` save views instead, and work on as many images at a time as fit into the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_CACHE_BYTES = 1 << 20


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    differentiable_twice: bool = False,
) -> tuple[Tensor, Tensor]:
    """`scaled_dot_product_attention` with its signature; returns the output (batch, heads, queries, dim) and the weights
    (batch, heads, queries, keys) after the softmax, before dropout, at least in float32."""
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    if enable_gqa and key.shape[1] != query.shape[1]:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    lean = (
        not differentiable_twice and attn_mask is None and not is_causal and query.dtype in (torch.float32, torch.float64)
        and query.dtype == key.dtype == value.dtype and not torch.is_autocast_enabled(query.device.type)
    )  # fmt: skip
    if lean:
        weights = _Weights.apply(query, key, scale)
    else:
        scores = (query * scale) @ key.transpose(-2, -1)
        if is_causal:
            causal = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~causal, -math.inf)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    if torch.is_grad_enabled() and not weights.requires_grad:
        weights.requires_grad_()
    kept = F.dropout(weights, dropout_p) if dropout_p > 0.0 else weights
    return (_Apply.apply(kept, value) if lean else kept.to(value.dtype) @ value), weights


def image_chunks(weights: Tensor) -> Iterator[slice]:
    """Slices of the batch: on a CPU as many images as fit into the cache with their attention weights, else all."""
    batch = weights.shape[0]
    step = batch
    if weights.device.type == "cpu":
        step = max(1, _CACHE_BYTES // max(1, weights[0].numel() * weights.element_size()))
    for start in range(0, batch, step):
        yield slice(start, min(start + step, batch))


class _Weights(torch.autograd.Function):
    """softmax(scale * Q K^T)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, scale: float) -> Tensor:
        weights = query.new_empty(*query.shape[:3], key.shape[2])
        for part in image_chunks(weights):
            scores = _matmul(query[part], key[part].transpose(-2, -1)).mul_(scale)
            torch.softmax(scores, dim=-1, out=weights[part])
        ctx.save_for_backward(query, key, weights)
        ctx.scale = scale
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,) = grads
        query, key, weights = ctx.saved_tensors
        to_query = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        to_key = torch.empty(key.shape, dtype=key.dtype, device=key.device)
        for part in image_chunks(weights):
            scores = torch._softmax_backward_data(grad[part], weights[part], -1, weights.dtype).mul_(ctx.scale)
            _matmul(scores, key[part], out=to_query[part])
            _matmul(scores.transpose(-2, -1), query[part], out=to_key[part])
        return to_query, to_key, None


class _Apply(torch.autograd.Function):
    """A V."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(weights, value)
        batch, heads, queries, _ = weights.shape
        # (batch, queries, heads, dim) in memory, so that timm's transpose and reshape need no copy
        output = value.new_empty(batch, queries, heads, value.shape[-1]).transpose(1, 2)
        for part in image_chunks(weights):
            _matmul(weights[part], value[part], out=output[part])
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,) = grads
        weights, value = ctx.saved_tensors
        to_weights = torch.empty_like(weights) if ctx.needs_input_grad[0] else None
        to_value = torch.empty(value.shape, dtype=value.dtype, device=value.device) if ctx.needs_input_grad[1] else None
        for part in image_chunks(weights):
            if to_weights is not None:
                _matmul(grad[part], value[part].transpose(-2, -1), out=to_weights[part])
            if to_value is not None:
                _matmul(weights[part].transpose(-2, -1), grad[part], out=to_value[part])
        return to_weights, to_value


def _matmul(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """left @ right over (images, heads, ., .); one image goes to the batched product as a view, without a copy."""
    if left.shape[0] == 1:
        product = torch.bmm(left[0], right[0], out=None if out is None else out[0])
        return product.unsqueeze(0)
    return torch.matmul(left, right, out=out)
