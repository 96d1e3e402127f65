"""Grad-CAM on the last attention, with its heads as channels."""

from __future__ import annotations

from relevit.explainers.attention_maps import (
    Explanation,
    Request,
    attentions_with_gradients,
    explainer,
)


@explainer
def explain(request: Request) -> Explanation:
    """Logits, and relu(mean over heads and readout rows of w A) at the patches, not scaled.

    A is a readout row of the last attention (a pooling attention counts as the last) at the patches, one for each head, and
    w the mean over the patches of the derivative of the target's logit by it: Grad-CAM (Selvaraju et al. 2017, Eq. 1 and 2)
    as Chefer, Gur and Wolf 2021 take it to transformers. A map of which every part speaks against the class is all zeros.
    The w are constants in the result unless `second_order`.
    """
    logits, (attention,), (gradient,) = attentions_with_gradients(request, last_only=True)
    layout = request.layout
    stop = attention.shape[3] - layout.suffix
    patches = slice(stop - layout.grid[0] * layout.grid[1], stop)
    with request.formula():
        weights = gradient[..., patches].mean(dim=3, keepdim=True)  # (batch, heads, queries, 1)
        relevance = layout.mean(weights * attention[..., patches], dim=2).mean(dim=1).relu()
        return logits, relevance.unflatten(1, layout.grid)
