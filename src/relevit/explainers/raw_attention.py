"""Raw attention: where the readout's rows of the last attention look, whatever the class."""

from __future__ import annotations

from relevit.explainers.attention_maps import Explanation, Request, explainer, mean_attentions, on_grid, readout_rows


@explainer
def explain(request: Request) -> Explanation:
    """Logits, and the last block's attention to each patch: mean over heads and over the readout's rows, not scaled.

    A pooling attention counts as the last block. A baseline of Chefer, Gur and Wolf 2021.
    The target is only checked; there is no derivative in the map, so `second_order` changes nothing.
    """
    logits, means = mean_attentions(request)
    rows, _ = readout_rows(request.layout)
    with request.formula():
        return logits, on_grid(means[-1][:, rows].mean(dim=1), request.layout)
