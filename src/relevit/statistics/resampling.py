"""The bootstrap: intervals of figures of a set, and differences between two models, by drawing its objects anew."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from relevit.statistics.estimate import LEVEL

RESAMPLES = 2000
_CELLS = 4_000_000  # numbers drawn at a time


def bootstrap(
    statistic: Callable[..., np.ndarray], samples: Sequence[np.ndarray], *, resamples: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "*figures draws"]:
    """The values of a statistic when objects are drawn, as many as there are, with replacement; the same seed, the same draws.

    Args:
        statistic: of `samples` with draws before the last axis: (draws, objects) each, and `axis=-1`.
        samples: arrays of one value for each of the same two or more objects, (objects,); drawn together.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # of its own interval, where a draw is undefined
        result = stats.bootstrap(
            samples,
            statistic,
            n_resamples=resamples,
            batch=max(1, _CELLS // len(samples[0])),
            vectorized=True,
            paired=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return result.bootstrap_distribution


def percentiles(draws: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    """The ends of the 95% percentile interval; draws in which the figure is undefined do not count, NaN where none is left."""
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
