"""The normalised cut's eigenproblem (D - W) v = lambda D v: its second and third smallest eigenvalue, its second vector.

With x = D^(1/2) v it is the ordinary problem (I - D^(-1/2) W D^(-1/2)) x = lambda x, whose first vector u = D^(1/2) 1 is
known. That one is moved out of the way: A = I - D^(-1/2) W D^(-1/2) + 4 u u^T (u of length 1) has the eigenvalue 4 there
and keeps the others, which lie in (0, 2]. So the wanted pairs are the two smallest of a positive definite matrix.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

_BLOCK, _STEPS, _FIRST = 3, 24, 4  # width of the block, most steps, steps before the first test of convergence
_VECTOR, _GAP = 1e-8, 1e-6  # errors allowed: of the second vector, and of the third eigenvalue relative to the eigengap
_DOUBLE = 1e-9  # residual relative to the eigenvalue at which two eigenvalues that look equal are believed
DEGENERATE = 1e-9  # third minus second eigenvalue: at or below it the second vector is not determined, see `tokencut`


def dense_cut(
    weights: Float[Tensor, "batch patches patches"],
) -> tuple[Float[Tensor, "batch 2"], Float[Tensor, "batch patches"]]:
    """Second and third smallest eigenvalue and the second eigenvector v (v^T D v = 1), of each image by LAPACK.

    weights: symmetric, positive, float64, at least three patches. Reduces the whole matrix, computes two pairs.
    """
    matrices, degrees = _deflated(weights)
    pairs = [scipy.linalg.eigh(m, subset_by_index=[0, 1], check_finite=False) for m in matrices.cpu().numpy()]
    values = torch.from_numpy(np.stack([pair[0] for pair in pairs])).to(weights.device)
    vectors = torch.from_numpy(np.stack([pair[1][:, 0] for pair in pairs])).to(weights.device)
    return values, vectors * degrees.rsqrt()


def batched_cut(
    weights: Float[Tensor, "batch patches patches"],
) -> tuple[Float[Tensor, "batch 2"], Float[Tensor, "batch patches"]]:
    """As `dense_cut`, for all images at once on their device: a block Krylov method on the inverse of A.

    Parts of the graph that hang together by eps alone give eigenvalues that lie close together beside those of the rest:
    on A itself an iteration would need hundreds of steps, on its inverse (one Cholesky factorisation, a sixth of the
    arithmetic of a reduction to tridiagonal form and all of it in matrix products) it needs about ten. A block, because a
    single vector does not see that an eigenvalue is a double one. Rayleigh-Ritz over all directions so far, which are
    kept orthogonal explicitly. An image that does not converge, or whose matrix is singular to rounding, goes to
    `dense_cut`.
    """
    batch, patches, _ = weights.shape
    steps = min(_STEPS, patches // _BLOCK)
    matrices, degrees = _deflated(weights)
    factors, failed = torch.linalg.cholesky_ex(matrices)
    singular = failed != 0
    factors[singular] = torch.eye(patches, dtype=weights.dtype, device=weights.device)

    start = torch.randn(patches, _BLOCK, dtype=weights.dtype, generator=torch.Generator().manual_seed(0))
    block = _orthonormal(start.to(weights.device).expand(batch, -1, -1))  # (batch, patches, _BLOCK)
    basis = weights.new_empty(batch, patches, steps * _BLOCK)
    images = torch.empty_like(basis)  # A^-1 basis
    for step in range(steps):
        columns = slice(step * _BLOCK, (step + 1) * _BLOCK)
        basis[..., columns] = block
        images[..., columns] = torch.cholesky_solve(block, factors)
        known, mapped = basis[..., : columns.stop], images[..., : columns.stop]
        if step + 1 == steps or (step + 1 >= _FIRST and (step + 1 - _FIRST) % 2 == 0):
            values, vectors, converged = _ritz(known, mapped)
            if bool((converged | singular).all()):
                break
        block = images[..., columns]
        for _ in range(2):  # twice: once leaves what rounding adds
            block = _orthonormal(block - known @ (known.mT @ block))

    vectors = vectors * degrees.rsqrt()
    left = (singular | ~converged).nonzero().flatten()
    if len(left):
        values[left], vectors[left] = dense_cut(weights[left])
    return values, vectors


def _deflated(weights: Tensor) -> tuple[Tensor, Tensor]:
    """A of the module's docstring, (batch, patches, patches), and the degrees D, (batch, patches)."""
    degrees = weights.sum(dim=-1)
    scale = degrees.rsqrt()
    first = degrees.sqrt() / degrees.sum(dim=-1, keepdim=True).sqrt()
    matrices = (weights * scale[:, :, None]).mul_(-scale[:, None, :])
    matrices.diagonal(dim1=1, dim2=2).add_(1.0)
    return matrices.baddbmm_(first[:, :, None], first[:, None, :], alpha=4.0), degrees


def _ritz(basis: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From an orthonormal basis and A^-1 of it: eigenvalues of A (batch, 2), the vector of the first (batch, patches),
    and where both are exact enough (batch,)."""
    small = basis.mT @ images
    inverse, rotation = torch.linalg.eigh((small + small.mT) / 2)
    inverse, rotation = inverse[:, -2:].flip(-1), rotation[..., -2:].flip(-1)
    vectors = basis @ rotation  # (batch, patches, 2)
    residual = (images @ rotation - vectors * inverse[:, None]).norm(dim=1)
    values, gap = 1.0 / inverse, inverse[:, 0] - inverse[:, 1]
    sharp = (residual[:, 0] <= _VECTOR * gap) & (residual[:, 1] <= _GAP * gap)
    double = (values[:, 1] - values[:, 0] <= DEGENERATE) & (residual <= _DOUBLE * inverse).all(dim=-1)
    return values, vectors[..., 0], sharp | double


def _orthonormal(block: Tensor) -> Tensor:
    """Gram-Schmidt over the few columns of a (batch, patches, columns)."""
    columns: list[Tensor] = []
    for column in block.unbind(dim=-1):
        for other in columns:
            column = column - (other * column).sum(dim=-1, keepdim=True) * other
        columns.append(column / column.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(column.dtype).tiny))
    return torch.stack(columns, dim=-1)
