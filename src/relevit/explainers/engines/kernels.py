"""The kernels of `cuda`, in Triton. With TRITON_INTERPRET=1 in the environment they run on a CPU, without being compiled.

Each works on one head of one image. Matrices are read in blocks, rows of `BLOCK_D` numbers of which `DIM` count.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
PRECISION = "tf32x3"
"""Of products of float32: three of TF32, which give its accuracy; half precision is added up in float32."""

LOG2E = tl.constexpr(1.4426950408889634)

# (queries and keys in a block, warps, stages) by kernel, for heads up to 64 dimensions in half precision: the fastest on an H100
_BLOCKS = {"forward": (64, 64, 4, 3), "logit": (64, 128, 8, 2), "loss": (64, 128, 8, 2), "carry_back": (128, 64, 4, 3)}


def blocks(query: Tensor, kernel: str) -> tuple[int, int, int, int]:
    """Queries and keys in a block, warps and stages: fewer where a number or a head takes more memory."""
    m, n, warps, stages = _BLOCKS[kernel]
    if query.dtype == torch.float32:
        m, n, stages = m // 2, n // 2, 1 if query.shape[-1] > 64 else 2
    if query.shape[-1] > 64:
        m, n = (m, n // 2) if n > m else (m // 2, n)
    return max(16, m), max(16, n), warps, stages


@triton.jit
def _read(start, stride, rows, count, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """(rows, BLOCK_D) of a matrix, zero beyond its end."""
    dims = tl.arange(0, BLOCK_D)
    inside = (rows >= 0) & (rows < count)
    return tl.load(
        start + rows[:, None] * stride + dims[None, :], mask=inside[:, None] & (dims < DIM)[None, :], other=0.0
    )


@triton.jit
def _write(start, stride, rows, count, values, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    dims = tl.arange(0, BLOCK_D)
    inside = (rows < count)[:, None] & (dims < DIM)[None, :]
    tl.store(start + rows[:, None] * stride + dims[None, :], values.to(start.dtype.element_ty), mask=inside)


@triton.jit
def _add(start, stride, rows, count, values, first, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """To what is there, or in its place for the first values."""
    dims = tl.arange(0, BLOCK_D)
    where = start + rows[:, None] * stride + dims[None, :]
    inside = (rows < count)[:, None] & (dims < DIM)[None, :]
    if first:
        tl.store(where, values, mask=inside)
    else:
        tl.atomic_add(where, values, mask=inside, sem="relaxed")


@triton.jit
def forward(
    Q, K, V, OUT, LSE, qb, qh, qn, kb, kh, kn, vb, vh, vn, ob, oh, on, queries, keys, heads, scale,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of a block of queries, as in flash attention: the softmax is scaled again as its maximum grows."""
    head = tl.program_id(1).to(tl.int64)
    b, h = head // heads, head % heads
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    q = _read(Q + b * qb + h * qh, qn, m, queries, DIM, BLOCK_D)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    output = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(0, keys, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        k = _read(K + b * kb + h * kh, kn, n, keys, DIM, BLOCK_D)
        v = _read(V + b * vb + h * vh, vn, n, keys, DIM, BLOCK_D)
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2E)
        s = tl.where((n < keys)[None, :], s, float("-inf"))
        higher = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(p, 1)
        output = output * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
        top = higher
    _write(OUT + b * ob + h * oh, on, m, queries, output / total[:, None], DIM, BLOCK_D)
    tl.store(LSE + head * queries + m, (top + tl.log2(total)) / LOG2E, mask=m < queries)


