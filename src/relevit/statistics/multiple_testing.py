"""Several tests at once: p-values that hold for all of them together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those below a level keeps the chance of rejecting any true hypothesis below that level, however
    the tests depend on each other. Holm, A simple sequentially rejective multiple test procedure, 1979."""
    values = np.asarray(p, dtype=np.float64)  # (tests,)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)  # the smallest p counts as often as there are tests
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1.0)
    return [float(value) for value in adjusted]
