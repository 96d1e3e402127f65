"""Attention rollout (Abnar and Zuidema 2020): attention through all blocks, whatever the class."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from relevit.explainers.attention_maps import Explanation, Request, explainer, mean_attentions
from relevit.models.families.family import TokenLayout


@explainer
def explain(request: Request) -> Explanation:
    """Logits, and the readout's rows of the product B_L ... B_1 at the patches, not scaled; B_l = (mean over heads of A_l + I) / 2.

    Abnar and Zuidema 2020, section 3: half the attention, half the residual connection, so each row sums to 1. A pooling
    attention has no residual connection: its rows are those of the mean over heads.
    The target is only checked; there is no derivative in the map, so `second_order` changes nothing.
    """
    logits, means = mean_attentions(request)
    with request.formula():
        return logits, request.layout.on_grid(roll_out(means, request.layout))


def roll_out(
    attentions: list[Float[Tensor, "batch queries keys"]], layout: TokenLayout
) -> Float[Tensor, "batch tokens"]:
    """The readout's row of the product of all (A_l + I) / row sums, last block first; a pooling attention's own rows as they are.

    Only that row is carried, r <- (r / s) (A_l + I) with s the row sums: no product of two matrices.
    """
    blocks = list(attentions)
    if layout.pooled:
        row = layout.mean(blocks.pop(), dim=1)
        row = torch.nn.functional.pad(row, (layout.tokens - row.shape[1], 0))
    else:
        row = layout.weigh(blocks[-1].new_zeros(blocks[-1].shape[0], layout.tokens))
    for attention in reversed(blocks):
        row = row / (attention.sum(dim=2) + 1.0)  # (batch, queries)
        row = row + torch.einsum("bq,bqk->bk", row, attention)
    return row
