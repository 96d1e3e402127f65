"""The losses of the paper, Eq. 1 to 5, and two of our own, as plain functions of relevance maps, masks and logits.

Masks may be soft: S in [0, 1]. The inverse of a mask follows the authors' setup, not 1 - S: it is 1 where S = 0, 0
where S = 1, and S itself in between, so that a fractional edge pixel keeps its value on both sides. Ignored pixels
count for neither the foreground nor the background: they are left out of the sum and of the number that divides it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relevit.explainers.foreground_share import at_least_single, check_shapes, foreground_share


def _mean(squares: Tensor, ignore: Tensor | None) -> Tensor:
    """Mean over the pixels that count; 0 where there is none."""
    if ignore is None:
        return squares.mean()
    counts = ~ignore.bool()
    return torch.where(counts, squares, 0).sum() / counts.sum().clamp(min=1)


def inverse_mask(masks: Tensor) -> Tensor:
    """The complement of soft masks by the setup's rule: 1 where the mask is 0, 0 where it is 1, else its own value."""
    return torch.where(masks > 0, torch.where(masks < 1, masks, 0), 1)


def background_loss(
    maps: Float[Tensor, "batch height width"],
    masks: Float[Tensor, "batch height width"],
    ignore: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, ""]:
    """Eq. 1: the mean over all pixels of (R * Sbar)^2, with relevance R in [0, 1] and Sbar from `inverse_mask`.

    Raises UserError if the shapes differ.
    """
    check_shapes(maps, masks, ignore)
    maps = at_least_single(maps)
    return _mean((maps * inverse_mask(masks.to(maps.dtype))).square(), ignore)


def foreground_loss(
    maps: Float[Tensor, "batch height width"],
    masks: Float[Tensor, "batch height width"],
    ignore: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, ""]:
    """Eq. 2: the mean over all pixels of (R * S - S)^2.

    The paper writes 1 for the target; the authors' setup has S, so that background pixels add nothing, and so have we.
    Raises UserError if the shapes differ.
    """
    check_shapes(maps, masks, ignore)
    maps = at_least_single(maps)
    masks = masks.to(maps.dtype)
    return _mean((maps * masks - masks).square(), ignore)


def relevance_loss(
    maps: Float[Tensor, "batch height width"],
    masks: Float[Tensor, "batch height width"],
    ignore: Bool[Tensor, "batch height width"] | None = None,
    lambda_bg: float = 2.0,
    lambda_fg: float = 0.3,
) -> Float[Tensor, ""]:
    """Eq. 3: lambda_bg * background loss + lambda_fg * foreground loss."""
    return lambda_bg * background_loss(maps, masks, ignore) + lambda_fg * foreground_loss(maps, masks, ignore)


def confidence_loss(logits: Float[Tensor, "batch classes"], temperature: float = 1.0) -> Float[Tensor, ""]:
    """Eq. 4: cross-entropy of logits / temperature with the model's own predicted class, mean over the batch."""
    logits = at_least_single(logits)
    return F.cross_entropy(logits / temperature, logits.argmax(dim=1))


def label_loss(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], temperature: float = 1.0
) -> Float[Tensor, ""]:
    """Cross-entropy of logits / temperature with the labels, mean over the batch (the paper's "w/ ground-truth")."""
    return F.cross_entropy(at_least_single(logits) / temperature, labels)


def total_loss(
    relevance: Float[Tensor, ""],
    classification: Float[Tensor, ""],
    lambda_relevance: float = 0.8,
    lambda_classification: float = 0.2,
) -> Float[Tensor, ""]:
    """Eq. 5: lambda_relevance * Eq. 3 + lambda_classification * Eq. 4."""
    return lambda_relevance * relevance + lambda_classification * classification


def share_loss(
    maps: Float[Tensor, "batch height width"],
    masks: Float[Tensor, "batch height width"],
    ignore: Bool[Tensor, "batch height width"] | None = None,
    epsilon: float = 1e-6,
) -> Float[Tensor, ""]:
    """Ours, not the paper's: -log(share + epsilon), mean over the maps; the share is that of `foreground_share`.

    For maps that are not scaled to [0, 1]: the share does not depend on their scale, and unlike a scaled map it cannot be
    changed by moving the least or the largest value alone. Negative relevance counts as none. A map of zeros adds 0.
    """
    maps = maps.clamp(min=0)
    share = foreground_share(maps, masks, ignore)
    counted = maps if ignore is None else torch.where(ignore.bool(), 0, maps)
    return torch.where(counted.sum(dim=(1, 2)) > 0, -torch.log(share + epsilon), 0).mean()


def agreement_loss(
    logits: Float[Tensor, "batch classes"], reference: Float[Tensor, "batch classes"], temperature: float = 1.0
) -> Float[Tensor, ""]:
    """The Kullback-Leibler divergence KL(p || q) in nats, mean over the batch: q of `logits`, p of `reference`.

    Both are divided by the temperature. p is a constant: gradients reach the weights through q alone.
    """
    expected = F.log_softmax(at_least_single(reference.detach()) / temperature, dim=1)
    actual = F.log_softmax(at_least_single(logits) / temperature, dim=1)
    return F.kl_div(actual, expected, reduction="batchmean", log_target=True)
