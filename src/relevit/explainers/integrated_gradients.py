"""Integrated gradients (Sundararajan et al. 2017), by captum."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from relevit.explainers.attention_maps import Explanation, Request, explainer, no_parameter_gradients, pick_target
from relevit.models.families import logits_of

STEPS = 32
_AT_ONCE = 16
"""Pictures in one forward pass, where the batch has fewer."""


@explainer
def explain(request: Request) -> Explanation:
    """Logits, and the positive part of each pixel's integrated gradient, summed over channels, not scaled.

    Sundararajan et al. 2017, Eq. 1, along the line from zero (the mean colour of the model's preprocessing) to the image, at
    `STEPS` points of a Gauss-Legendre rule: as many forward and backward passes. The map never has a graph.
    """
    logits = request.logits()
    signed = attributions(request.model, request.images.detach(), pick_target(logits, request.target), STEPS)
    return logits, signed.sum(dim=1).relu()


def attributions(
    model: nn.Module, images: Float[Tensor, "batch channels height width"], target: Int[Tensor, " batch"], steps: int
) -> Float[Tensor, "batch channels height width"]:
    """Signed attributions; they sum to the difference of the logit between image and zero (completeness), up to the rule's error."""
    from captum.attr import IntegratedGradients

    with no_parameter_gradients(model):
        signed = IntegratedGradients(partial(logits_of, model)).attribute(
            images, target=target, n_steps=steps, internal_batch_size=max(_AT_ONCE, len(images))
        )
    return signed.detach().to(torch.promote_types(images.dtype, torch.float32))
