"""Attention whose memory is linear in the tokens: nothing of the size of a map is kept.

The weights P and their derivative G = d v are made again a tile at a time, small enough for the cache of a processor: some heads
with all their queries, or some queries of one head. With r the row of relevance, c the loss's derivative by r' and H heads:
r'_k = sum_j r_j mean_h relu(G P)_jk; dP_jk = dO_j v_k + relu(G_jk) r_j c_k / H, dS = P (dP - sum_k P dP), and
dr_j = sum_k mean_h relu(G P)_jk c_k.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from relevit.explainers.engines.attended import Attended, Carried, FromRow, Gradients

_TILE_BYTES = {"cpu": 1 << 20}
"""Of the weights of a tile: on a processor what fits its cache with two more of that size, else 64 MiB."""


def forward(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor | None]:
    """The output, by torch's own attention; nothing else is kept."""
    mask = None if bias is None else bias.to(query.dtype).expand(*query.shape[:3], key.shape[2])
    return F.scaled_dot_product_attention(query, key, value, mask, scale=scale), None


def backward(
    attended: Attended,
    to_output: Tensor,
    row: Tensor | None,
    rows: slice | None,
    from_row: FromRow | None,
    bias_gradient: bool,
) -> Gradients:
    """row: given in the logit's backward pass, `to_output` then being d, at the `rows` where neither is zero."""
    query, key, value, bias = attended.query, attended.key, attended.value, attended.bias
    dtype = _wide(query)
    to_query, to_key, to_value = (torch.zeros(x.shape, dtype=dtype, device=x.device) for x in (query, key, value))
    to_bias = torch.zeros(bias.shape, dtype=dtype, device=bias.device) if bias is not None and bias_gradient else None
    carried = None if row is None else row.new_zeros(key.shape[0], key.shape[2])
    for tile in _tiles(attended, rows):
        given = tile.of(to_output)
        to_weights = tile.product(given)
        if row is not None and carried is not None:
            tile.add_carried(carried, row, torch.relu(to_weights).mul_(tile.weights))
        if from_row is not None:
            _add_from_row(to_weights, from_row, tile)
        to_scores = torch._softmax_backward_data(to_weights, tile.weights, -1, dtype)
        heads, queries = tile.heads, tile.queries
        torch.bmm(to_scores, tile.key, out=to_query.flatten(0, 1)[heads, queries])
        _add_product(to_key.flatten(0, 1)[heads], to_scores, tile.query)
        _add_product(to_value.flatten(0, 1)[heads], tile.weights, given)
        if to_bias is not None:
            for number, scores in zip(range(heads.start, heads.stop), to_scores, strict=True):
                _of_bias(to_bias, number, query.shape[1])[queries] += scores
    to_query *= attended.scale
    found = (to_query.to(query.dtype), to_key.to(key.dtype), to_value.to(value.dtype))
    return Gradients(*found, to_bias, None if carried is None else Carried(carried.div_(query.shape[1])))


def carry(attended: Attended, logit_to_output: Tensor, row: Tensor, rows: slice) -> Carried:
    """r Abar where that is all that is wanted."""
    carried = row.new_zeros(row.shape[0], attended.key.shape[2])
    for tile, positive in _positive(attended, logit_to_output, rows):
        tile.add_carried(carried, row, positive)
    return Carried(carried.div_(attended.query.shape[1]))


def carry_back(
    attended: Attended, logit_to_output: Tensor, to_carried: Tensor, rows: slice, mean: None
) -> tuple[Tensor, None]:
    """Abar c at the rows, (batch, rows)."""
    heads = attended.query.shape[1]
    per_head = to_carried.new_empty(len(to_carried) * heads, rows.stop - rows.start)
    for tile, positive in _positive(attended, logit_to_output, rows):
        inner = slice(tile.queries.start - rows.start, tile.queries.stop - rows.start)
        given = to_carried[tile.images, :, None].to(positive.dtype)  # (heads, keys, 1)
        per_head[tile.heads, inner] = torch.bmm(positive, given).squeeze(2).to(per_head.dtype)
    return per_head.unflatten(0, (-1, heads)).mean(dim=1), None


