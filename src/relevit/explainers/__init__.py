"""Relevance maps: where a vision transformer looks when it names a class. The table picks the explainer by name.

Some explainers give one number for each patch, others for each pixel. `relevance` makes of either a map of the image's size (a patch
map is upscaled bilinearly, a pixel map stays as it is), or with `upscale=False` one of the patch grid (a pixel map is averaged over
each patch).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from relevit.errors import UserError, tells_new_names
from relevit.explainers import (
    attention_gradcam,
    attn_lrp,
    gae,
    gradient_rollout,
    input_x_gradient,
    integrated_gradients,
    raw_attention,
    rollout,
    smoothgrad,
)
from relevit.explainers.frugal_attention import forced
from relevit.extensions import Table
from relevit.models.attention import patch_size, token_layout


@dataclass(frozen=True)
class Explainer:
    """A row of the table. Called, it is its function.

    function: (model, images, target or None, *, second_order=False) -> (logits, map that is not scaled and nowhere negative),
    as `attention_maps.explainer` makes it of a formula. The map lies on the patch grid (batch, rows, columns), or on the pixels (batch, height, width).
    trains: the map can carry a graph to the weights, so that a loss on it trains the model.
    needs_second_order: it does so with `second_order=True` alone, and is a constant otherwise.
    """

    function: Callable[..., tuple[Tensor, Tensor]]
    description: str
    trains: bool = True
    needs_second_order: bool = False

    def __call__(
        self, model: nn.Module, images: Tensor, target: Tensor | None, *, second_order: bool = False
    ) -> tuple[Tensor, Tensor]:
        return self.function(model, images, target, second_order=second_order)


EXPLAINERS = Table(
    "explainers",
    {
        "gae": Explainer(gae.explain, "generic attention explainability, the paper's (Chefer, Gur and Wolf 2021)"),
        "raw_attention": Explainer(raw_attention.explain, "the last block's attention"),
        "rollout": Explainer(rollout.explain, "attention rollout (Abnar and Zuidema 2020)"),
        "gradient_rollout": Explainer(gradient_rollout.explain, "rollout of the attention that speaks for the class"),
        "attention_gradcam": Explainer(attention_gradcam.explain, "Grad-CAM on the heads of the last attention"),
        "input_x_gradient": Explainer(
            input_x_gradient.explain,
            "pixels times the logit's gradient (Shrikumar et al. 2016)",
            needs_second_order=True,
        ),
        "integrated_gradients": Explainer(
            integrated_gradients.explain, "integrated gradients (Sundararajan et al. 2017)", trains=False
        ),
        "smoothgrad": Explainer(
            smoothgrad.explain, "mean gradient over noisy copies (Smilkov et al. 2017)", trains=False
        ),
        "attn_lrp": Explainer(
            attn_lrp.explain, "layer-wise relevance propagation (Achtibat et al. 2024)", needs_second_order=True
        ),
    },
)


@tells_new_names
def relevance(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: int | Tensor | None = None,
    explainer: str = "gae",
    upscale: bool = True,
    normalize: bool = True,
    *,
    second_order: bool = False,
    attention: str = "auto",
) -> Float[Tensor, "batch rows columns"]:
    """Relevance maps (batch, height, width) in [0, 1], differentiable with respect to the weights; see `forward_with_relevance`."""
    given: dict[str, Any] = {"second_order": second_order, "attention": attention}
    return forward_with_relevance(model, images, target, explainer, upscale, normalize, **given)[1]


@tells_new_names
def forward_with_relevance(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: int | Tensor | None = None,
    explainer: str = "gae",
    upscale: bool = True,
    normalize: bool = True,
    *,
    second_order: bool = False,
    attention: str = "auto",
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch rows columns"]]:
    """Logits (batch, classes) and relevance maps of one forward pass, for a training loop of one's own.

    target: the class whose map is wanted: None for the predicted one, an index for all images, or a tensor (batch,).
    explainer: a name in `EXPLAINERS`.
    upscale: to the images' size (batch, height, width), patch maps bilinearly; else (batch, rows, columns) of the patch grid.
    normalize: each map min-max scaled to [0, 1]; a flat map is all zeros. Without it, maps are nowhere negative.
    second_order: keep the graph of gradients, which are constants otherwise (the paper's choice).
    attention: how "gae" computes it: "map" keeps each block's attention map, "tiled" makes it again where it is needed (memory
        linear in the tokens), "triton" does that in kernels for a CUDA device; "auto" takes "triton" where it can be had, else
        "map" or "tiled" by the number of tokens. The results agree up to rounding.

    The maps are float32 (float64 for a float64 model). Under `torch.no_grad()` and `torch.inference_mode()` both results
    come without a graph, and a map does for an explainer that needs `second_order=True` to train, or does not train.
    The model's mode, parameters, `.grad`, hooks and flags are as before, also after an exception.
    Raises UserError for an unsupported model, image size, target or explainer.
    """
    with forced(attention):
        logits, maps = unscaled(model, images, target, explainer, second_order=second_order)
    with torch.set_grad_enabled(maps.requires_grad), torch.autocast(images.device.type, enabled=False):
        maps = on_pixels(maps, images) if upscale else on_patches(maps, model, images)
        return logits, scale_to_unit(maps) if normalize else maps


def unscaled(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: int | Tensor | None = None,
    explainer: str = "gae",
    *,
    second_order: bool = False,
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch rows columns"]]:
    """Logits and maps as the explainer gives them, of the patch grid or of the image's size; see `forward_with_relevance`."""
    if explainer not in EXPLAINERS:
        raise UserError(f"unknown explainer {explainer!r}: known are {', '.join(sorted(EXPLAINERS))}")
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or images.shape[0] == 0:
        shape = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise UserError(
            f"images must be a float tensor (batch, channels, height, width) with a batch of at least 1, not {shape}"
        )
    return EXPLAINERS[explainer](model, images, _as_target(target, images), second_order=second_order)


def on_pixels(maps: Float[Tensor, "batch rows columns"], images: Tensor) -> Float[Tensor, "batch height width"]:
    """Maps of the images' size: bilinearly upscaled, or as they are where they have it."""
    size = images.shape[-2:]
    if maps.shape[1:] == size:
        return maps
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def on_patches(
    maps: Float[Tensor, "batch height width"], model: nn.Module, images: Tensor
) -> Float[Tensor, "batch rows columns"]:
    """Maps of the patch grid: a map of the images' size is averaged over each patch (over what of it lies in the image)."""
    height, width = images.shape[-2:]
    grid = token_layout(model, height, width).grid
    if tuple(maps.shape[1:]) == grid:
        return maps
    rows, columns = patch_size(model)
    return F.avg_pool2d(maps[:, None], (rows, columns), ceil_mode=True)[:, 0]


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
