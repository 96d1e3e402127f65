"""TokenCut (Wang et al., CVPR 2022): the object is one side of a normalised cut of the graph of patches."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Cut:
    """The normalised cuts of a batch of images.

    masks: the seed's connected component of the seed's side; all False where no object was found.
    sides: the seed's whole side, before the component is chosen.
    eigenvectors: the second smallest eigenvector of (D - W) v = lambda D v.
    eigenvalues: the second and third smallest eigenvalue. seeds: flat index of argmax |v|.
    found: False where the eigengap is degenerate (all patches alike) or nothing is split.
    """

    masks: Bool[Tensor, "batch rows cols"]
    sides: Bool[Tensor, "batch rows cols"]
    eigenvectors: Float[Tensor, "batch patches"]
    eigenvalues: Float[Tensor, "batch 2"]
    seeds: Int[Tensor, " batch"]
    found: Bool[Tensor, " batch"]


def tokencut(
    features: Float[Tensor, "batch patches dim"],
    grid: tuple[int, int],
    *,
    tau: float = 0.2,
    eps: float = 1e-5,
    solver: str = "auto",
) -> Cut:
    """The foreground of every image, from the features of its patches."""
    raise NotImplementedError
