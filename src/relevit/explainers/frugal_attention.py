"""Attention for relevance at little memory, as one differentiable operation over the engines in `engines/`.

A composed attention keeps, for a loss on relevance, the derivative G of a logit as well as products of its size. Here G is
computed where it is needed, from the derivative `d` of the logit with respect to the attention's output: G = d V^T.

The logit's backward pass goes from the last block to the first, as the row of relevance does, r <- r + r Abar; so `_Attention`
takes the row along in it (`Row`), while P and G are at hand. In the loss's backward pass, `_Attention` wants, besides the
derivative with respect to the output, what makes up the part that comes through r' = r Abar: r, the loss's derivative by r',
and d. `_Carry` hands them over in its own backward pass, which comes first: the middle one as the derivative of `link`, a
second output of `_Attention` that ties the two together, the others in `Handover`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from relevit.errors import UserError
from relevit.explainers.engines import map, tiled
from relevit.explainers.engines.attended import Attended, Carried, FromRow

Engine = Literal["auto", "map", "tiled", "triton"]
ENGINES = ("auto", "map", "tiled", "triton")
_FEW = {"cpu": 700}
"""Tokens up to which `map` is the fastest of the engines without Triton, elsewhere 1024."""
_forced: ContextVar[Engine] = ContextVar("attention", default="auto")


@dataclass
class Row:
    """The row of relevance on its way from the last block to the first, (batch, tokens).

    What it starts with is kept apart: in a mean over patches it would bury small relevance in rounding errors.

    rows: where it is not zero. pooled: it starts over the latents of a pooling attention, which are no tokens of the blocks.
    """

    start: Tensor
    rows: slice
    tokens: int
    pooled: bool = False
    carried: Tensor | None = None

    @property
    def value(self) -> Tensor:
        return self.start if self.carried is None else self.start + self.carried

    def add(self, carried: Tensor) -> None:
        """r + r Abar, or r Abar for a pooling attention, whose keys may leave out the prefix tokens."""
        if self.pooled:
            carried = torch.nn.functional.pad(carried, (self.tokens - carried.shape[1], 0))
            self.start, self.pooled = torch.zeros_like(carried), False
        self.carried = carried if self.carried is None else self.carried + carried
        self.rows = slice(0, self.tokens)


@dataclass
class Handover:
    """What the parts of one block leave for each other."""

    row: Row | None = None
    """Set for the logit's backward pass: `_Attention` adds to it and leaves what it added (not in the first block, where that
    pass ends)."""
    attended: Attended | None = None
    """Dropped where the logit's backward pass leaves all that is needed of it."""
    carried: Carried | None = None
    loss: list[FromRow] = field(default_factory=list)
    """From `_Carry` to `_Attention` in the loss's backward pass."""


@dataclass
class FrugalBlock:
    """One block's attention after the forward pass: its output and `link` are in the graph, the rest is plain data."""

    output: Tensor  # (batch, heads, queries, dim)
    link: Tensor  # (batch, keys), zeros
    shape: tuple[int, ...]  # of the attention map that it stands for, (batch, heads, queries, keys)
    engine: ModuleType
    handover: Handover


@contextmanager
def forced(engine: str) -> Iterator[None]:
    """Within the context, forward passes use this engine ("auto": the fastest for device and number of tokens)."""
    if engine not in ENGINES:
        raise UserError(f"unknown attention {engine!r}: known are {', '.join(ENGINES)}")
    token = _forced.set(cast(Engine, engine))
    try:
        yield
    finally:
        _forced.reset(token)


def wanted() -> Engine:
    """What `forced` says; to be asked where a forward pass begins, since parts of it may be repeated at other times."""
    return _forced.get()


def engine_for(query: Tensor, key: Tensor, bias: Tensor | None, name: Engine) -> ModuleType:
    """The engine of that name, or the fastest one. Raises UserError for one that cannot do this attention."""
    if name == "triton" or (name == "auto" and query.device.type == "cuda"):
        from relevit.explainers.engines import cuda

        reason = cuda.unsupported(query, bias)
        if reason is None:
            return cuda
        if name == "triton":
            raise UserError(f"attention='triton' is not possible: {reason}; choose 'tiled' or 'auto'")
    few = key.shape[2] <= _FEW.get(query.device.type, 1024)
    return map if name == "map" or (name == "auto" and few) else tiled


@contextmanager
def logit_backward(blocks: list[FrugalBlock], row: Row | None) -> Iterator[None]:
    """Around the backward pass from the logits to the blocks' outputs, which takes the row along if there is one."""
    try:
        for block in blocks:
            block.handover.row = row
        yield
    finally:
        for block in blocks:
            block.handover.row = None


