"""Attention whose memory is linear in the tokens: of each query no more than the output and the log-sum-exp is kept.

The weights P = exp(s q k - LSE) and their derivative G = d v are made again a tile of queries at a time, small enough for the
cache of a processor. With r the row of relevance, c the loss's derivative by r' and H heads: r'_k = sum_j r_j mean_h relu(G P)_jk;
dP_jk = dO_j v_k + relu(G_jk) r_j c_k / H, dS = P (dP - sum_k P dP), and dr_j = sum_k mean_h relu(G P)_jk c_k.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from relevit.explainers.engines.attended import Attended, Carried, FromRow, Gradients

_TILE_BYTES = {"cpu": 1 << 20}
"""Of the weights of a tile: on a processor what fits its cache with two more of that size, else 64 MiB."""


def forward(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """The output, (batch, queries, heads, dim) in memory, and the log-sum-exp."""
    if query.device.type == "cpu":
        mask = None if bias is None else bias.to(query.dtype).expand(*query.shape[:3], key.shape[2])
        output, kept = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, False, attn_mask=mask, scale=scale
        )[:2]
        return output, kept
    batch, heads, queries, _ = query.shape
    output = value.new_empty(batch, queries, heads, value.shape[-1]).transpose(1, 2)
    kept = query.new_empty(batch, heads, queries, dtype=_wide(query))
    for tile in _tiles(query, key, value, bias, scale, None):
        total = tile.scores.logsumexp(dim=-1)
        kept[tile.place] = total.unflatten(0, (-1, heads))
        weights = tile.scores.sub_(total[..., None]).exp_()
        output[tile.place] = torch.bmm(weights, tile.value).unflatten(0, (-1, heads)).to(output.dtype)
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
    query, key, value, bias = attended.query, attended.key, attended.value, attended.bias
    heads, dtype = query.shape[1], _wide(query)
    to_query, to_key, to_value = (torch.zeros(x.shape, dtype=dtype, device=x.device) for x in (query, key, value))
    to_bias = torch.zeros(bias.shape, dtype=dtype, device=bias.device) if bias is not None and bias_gradient else None
    carried = None if row is None else row.new_zeros(key.shape[0], key.shape[2])
    for tile in _tiles(query, key, value, bias, attended.scale, attended.kept, rows):
        given = tile.of(to_output)
        to_weights = torch.bmm(given, tile.value.mT)
        if row is not None and carried is not None:
            _add_carried(carried, row, tile, torch.relu(to_weights).mul_(tile.scores))
        if from_row is not None:
            _add_from_row(to_weights, from_row, tile)
        to_scores = torch._softmax_backward_data(to_weights, tile.scores, -1, dtype)
        images = tile.place[0]
        to_query[tile.place] = torch.bmm(to_scores, tile.key).unflatten(0, (-1, heads))
        _add_product(to_key[images], to_scores, tile.query)
        _add_product(to_value[images], tile.scores, given)
        if to_bias is not None:
            share = to_bias[images if to_bias.shape[0] > 1 else slice(None), :, tile.place[2]]
            share += to_scores.unflatten(0, (-1, heads)).sum_to_size(share.shape)
    to_query *= attended.scale
    typed = [
        found.to(given.dtype) for found, given in zip((to_query, to_key, to_value), (query, key, value), strict=True)
    ]
    return Gradients(*typed, to_bias, None if carried is None else Carried(carried.div_(heads)))


def carry(attended: Attended, logit_to_output: Tensor, row: Tensor, rows: slice) -> Carried:
    """r Abar where that is all that is wanted."""
    carried = row.new_zeros(row.shape[0], attended.key.shape[2])
    for tile, positive in _positive(attended, logit_to_output, rows):
        _add_carried(carried, row, tile, positive)
    return Carried(carried.div_(attended.query.shape[1]))


def carry_back(
    attended: Attended, logit_to_output: Tensor, to_carried: Tensor, rows: slice, mean: None
) -> tuple[Tensor, None]:
    """Abar c at the rows, (batch, rows)."""
    heads = attended.query.shape[1]
    to_row = to_carried.new_zeros(len(to_carried), rows.stop - rows.start)
    for tile, positive in _positive(attended, logit_to_output, rows):
        images, _, where = tile.place
        given = to_carried[images, None, :, None].expand(-1, heads, -1, -1).flatten(0, 1)  # (images * heads, keys, 1)
        products = torch.bmm(positive, given.to(positive.dtype)).unflatten(0, (-1, heads))
        to_row[images, where.start - rows.start : where.stop - rows.start] = products.sum(dim=(1, 3))
    return to_row.div_(heads), None


@dataclass
class _Tile:
    """Some images' heads, (images * heads, tokens, dim); scores (images * heads, queries, keys) are the weights where LSE is known."""

    place: tuple[slice, slice, slice]
    query: Tensor  # times the scale
    key: Tensor
    value: Tensor
    scores: Tensor

    def of(self, values: Tensor) -> Tensor:
        """The tile's part of values (batch, heads, queries, dim)."""
        return values[self.place].flatten(0, 1).to(self.query.dtype)


