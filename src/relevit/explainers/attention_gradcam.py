"""Grad-CAM on the last attention, with its heads as channels."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from relevit.explainers.attention_maps import attentions_with_gradients, check_images, explaining, on_grid, readout_rows


def explain(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"] | None,
    *,
    second_order: bool = False,
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch rows columns"]]:
    """Logits, and relu(mean over heads and readout rows of w A) at the patches, not scaled.

    A is a readout row of the last attention (a pooling attention counts as the last) at the patches, one for each head, and
    w the mean over the patches of the derivative of the target's logit by it: Grad-CAM (Selvaraju et al. 2017, Eq. 1 and 2)
    as Chefer, Gur and Wolf 2021 take it to transformers. A map of which every part speaks against the class is all zeros.
    The w are constants in the result unless `second_order`.
    Raises UserError for a model or an image size that is not supported, and for a target outside of the classes.
    """
    layout = check_images(model, images)
    with explaining(model, images) as (images, keep_graph):
        logits, maps, gradients = attentions_with_gradients(
            model, images, target, layout, keep_graph=keep_graph, second_order=second_order, last_only=True
        )
        rows, _ = readout_rows(layout)
        patches = slice(maps[0].shape[3] - layout.grid[0] * layout.grid[1], None)
        with torch.set_grad_enabled(keep_graph), torch.autocast(images.device.type, enabled=False):
            weights = gradients[0][:, :, rows, patches].mean(dim=3, keepdim=True)  # (batch, heads, rows, 1)
            found = (weights * maps[0][:, :, rows, patches]).mean(dim=(1, 2)).relu()
            return logits, on_grid(found, layout)
