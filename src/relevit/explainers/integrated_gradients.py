"""Integrated gradients (Sundararajan et al. 2017), by captum."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from relevit.explainers.attention_maps import (
    check_images,
    check_logits,
    explaining,
    no_parameter_gradients,
    pick_target,
)

_AT_ONCE = 16
"""Pictures in one forward pass, where the batch has fewer."""


def explain(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"] | None,
    *,
    second_order: bool = False,
    steps: int = 32,
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch height width"]]:
    """Logits, and the positive part of each pixel's integrated gradient, summed over channels, not scaled.

    Sundararajan et al. 2017, Eq. 1, along the line from zero (the mean colour of the model's preprocessing) to the image, at
    `steps` points of a Gauss-Legendre rule: as many forward and backward passes. The map never has a graph.
    Raises UserError for a model or an image size that is not supported, and for a target outside of the classes.
    """
    check_images(model, images)
    with explaining(model, images) as (images, keep_graph):
        with torch.set_grad_enabled(keep_graph):
            logits = model(images)
        check_logits(logits)
        signed = attributions(model, images.detach(), pick_target(logits, target), steps)
        return logits, signed.sum(dim=1).relu()


def attributions(
    model: nn.Module, images: Float[Tensor, "batch channels height width"], target: Int[Tensor, " batch"], steps: int
) -> Float[Tensor, "batch channels height width"]:
    """Signed attributions; they sum to the difference of the logit between image and zero (completeness), up to the rule's error."""
    from captum.attr import IntegratedGradients

    with no_parameter_gradients(model):
        found = IntegratedGradients(model).attribute(
            images, target=target, n_steps=steps, internal_batch_size=max(_AT_ONCE, len(images))
        )
    return found.detach().to(torch.promote_types(images.dtype, torch.float32))
