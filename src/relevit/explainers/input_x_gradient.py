"""Input x gradient: how much each pixel moves the logit, to first order."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from relevit.explainers.attention_maps import check_images, check_logits, explaining, pick_target, score_of
from relevit.models.attention import capture


def explain(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"] | None,
    *,
    second_order: bool = False,
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch height width"]]:
    """Logits, and relu(sum over channels of x * d logit/dx) of each pixel, not scaled.

    Gradient x input of Shrikumar et al. 2016 ("Not Just a Black Box"), of images as the model takes them: zero is the mean colour
    of its preprocessing. Here the positive part, what speaks for the class, as GAE keeps of attention.
    The derivative is a constant unless `second_order`, and with it the map.
    Raises UserError for a model or an image size that is not supported, and for a target outside of the classes.
    """
    check_images(model, images)
    with explaining(model, images) as (images, keep_graph):
        second_order = second_order and keep_graph
        if not images.requires_grad:
            images = images.detach().requires_grad_()
        with capture(model):  # attention of torch's own operations, which can be differentiated twice
            logits = model(images)
        check_logits(logits)
        score = score_of(logits, pick_target(logits, target))
        (gradient,) = torch.autograd.grad(score, images, retain_graph=keep_graph, create_graph=second_order)
        with torch.set_grad_enabled(second_order), torch.autocast(images.device.type, enabled=False):
            return logits if keep_graph else logits.detach(), evidence(images, gradient)


def evidence(
    images: Float[Tensor, "batch channels height width"], gradient: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch height width"]:
    """relu(sum over channels of x * gradient), in float32 at least."""
    dtype = torch.promote_types(images.dtype, torch.float32)
    return (images.to(dtype) * gradient.to(dtype)).sum(dim=1).relu()
