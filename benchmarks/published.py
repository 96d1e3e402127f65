"""The published procedure as a yardstick of cost, in our own writing: one partial backward pass per block, the full
token-by-token matrix, a second forward pass for the classification loss, and a frozen copy's forward pass for logging."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relevit.explainers import scale_to_unit
from relevit.models.attention import capture, token_layout
from relevit.training.losses import confidence_loss, relevance_loss, total_loss


def published_relevance(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Maps (batch, height, width) in [0, 1] of a class-token readout, differentiable through the attention alone."""
    layout = token_layout(model, images.shape[-2], images.shape[-1])
    with capture(model) as captured:
        logits = model(images)
    score = logits.gather(1, target[:, None]).sum()
    tokens = layout.tokens
    relevance = torch.eye(tokens, device=images.device).expand(images.shape[0], tokens, tokens)
    for weights in captured.maps:
        (gradient,) = torch.autograd.grad(score, weights, retain_graph=True)
        mean = (gradient * weights).clamp(min=0).mean(dim=1)
        relevance = relevance + mean @ relevance
    grid = relevance[:, 0, layout.prefix :].unflatten(1, layout.grid)
    return scale_to_unit(
        F.interpolate(grid[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    )


def published_loss(model: nn.Module, frozen: nn.Module, images: Tensor, masks: Tensor, labels: Tensor) -> Tensor:
    """Eq. 5, at the published procedure's cost."""
    maps = published_relevance(model, images, labels)
    logits = model(images)
    with torch.no_grad():
        frozen(images)
    return total_loss(relevance_loss(maps, masks), confidence_loss(logits))
