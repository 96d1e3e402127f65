"""Attention for relevance at little memory: nothing of the size of an attention map is kept but the map itself.

A composed attention keeps, for a loss on relevance, the derivative G of a logit as well as products of its size. Here G is
computed where it is needed, from the derivative `d` of the logit with respect to the attention's output: G = d V^T. The
backward pass of `_Attention` therefore wants, besides the derivative of the loss with respect to the output, three small
things that make up the part that comes through the relevance row r' = r + r Abar: r, the loss's derivative by r', and d.
`_Carry` hands them over in its own backward pass, which comes first: the middle one as the derivative of `link`, a second
output of `_Attention` that ties the two together, the others in `Handover`. On a CPU the work is done on as many
images at a time as fit into the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CACHE_BYTES = 1 << 20


@dataclass
class Handover:
    """What the parts of one block leave for each other."""

    expected: bool = False
    """Set for the logit's backward pass: `_Attention` leaves Abar on its way, where G is at hand (not in the first block,
    where that pass ends)."""
    mean: Tensor | None = None
    loss: list[tuple[Tensor, Tensor, slice]] = field(default_factory=list)
    """r and d at some rows, and the rows: from `_Carry` to `_Attention` in the loss's backward pass."""


@dataclass
class FrugalBlock:
    """One block's attention after the forward pass: its output and `link` are in the graph, the rest is plain data."""

    output: Tensor  # (batch, heads, queries, dim)
    link: Tensor  # (batch, keys), zeros
    weights: Tensor  # (batch, heads, queries, keys)
    value: Tensor  # (batch, heads, keys, dim)
    handover: Handover


@contextmanager
def logit_backward(blocks: list[FrugalBlock]) -> Iterator[None]:
    """Around the backward pass from the logits to the blocks' outputs, of which `frugal_carry` wants to know."""
    try:
        for block in blocks:
            block.handover.expected = True
        yield
    finally:
        for block in blocks:
            block.handover.expected = False


def frugal_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> FrugalBlock:
    """softmax(scale Q K^T + bias) V; bias (1 or batch, 1 or heads, queries, keys) may require a gradient."""
    handover = Handover()
    output, link, weights = _Attention.apply(query, key, value, bias, scale, handover)
    if not output.requires_grad:
        output.requires_grad_()  # frozen weights: a leaf, so that the logit has a derivative with respect to it
    return FrugalBlock(output, link, weights, value.detach(), handover)


def frugal_carry(row: Tensor, block: FrugalBlock, output_gradient: Tensor, rows: slice | None = None) -> Tensor:
    """r Abar, (batch, queries) to (batch, keys), for the constant G = d V^T, d = `output_gradient`.

    rows: where r is not zero (None: everywhere).
    """
    rows = slice(0, block.weights.shape[2]) if rows is None else rows
    mean, block.handover.mean = block.handover.mean, None
    if mean is None:
        mean = block.weights.new_empty(block.weights.shape[0], *block.weights.shape[2:])
        for part in _parts(block.weights):
            gradient = _matmul(output_gradient[part], block.value[part].mT)
            _mean_positive(gradient, block.weights[part], out=mean[part])
    if rows.stop - rows.start < mean.shape[1]:
        mean, output_gradient = mean[:, rows].clone(), output_gradient[:, :, rows].clone()
    return _Carry.apply(row, block.link, mean, output_gradient, rows, block.handover)


def _mean_positive(gradient: Tensor, weights: Tensor, out: Tensor) -> None:
    """Abar = mean over heads of relu(G A), (images, queries, keys)."""
    torch.mean((gradient * weights).relu_(), dim=1, out=out)


