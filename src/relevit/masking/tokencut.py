"""TokenCut (Wang et al., CVPR 2022): the object is one side of a normalised cut of the graph of patches.

The steps and constants are those of the published setup (protocol, "Automatic masks"). Where we deviate, it is to make
the outcome the same whatever solves the eigenproblem, on whatever machine:
- cosines and eigenvectors in double precision;
- patches whose |v| is the greatest up to rounding count as equal, and the first of them is the seed (patches with the same
  neighbours have exactly the same |v|, and rounding would choose among them);
- a patch at the mean of v up to rounding lies on the side below it;
- where the second and third eigenvalue are equal up to rounding there is no cut to speak of, and no object.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import scipy.ndimage
import torch
from jaxtyping import Bool, Float, Int
from threadpoolctl import ThreadpoolController
from torch import Tensor

from relevit.errors import UserError
from relevit.masking.normalized_cut import DEGENERATE, batched_cut, dense_cut

Solver = Literal["auto", "dense", "batched"]
SOLVERS = ("auto", "dense", "batched")
_EQUAL = 1e-5  # of max |v|: what differs by less is equal (the solvers' vectors agree to about 1e-7 of it and better)
_UNSURE = 1e-4  # a cosine in single precision is wrong by less (of 800 numbers: at most 5e-5, mostly 1e-7)
_FEW = 320  # patches up to which LAPACK is faster on a processor
# Elements of the weights (batch * patches^2) that are worked on at once: on a processor what fits its cache, which means
# one image at a time from 363 patches on; on a device some 2 GB with all that belongs to them.
_ELEMENTS = {"cpu": 2**18, "cuda": 2**26}


@dataclass(frozen=True)
class Cut:
    """The normalised cuts of a batch of images, on the features' device (on the CPU where that has no double precision).

    masks: the seed's connected component of the seed's side; all False where no object was found.
    sides: the seed's whole side, before the component is chosen; all False where no object was found.
    eigenvectors: v of the second smallest eigenvalue of (D - W) v = lambda D v, with v^T D v = 1, positive at the seed.
    eigenvalues: the second and third smallest; their difference is the eigengap.
    seeds: the flat index (row-major) of the patch where |v| is greatest. It lies in the mask where there is one.
    found: False where the eigengap is degenerate (all patches alike) or there are fewer than three patches.
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
    solver: Solver = "auto",
) -> Cut:
    """The foreground of every image by TokenCut, from the features of its patches.

    features: (batch, patches, dim), the patches row by row, as `relevit.masking.features.patch_features` gives them; a zero
    vector is similar to nothing. grid: (rows, columns) of the patches.

    W is 1 where the cosine of two patches is above `tau`, else `eps`. Of (D - W) v = lambda D v, D the row sums of W, the
    second smallest eigenvector is split at its mean; the seed is argmax |v|, and its side is the foreground, of which the
    seed's connected component is the mask: patches that touch along an edge (4-connected: the published code calls
    scipy.ndimage.label, whose default that is). v and -v give the same.

    No object is found where the second and third eigenvalue differ by 1e-9 or less. That is a threshold for rounding, not
    for quality: the eigenvalues lie in [0, 2] for every graph and come with errors of some 1e-15, so v is known to about
    1e-15 / gap, below the threshold worse than what is taken as equal here. Graphs by coincidence of structure fall under
    it (all patches alike, none like another, equal groups of patches), whereas groups that merely resemble each other
    leave a gap of about eps / patches, which is far above. For a judgement of quality see `relevit.masking.quality`.

    solver: "dense" (LAPACK for each image), "batched" (a Krylov method on the inverse, many images at once on their device,
    LAPACK for those that do not converge), "auto" (the faster one: "dense" on the CPU up to 320 patches). They give the same
    masks.

    Raises UserError for features that are not finite, a grid of another number of patches, `tau` outside of [-1, 1), `eps`
    outside of (0, 1), and an unknown solver.
    """
    _check(features, grid, tau, eps, solver)
    features = features.detach()
    if features.device.type == "mps":  # has no double precision
        features = features.cpu()
    batch, patches, _ = features.shape
    if patches < 3:
        vectors, values = features.new_ones((batch, patches), dtype=torch.float64), features.new_ones(batch, 2).double()
    else:
        if solver == "auto":
            solver = "dense" if features.device.type == "cpu" and patches <= _FEW else "batched"
        solve = dense_cut if solver == "dense" or patches < 12 else batched_cut
        some = max(1, _ELEMENTS.get(features.device.type, 2**24) // patches**2)
        with _one_blas_thread() if features.device.type == "cpu" else nullcontext():
            parts = [solve(_weights(part, tau, eps)) for part in features.split(some)]
        values, vectors = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    found = values[:, 1] - values[:, 0] > DEGENERATE
    size = vectors.abs()
    greatest = size.amax(dim=1, keepdim=True)
    seeds = (size >= (1.0 - _EQUAL) * greatest).int().argmax(dim=1)  # the first of equals
    vectors = vectors * torch.where(vectors.gather(1, seeds[:, None]) < 0, -1.0, 1.0)
    # v is positive at the seed and the greatest there, so the seed's side is the one above the mean
    above = vectors > vectors.mean(dim=1, keepdim=True) + _EQUAL * greatest
    sides = (above & found[:, None]).unflatten(1, grid)  # (batch, rows, cols)
    return Cut(_seed_components(sides, seeds), sides, vectors, values, seeds, found)


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _one_blas_thread() -> AbstractContextManager[Any]:
    """A context in which NumPy's and SciPy's BLAS use one thread. Theirs wait for work by spinning, and so take the cores
    from torch's: with two of each, a cut takes three times as long as with one of BLAS."""
    return _libraries().limit(limits=1, user_api="blas")


def _weights(features: Tensor, tau: float, eps: float) -> Tensor:
    """W, (batch, patches, patches) in double precision: 1 where the cosine is above tau, else eps."""
    features = features.double()
    unit = features / features.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    if features.device.type == "cpu":
        similar = torch.from_numpy(np.stack([_similar(vectors, tau) for vectors in unit.numpy()]))
    else:
        similar = unit @ unit.mT > tau
        similar = similar | similar.mT  # a product need not be symmetric to the last bit
    return torch.where(similar, 1.0, torch.tensor(eps, dtype=torch.float64, device=features.device))


def _similar(unit: np.ndarray, tau: float) -> np.ndarray:
    """Where the cosine of two of the unit vectors is above tau, as in double precision at a quarter of the time: single
    precision where that decides, and NumPy sees that the product is symmetric."""
    single = unit.astype(np.float32)
    cosines = single @ single.T
    similar = cosines > tau
    near = np.nonzero(np.abs(cosines - np.float32(tau)) <= _UNSURE)
    if len(near[0]) > 16 * len(unit):
        return unit @ unit.T > tau
    similar[near] = np.einsum("ij,ij->i", unit[near[0]], unit[near[1]]) > tau
    return similar


def _seed_components(sides: Tensor, seeds: Tensor) -> Tensor:
    """Of each side (rows, cols) the 4-connected component that holds the seed; empty where the side is."""
    masks = np.zeros(tuple(sides.shape), dtype=bool)
    for mask, side, seed in zip(masks, sides.cpu().numpy(), seeds.tolist(), strict=True):
        labels, _ = scipy.ndimage.label(side)
        if labels.flat[seed]:
            mask[:] = labels == labels.flat[seed]
    return torch.from_numpy(masks).to(sides.device)


def _check(features: Tensor, grid: tuple[int, int], tau: float, eps: float, solver: str) -> None:
    if solver not in SOLVERS:
        raise UserError(f"solver must be one of {', '.join(SOLVERS)}, not {solver!r}")
    if not -1 <= tau < 1:
        raise UserError(f"tau is {tau}, but must be at least -1 and below 1, as it is compared with cosines")
    if not 0 < eps < 1:
        raise UserError(
            f"eps is {eps}, but must lie between 0 and 1, as it is the weight of patches that are not similar"
        )
    if features.ndim != 3 or not features.is_floating_point():
        raise UserError(
            f"features are {features.dtype} of shape {tuple(features.shape)}, but must be floating-point numbers of shape "
            "(batch, patches, dim)"
        )
    if len(grid) != 2 or min(grid) < 1 or grid[0] * grid[1] != features.shape[1] or len(features) == 0:
        raise UserError(
            f"features are of shape {tuple(features.shape)}, but must be (batch, {' x '.join(map(str, grid))} patches, dim), "
            "with at least one image"
        )
    finite = features.isfinite().all(dim=2).all(dim=1)
    if not bool(finite.all()):
        index = int((~finite).nonzero()[0])
        raise UserError(
            f"features of image {index} of the batch are NaN or infinite: check the images and the model's weights"
        )
