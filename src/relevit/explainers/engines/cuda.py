"""Attention whose memory is linear in the tokens, as kernels of Triton for CUDA devices; the formulas are those of `tiled`.

Queries and keys are taken a block at a time, and what the kernels compute in is float32, whatever the inputs are. A program
goes through some blocks of keys of one head, and for each through all queries; so the derivatives by keys and values stay
in registers, and that by the queries is added up in memory by one program alone, in the same order every time.
The softmax's sum over keys of P dP is needed before, and comes without a product of two matrices: dO O, and what `carry_back`
has found for each head.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from relevit.explainers.engines.attended import Attended, Carried, FromRow, Gradients

if find_spec("triton") is not None:
    from relevit.explainers.engines import kernels

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_PROGRAMS = 500
"""So many are wanted for `backward`: a head's keys are split among some where heads are few."""


def unsupported(query: Tensor, bias: Tensor | None) -> str | None:
    """Why this engine cannot do an attention, or None where it can."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if query.device.type != "cuda" and not kernels.INTERPRETED:
        return f"it needs a CUDA device, and the model is on the device {query.device}"
    if query.device.type == "cuda" and torch.cuda.get_device_capability(query.device) < (8, 0):
        return "it needs a CUDA device of compute capability 8.0 or more"
    if query.dtype not in _DTYPES:
        return f"it does not compute in {query.dtype}"
    if query.shape[-1] > 128:
        return f"its heads have at most 128 dimensions, not {query.shape[-1]}"
    return None if bias is None else "the model adds a bias to its scores"


def forward(query: Tensor, key: Tensor, value: Tensor, bias: None, scale: float) -> tuple[Tensor, Tensor]:
    """The output, (batch, queries, heads, dim) in memory, and the log-sum-exp."""
    query, key, value = (_rows_contiguous(x) for x in (query, key, value))
    batch, heads, queries, dim = query.shape
    output = query.new_empty(batch, queries, heads, dim).transpose(1, 2)
    kept = query.new_empty(batch, heads, queries, dtype=torch.float32)
    m, n, warps, stages = kernels.blocks(query, "forward")
    kernels.forward[-(-queries // m), batch * heads](
        query, key, value, output, kept, *_strides(query, key, value, output), queries, key.shape[2], heads, scale,
        BLOCK_M=m, BLOCK_N=n, num_warps=warps, num_stages=stages, **_shape(query),
    )  # fmt: skip
    return output, kept


def backward(
    attended: Attended,
    to_output: Tensor,
    row: Tensor | None,
    rows: slice | None,
    from_row: FromRow | None,
    bias_gradient: bool,
) -> Gradients:
    """row: given in the logit's backward pass, `to_output` then being d, at the `rows` where neither is zero."""
    queries = attended.query.shape[2]
    rows = slice(0, queries) if rows is None else rows
    part = _at(attended, rows)
    delta = _inner(part.output, to_output[:, :, rows])
    if from_row is not None:
        per_head = from_row.per_head
        if per_head is None:
            per_head = _per_head(attended, from_row.logit_to_output, from_row.to_carried, from_row.rows)
        delta[:, :, from_row.rows] += from_row.row[:, None] * per_head / delta.shape[1]
    to_query, to_key, to_value, carried = _launch(part, to_output[:, :, rows], delta, row, rows, from_row)
    if to_query.shape[2] < queries:
        whole = to_query.new_zeros(attended.query.shape)
        whole[:, :, rows] = to_query
        to_query = whole
    return Gradients(to_query, to_key, to_value, None, carried)


def carry(attended: Attended, logit_to_output: Tensor, row: Tensor, rows: slice) -> Carried:
    """r Abar where that is all that is wanted."""
    carried = _launch(_at(attended, rows), logit_to_output, None, row, rows, None)[3]
    assert carried is not None
    return carried


def carry_back(
    attended: Attended, logit_to_output: Tensor, to_carried: Tensor, rows: slice, mean: None
) -> tuple[Tensor, Tensor]:
    """Abar c at the rows, (batch, rows), and before the mean over heads."""
    per_head = _per_head(attended, logit_to_output, to_carried, rows)
    return per_head.mean(dim=1), per_head


