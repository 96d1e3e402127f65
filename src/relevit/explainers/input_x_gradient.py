"""Input x gradient: how much each pixel moves the logit, to first order."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from relevit.explainers.attention_maps import Explanation, Request, check_logits, explainer, pick_target, score_of
from relevit.models.attention import capture
from relevit.models.families import logits_of


@explainer
def explain(request: Request) -> Explanation:
    """Logits, and relu(sum over channels of x * d logit/dx) of each pixel, not scaled.

    Gradient x input of Shrikumar et al. 2016 ("Not Just a Black Box"), of images as the model takes them: zero is the mean colour
    of its preprocessing. Here the positive part, what speaks for the class, as GAE keeps of attention.
    The derivative is a constant unless `second_order`, and with it the map.
    """
    images, keep, second_order = request.images, request.keep_graph, request.second_order
    if not images.requires_grad:
        images = images.detach().requires_grad_()
    # attention of torch's own operations, which keeps its maps, where it is to be differentiated twice
    with capture(request.model) if second_order else nullcontext():
        logits = logits_of(request.model, images)
    check_logits(logits)
    score = score_of(logits, pick_target(logits, request.target))
    (gradient,) = torch.autograd.grad(score, images, retain_graph=keep, create_graph=second_order)
    with request.formula(graph=second_order):
        return logits, evidence(images, gradient)


def evidence(
    images: Float[Tensor, "batch channels height width"], gradient: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch height width"]:
    """relu(sum over channels of x * gradient), in float32 at least."""
    dtype = torch.promote_types(images.dtype, torch.float32)
    return (images.to(dtype) * gradient.to(dtype)).sum(dim=1).relu()
