"""Raw attention: where the readout's rows of the last attention look, whatever the class."""

from __future__ import annotations

from relevit.explainers.attention_maps import Explanation, Request, explainer, mean_attentions


@explainer
def explain(request: Request) -> Explanation:
    """Logits, and the last block's attention to each patch: mean over heads and over the readout's rows, not scaled.

    A pooling attention counts as the last block. A baseline of Chefer, Gur and Wolf 2021.
    The target is only checked; there is no derivative in the map, so `second_order` changes nothing.
    """
    logits, means = mean_attentions(request)
    with request.formula():
        return logits, request.layout.on_grid(request.layout.mean(means[-1], dim=1))