class _Attention(torch.autograd.Function):
    """(query, key, value, bias) to (output, link, weights); the weights are not differentiable here."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, handover: Handover
    ) -> Any:
        batch, heads, queries, _ = query.shape
        keys = key.shape[2]
        weights = query.new_empty(batch, heads, queries, keys, dtype=torch.promote_types(query.dtype, torch.float32))
        # (batch, queries, heads, dim) in memory, so that timm's transpose and reshape need no copy
        output = value.new_empty(batch, queries, heads, value.shape[-1]).transpose(1, 2)
        with torch.autocast(query.device.type, enabled=False):
            for part in _parts(weights):
                scores = _matmul(query[part], key[part].mT).mul_(scale)
                if bias is not None:
                    scores = scores + (bias[part] if bias.shape[0] > 1 else bias)
                if scores.dtype == weights.dtype:
                    torch.softmax(scores, dim=-1, out=weights[part])
                else:
                    weights[part] = scores.softmax(dim=-1, dtype=weights.dtype)
                _matmul(weights[part].to(value.dtype), value[part], out=output[part])
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale, ctx.handover = scale, handover
        ctx.bias_shape = None if bias is None else (bias.shape, bias.dtype)
        ctx.mark_non_differentiable(weights)
        ctx.set_materialize_grads(False)
        return output, weights.new_zeros(batch, keys), weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        to_output, to_link, _ = grads
        query, key, value, weights = ctx.saved_tensors
        row: Any
        logit_to_output: Any
        mean = weights.new_empty(weights.shape[0], *weights.shape[2:]) if ctx.handover.expected else None
        ctx.handover.mean = mean
        from_row = None if to_link is None else (to_link, *ctx.handover.loss.pop())
        if to_output is None:
            to_output = torch.zeros(*query.shape[:3], value.shape[-1], dtype=value.dtype, device=value.device)
        to_query, to_key, to_value = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key, value))
        to_bias = None
        if ctx.bias_shape is not None and ctx.needs_input_grad[3]:
            to_bias = torch.zeros(ctx.bias_shape[0], dtype=weights.dtype, device=weights.device)
        with torch.autocast(query.device.type, enabled=False):
            for part in _parts(weights):
                to_weights = _matmul(to_output[part], value[part].mT).to(weights.dtype)
                if mean is not None:
                    _mean_positive(to_weights, weights[part], out=mean[part])
                if from_row is not None:
                    to_carried, row, logit_to_output, rows = from_row
                    positive = _matmul(logit_to_output[part], value[part].mT).to(weights.dtype).relu_()
                    outer = row[part, None, :, None] * to_carried[part, None, None, :]  # (images, 1, rows, keys)
                    to_weights[:, :, rows].addcmul_(positive, outer, value=1.0 / weights.shape[1])
                to_scores = torch._softmax_backward_data(to_weights, weights[part], -1, weights.dtype)
                if to_bias is not None:
                    share = to_bias[part] if to_bias.shape[0] > 1 else to_bias
                    share += to_scores.sum_to_size(share.shape)
                to_scores = to_scores.mul_(ctx.scale).to(query.dtype)
                _matmul(to_scores, key[part], out=to_query[part])
                _matmul(to_scores.mT, query[part], out=to_key[part])
                _matmul(weights[part].to(value.dtype).mT, to_output[part], out=to_value[part])
        return to_query, to_key, to_value, None if to_bias is None else to_bias.to(ctx.bias_shape[1]), None, None


class _Carry(torch.autograd.Function):
    """(row, link) to r Abar; its backward pass hands over what `_Attention` needs."""

    @staticmethod
    def forward(
        ctx: Any, row: Tensor, link: Tensor, mean: Tensor, output_gradient: Tensor, rows: slice, handover: Handover
    ) -> Tensor:
        ctx.save_for_backward(row, mean, output_gradient)
        ctx.rows, ctx.handover = rows, handover
        return torch.bmm(row[:, None, rows], mean).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        row, mean, output_gradient = ctx.saved_tensors
        (to_carried,) = grads
        if ctx.needs_input_grad[1]:
            ctx.handover.loss.append((row[:, ctx.rows], output_gradient, ctx.rows))
        to_row = torch.zeros_like(row)
        to_row[:, ctx.rows] = torch.bmm(mean, to_carried.unsqueeze(2)).squeeze(2)
        return to_row, to_carried, None, None, None, None


def _parts(weights: Tensor) -> Iterator[slice]:
    """Slices of the batch: on a CPU as many images as fit into the cache with their attention weights, else all."""
    batch = weights.shape[0]
    step = batch
    if weights.device.type == "cpu":
        step = max(1, _CACHE_BYTES // max(1, weights[0].numel() * weights.element_size()))
    for start in range(0, batch, step):
        yield slice(start, min(start + step, batch))


def _matmul(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """left @ right over (images, heads, ., .); a single image goes to the batched product as a view, without a copy."""
    if left.shape[0] == 1:
        return torch.bmm(left[0], right[0], out=None if out is None else out[0]).unsqueeze(0)
    return left @ right if out is None else out.copy_(left @ right)