@triton.jit
def inner(
    X, Y, OUT, xb, xh, xn, yb, yh, yn, queries, heads,
    BLOCK_M: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Products of rows."""
    head = tl.program_id(1).to(tl.int64)
    b, h = head // heads, head % heads
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    x = _read(X + b * xb + h * xh, xn, m, queries, DIM, BLOCK_D).to(tl.float32)
    y = _read(Y + b * yb + h * yh, yn, m, queries, DIM, BLOCK_D).to(tl.float32)
    tl.store(OUT + head * queries + m, tl.sum(x * y, 1), mask=m < queries)


@triton.jit
def carry_back(
    Q, K, V, LSE, D, C, OUT, qb, qh, qn, kb, kh, kn, vb, vh, vn, db, dh, dn, queries, keys, heads, scale,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """sum over k of relu(G P)_jk c_k for a block of queries j."""
    head = tl.program_id(1).to(tl.int64)
    b, h = head // heads, head % heads
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    q = _read(Q + b * qb + h * qh, qn, m, queries, DIM, BLOCK_D)
    d = _read(D + b * db + h * dh, dn, m, queries, DIM, BLOCK_D)
    lse = tl.load(LSE + head * queries + m, mask=m < queries, other=float("inf")) * LOG2E
    found = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, keys, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        k = _read(K + b * kb + h * kh, kn, n, keys, DIM, BLOCK_D)
        v = _read(V + b * vb + h * vh, vn, n, keys, DIM, BLOCK_D)
        c = tl.load(C + b * keys + n, mask=n < keys, other=0.0)  # zero beyond the last key
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2E)
        g = tl.dot(d, tl.trans(v), input_precision=PRECISION)
        found += tl.sum(tl.maximum(g, 0.0) * tl.exp2(s - lse[:, None]) * c[None, :], 1)
    tl.store(OUT + head * queries + m, found, mask=m < queries)


@triton.jit
def backward(
    Q, K, V, LSE, DO, DELTA, D, R, C, DQ, DK, DV, CARRIED,
    qb, qh, qn, kb, kh, kn, vb, vh, vn, ob, oh, on, db, dh, dn,
    queries, keys, first_row, last_row, heads, split_size, scale,
    GRADIENTS: tl.constexpr, ROW: tl.constexpr, LOSS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of some blocks of keys (the columns of what is transposed here: matrices are (keys, queries)).

    GRADIENTS: dQ (one for each program of a head, float32), dK and dV. ROW: sum over j of r_j relu(G P)_jk, where dO is d.
    LOSS: with relu(G) r c / H in dP, where r and d are given at the rows from `first_row` to `last_row`.
    """
    head = tl.program_id(1).to(tl.int64)
    b, h = head // heads, head % heads
    number = tl.cdiv(tl.cdiv(keys, BLOCK_N), tl.num_programs(0))
    begin = tl.program_id(0) * number * BLOCK_N
    end = tl.minimum(begin + number * BLOCK_N, keys)
    dq_start = DQ + tl.program_id(0).to(tl.int64) * split_size + head * queries * DIM
    for at in range(begin, end, BLOCK_N):
        n = at + tl.arange(0, BLOCK_N)
        k = _read(K + b * kb + h * kh, kn, n, keys, DIM, BLOCK_D)
        v = _read(V + b * vb + h * vh, vn, n, keys, DIM, BLOCK_D)
        dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        carried = tl.zeros([BLOCK_N], tl.float32)
        if LOSS:
            c = tl.load(C + b * keys + n, mask=n < keys, other=0.0) / heads
        for start in range(0, queries, BLOCK_M):
            m = start + tl.arange(0, BLOCK_M)
            q = _read(Q + b * qb + h * qh, qn, m, queries, DIM, BLOCK_D)
            do = _read(DO + b * ob + h * oh, on, m, queries, DIM, BLOCK_D)
            lse = tl.load(LSE + head * queries + m, mask=m < queries, other=float("inf")) * LOG2E
            p = tl.exp2(tl.dot(k, tl.trans(q), input_precision=PRECISION) * (scale * LOG2E) - lse[None, :])
            dp = tl.dot(v, tl.trans(do), input_precision=PRECISION)
            if ROW:
                r = tl.load(R + b * queries + m, mask=m < queries, other=0.0)
                carried += tl.sum(tl.maximum(dp, 0.0) * p * r[None, :], 1)
            if LOSS:
                j = m - first_row
                rows = last_row - first_row
                d = _read(D + b * db + h * dh, dn, j, rows, DIM, BLOCK_D)
                r = tl.load(R + b * rows + j, mask=(j >= 0) & (j < rows), other=0.0)
                g = tl.dot(v, tl.trans(d), input_precision=PRECISION)
                dp += tl.maximum(g, 0.0) * r[None, :] * c[:, None]
            if GRADIENTS:
                delta = tl.load(DELTA + head * queries + m, mask=m < queries, other=0.0)
                dv += tl.dot(p.to(do.dtype), do, input_precision=PRECISION)
                ds = (p * (dp - delta[None, :])).to(q.dtype)
                dk += tl.dot(ds, q, input_precision=PRECISION)
                dq = tl.dot(tl.trans(ds), k, input_precision=PRECISION) * scale
                _add(dq_start, DIM, m, queries, dq, at == begin, DIM, BLOCK_D)
        if GRADIENTS:
            _write(DK + head * keys * DIM, DIM, n, keys, dk * scale, DIM, BLOCK_D)
            _write(DV + head * keys * DIM, DIM, n, keys, dv, DIM, BLOCK_D)
            tl.debug_barrier()  # what the next block of keys is added to is written
        if ROW:
            tl.store(CARRIED + head * keys + n, carried, mask=n < keys)
