"""What all explainers share: gradients at any time, the checks of a forward pass, the target, and the rows that are read.

An explainer is a function from a `Request` to logits and a map; `explainer` makes of it what the table holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.models.attention import capture, check_channels, composed_attention, token_layout
from relevit.models.families import logits_of, of_module
from relevit.models.families.family import TokenLayout, eager, unwrap
from relevit.models.recomputation import recomputed_within


@dataclass(frozen=True)
class Request:
    """What an explainer is asked for.

    Attributes:
        images: (batch, channels, height, width).
        target: the class of each image (batch,), None for the predicted one.
        layout: of the images' tokens.
        keep_graph: whether the caller wants a graph of the results: gradients are enabled outside, and something requires them.
        second_order: whether that is to be one of the gradients within the map, too, which are constants otherwise.
    """

    model: nn.Module
    images: Tensor
    target: Tensor | None
    layout: TokenLayout
    keep_graph: bool
    second_order: bool

    @contextmanager
    def formula(self, graph: bool | None = None) -> Iterator[None]:
        """A context for the map's formula: in full precision, with a graph as the caller wants one (or as `graph` says)."""
        keep = self.keep_graph if graph is None else graph
        with torch.set_grad_enabled(keep), torch.autocast(self.images.device.type, enabled=False):
            yield

    def logits(self) -> Float[Tensor, "batch classes"]:
        """The logits of a plain forward pass, checked."""
        with torch.set_grad_enabled(self.keep_graph):
            logits = logits_of(self.model, self.images)
        check_logits(logits)
        return logits


Explanation = tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch rows columns"]]
"""Logits, and maps on the patch grid or on the pixels, nowhere negative and not scaled."""


def explainer(formula: Callable[[Request], Explanation]) -> Callable[..., Explanation]:
    """A function (model, images, target or None, *, second_order=False) of the formula of an explainer.

    Within the formula gradients are enabled, also under `torch.no_grad` and `torch.inference_mode`; parameters require
    none there where the caller wants no graph.
    Raises UserError for a model, an image size or a number of channels that does not fit, and for a target outside of the
    classes.
    """

    @wraps(formula)
    def explain(model: nn.Module, images: Tensor, target: Tensor | None, *, second_order: bool = False) -> Explanation:
        layout = token_layout(model, images.shape[-2], images.shape[-1])
        if not isinstance(model, nn.parallel.DistributedDataParallel):  # which adds up the gradients of all processes
            model = unwrap(model)
        check_channels(model, images.shape[1])
        keep = torch.is_grad_enabled() and (images.requires_grad or any(p.requires_grad for p in model.parameters()))
        again = recomputed_within(lambda: partial(eager, model))
        with torch.inference_mode(False), torch.enable_grad(), eager(model), again:
            images = images.clone() if images.is_inference() else images
            target = target.clone() if target is not None and target.is_inference() else target
            with nullcontext() if keep else no_parameter_gradients(model):
                logits, maps = formula(Request(model, images, target, layout, keep, second_order and keep))
        return logits if keep else logits.detach(), maps

    return explain


@contextmanager
def no_parameter_gradients(model: nn.Module) -> Iterator[None]:
    """Without a graph of the weights, the backward pass goes through the activations alone, and fewer of them are kept."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def check_logits(logits: Any) -> None:
    """Raises UserError for an output that is not one tensor (batch, classes)."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise UserError(
            "the model returns something else than one tensor of logits (batch, classes): a distilled DeiT in training needs "
            "model.set_distilled_training(False)"
        )


def check_maps(model: nn.Module, shapes: Sequence[tuple[int, ...]], layout: TokenLayout) -> None:
    """Raises UserError where a forward pass left other attention maps than one for each attention, over the layout's tokens."""
    expected = of_module(model).map_count(unwrap(model))
    if len(shapes) != expected or shapes[0][-1] != layout.tokens:
        raise UserError(
            f"the forward pass left attention maps of shapes {list(shapes)} where {expected} over {layout.tokens} tokens were "
            "expected: the model's forward pass is not the one that its library gives it"
        )


def pick_target(logits: Tensor, target: Tensor | None) -> Tensor:
    """The predicted classes (batch,) for None. Raises UserError for a target outside of the classes."""
    if target is None:
        return logits.detach().argmax(dim=1)
    if int(target.min()) < 0 or int(target.max()) >= logits.shape[1]:
        raise UserError(f"target {target.tolist()} is outside of the model's classes 0 to {logits.shape[1] - 1}")
    return target


def score_of(logits: Float[Tensor, "batch classes"], target: Tensor) -> Tensor:
    """The sum of the targets' logits over the batch: images do not depend on each other, so one backward pass does for all."""
    return logits.gather(1, target[:, None]).sum()


def mean_attentions(request: Request) -> tuple[Tensor, list[Float[Tensor, "batch queries keys"]]]:
    """Logits, and each block's attention as a mean over its heads; a pooling attention comes last."""

    def attend(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        output, weights = composed_attention(*args, **kwargs)
        return output, weights.mean(dim=1)

    with capture(request.model, attend=attend, own=lambda weights: (weights, weights.mean(dim=1))) as captured:
        logits = request.logits()
    check_maps(request.model, [tuple(attention.shape) for attention in captured.maps], request.layout)
    pick_target(logits, request.target)
    return logits, captured.maps


def attentions_with_gradients(
    request: Request, *, last_only: bool = False
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Logits, each block's attention A (batch, heads, queries, keys), and the derivatives G of the target's logit by them,
    which are constants unless `second_order`. last_only: of the last attention alone."""
    with capture(request.model) as captured:
        logits = logits_of(request.model, request.images)
    check_logits(logits)
    check_maps(request.model, [tuple(attention.shape) for attention in captured.maps], request.layout)
    maps = captured.maps[-1:] if last_only else captured.maps
    score = score_of(logits, pick_target(logits, request.target))
    gradients = torch.autograd.grad(score, maps, retain_graph=request.keep_graph, create_graph=request.second_order)
    return logits, maps, list(gradients)
