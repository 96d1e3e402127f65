"""Two models on the same images: the mean difference with its 95% interval, and McNemar's test.

The interval holds up where few images differ: it is the adjusted one of Bonett and Price, "Adjusted Wald confidence interval
for a difference of binomial proportions based on paired data" (J. Educational and Behavioral Statistics, 2012). One object is
added in which only the first hits, and one in which only the second does. A bootstrap of such differences is too narrow when
few images differ (four of a hundred, all one way, would count as settled; McNemar's exact test says p = 0.125), and has no
width when none does.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped
from scipy.stats import binomtest, norm

from relevit.statistics import interval
from relevit.statistics.estimate import LEVEL, Estimate
from relevit.statistics.interval import Objects, by_object

FEW = 25  # objects that depart from the others; from here on, where they are of unlike sizes, the bootstrap holds


def difference(
    before: Shaped[np.ndarray, " images"],
    after: Shaped[np.ndarray, " images"],
    objects: Objects = None,
    *,
    bound: float = 1.0,
) -> Estimate:
    """The mean of each image's own `after` minus `before`, such as hits of two models; an object counts once, by the mean of
    its images.

    Args:
        before, after: one value an image.
        objects: what each image shows, where several show one object.
        bound: the largest difference that there can be, either way.

    Raises:
        ValueError: a difference beyond the bound, arrays of different lengths, or no images.
    """
    _, sums, sizes = by_object(np.asarray(after, dtype=np.float64) - before, objects)
    return _adjusted(sums / sizes, bound, objects)


def difference_of_images(
    before: Shaped[np.ndarray, " images"],
    after: Shaped[np.ndarray, " images"],
    objects: Objects = None,
    *,
    seed: int = 0,
) -> Estimate:
    """The mean of hits `after` minus the mean of hits `before`: as `difference`, but an object weighs as much as it has images.

    Where FEW or more objects depart from the commonest difference, it is the bootstrap over objects, by `seed`.
    """
    values, sums, sizes = by_object(np.asarray(after, dtype=np.float64) - before, objects)
    if objects is None:
        return _adjusted(values, 1.0, objects)
    departing = len(sums) - np.unique(sums / sizes, return_counts=True)[1].max()
    if departing >= FEW:
        return interval.mean(values, objects, bounds=(-1.0, 1.0), seed=seed)
    weights = sizes / sizes.mean()
    found = _adjusted(sums / sizes * weights, float(weights.max()), objects)
    return Estimate(found.value, max(found.low, -1.0), min(found.high, 1.0), found.count, found.over)


def mcnemar(corrected: int, ruined: int) -> float:
    """The two-sided p of McNemar's exact test (Q. McNemar, 1947): `corrected` and `ruined` discordant pairs are heads and
    tails of a fair coin. Without any: 1."""
    discordant = corrected + ruined
    return float(binomtest(corrected, discordant).pvalue) if discordant else 1.0


def _adjusted(differences: Shaped[np.ndarray, " objects"], bound: float, objects: Objects) -> Estimate:
    """The normal interval after two objects are added, one that differs by -bound and one by bound."""
    if not np.abs(differences).max() <= bound + 1e-9:
        raise ValueError(
            f"differences must lie in {-bound:g} to {bound:g}, these lie in {differences.min():g} to {differences.max():g}"
        )
    count = len(differences)
    more = np.concatenate([differences, [-bound, bound]])
    half = float(norm.ppf((1 + LEVEL) / 2)) * float(more.std()) / np.sqrt(count + 2)
    low, high = max(float(more.mean()) - half, -bound), min(float(more.mean()) + half, bound)
    return Estimate(
        float(differences.mean()), float(low), float(high), count, "images" if objects is None else "objects"
    )