def _launch(
    part: Attended, to_output: Tensor, delta: Tensor | None, row: Tensor | None, rows: slice, from_row: FromRow | None
) -> tuple[Any, Any, Any, Carried | None]:
    """The derivatives by query, key and value where `delta` is given, and r' where a row is."""
    query, key, value = (_rows_contiguous(x) for x in (part.query, part.key, part.value))
    to_output = _rows_contiguous(to_output)
    batch, heads, queries, dim = query.shape
    keys = key.shape[2]
    m, n, warps, stages = kernels.blocks(query, "loss" if from_row is not None else "logit")
    blocks = -(-keys // n)
    splits = min(blocks, max(1, -(-_PROGRAMS // (batch * heads))))
    splits = -(-blocks // -(-blocks // splits))  # none without a block
    to_query, to_key, to_value, per_head = query, query, query, query  # stand for what is not wanted
    if delta is not None:
        to_query = query.new_empty(splits, batch, heads, queries, dim, dtype=torch.float32)
        to_key, to_value = (x.new_empty(batch, heads, keys, dim) for x in (key, value))
    if row is not None:
        row, per_head = row[:, rows].float().contiguous(), query.new_empty(batch, heads, keys, dtype=torch.float32)
    gradient, at, weights = to_output, slice(0, queries), None
    if from_row is not None:
        gradient, at = _rows_contiguous(from_row.logit_to_output), from_row.rows
        row, weights = from_row.row.float().contiguous(), from_row.to_carried.float().contiguous()
    kernels.backward[splits, batch * heads](
        query, key, value, part.saved.contiguous(), to_output, delta, gradient, row, weights,
        to_query, to_key, to_value, per_head, *_strides(query, key, value, to_output, gradient),
        queries, keys, at.start, at.stop, heads, batch * heads * queries * dim, part.scale,
        GRADIENTS=delta is not None, ROW=row is not None and from_row is None, LOSS=from_row is not None,
        BLOCK_M=m, BLOCK_N=n, num_warps=warps, num_stages=stages, **_shape(query),
    )  # fmt: skip
    carried = None if row is None or from_row is not None else Carried(per_head.mean(dim=1))
    if delta is None:
        return None, None, None, carried
    return to_query.sum(dim=0).to(query.dtype), to_key, to_value, carried


def _per_head(attended: Attended, logit_to_output: Tensor, to_carried: Tensor, rows: slice) -> Tensor:
    """sum over k of relu(G P) c, (batch, heads, queries) at the rows."""
    part = _at(attended, rows)
    query, key, value, gradient = (_rows_contiguous(x) for x in (part.query, part.key, part.value, logit_to_output))
    batch, heads, queries, _ = query.shape
    found = query.new_empty(batch, heads, queries, dtype=torch.float32)
    m, n, warps, stages = kernels.blocks(query, "carry_back")
    kernels.carry_back[-(-queries // m), batch * heads](
        query, key, value, part.saved.contiguous(), gradient, to_carried.float().contiguous(), found,
        *_strides(query, key, value, gradient), queries, key.shape[2], heads, part.scale,
        BLOCK_M=m, BLOCK_N=n, num_warps=warps, num_stages=stages, **_shape(query),
    )  # fmt: skip
    return found


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """sum over dim of left * right, (batch, heads, queries), in float32."""
    left, right = _rows_contiguous(left), _rows_contiguous(right)
    batch, heads, queries, _ = left.shape
    found = left.new_empty(batch, heads, queries, dtype=torch.float32)
    kernels.inner[-(-queries // 64), batch * heads](
        left, right, found, *_strides(left, right), queries, heads, BLOCK_M=64, **_shape(left)
    )
    return found


def _at(attended: Attended, rows: slice) -> Attended:
    """Of some queries alone."""
    if rows.stop - rows.start == attended.query.shape[2]:
        return attended
    query, output, kept = attended.query[:, :, rows], attended.output[:, :, rows], attended.saved[:, :, rows]
    return Attended(query, attended.key, attended.value, None, attended.scale, output, kept)


def _rows_contiguous(values: Tensor) -> Tensor:
    return values if values.stride(-1) == 1 else values.contiguous()


def _strides(*tensors: Tensor) -> tuple[int, ...]:
    """Of batch, head and token of each."""
    return tuple(stride for tensor in tensors for stride in tensor.stride()[:3])


def _shape(query: Tensor) -> dict[str, Any]:
    """What the kernels are compiled for: the dimensions of a head, and those of a block, a power of two."""
    dim = query.shape[-1]
    return {"DIM": dim, "BLOCK_D": max(16, 1 << (dim - 1).bit_length()), "PRECISION": kernels.PRECISION}
