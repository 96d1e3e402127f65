"""The published way to automatic masks as a yardstick of cost, in our own writing: one image at a time, a dense generalised
eigenproblem for each, and the bilateral solver with sparse matrices for everything."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse
from scipy.linalg import eigh
from scipy.sparse.linalg import cg


def published_cut(
    features: np.ndarray, grid: tuple[int, int], *, subset: bool, tau: float = 0.2, eps: float = 1e-5
) -> np.ndarray:
    """The coarse mask (rows, columns) of one image from its features (patches, dim).

    subset: ask the dense solver for the two eigenvectors in question only, else for all.
    """
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    weights = np.where(unit @ unit.T > tau, 1.0, eps)
    degrees = np.diag(weights.sum(axis=1))
    if subset:
        vector = eigh(degrees - weights, degrees, subset_by_index=[1, 2])[1][:, 0]
    else:
        vector = eigh(degrees - weights, degrees)[1][:, 1]
    side = vector > vector.mean()
    seed = int(np.abs(vector).argmax())
    if not side[seed]:
        side = ~side
    labels, _ = ndimage.label(side.reshape(grid))
    return labels == labels.reshape(-1)[seed]


def published_refinement(image: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """The refined mask of one picture (height, width, 3), with the published rule for the component: the second-largest label."""
    height, width = coarse.shape
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    yuv = image.reshape(-1, 3).astype(np.float64) @ matrix.T + np.array([0, 128, 128])
    y, x = np.mgrid[:height, :width]
    coordinates = np.stack(
        [x.ravel() / 16, y.ravel() / 16, yuv[:, 0] / 16, yuv[:, 1] / 8, yuv[:, 2] / 8], axis=1
    ).astype(int)
    steps = 1000 ** np.arange(5)
    keys, cell = np.unique(coordinates @ steps, return_inverse=True)
    splat = sparse.csr_matrix((np.ones(cell.size), (cell.ravel(), np.arange(cell.size))))
    blurs = []
    for step in steps:
        blur = sparse.csr_matrix((len(keys), len(keys)))
        for offset in (-step, step):
            rows = np.flatnonzero(np.isin(keys + offset, keys))
            columns = np.searchsorted(keys, keys[rows] + offset)
            blur = blur + sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=blur.shape)
        blurs.append(blur)

    def blurred(values):
        return 10 * values + sum(blur @ values for blur in blurs)

    pixels = splat @ np.ones(cell.size)
    n = np.ones(len(keys))
    for _ in range(10):
        n = np.sqrt(n * pixels / blurred(n))
    mass, scale = sparse.diags(n * blurred(n)), sparse.diags(n)
    whole = 10 * sparse.identity(len(keys)) + sum(blurs)
    confidence = np.full(cell.size, 0.999)
    weight, right = splat @ confidence, splat @ (confidence * coarse.ravel())
    system = 256 * (mass - scale @ whole @ scale) + sparse.diags(weight)
    jacobi = sparse.diags(1 / np.maximum(system.diagonal(), 1e-5))
    values, _ = cg(system, right, x0=right / weight, M=jacobi, maxiter=25, rtol=1e-5)
    soft = (splat.T @ values).reshape(coarse.shape)
    labels, count = ndimage.label(ndimage.binary_fill_holes(soft > 0.5))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    return labels == np.argsort(sizes)[-2] if count else labels > 0
