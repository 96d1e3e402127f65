"""What all explainers share: gradients at any time, the checks of a forward pass, the target, and the rows that are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.models.attention import (
    TokenLayout,
    attention_modules,
    capture,
    check_channels,
    composed_attention,
    token_layout,
)


@contextmanager
def explaining(model: nn.Module, images: Tensor) -> Iterator[tuple[Tensor, bool]]:
    """Gradients enabled, also under `torch.no_grad` and `torch.inference_mode`; yields the images and whether the caller
    wants a graph: gradients are enabled outside and something requires them. Otherwise parameters require none within."""
    keep_graph = torch.is_grad_enabled() and (images.requires_grad or any(p.requires_grad for p in model.parameters()))
    with torch.inference_mode(False), torch.enable_grad():
        if images.is_inference():
            images = images.clone()
        if keep_graph:
            yield images, True
        else:
            with no_parameter_gradients(model):
                yield images, False


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


def check_images(model: nn.Module, images: Tensor) -> TokenLayout:
    """The layout of the images' tokens. Raises UserError for a model, a size or a number of channels that does not fit."""
    layout = token_layout(model, images.shape[-2], images.shape[-1])
    check_channels(model, images.shape[1])
    return layout


def check_logits(logits: Any) -> None:
    """Raises UserError for an output that is not one tensor (batch, classes)."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise UserError(
            "the model returns something else than one tensor of logits (batch, classes): a distilled DeiT in training needs "
            "model.set_distilled_training(False)"
        )


def check_maps(model: nn.Module, shapes: Sequence[tuple[int, ...]], layout: TokenLayout) -> None:
    """Raises UserError where a forward pass left other attention maps than one for each attention, over the layout's tokens."""
    expected = len(attention_modules(model))
    if len(shapes) != expected or shapes[0][-1] != layout.tokens:
        raise UserError(
            f"the forward pass left attention maps of shapes {list(shapes)} where {expected} over {layout.tokens} tokens were "
            "expected: the model's forward pass is not the one that timm gives it"
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


def readout_rows(layout: TokenLayout) -> tuple[slice, float]:
    """The rows of R that are averaged, and the weight of each; for a pooling attention, rows of its latents."""
    rows = {
        "cls": slice(0, 1),
        "distilled": slice(0, 2),
        "mean": slice(layout.prefix, layout.tokens),
        "mean_all": slice(0, layout.tokens),
        "attention_pool": slice(0, layout.latents),
    }[layout.readout]
    return rows, 1.0 / (rows.stop - rows.start)


def on_grid(row: Float[Tensor, "batch keys"], layout: TokenLayout) -> Float[Tensor, "batch rows columns"]:
    """The patches' part of a row over tokens; a pooling attention's keys may leave out the prefix tokens."""
    return row[:, row.shape[1] - layout.grid[0] * layout.grid[1] :].unflatten(1, layout.grid)


def mean_attentions(
    model: nn.Module, images: Tensor, target: Tensor | None, layout: TokenLayout, keep_graph: bool
) -> tuple[Tensor, list[Float[Tensor, "batch queries keys"]]]:
    """Logits, and each block's attention as a mean over its heads; a pooling attention comes last."""

    def attend(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        output, weights = composed_attention(*args, **kwargs)
        return output, weights.mean(dim=1)

    with torch.set_grad_enabled(keep_graph), capture(model, attend=attend) as captured:
        logits = model(images)
    check_logits(logits)
    check_maps(model, [tuple(one.shape) for one in captured.maps], layout)
    pick_target(logits, target)
    return logits, captured.maps


def attentions_with_gradients(
    model: nn.Module,
    images: Tensor,
    target: Tensor | None,
    layout: TokenLayout,
    *,
    keep_graph: bool,
    second_order: bool,
    last_only: bool = False,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Logits, each block's attention A (batch, heads, queries, keys), and the derivatives G of the target's logit by them,
    which are constants unless `second_order`. last_only: of the last attention alone."""
    with capture(model) as captured:
        logits = model(images)
    check_logits(logits)
    check_maps(model, [tuple(one.shape) for one in captured.maps], layout)
    maps = captured.maps[-1:] if last_only else captured.maps
    score = score_of(logits, pick_target(logits, target))
    gradients = torch.autograd.grad(score, maps, retain_graph=keep_graph, create_graph=second_order and keep_graph)
    return logits if keep_graph else logits.detach(), maps, list(gradients)
