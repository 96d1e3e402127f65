"""95% intervals of accuracies: Wilson's for independent images, a bootstrap over clusters where images share an object."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Shaped

LEVEL = 0.95
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_CELLS = 10_000_000  # of the table of draws that is in memory at a time


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95% interval of a proportion (E. B. Wilson, 1927): `hits` out of `count` independent images, ends in [0, 1].

    It stays inside [0, 1] and has a width also at 0 and at `count` hits. Of no images at all: (0, 1).
    """
    if count == 0:
        return 0.0, 1.0
    share, z = hits / count, _Z
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    scale = 1 + z**2 / count
    low = 0.0 if hits == 0 else (middle - half) / scale
    high = 1.0 if hits == count else (middle + half) / scale
    return low, high


def cluster_bootstrap(
    values: Shaped[np.ndarray, images],
    clusters: Shaped[np.ndarray, images],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95% percentile interval of the mean of `values` when whole clusters are drawn, with replacement.

    Several pictures of one object are not independent: drawing objects instead of pictures widens the interval as it should be.
    For a paired comparison of two models give the difference of their hits as `values`.

    Args:
        values: one number an image, such as hit or miss.
        clusters: what the image shows, such as the number of its digit; any kind of values that can be compared.
        resamples: how many times the clusters are drawn.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        The lower and the upper end, in the units of `values`.

    Raises:
        ValueError: the arrays differ in length or are empty.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or numbers.shape != np.shape(clusters) or not len(numbers):
        raise ValueError(
            f"one cluster is needed for each value, got {numbers.shape} values, {np.shape(clusters)} clusters"
        )
    _, member = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(member, numbers), np.bincount(member)  # (clusters,)
    rng = np.random.default_rng(seed)
    chances, step = np.full(len(sizes), 1 / len(sizes)), max(1, _CELLS // len(sizes))
    means = []
    for first in range(0, resamples, step):
        draws = rng.multinomial(len(sizes), chances, size=min(step, resamples - first))  # (some resamples, clusters)
        means.append((draws @ sums) / (draws @ sizes))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
