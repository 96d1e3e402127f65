"""What the engines of attention are given and what they return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Attended:
    """An attention after its forward pass, as plain data; shapes (batch, heads, tokens, dim).

    kept: what the engine's forward pass keeps: the weights (batch, heads, queries, keys), the log-sum-exp of each query's
    scores (batch, heads, queries), or nothing.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None  # (1 or batch, 1 or heads, queries, keys), added to the scores
    scale: float
    output: Tensor
    kept: Tensor | None

    @property
    def saved(self) -> Tensor:
        """`kept`, of an engine that keeps something."""
        if self.kept is None:
            raise ValueError("this engine keeps nothing")
        return self.kept

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.query, self.key, self.value, self.bias, self.output, self.kept


class Carried(NamedTuple):
    """r' = r Abar (batch, keys), and Abar (batch, queries, keys) from an engine that keeps it."""

    row: Tensor
    mean: Tensor | None = None


class FromRow(NamedTuple):
    """What makes up the part of a loss's derivative that comes through r' = r Abar, at the rows where r is not zero."""

    row: Tensor  # r, (batch, queries), nowhere negative
    to_carried: Tensor  # the loss's derivative by r', (batch, keys)
    logit_to_output: Tensor  # the logit's derivative by the output, (batch, heads, queries, dim): G = d V^T
    rows: slice
    per_head: Tensor | None = (
        None  # sum over k of relu(G P) c, (batch, heads, queries), from an engine that has made it
    )


class Gradients(NamedTuple):
    """The derivatives by query, key, value and bias, and r' where a row was given."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None
    carried: Carried | None
