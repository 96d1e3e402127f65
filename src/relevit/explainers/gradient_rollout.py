"""Gradient x attention rollout: attention rollout of what of the attention speaks for the class."""

from __future__ import annotations

from relevit.explainers.attention_maps import Explanation, Request, attentions_with_gradients, explainer
from relevit.explainers.rollout import roll_out


@explainer
def explain(request: Request) -> Explanation:
    """Logits, and the readout's rows of the product B_L ... B_1 at the patches, not scaled; B_l = (Abar_l + I) / row sums.

    Abar_l = mean over heads of relu(G_l * A_l), with G_l the derivative of the target's logit by the attention A_l: the
    weighting of Chefer, Gur and Wolf 2021 ("Transformer Interpretability Beyond Attention Visualization", Eq. 13, with the
    attention where they have its LRP relevance) in the rollout of Abnar and Zuidema 2020, whose rows sum to 1. Without the
    division by row sums it would be GAE. A pooling attention has no residual connection: its rows are those of Abar.
    The G_l are constants in the result unless `second_order`.
    """
    logits, attentions, gradients = attentions_with_gradients(request)
    with request.formula():
        positive = [
            (gradient * attention).relu().mean(dim=1) for gradient, attention in zip(gradients, attentions, strict=True)
        ]
        return logits, request.layout.on_grid(roll_out(positive, request.layout))
