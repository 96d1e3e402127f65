"""Generic attention explainability (GAE, Chefer, Gur and Wolf 2021) for self-attention, the explainer that trains.

With A_l the attention of block l and G_l the derivative of the target's logit with respect to it:
Abar_l = mean over heads of relu(G_l * A_l), R = I, R <- R + Abar_l R for l = 1..L; the map is the readout row of R at the
patches. Two things differ from writing that out: one backward pass yields all G_l, and only the readout row is carried
from the last block to the first, r <- r + r Abar_l, which gives the same row without a product of two matrices.
What the row starts with is left out of the map: zero at the patches for a class token, the same at every patch for a mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relevit.explainers.attention_maps import (
    Explanation,
    Request,
    check_logits,
    check_maps,
    explainer,
    pick_target,
    readout_rows,
    score_of,
)
from relevit.explainers.frugal_attention import FrugalBlock, frugal_attention, frugal_carry, logit_backward
from relevit.models.attention import TokenLayout, capture, composed_attention, prepare_attention


@explainer
def explain(request: Request) -> Explanation:
    """Logits and the relevance of each patch for the target class (None: the predicted one), not scaled: R - I.

    One forward and one backward pass. The G_l are constants in the result unless `second_order`: gradients reach the
    weights through the A_l alone. Where gradients are disabled, or nothing requires any, both come without a graph.
    """
    model, layout, second_order = request.model, request.layout, request.second_order
    with capture(model, attend=composed_attention if second_order else _attend) as captured:
        logits = model(request.images)
    blocks = list(captured.maps)
    captured.maps.clear()
    check_logits(logits)
    check_maps(model, [tuple(_weights(block).shape) for block in blocks], layout)
    score = score_of(logits, pick_target(logits, request.target))
    handles = [block.output if isinstance(block, FrugalBlock) else block for block in blocks]
    with logit_backward([block for block in blocks if isinstance(block, FrugalBlock)]):
        gradients = list(
            torch.autograd.grad(score, handles, retain_graph=request.keep_graph, create_graph=second_order)
        )
    del handles
    with request.formula():
        row = _propagate(blocks, gradients, layout)
    return logits, row[:, layout.prefix :].unflatten(1, layout.grid)


def _weights(block: FrugalBlock | Tensor) -> Tensor:
    """The attention of a block (batch, heads, queries, keys)."""
    return block.weights if isinstance(block, FrugalBlock) else block


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, FrugalBlock | Tensor]:
    """The frugal attention; with dropout of attention weights, the composed one."""
    if dropout_p > 0.0:
        return composed_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    block = frugal_attention(*prepare_attention(query, key, value, attn_mask, is_causal, scale, enable_gqa))
    return block.output, block


def _propagate(blocks: list[FrugalBlock | Tensor], gradients: list[Tensor], layout: TokenLayout) -> Tensor:
    """The readout row of R - I, (batch, tokens); empties both lists on the way, so that nothing is held longer than needed.

    What the row starts with is kept apart: in a mean over patches it would bury small relevance in rounding errors.
    """
    rows, share = readout_rows(layout)
    last = _weights(blocks[-1])
    start = last.new_zeros(last.shape[0], last.shape[2])
    start[:, rows] = share
    carried = _carry(start, blocks.pop(), gradients.pop(), rows)
    if layout.readout == "attention_pool":
        # over the keys of the pooling attention, (batch, heads, latents, keys), which may leave out the prefix tokens;
        # its latents are no tokens of the blocks
        carried = torch.nn.functional.pad(carried, (layout.tokens - carried.shape[1], 0))
        start = torch.zeros_like(carried)
    while blocks:
        carried = carried + _carry(start + carried, blocks.pop(), gradients.pop())
    return carried


def _carry(row: Tensor, block: FrugalBlock | Tensor, gradient: Tensor, rows: slice | None = None) -> Tensor:
    """r Abar = sum over j of r_j mean over heads of relu(G_jk A_jk): (batch, queries) to (batch, keys).

    rows: where r is not zero (None: everywhere). gradient: of the logit, by the weights, or by a frugal block's output.
    """
    if isinstance(block, FrugalBlock):
        return frugal_carry(row, block, gradient, rows)
    return torch.einsum("bj,bhjk->bk", row, (gradient * block).relu()) / block.shape[1]
