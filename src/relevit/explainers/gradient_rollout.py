"""Gradient x attention rollout: attention rollout of what of the attention speaks for the class."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from relevit.explainers.attention_maps import attentions_with_gradients, check_images, explaining, on_grid
from relevit.explainers.rollout import roll_out


def explain(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"] | None,
    *,
    second_order: bool = False,
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch rows columns"]]:
    """Logits, and the readout's rows of the product B_L ... B_1 at the patches, not scaled; B_l = (Abar_l + I) / row sums.

    Abar_l = mean over heads of relu(G_l * A_l), with G_l the derivative of the target's logit by the attention A_l: the
    weighting of Chefer, Gur and Wolf 2021 ("Transformer Interpretability Beyond Attention Visualization", Eq. 13, with the
    attention where they have its LRP relevance) in the rollout of Abnar and Zuidema 2020, whose rows sum to 1. Without the
    division by row sums it would be GAE. A pooling attention has no residual connection: its rows are those of Abar.
    The G_l are constants in the result unless `second_order`.
    Raises UserError for a model or an image size that is not supported, and for a target outside of the classes.
    """
    layout = check_images(model, images)
    with explaining(model, images) as (images, keep_graph):
        logits, maps, gradients = attentions_with_gradients(
            model, images, target, layout, keep_graph=keep_graph, second_order=second_order
        )
        with torch.set_grad_enabled(keep_graph), torch.autocast(images.device.type, enabled=False):
            positive = [(gradient * one).relu().mean(dim=1) for gradient, one in zip(gradients, maps, strict=True)]
            return logits, on_grid(roll_out(positive, layout), layout)
