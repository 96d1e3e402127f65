"""Generic attention explainability (GAE, Chefer, Gur and Wolf 2021) for self-attention, the explainer that trains.

With A_l the attention of block l and G_l the derivative of the target's logit with respect to it:
Abar_l = mean over heads of relu(G_l * A_l), R = I, R <- R + Abar_l R for l = 1..L; the map is the readout row of R at the
patches. Two things differ from writing that out: one backward pass yields all G_l, and only the readout row is carried
from the last block to the first, r <- r + r Abar_l, which gives the same row without a product of two matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from relevit.attention import TokenLayout, attention_modules, capture, token_layout
from relevit.attention_ops import image_chunks
from relevit.errors import UserError


def gae(
    model: nn.Module,
    images: Float[Tensor, "batch 3 height width"],
    target: Int[Tensor, " batch"] | None,
    *,
    second_order: bool = False,
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch rows columns"]]:
    """Logits and the relevance of each patch for the target class (None: the predicted one), not scaled.

    One forward and one backward pass. The G_l are constants in the result unless `second_order`: gradients reach the
    weights through the A_l alone. Where gradients are disabled, or nothing requires any, both come without a graph.
    Raises UserError for a model or an image size that is not supported, and for a target outside of the classes.
    """
    layout = token_layout(model, images.shape[-2], images.shape[-1])
    keep_graph = torch.is_grad_enabled() and (images.requires_grad or any(p.requires_grad for p in model.parameters()))
    with torch.inference_mode(False), torch.enable_grad():
        if images.is_inference():
            images = images.clone()
        if keep_graph:
            return _explain(model, images, target, layout, keep_graph=True, second_order=second_order)
        with _no_parameter_gradients(model):
            return _explain(model, images, target, layout, keep_graph=False, second_order=False)


def _explain(
    model: nn.Module, images: Tensor, target: Tensor | None, layout: TokenLayout, *, keep_graph: bool, second_order: bool
) -> tuple[Tensor, Tensor]:
    with capture(model, differentiable_twice=second_order) as captured:
        logits = model(images)
    maps = list(captured.maps)
    captured.maps.clear()
    _check_forward(model, logits, maps, layout)
    if target is None:
        target = logits.detach().argmax(dim=1)
    elif int(target.min()) < 0 or int(target.max()) >= logits.shape[1]:
        raise UserError(f"target {target.tolist()} is outside of the model's classes 0 to {logits.shape[1] - 1}")
    score = logits.gather(1, target[:, None]).sum()
    gradients = list(torch.autograd.grad(score, maps, retain_graph=keep_graph, create_graph=second_order))
    if not keep_graph:
        logits, maps = logits.detach(), [weights.detach() for weights in maps]
    with torch.set_grad_enabled(keep_graph), torch.autocast(images.device.type, enabled=False):
        row = _propagate(maps, gradients, layout, second_order=second_order)
    return logits, row[:, layout.prefix :].unflatten(1, layout.grid)


def _propagate(maps: list[Tensor], gradients: list[Tensor], layout: TokenLayout, *, second_order: bool) -> Tensor:
    """The readout row of R, (batch, tokens); empties both lists on the way, so that nothing is held longer than needed."""
    carry = _carry_composed if second_order else _Carry.apply
    batch, tokens = maps[0].shape[0], layout.tokens
    rows, share = readout_rows(layout)
    if layout.readout == "attention_pool":
        # the pooling attention: (batch, heads, latents, keys), keys with or without the prefix tokens
        weights, gradient = maps.pop(), gradients.pop()
        latents = weights.new_full((batch, rows.stop), share)
        row = carry(latents, weights[:, :, rows], gradient[:, :, rows])
        row = torch.nn.functional.pad(row, (tokens - row.shape[1], 0))
    else:
        # the last block: only the readout's own rows, r = e_readout + e_readout Abar_L
        weights, gradient = maps.pop(), gradients.pop()
        start = weights.new_zeros(batch, tokens)
        start[:, rows] = share
        row = start + carry(start[:, rows], weights[:, :, rows], gradient[:, :, rows])
    while maps:
        row = row + carry(row, maps.pop(), gradients.pop())
    return row


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


def _carry_composed(row: Tensor, weights: Tensor, gradient: Tensor) -> Tensor:
    """r Abar = sum over j of r_j mean over heads of relu(G_jk A_jk): (batch, queries) to (batch, keys)."""
    return torch.einsum("bj,bhjk->bk", row, (gradient * weights).relu()) / weights.shape[1]


class _Carry(torch.autograd.Function):
    """`_carry_composed` for a constant G, without keeping the product: A >= 0, so relu(G A) = relu(G) A.

    `gradient` is overwritten by its positive part.
    """

    @staticmethod
    def forward(ctx: Any, row: Tensor, weights: Tensor, gradient: Tensor) -> Tensor:
        heads = weights.shape[1]
        gradient = gradient.relu_() if gradient.is_contiguous() else gradient.relu()
        ctx.save_for_backward(row, weights, gradient)
        carried = row.new_empty(row.shape[0], weights.shape[3])
        for part in image_chunks(weights):
            product = (gradient[part] * weights[part]).flatten(1, 2)  # (images, heads * queries, keys)
            carried[part] = torch.bmm(row[part].repeat(1, heads).unsqueeze(1), product).squeeze(1)
        return carried.div_(heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        row, weights, gradient = ctx.saved_tensors
        incoming = grads[0] / weights.shape[1]
        to_row = torch.empty_like(row)
        to_weights = torch.empty_like(gradient)
        for part in image_chunks(weights):
            queries, keys = row[part, None, :, None], incoming[part, None, None, :]
            product = torch.mul(gradient[part], keys)  # (images, heads, queries, keys)
            to_row[part] = (product * weights[part]).sum(dim=(1, 3))
            torch.mul(product, queries, out=to_weights[part])
        return to_row, to_weights, None


def _check_forward(model: nn.Module, logits: Any, maps: list[Tensor], layout: TokenLayout) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise UserError(
            "the model returns something else than one tensor of logits (batch, classes): a distilled DeiT in training needs "
            "model.set_distilled_training(False)"
        )
    if len(maps) != len(attention_modules(model)) or maps[0].shape[-1] != layout.tokens:
        raise UserError(
            f"the forward pass left {len(maps)} attention maps of {maps[0].shape[-1] if maps else 0} tokens where "
            f"{len(attention_modules(model))} of {layout.tokens} were expected: is the model's forward pass modified?"
        )


@contextmanager
def _no_parameter_gradients(model: nn.Module) -> Iterator[None]:
    """Without a graph of the weights, the backward pass goes through the activations alone, and fewer of them are kept."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