def _tiles(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    scale: float,
    kept: Tensor | None,
    rows: slice | None = None,
) -> Iterator[_Tile]:
    """Over images and queries. The memory of the weights is that of the tile before."""
    batch, heads, queries, _ = query.shape
    rows = slice(0, queries) if rows is None else rows
    dtype, keys, span = _wide(query), key.shape[2], rows.stop - rows.start
    room = max(
        1, _TILE_BYTES.get(query.device.type, 1 << 26) // (heads * keys * dtype.itemsize)
    )  # queries of all heads
    images, some = max(1, min(batch, room // span)), min(span, room)
    some = -(-span // -(-span // some))  # tiles of one size
    buffer = query.new_empty(images * heads * some * keys, dtype=dtype)
    for first in range(0, batch, images):
        part = slice(first, min(first + images, batch))
        k, v = (x[part].flatten(0, 1).to(dtype) for x in (key, value))
        for start in range(rows.start, rows.stop, some):
            place = (part, slice(None), slice(start, min(start + some, rows.stop)))
            q = query[place].flatten(0, 1).to(dtype) * scale
            scores = buffer[: q.shape[0] * q.shape[1] * keys].view(q.shape[0], q.shape[1], keys)
            torch.bmm(q, k.mT, out=scores)
            if bias is not None:
                scores.unflatten(0, (-1, heads)).add_(bias[part if bias.shape[0] > 1 else slice(None), :, place[2]])
            if kept is not None:
                scores.sub_(kept[place].flatten(0, 1)[..., None]).exp_()
            yield _Tile(place, q, k, v, scores)


def _positive(attended: Attended, logit_to_output: Tensor, rows: slice) -> Iterator[tuple[_Tile, Tensor]]:
    """relu(G P) of each tile; `logit_to_output` is given at the rows alone."""
    a = attended
    for tile in _tiles(a.query, a.key, a.value, a.bias, a.scale, a.kept, rows):
        images, heads, where = tile.place
        given = logit_to_output[images, heads, where.start - rows.start : where.stop - rows.start].flatten(0, 1)
        yield tile, torch.bmm(given.to(tile.value.dtype), tile.value.mT).relu_().mul_(tile.scores)


def _add_carried(carried: Tensor, row: Tensor, tile: _Tile, positive: Tensor) -> None:
    images, _, where = tile.place
    part = carried[images]
    spread = row[images, where].to(positive.dtype)  # (images, queries)
    heads = positive.shape[0] // len(part)
    products = torch.bmm(spread[:, None].expand(-1, heads, -1).flatten(0, 1)[:, None], positive)
    part += products.unflatten(0, (-1, heads)).sum(dim=(1, 2))


def _add_from_row(to_weights: Tensor, from_row: FromRow, tile: _Tile) -> None:
    """dP += relu(G) r c / H, at the rows that the tile has of it."""
    images, _, where = tile.place
    rows = from_row.rows
    start, stop = max(where.start, rows.start), min(where.stop, rows.stop)
    if start >= stop:
        return
    heads = to_weights.shape[0] // len(from_row.row[images])
    inner = slice(start - rows.start, stop - rows.start)
    gradient = from_row.logit_to_output[images, :, inner].flatten(0, 1).to(tile.value.dtype)
    positive = torch.bmm(gradient, tile.value.mT).relu_()
    outer = from_row.row[images, inner, None] * from_row.to_carried[images, None]  # (images, queries, keys)
    to_weights.unflatten(0, (-1, heads))[:, :, start - where.start : stop - where.start].addcmul_(
        positive.unflatten(0, (-1, heads)), outer[:, None].to(positive.dtype), value=1.0 / heads
    )


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total (images, heads, keys, dim) += left^T right, in place."""
    flat = total.view(-1, *total.shape[2:])
    torch.baddbmm(flat, left.mT, right, out=flat)


def _wide(values: Tensor) -> torch.dtype:
    """What is computed in: half precision is widened, since P has to be what the forward pass had."""
    return torch.promote_types(values.dtype, torch.float32)
