"""Attention that keeps its map, and nothing else of that size: the fastest engine for few tokens.

On a CPU the work is done on as many images at a time as fit into the cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from relevit.explainers.engines.attended import Attended, Carried, FromRow, Gradients

_CACHE_BYTES = 1 << 20


def forward(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """The output, and the weights in float32 at least."""
    batch, heads, queries, _ = query.shape
    weights = query.new_empty(
        batch, heads, queries, key.shape[2], dtype=torch.promote_types(query.dtype, torch.float32)
    )
    # (batch, queries, heads, dim) in memory, so that timm's transpose and reshape need no copy
    output = value.new_empty(batch, queries, heads, value.shape[-1]).transpose(1, 2)
    for part in _parts(weights):
        scores = _matmul(query[part], key[part].mT).mul_(scale)
        if bias is not None:
            scores = scores + (bias[part] if bias.shape[0] > 1 else bias)
        if scores.dtype == weights.dtype:
            torch.softmax(scores, dim=-1, out=weights[part])
        else:
            weights[part] = scores.softmax(dim=-1, dtype=weights.dtype)
        _matmul(weights[part].to(value.dtype), value[part], out=output[part])
    return output, weights


def backward(
    attended: Attended,
    to_output: Tensor,
    row: Tensor | None,
    rows: slice | None,
    from_row: FromRow | None,
    bias_gradient: bool,
) -> Gradients:
    """row: given in the logit's backward pass, which makes G on its way."""
    query, key, value, weights = attended.query, attended.key, attended.value, attended.saved
    bias = attended.bias
    mean = None if row is None else weights.new_empty(weights.shape[0], *weights.shape[2:])
    to_query, to_key, to_value = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key, value))
    to_bias = None
    if bias is not None and bias_gradient:
        to_bias = torch.zeros(bias.shape, dtype=weights.dtype, device=weights.device)
    for part in _parts(weights):
        to_weights = _matmul(to_output[part], value[part].mT).to(weights.dtype)
        if mean is not None:
            _mean_positive(to_weights, weights[part], out=mean[part])
        if from_row is not None:
            positive = _matmul(from_row.logit_to_output[part], value[part].mT).to(weights.dtype).relu_()
            outer = (
                from_row.row[part, None, :, None] * from_row.to_carried[part, None, None, :]
            )  # (images, 1, rows, keys)
            to_weights[:, :, from_row.rows].addcmul_(positive, outer, value=1.0 / weights.shape[1])
        to_scores = torch._softmax_backward_data(to_weights, weights[part], -1, weights.dtype)
        if to_bias is not None:
            share = to_bias[part] if to_bias.shape[0] > 1 else to_bias
            share += to_scores.sum_to_size(share.shape)
        to_scores = to_scores.mul_(attended.scale).to(query.dtype)
        _matmul(to_scores, key[part], out=to_query[part])
        _matmul(to_scores.mT, query[part], out=to_key[part])
        _matmul(weights[part].to(value.dtype).mT, to_output[part], out=to_value[part])
    carried = None if row is None or rows is None or mean is None else _carried(row, mean, rows)
    return Gradients(to_query, to_key, to_value, to_bias, carried)


def carry(attended: Attended, logit_to_output: Tensor, row: Tensor, rows: slice) -> Carried:
    """r Abar where no backward pass has made it."""
    weights = attended.saved[:, :, rows]
    mean = weights.new_empty(weights.shape[0], *weights.shape[2:])
    for part in _parts(weights):
        gradient = _matmul(logit_to_output[part], attended.value[part].mT)
        _mean_positive(gradient, weights[part], out=mean[part])
    return Carried(torch.bmm(row[:, None, rows], mean).squeeze(1), mean)


def carry_back(
    attended: Attended | None, logit_to_output: Tensor, to_carried: Tensor, rows: slice, mean: Tensor
) -> tuple[Tensor, None]:
    """Abar c at the rows, (batch, rows)."""
    return torch.bmm(mean, to_carried.unsqueeze(2)).squeeze(2), None


def _carried(row: Tensor, mean: Tensor, rows: slice) -> Carried:
    """With Abar at those rows alone."""
    if rows.stop - rows.start < mean.shape[1]:
        mean = mean[:, rows].clone()
    return Carried(torch.bmm(row[:, None, rows], mean).squeeze(1), mean)


def _mean_positive(gradient: Tensor, weights: Tensor, out: Tensor) -> None:
    """Abar = mean over heads of relu(G A), (images, queries, keys)."""
    torch.mean((gradient * weights).relu_(), dim=1, out=out)


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
