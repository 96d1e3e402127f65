"""Patch features of a timm vision transformer: keys, queries, values or tokens of one block."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


def patch_features(
    model: nn.Module, images: Float[Tensor, "batch channels height width"], *, kind: str = "key", block: int = -1
) -> tuple[Float[Tensor, "batch patches dim"], tuple[int, int]]:
    """The features of one block at the patches, and the patch grid (rows, columns)."""
    raise NotImplementedError