def frugal_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, engine: Engine = "auto"
) -> FrugalBlock:
    """softmax(scale Q K^T + bias) V; bias (1 or batch, 1 or heads, queries, keys) may require a gradient."""
    handover, module = Handover(), engine_for(query, key, bias, engine)
    kept: list[Tensor | None] = []
    output, link = _Attention.apply(query, key, value, bias, scale, module, handover, kept)
    if not output.requires_grad:
        output.requires_grad_()  # frozen weights: a leaf, so that the logit has a derivative with respect to it
    plain = query.detach(), key.detach(), value.detach(), None if bias is None else bias.detach()
    handover.attended = Attended(*plain, scale, output.detach(), kept.pop())
    return FrugalBlock(output, link, (*query.shape[:3], key.shape[2]), module, handover)


def frugal_carry(row: Tensor, block: FrugalBlock, output_gradient: Tensor, rows: slice) -> Tensor:
    """r Abar, (batch, queries) to (batch, keys), for the constant G = d V^T, d = `output_gradient`.

    rows: where r is not zero.
    """
    carried, attended = block.handover.carried, block.handover.attended
    block.handover.carried = block.handover.attended = None
    if rows.stop - rows.start < output_gradient.shape[2]:
        output_gradient = output_gradient[:, :, rows].clone()
    if carried is None:
        carried = block.engine.carry(attended, output_gradient, row.detach(), rows)
    if carried.mean is not None:
        attended = None
    return _Carry.apply(row, block.link, carried, attended, block.engine, block.handover, output_gradient, rows)


class _Attention(torch.autograd.Function):
    """(query, key, value, bias) to (output, link); what the engine keeps is left in the list `kept`."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        scale: float,
        engine: ModuleType,
        handover: Handover,
        kept: list[Tensor | None],
    ) -> Any:
        with torch.autocast(query.device.type, enabled=False):
            output, made = engine.forward(query, key, value, bias, scale)
        kept.append(made)
        ctx.save_for_backward(query, key, value, bias, output, made)
        ctx.scale, ctx.engine, ctx.handover = scale, engine, handover
        ctx.set_materialize_grads(False)
        wide = torch.promote_types(query.dtype, torch.float32)
        return output, query.new_zeros(query.shape[0], key.shape[2], dtype=wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        to_output, to_link = grads
        query, key, value, bias, output, kept = ctx.saved_tensors
        attended = Attended(query, key, value, bias, ctx.scale, output, kept)
        from_row = None
        if to_link is not None:
            from_row = ctx.handover.loss.pop()._replace(to_carried=to_link)
        if to_output is None:
            to_output = torch.zeros_like(output)
        relevance = ctx.handover.row
        given = (None, None) if relevance is None else (relevance.value, relevance.rows)
        with torch.autocast(query.device.type, enabled=False):
            found = ctx.engine.backward(attended, to_output, *given, from_row, ctx.needs_input_grad[3])
        if relevance is not None:
            relevance.add(found.carried.row)
            if found.carried.mean is not None:
                ctx.handover.attended = None
        ctx.handover.carried = found.carried
        to_bias = None if found.bias is None else found.bias.to(bias.dtype)
        return found.query, found.key, found.value, to_bias, None, None, None, None


class _Carry(torch.autograd.Function):
    """(row, link) to r Abar; its backward pass hands over what `_Attention` needs."""

    @staticmethod
    def forward(
        ctx: Any,
        row: Tensor,
        link: Tensor,
        carried: Carried,
        attended: Attended | None,
        engine: ModuleType,
        handover: Handover,
        output_gradient: Tensor,
        rows: slice,
    ) -> Tensor:
        tensors = () if attended is None else attended.tensors
        ctx.save_for_backward(row, output_gradient, carried.mean, *tensors)
        ctx.scale = None if attended is None else attended.scale
        ctx.engine, ctx.handover, ctx.rows = engine, handover, rows
        return carried.row

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        row, output_gradient, mean, *tensors = ctx.saved_tensors
        (to_carried,) = grads
        to_row = per_head = None
        if ctx.needs_input_grad[0]:
            attended = None
            if tensors:
                query, key, value, bias, output, kept = tensors
                attended = Attended(query, key, value, bias, ctx.scale, output, kept)
            at_rows, per_head = ctx.engine.carry_back(attended, output_gradient, to_carried, ctx.rows, mean)
            to_row = torch.zeros_like(row)
            to_row[:, ctx.rows] = at_rows
        if ctx.needs_input_grad[1]:
            from_row = FromRow(row[:, ctx.rows], to_carried, output_gradient, ctx.rows, per_head)
            ctx.handover.loss.append(from_row)
        return to_row, to_carried, None, None, None, None, None, None
