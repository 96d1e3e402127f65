"""AttnLRP (Achtibat et al. 2024): layer-wise relevance propagation through attention, normalisation and gates, to the pixels."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relevit.explainers.attention_maps import Explanation, Request, check_logits, explainer, pick_target, score_of
from relevit.explainers.input_x_gradient import evidence
from relevit.explainers.lrp_trace import linearised
from relevit.models.families import logits_of


@explainer
def explain(request: Request) -> Explanation:
    """Logits, and the positive part of each pixel's relevance for the target's logit, summed over channels, not scaled.

    Achtibat et al. 2024 ("AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers"): the epsilon rule with
    epsilon 0 in linear layers and sums, the Taylor rule of the softmax (Proposition 3.1), each operand's half of a product of
    two activations (3.2 and 3.3), and the identity rule for normalisation (3.4) and element-wise functions.
    All of them are the derivative of a function that is linear in the pixels, whose coefficients are what the pass found
    (see linearised.py): relevance is x * that derivative. Their sum is the logit, but for what goes to biases, position
    embeddings, prefix tokens and the softmax.
    The relevance is a constant unless `second_order`; then its derivative by the weights is exact.
    Raises UserError for a model or an image size that is not supported, for a layer that has no rule, and for a target
    outside of the classes.
    """
    keep, second_order = request.keep_graph, request.second_order
    logits, gradient = propagate(
        request.model, request.images, request.target, keep_graph=keep, second_order=second_order
    )
    with request.formula(graph=second_order):
        return logits, evidence(request.images, gradient)


def propagate(
    model: nn.Module, images: Tensor, target: Tensor | None, *, keep_graph: bool = False, second_order: bool = False
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch channels height width"]]:
    """Logits, and the factor that makes relevance, signed, of each channel of each pixel: relevance = images * factor."""
    with torch.enable_grad():
        start = images.detach().clone().requires_grad_()
    traced = linearised(images, start, differentiable=second_order)
    with torch.set_grad_enabled(keep_graph):
        output: Any = logits_of(model, traced)
    check_logits(output)
    logits, linear = output.value, output.linear
    score = score_of(linear, pick_target(logits, target))
    (gradient,) = torch.autograd.grad(score, start, create_graph=second_order)
    return logits, gradient
