"""Means and shares of images with their 95% intervals, also where several images show one object."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Shaped
from scipy.stats import binomtest

from relevit.statistics.estimate import LEVEL, Estimate
from relevit.statistics.resampling import RESAMPLES, bootstrap, percentiles

Objects = Shaped[np.ndarray, " images"] | None


def share(hits: Bool[np.ndarray, " images"], objects: Objects = None) -> Estimate:
    """The share of hits, in [0, 1]: Wilson's interval; where `objects` are known, the bootstrap over objects (see `mean`).

    Wilson's interval (E. B. Wilson, 1927) stays inside [0, 1] and has a width also where all images are hit or none. Of no
    images: NaN, from 0 to 1.
    """
    hits = np.asarray(hits, dtype=bool)
    if objects is not None and len(hits):
        return mean(hits, objects, bounds=(0.0, 1.0))
    value = float(hits.mean()) if len(hits) else float("nan")
    return Estimate(value, *wilson(int(hits.sum()), len(hits)), len(hits), "images")


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's interval of a share of independent images, ends in [0, 1]. Of no images at all: (0, 1)."""
    if count == 0:
        return 0.0, 1.0
    low, high = binomtest(hits, count).proportion_ci(LEVEL, method="wilson")
    return float(low), float(high)


def mean(
    values: Shaped[np.ndarray, " images"],
    objects: Objects = None,
    bounds: tuple[float, float] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The mean of the images' values; its interval is the percentile interval of the bootstrap over objects.

    Several images of one object are not independent: drawing objects instead of images widens the interval as it should be.

    Args:
        values: one number an image.
        objects: what each image shows, any kind of values that can be compared; by default each image shows its own.
        bounds: between which values each lies. Where all draws agree, the interval then still has a width, see `widened`.
        resamples: how many times the objects are drawn.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        ValueError: there are no values, or not one object for each.
    """
    numbers, sums, sizes = by_object(values, objects)
    if len(sums) > 1:
        draws = bootstrap(_mean_of_objects, (sums, sizes), resamples=resamples, seed=seed)
    else:
        draws = sums / sizes
    ends = widened(draws, len(sums), bounds)
    return Estimate(float(numbers.mean()), *ends, len(sums), "images" if objects is None else "objects")


def by_object(
    values: Shaped[np.ndarray, " images"], objects: Objects
) -> tuple[np.ndarray, Shaped[np.ndarray, " objects"], Shaped[np.ndarray, " objects"]]:
    """The values as floats, their sum for each object, and how many images it has; the objects in sorted order."""
    numbers = np.asarray(values, dtype=np.float64)
    shown = np.arange(len(numbers)) if objects is None else np.asarray(objects)
    if numbers.ndim != 1 or numbers.shape != shown.shape or not len(numbers):
        raise ValueError(f"one object is needed for each value: {numbers.shape} values, {shown.shape} objects")
    _, member = np.unique(shown, return_inverse=True)
    return numbers, np.bincount(member, numbers), np.bincount(member)


def widened(draws: Shaped[np.ndarray, " draws"], count: int, bounds: tuple[float, float] | None) -> tuple[float, float]:
    """The percentiles of a figure's draws, never without a width where `bounds` are known.

    Where all draws agree, other objects may still differ: as many of `count` unseen ones as Wilson's interval of none out of
    all allows, each by as much as the bounds allow. Of hits, all or none, that is Wilson's own interval.
    """
    low, high = percentiles(draws)
    if bounds is not None and high - low < 1e-12 * max(1.0, bounds[1] - bounds[0]):
        unseen = wilson(0, count)[1]
        low, high = low - unseen * (low - bounds[0]), high + unseen * (bounds[1] - high)
    return low, high


def _mean_of_objects(sums: np.ndarray, sizes: np.ndarray, axis: int = -1) -> np.ndarray:
    """The mean over images from the drawn objects' sums and sizes."""
    return sums.sum(axis=axis) / sizes.sum(axis=axis)
