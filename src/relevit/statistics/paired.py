"""Means of values with known bounds, such as the differences of two models' hits, with intervals that hold up where few
images differ.

For one pair of answers an object, `paired_difference` is the adjusted interval of Bonett and Price, "Adjusted Wald
confidence interval for a difference of binomial proportions based on paired data" (J. Educational and Behavioral
Statistics, 2012): one object is added in which only the first hits, and one in which only the second does. A bootstrap of
such differences is too narrow when few images differ (four of a hundred, all one way, would count as settled; McNemar's
exact test says p = 0.125), and has no width when none does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from scipy.stats import norm

from relevit.statistics.intervals import LEVEL


@dataclass(frozen=True)
class Estimate:
    """A mean in percent, or a mean difference in percentage points, with the ends of its 95% interval, over `count`
    objects."""

    points: float
    low: float
    high: float
    count: int

    @property
    def settled(self) -> bool:
        """Whether the interval leaves no doubt about the sign."""
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict:
        """Ready for JSON."""
        return {
            "points": round(self.points, 4),
            "interval": [round(self.low, 4), round(self.high, 4)],
            "objects": self.count,
        }


def bounded_mean(
    values: Shaped[np.ndarray, " images"],
    objects: Shaped[np.ndarray, " images"] | None = None,
    *,
    low: float = 0.0,
    high: float = 1.0,
) -> Estimate | None:
    """The mean of values from `low` to `high`, in percent; None of no values.

    The interval is the normal one after two objects are added, one of the value `low` and one of `high`.

    Args:
        values: one an image.
        objects: what each image shows, where several show one object: an object counts once, by the mean of its images.
        low, high: the bounds.

    Raises:
        ValueError: a value beyond the bounds, or arrays of different lengths.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if objects is not None:
        if np.shape(objects) != numbers.shape:
            raise ValueError(
                f"one object is needed for each value: {numbers.shape} values, {np.shape(objects)} objects"
            )
        _, member = np.unique(objects, return_inverse=True)
        numbers = np.bincount(member, numbers) / np.bincount(member)  # (objects,)
    count = len(numbers)
    if not count:
        return None
    if not (numbers.min() >= low - 1e-9 and numbers.max() <= high + 1e-9):
        raise ValueError(f"values must lie in {low:g} to {high:g}, these lie in {numbers.min():g} to {numbers.max():g}")
    more = np.concatenate([numbers, [low, high]])
    half = float(norm.ppf((1 + LEVEL) / 2)) * float(more.std()) / np.sqrt(count + 2)
    ends = max(more.mean() - half, low), min(more.mean() + half, high)
    return Estimate(100 * float(numbers.mean()), 100 * float(ends[0]), 100 * float(ends[1]), count)


def paired_difference(
    values: Shaped[np.ndarray, " images"], objects: Shaped[np.ndarray, " images"] | None = None, *, reach: float = 1.0
) -> Estimate | None:
    """The mean of each image's own difference, such as hit of one model minus hit of another, in percentage points; None of
    no images. `reach`: the largest difference that there can be, either way. See `bounded_mean`."""
    return bounded_mean(values, objects, low=-reach, high=reach)
