"""Relevance maps: where a vision transformer looks when it names a class. The table picks the explainer by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.explainers import gae


@dataclass(frozen=True)
class Explainer:
    """A row of the table. Called, it is its function.

    function: (model, images, target or None, *, second_order=False) -> (logits, map that is not scaled and nowhere negative).
    The map lies on the patch grid (batch, rows, columns), or on the pixels (batch, height, width).
    trains: the map can carry a graph to the weights, so that a loss on it trains the model.
    needs_second_order: it does so with `second_order=True` alone, and is a constant otherwise.
    class_specific: False where the map is the same for every target.
    """

    function: Callable[..., tuple[Tensor, Tensor]]
    description: str
    trains: bool = True
    needs_second_order: bool = False
    class_specific: bool = True

    def __call__(
        self, model: nn.Module, images: Tensor, target: Tensor | None, *, second_order: bool = False
    ) -> tuple[Tensor, Tensor]:
        return self.function(model, images, target, second_order=second_order)


EXPLAINERS: dict[str, Explainer] = {
    "gae": Explainer(gae.explain, "generic attention explainability, Chefer, Gur and Wolf 2021: the paper's"),
}


def relevance(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: int | Tensor | None = None,
    method: str = "gae",
    upscale: bool = True,
    normalize: bool = True,
    *,
    second_order: bool = False,
) -> Float[Tensor, "batch rows columns"]:
    """Relevance maps (batch, height, width) in [0, 1], differentiable with respect to the weights; see `forward_with_relevance`."""
    return forward_with_relevance(model, images, target, method, upscale, normalize, second_order=second_order)[1]


def forward_with_relevance(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: int | Tensor | None = None,
    method: str = "gae",
    upscale: bool = True,
    normalize: bool = True,
    *,
    second_order: bool = False,
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch rows columns"]]:
    """Logits (batch, classes) and relevance maps of one forward pass, for a training loop of one's own.

    target: the class whose map is wanted: None for the predicted one, an index for all images, or a tensor (batch,).
    method: the explainer, a name in `EXPLAINERS`.
    upscale: bilinearly to the images' size (batch, height, width), else (batch, rows, columns) of the patch grid.
    normalize: each map min-max scaled to [0, 1]; a flat map is all zeros.
    second_order: keep the graph of the attention's gradients, which are constants otherwise (the paper's choice).

    The maps are float32 (float64 for a float64 model). Under `torch.no_grad()` and `torch.inference_mode()` both results
    come without a graph. The model's mode, parameters, `.grad`, hooks and flags are as before, also after an exception.
    Raises UserError for an unsupported model, image size, target or method.
    """
    if method not in EXPLAINERS:
        raise UserError(f"unknown method {method!r}: known are {', '.join(sorted(EXPLAINERS))}")
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or images.shape[0] == 0:
        shape = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise UserError(
            f"images must be a float tensor (batch, channels, height, width) with a batch of at least 1, not {shape}"
        )
    logits, maps = EXPLAINERS[method](model, images, _as_target(target, images), second_order=second_order)
    with torch.set_grad_enabled(maps.requires_grad), torch.autocast(images.device.type, enabled=False):
        if upscale:
            maps = F.interpolate(maps[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        return logits, scale_to_unit(maps) if normalize else maps


def scale_to_unit(maps: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch rows columns"]:
    """Each map min-max scaled to [0, 1]. A map that is flat up to rounding becomes all zeros, with zero gradient."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    span = high - low
    flat = span <= 8 * torch.finfo(maps.dtype).eps * high.abs()
    return torch.where(flat, 0.0, (maps - low) / torch.where(flat, 1.0, span))


def _as_target(target: int | Tensor | None, images: Tensor) -> Tensor | None:
    """(batch,) class indices on the images' device, or None."""
    if target is None:
        return None
    if isinstance(target, bool) or not isinstance(target, (int, Tensor)):
        raise UserError(
            f"target must be None, a class index or a tensor of one index per image, not {type(target).__name__}"
        )
    if isinstance(target, int):
        return torch.full((images.shape[0],), target, device=images.device)
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise UserError(f"target must hold class indices (integers), not {target.dtype}")
    if target.ndim == 0:
        target = target.expand(images.shape[0])
    if target.shape != images.shape[:1]:
        raise UserError(f"target must hold one class per image, ({images.shape[0]},), not {tuple(target.shape)}")
    return target.to(device=images.device, dtype=torch.long)
