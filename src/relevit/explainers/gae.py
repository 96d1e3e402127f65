"""Generic attention explainability (GAE, Chefer, Gur and Wolf 2021) for self-attention, the explainer that trains.

With A_l the attention of block l and G_l the derivative of the target's logit with respect to it:
Abar_l = mean over heads of relu(G_l * A_l), R = I, R <- R + Abar_l R for l = 1..L; the map is the readout row of R at the
patches. Two things differ from writing that out: one backward pass yields all G_l, and only the readout row is carried
from the last block to the first, r <- r + r Abar_l, which gives the same row without a product of two matrices.
What the row starts with is left out of the map: zero at the patches for a class token, the same at every patch for a mean.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from relevit.explainers.attention_maps import (
    Explanation,
    Request,
    check_logits,
    check_maps,
    explainer,
    pick_target,
    score_of,
)
from relevit.explainers.frugal_attention import (
    Engine,
    FrugalBlock,
    Row,
    frugal_attention,
    frugal_carry,
    logit_backward,
    wanted,
)
from relevit.models.attention import capture, composed_attention, prepare_attention
from relevit.models.families import logits_of
from relevit.models.families.family import TokenLayout


@explainer
def explain(request: Request) -> Explanation:
    """Logits and the relevance of each patch for the target class (None: the predicted one), not scaled: R - I.

    One forward and one backward pass. The G_l are constants in the result unless `second_order`: gradients reach the
    weights through the A_l alone. Where gradients are disabled, or nothing requires any, both come without a graph.
    """
    model, layout, second_order = request.model, request.layout, request.second_order
    with capture(model, attend=composed_attention if second_order else partial(_attend, wanted())) as captured:
        logits = logits_of(model, request.images)
    blocks = list(captured.maps)
    captured.maps.clear()
    check_logits(logits)
    check_maps(model, [tuple(block.shape) for block in blocks], layout)
    score = score_of(logits, pick_target(logits, request.target))
    frugal = [block for block in blocks if isinstance(block, FrugalBlock)]
    handles = [block.output if isinstance(block, FrugalBlock) else block for block in blocks]
    with logit_backward(frugal, _start(blocks[-1], layout) if len(frugal) == len(blocks) else None):
        gradients = list(
            torch.autograd.grad(score, handles, retain_graph=request.keep_graph, create_graph=second_order)
        )
    del handles, frugal
    with request.formula():
        row = _propagate(blocks, gradients, layout)
    return logits, layout.on_grid(row)


def _start(last: FrugalBlock | Tensor, layout: TokenLayout) -> Row:
    """What the row of relevance starts with, at the last attention."""
    values = last.link if isinstance(last, FrugalBlock) else last
    start = torch.zeros(last.shape[0], last.shape[2], dtype=values.dtype, device=values.device)
    return Row(layout.weigh(start), layout.span, layout.tokens, layout.pooled)


def _attend(
    engine: Engine,
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
    block = frugal_attention(*prepare_attention(query, key, value, attn_mask, is_causal, scale, enable_gqa), engine)
    return block.output, block


def _propagate(blocks: list[FrugalBlock | Tensor], gradients: list[Tensor], layout: TokenLayout) -> Tensor:
    """The readout row of R - I, (batch, tokens); empties both lists on the way, so that nothing is held longer than needed."""
    row = _start(blocks[-1], layout)
    while blocks:
        block, gradient = blocks.pop(), gradients.pop()
        if isinstance(block, FrugalBlock):
            row.add(frugal_carry(row.value, block, gradient, row.rows))
        else:  # sum over j of r_j mean over heads of relu(G_jk A_jk)
            row.add(torch.einsum("bj,bhjk->bk", row.value, (gradient * block).relu()) / block.shape[1])
    assert row.carried is not None
    return row.carried
