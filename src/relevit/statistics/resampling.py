"""Intervals of figures of a set, and paired differences between two models, by drawing its images anew.

A figure may be any function of the images and how often each was drawn: a mean over images, or a ratio of sums such as the IoU
of a whole set. Two models that saw the same images are compared on the same draws, so that what is hard for both cancels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from relevit.statistics.intervals import LEVEL, wilson
from relevit.statistics.paired import paired_difference

RESAMPLES = 2000
_CELLS = 4_000_000  # weights held at a time


@runtime_checkable
class Figures(Protocol):
    """What was measured of one model, image by image."""

    @property
    def names(self) -> Sequence[str]:
        """The images that count, in the order of the data."""
        ...

    @property
    def objects(self) -> Sequence[str]:
        """What each image shows; images of one object are drawn together."""
        ...

    def figures(self, weights: Float[np.ndarray, "draws images"]) -> dict[str, Float[np.ndarray, " draws"]]:
        """Every figure of the set in which each image appears as often as `weights` says; NaN where it is undefined."""
        ...

    def only(self, chosen: Int[np.ndarray, " some"]) -> Figures:
        """The same for some of the images, by number."""
        ...


def plain(result: Figures) -> dict[str, float]:
    """The figures of the set as it is."""
    return {name: float(values[0]) for name, values in result.figures(np.ones((1, len(result.names)))).items()}


def intervals(result: Figures, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The 95% percentile interval of every figure by the bootstrap over objects (over images where each shows its own).

    Draws in which a figure is undefined do not count; NaN where none is left. Where all draws agree, and `result.bounds` says
    between which values a figure lies, it is as wide as Wilson's interval allows: of as many unseen objects as none out of all
    can be, with a value at the bound. The same seed gives the same interval.
    """
    drawn = _drawn([result], resamples, seed)
    bounds, count = getattr(result, "bounds", {}), len(set(result.objects))
    return {name: _ends(values[0], count, bounds.get(name)) for name, values in drawn.items()}


def differences(
    result: Figures, first: Figures, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, tuple[float, float]]]:
    """Every figure of `result` minus that of `first`, with its 95% interval, over the images that both have.

    Each draw of images is the same for both. Where the values of every image are hits or misses (`result.values`, each at one of
    `result.bounds`), the interval is `paired_difference`'s, of objects that count alike: a bootstrap would be too narrow where few
    images differ. Empty where the models have no image in common.
    """
    here, there = _common(result.names, first.names)
    if not len(here):
        return {}
    pair = [result.only(here), first.only(there)]
    drawn = _drawn(pair, resamples, seed)
    values = [plain(each) for each in pair]
    bounds, count = getattr(result, "bounds", {}), len(set(pair[0].objects))
    apart = {name: (low - high, high - low) for name, (low, high) in bounds.items()}
    return {
        name: (
            values[0][name] - values[1][name],
            _of_hits(pair, name, bounds.get(name)) or _ends(both[0] - both[1], count, apart.get(name)),
        )
        for name, both in drawn.items()
    }


def _of_hits(pair: Sequence[Figures], name: str, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    """The interval of a difference of hits; None where the values of a figure are something else."""
    one, other = (getattr(each, "values", {}).get(name) for each in pair)
    if bounds is None or one is None or other is None:
        return None
    known = np.isfinite(one) & np.isfinite(other)
    if not known.any() or not np.isin([one[known], other[known]], bounds).all():
        return None
    reach = bounds[1] - bounds[0]
    found = paired_difference((one - other)[known] / reach, np.asarray(pair[0].objects, dtype=str)[known])
    return None if found is None else (found.low * reach / 100, found.high * reach / 100)


def weighted_mean(
    weights: Float[np.ndarray, "draws images"], values: Float[np.ndarray, " images"]
) -> Float[np.ndarray, " draws"]:
    """The mean of `values` over the images, each as often as drawn; images whose value is NaN are left out."""
    there = np.isfinite(values)
    return ratio(weights[:, there] @ values[there], weights[:, there].sum(axis=1))


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where below is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)


def draw_weights(
    objects: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> Iterator[Float[np.ndarray, "draws images"]]:
    """How often each image is drawn, in blocks that fit the memory: as many objects as there are, with replacement."""
    _, member = np.unique(np.asarray(objects, dtype=str), return_inverse=True)
    count = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // len(member))
    for first in range(0, resamples, block):
        size = min(block, resamples - first)
        weights = np.empty((size, len(member)))
        for row in weights:
            row[:] = np.bincount(rng.integers(count, size=count), minlength=count)[member]
        yield weights


def _drawn(results: Sequence[Figures], resamples: int, seed: int) -> dict[str, list[np.ndarray]]:
    """figure -> for each of `results` its value at every draw; the draws are the same for all."""
    if not len(results[0].names):
        return {name: [np.full(resamples, np.nan)] * len(results) for name in plain(results[0])}
    found: dict[str, list[list[np.ndarray]]] = {}
    for weights in draw_weights(results[0].objects, resamples=resamples, seed=seed):
        for number, result in enumerate(results):
            for name, values in result.figures(weights).items():
                found.setdefault(name, [[] for _ in results])[number].append(values)
    return {name: [np.concatenate(blocks) for blocks in each] for name, each in found.items()}


def _ends(values: np.ndarray, count: int, bounds: tuple[float, float] | None) -> tuple[float, float]:
    """The percentiles of the draws of a figure of `count` objects."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if bounds is not None and np.ptp(values) < 1e-12 * max(1.0, bounds[1] - bounds[0]):
        unseen = wilson(0, count)[1]
        low, high = low - unseen * (low - bounds[0]), high + unseen * (bounds[1] - high)
    return float(low), float(high)


def _common(here: Sequence[str], there: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the images that both have, in the order of the first."""
    place = {name: number for number, name in enumerate(there)}
    own = [number for number, name in enumerate(here) if name in place]
    return np.array(own, dtype=int), np.array([place[here[number]] for number in own], dtype=int)
