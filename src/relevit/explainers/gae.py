"""Generic attention explainability (GAE, Chefer, Gur and Wolf 2021) for self-attention, the explainer that trains.

With A_l the attention of block l and G_l the derivative of the target's logit with respect to it:
Abar_l = mean over heads of relu(G_l * A_l), R = I, R <- R + Abar_l R for l = 1..L; the map is the readout row of R at the
patches. Two things differ from writing that out: one backward pass yields all G_l, and only the readout row is carried
from the last block to the first, r <- r + r Abar_l, which gives the same row without a product of two matrices.
What the row starts with is left out of the map: zero at the patches for a class token, the same at every patch for a mean.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from relevit.explainers.attention_maps import (
    check_images,
    check_logits,
    check_maps,
    explaining,
    pick_target,
    readout_rows,
    score_of,
)
from relevit.explainers.frugal_attention import LeanBlock, lean_attention, lean_carry, logit_backward
from relevit.models.attention import TokenLayout, capture, composed_attention, prepare_attention


def explain(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"] | None,
    *,
    second_order: bool = False,
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch rows columns"]]:
    """Logits and the relevance of each patch for the target class (None: the predicted one), not scaled: R - I.

    One forward and one backward pass. The G_l are constants in the result unless `second_order`: gradients reach the
    weights through the A_l alone. Where gradients are disabled, or nothing requires any, both come without a graph.
    Raises UserError for a model or an image size that is not supported, and for a target outside of the classes.
    """
    layout = check_images(model, images)
    with explaining(model, images) as (images, keep_graph):
        second_order = second_order and keep_graph
        return _explain_once(model, images, target, layout, keep_graph=keep_graph, second_order=second_order)


def _explain_once(
    model: nn.Module,
    images: Tensor,
    target: Tensor | None,
    layout: TokenLayout,
    *,
    keep_graph: bool,
    second_order: bool,
) -> tuple[Tensor, Tensor]:
    with capture(model, attend=composed_attention if second_order else _attend) as captured:
        logits = model(images)
    blocks = list(captured.maps)
    captured.maps.clear()
    check_logits(logits)
    check_maps(model, [tuple((one.weights if isinstance(one, LeanBlock) else one).shape) for one in blocks], layout)
    score = score_of(logits, pick_target(logits, target))
    handles = [block.output if isinstance(block, LeanBlock) else block for block in blocks]
    with logit_backward([block for block in blocks if isinstance(block, LeanBlock)]):
        gradients = list(torch.autograd.grad(score, handles, retain_graph=keep_graph, create_graph=second_order))
    del handles
    with torch.set_grad_enabled(keep_graph), torch.autocast(images.device.type, enabled=False):
        row = _propagate(blocks, gradients, layout)
    return logits if keep_graph else logits.detach(), row[:, layout.prefix :].unflatten(1, layout.grid)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, LeanBlock | Tensor]:
    """The lean attention; with dropout of attention weights, the composed one."""
    if dropout_p > 0.0:
        return composed_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    block = lean_attention(*prepare_attention(query, key, value, attn_mask, is_causal, scale, enable_gqa))
    return block.output, block


def _propagate(blocks: list[LeanBlock | Tensor], gradients: list[Tensor], layout: TokenLayout) -> Tensor:
    """The readout row of R - I, (batch, tokens); empties both lists on the way, so that nothing is held longer than needed.

    What the row starts with is kept apart: in a mean over patches it would bury small relevance in rounding errors.
    """
    rows, share = readout_rows(layout)
    last = blocks[-1].weights if isinstance(blocks[-1], LeanBlock) else blocks[-1]
    start = last.new_zeros(last.shape[0], last.shape[2])
    start[:, rows] = share
    found = _carry(start, blocks.pop(), gradients.pop(), rows)
    if layout.readout == "attention_pool":
        # over the keys of the pooling attention, (batch, heads, latents, keys), which may leave out the prefix tokens;
        # its latents are no tokens of the blocks
        found = torch.nn.functional.pad(found, (layout.tokens - found.shape[1], 0))
        start = torch.zeros_like(found)
    while blocks:
        found = found + _carry(start + found, blocks.pop(), gradients.pop())
    return found


def _carry(row: Tensor, block: LeanBlock | Tensor, gradient: Tensor, rows: slice | None = None) -> Tensor:
    """r Abar = sum over j of r_j mean over heads of relu(G_jk A_jk): (batch, queries) to (batch, keys).

    rows: where r is not zero (None: everywhere). gradient: of the logit, by the weights, or by a lean block's output.
    """
    if isinstance(block, LeanBlock):
        return lean_carry(row, block, gradient, rows)
    return torch.einsum("bj,bhjk->bk", row, (gradient * block).relu()) / block.shape[1]
