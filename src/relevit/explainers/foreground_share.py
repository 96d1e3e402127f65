"""The share of a map's relevance that lies on the foreground."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from relevit.errors import UserError


def check_shapes(maps: Tensor, masks: Tensor, ignore: Tensor | None) -> None:
    """Raise UserError unless maps, masks and ignored regions have one shape."""
    if maps.shape != masks.shape:
        raise UserError(
            f"the relevance maps are {tuple(maps.shape)} but the masks are {tuple(masks.shape)}: "
            "both must be (batch, height, width)"
        )
    if ignore is not None and ignore.shape != maps.shape:
        raise UserError(
            f"the relevance maps are {tuple(maps.shape)} but the ignore regions are {tuple(ignore.shape)}: "
            "both must be (batch, height, width)"
        )


def at_least_single(values: Tensor) -> Tensor:
    """Half-precision maps are summed in single precision."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def foreground_share(
    maps: Float[Tensor, "batch height width"],
    masks: Float[Tensor, "batch height width"],
    ignore: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, " batch"]:
    """The share of each map's relevance that lies on the foreground, sum(R * S) / sum(R); 0 for a map of zeros."""
    check_shapes(maps, masks, ignore)
    maps = at_least_single(maps)
    if ignore is not None:
        maps = torch.where(ignore.bool(), 0, maps)
    total = maps.sum(dim=(1, 2))
    return (maps * masks.to(maps.dtype)).sum(dim=(1, 2)) / torch.where(total > 0, total, 1)
