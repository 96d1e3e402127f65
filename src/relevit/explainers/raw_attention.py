"""Raw attention: where the readout's rows of the last attention look, whatever the class."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from relevit.explainers.attention_maps import check_images, explaining, mean_attentions, on_grid, readout_rows


def explain(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"] | None,
    *,
    second_order: bool = False,
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch rows columns"]]:
    """Logits, and the last block's attention to each patch: mean over heads and over the readout's rows, not scaled.

    A pooling attention counts as the last block. A baseline of Chefer, Gur and Wolf 2021.
    The target is only checked; there is no derivative in the map, so `second_order` changes nothing.
    Raises UserError for a model or an image size that is not supported, and for a target outside of the classes.
    """
    layout = check_images(model, images)
    with explaining(model, images) as (images, keep_graph):
        logits, means = mean_attentions(model, images, target, layout, keep_graph)
        rows, _ = readout_rows(layout)
        with torch.set_grad_enabled(keep_graph), torch.autocast(images.device.type, enabled=False):
            return logits, on_grid(means[-1][:, rows].mean(dim=1), layout)
