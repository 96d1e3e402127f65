"""The mean of a figure over seeds, with Student's interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from relevit.statistics.estimate import LEVEL, Estimate


def mean(values: Sequence[float]) -> Estimate:
    """The mean of one value a seed, with its 95% interval by Student's t; of a single seed, or where all agree, the interval
    has no width."""
    numbers = np.asarray(values, dtype=np.float64)
    middle, count = float(numbers.mean()), len(numbers)
    low = high = middle
    if count > 1 and np.ptp(numbers) > 0:
        low, high = stats.t.interval(LEVEL, count - 1, loc=middle, scale=stats.sem(numbers))
    return Estimate(middle, float(low), float(high), count, "seeds")
