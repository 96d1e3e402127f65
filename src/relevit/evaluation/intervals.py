"""95% intervals of accuracies: Wilson's for independent images, a bootstrap over clusters where images share an object."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped
from scipy.stats import binomtest

LEVEL = 0.95


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95% interval of a proportion (E. B. Wilson, 1927): `hits` out of `count` independent images, ends in [0, 1].

    It stays inside [0, 1] and has a width also at 0 and at `count` hits. Of no images at all: (0, 1).
    """
    if count == 0:
        return 0.0, 1.0
    interval = binomtest(int(hits), int(count)).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


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
    draws = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)  # (resamples, clusters)
    means = (draws @ sums) / (draws @ sizes)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
