"""GradMask and RRR, the baselines that penalise the gradient with respect to the image outside of the object.

GradMask: Simpson et al. 2019, the gradient of the label's logit. RRR: Ross, Hughes and Doshi-Velez 2017, "Right for the
Right Reasons", the gradient of the summed log-probabilities. Both need the gradient's own graph, so that the penalty has a
gradient with respect to the weights. The authors' setup of the paper took it without one (`as_released`): the penalty is
then a constant, and what is left is plain cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from relevit.errors import UserError
from relevit.models.families import logits_of
from relevit.models.recomputation import recomputed_within
from relevit.training.losses import inverse_mask, label_loss
from relevit.training.terms import LossInputs, Numbers, Term

INPUT_GRADIENTS = {"temperature": 1.0, "lambda_relevance": 0.8, "lambda_classification": 0.2}
"""The options of both; the paper tuned the weights per model and does not give them."""


class InputGradient(NamedTuple):
    """What a method wants to know of the images' gradient: that of score(logits, labels), a scalar; with its own graph?"""

    score: Callable[[Tensor, Tensor], Tensor]
    graph: bool = True


def label_logit(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
    """GradMask's score: the sum over the batch of the label's logit."""
    return logits.gather(1, labels[:, None]).sum()


def sum_of_log_probabilities(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """RRR's score: the sum over batch and classes of log(p + 1e-11). It does not depend on the labels."""
    return torch.log(logits.softmax(dim=1) + 1e-11).sum()


def logits_and_input_gradient(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    labels: Int[Tensor, " batch"],
    wanted: InputGradient,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch channels height width"]]:
    """Logits of one forward pass, and the gradient of the score of logits / temperature with respect to the images.

    With `wanted.graph` the gradient is differentiable with respect to the weights. Attention then runs through torch's
    own operations: the fused kernels have no second derivative. Under `torch.no_grad()` both come without a graph.
    """
    keep = torch.is_grad_enabled()
    graph = keep and wanted.graph
    images = images.detach().requires_grad_()

    def kernels() -> AbstractContextManager[Any]:
        return sdpa_kernel(SDPBackend.MATH) if graph else nullcontext()

    with torch.enable_grad(), kernels(), recomputed_within(lambda: kernels):
        logits = logits_of(model, images)
        scaled = logits if logits.dtype == torch.float64 else logits.float()
        score = wanted.score(scaled / temperature, labels)
        (gradient,) = torch.autograd.grad(score, images, create_graph=graph, retain_graph=keep)
    return (logits, gradient) if keep else (logits.detach(), gradient)


def background_squares(
    gradient: Float[Tensor, "batch channels height width"],
    masks: Float[Tensor, "batch height width"],
    ignore: Bool[Tensor, "batch height width"] | None = None,
) -> tuple[Float[Tensor, "batch channels height width"], int | Tensor]:
    """(gradient * Sbar)^2, zero at ignored pixels, and the number of its entries at pixels that count.

    Raises UserError if the shapes differ.
    """
    if gradient.shape[:1] + gradient.shape[2:] != masks.shape:
        raise UserError(
            f"the input gradient is {tuple(gradient.shape)} but the masks are {tuple(masks.shape)}: they must be "
            "(batch, channels, height, width) and (batch, height, width)"
        )
    squares = (gradient * inverse_mask(masks.to(gradient.dtype))[:, None]).square()
    if ignore is None:
        return squares, squares.numel()
    counts = ~ignore.bool()
    return torch.where(counts[:, None], squares, 0), counts.sum() * gradient.shape[1]


def _with_labels(background: Tensor, inputs: LossInputs, numbers: Numbers) -> dict[str, Term]:
    labels = label_loss(inputs.logits, inputs.labels, numbers["temperature"])
    return {
        "background": Term(numbers["lambda_relevance"], background),
        "label": Term(numbers["lambda_classification"], labels),
    }


def gradmask(inputs: LossInputs, numbers: Numbers) -> dict[str, Term]:
    """The mean over batch, channels and pixels of (d logit_y / dx * Sbar)^2, and cross-entropy with the labels."""
    assert inputs.input_gradient is not None  # the loop computes it
    squares, count = background_squares(inputs.input_gradient, inputs.masks, inputs.ignore)
    mean = squares.sum() / (count if isinstance(count, int) else count.clamp(min=1))
    return _with_labels(mean, inputs, numbers)


def rrr(inputs: LossInputs, numbers: Numbers) -> dict[str, Term]:
    """The sum over batch, channels and pixels of (d sum_k log p_k / dx * Sbar)^2, and cross-entropy with the labels.

    A sum over the batch grows with the batch, beside a cross-entropy that is a mean: two batches of 4 that are accumulated
    weigh it half as much as one batch of 8. Set `lambda_relevance` with the batch size.
    """
    assert inputs.input_gradient is not None  # the loop computes it
    squares, _ = background_squares(inputs.input_gradient, inputs.masks, inputs.ignore)
    return _with_labels(squares.sum(), inputs, numbers)