@dataclass
class _Tile:
    """Some queries of some heads; heads of all images are one sequence, matrices are (heads, tokens, dim)."""

    heads: slice
    queries: slice
    images: Tensor  # of each head
    query: Tensor  # times the scale
    key: Tensor
    value: Tensor
    weights: Tensor  # (heads, queries, keys)
    room: Tensor  # as many numbers, which the next product overwrites

    def of(self, values: Tensor) -> Tensor:
        """The tile's part of values (batch, heads, queries, dim)."""
        return values.flatten(0, 1)[self.heads, self.queries].to(self.query.dtype)

    def product(self, left: Tensor, room: Tensor | None = None) -> Tensor:
        """left (heads, queries, dim) times the values, (heads, queries, keys)."""
        return torch.bmm(left, self.value.mT, out=self.room if room is None else room)

    def add_carried(self, carried: Tensor, row: Tensor, positive: Tensor) -> None:
        """carried (batch, keys) += sum over queries and heads of r relu(G P)."""
        spread = row[self.images, self.queries][:, None].to(positive.dtype)  # (heads, 1, queries)
        carried.index_add_(0, self.images, torch.bmm(spread, positive).squeeze(1).to(carried.dtype))


def _tiles(attended: Attended, rows: slice | None) -> Iterator[_Tile]:
    """Over heads and queries (those at `rows`). The memory of one tile is that of the tile before."""
    a = attended
    batch, count, queries, _ = a.query.shape
    rows = slice(0, queries) if rows is None else rows
    dtype, keys, span = _wide(a.query), a.key.shape[2], rows.stop - rows.start
    room = max(1, _TILE_BYTES.get(a.query.device.type, 1 << 26) // (keys * dtype.itemsize))  # queries
    threads = torch.get_num_threads() if a.query.device.type == "cpu" else 1
    some = min(batch * count, max(room // span, threads))  # each thread has a head
    step = min(span, max(1, room // some))
    step = -(-span // -(-span // step))  # tiles of one size
    rooms = a.query.new_empty(2, some * step * keys, dtype=dtype)
    images = torch.arange(batch, device=a.query.device).repeat_interleave(count)
    query, key, value = (x.to(dtype).flatten(0, 1) for x in (a.query, a.key, a.value))
    for first in range(0, batch * count, some):
        heads = slice(first, min(first + some, batch * count))
        k, v = key[heads].contiguous(), value[heads].contiguous()
        for start in range(rows.start, rows.stop, step):
            part = slice(start, min(start + step, rows.stop))
            q = query[heads, part] * a.scale
            weights, free = (x[: len(q) * q.shape[1] * keys].view(len(q), q.shape[1], keys) for x in rooms)
            torch.bmm(q, k.mT, out=free)
            if a.bias is not None:
                for number, scores in zip(range(heads.start, heads.stop), free, strict=True):
                    scores += _of_bias(a.bias, number, count)[part]
            torch.softmax(free, dim=-1, out=weights)
            yield _Tile(heads, part, images[heads], q, k, v, weights, free)


def _of_bias(bias: Tensor, number: int, heads: int) -> Tensor:
    """(queries, keys), for a head in the sequence of all."""
    image, head = divmod(number, heads)
    return bias[image if bias.shape[0] > 1 else 0, head if bias.shape[1] > 1 else 0]


def _positive(attended: Attended, logit_to_output: Tensor, rows: slice) -> Iterator[tuple[_Tile, Tensor]]:
    """relu(G P) of each tile; `logit_to_output` is given at the rows alone."""
    gradient = logit_to_output.flatten(0, 1)
    for tile in _tiles(attended, rows):
        given = gradient[tile.heads, tile.queries.start - rows.start : tile.queries.stop - rows.start]
        yield tile, tile.product(given.to(tile.value.dtype)).relu_().mul_(tile.weights)


def _add_from_row(to_weights: Tensor, from_row: FromRow, tile: _Tile) -> None:
    """dP += relu(G) r c / H, at the rows that the tile has of it."""
    rows, count = from_row.rows, from_row.logit_to_output.shape[1]
    start, stop = max(tile.queries.start, rows.start), min(tile.queries.stop, rows.stop)
    if start >= stop:
        return
    inner = slice(start - rows.start, stop - rows.start)
    gradient = from_row.logit_to_output.flatten(0, 1)[tile.heads, inner].to(tile.value.dtype)
    # r is nowhere negative, so it can go into relu, where it is a factor of few numbers
    positive = torch.bmm(gradient * (from_row.row[tile.images, inner, None] / count).to(gradient.dtype), tile.value.mT)
    to_carried = from_row.to_carried[tile.images, None].to(positive.dtype)  # (heads, 1, keys)
    to_weights[:, start - tile.queries.start : stop - tile.queries.start].addcmul_(positive.relu_(), to_carried)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total (heads, keys, dim) += left^T right, in place."""
    torch.baddbmm(total, left.mT, right, out=total)


def _wide(values: Tensor) -> torch.dtype:
    """What is computed in: half precision is widened, since P has to be what the forward pass had."""
    return torch.promote_types(values.dtype, torch.float32)
