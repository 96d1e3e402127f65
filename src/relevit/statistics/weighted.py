"""Figures of a set that are any function of its images and how often each was drawn: a mean over images, or a ratio of sums such
as the IoU of a whole set. Two models that saw the same images are compared on the same draws, so that what is hard for both cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from relevit.statistics import paired
from relevit.statistics.estimate import Estimate
from relevit.statistics.interval import widened
from relevit.statistics.resampling import RESAMPLES, bootstrap


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

    @property
    def values(self) -> Mapping[str, Float[np.ndarray, " images"]]:
        """Every figure's value of each image, where it has one."""
        ...

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Between which values a figure lies, where that is known."""
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


def intervals(result: Figures, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """Every figure with its 95% percentile interval by the bootstrap over objects (over images where each shows its own).

    Draws in which a figure is undefined do not count; NaN where none is left. Where all draws agree, and `result.bounds` says
    between which values a figure lies, the interval still has a width (see `interval.widened`). The same seed gives the same.
    """
    (draws,), count = _drawn([result], resamples, seed), len(set(result.objects))
    return {
        name: Estimate(value, *widened(draws[name], count, result.bounds.get(name)), count, "objects")
        for name, value in plain(result).items()
    }


def differences(result: Figures, first: Figures, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """Every figure of `result` minus that of `first`, with its 95% interval, over the images that both have.

    Each draw of images is the same for both. Where the values of every image are hits or misses (`result.values`, each at one of
    `result.bounds`), the interval is `paired.difference`'s, of objects that count alike: a bootstrap would be too narrow where few
    images differ. Empty where the models have no image in common.
    """
    place = {name: number for number, name in enumerate(first.names)}
    here = [number for number, name in enumerate(result.names) if name in place]
    if not here:
        return {}
    there = [place[result.names[number]] for number in here]
    after, before = result.only(np.array(here)), first.only(np.array(there))
    draws, count = _drawn([after, before], resamples, seed), len(set(after.objects))
    bounds, old = result.bounds, plain(before)
    changes = {}
    for name, value in plain(after).items():
        low, high = bounds.get(name, (0.0, 0.0))
        reach = (low - high, high - low) if name in bounds else None
        ends = _of_hits(before, after, name, bounds.get(name)) or widened(draws[0][name] - draws[1][name], count, reach)
        changes[name] = Estimate(value - old[name], *ends, count, "objects")
    return changes


def _of_hits(
    before: Figures, after: Figures, name: str, bounds: tuple[float, float] | None
) -> tuple[float, float] | None:
    """The interval of a difference of hits; None where the values of a figure are something else."""
    old, new = (result.values.get(name) for result in (before, after))
    if bounds is None or old is None or new is None:
        return None
    known = np.isfinite(old) & np.isfinite(new)
    if not known.any() or not np.isin([old[known], new[known]], bounds).all():
        return None
    objects = np.asarray(after.objects, dtype=str)[known]
    return paired.difference(old[known], new[known], objects, bound=bounds[1] - bounds[0]).ends


def weighted_mean(
    weights: Float[np.ndarray, "draws images"], values: Float[np.ndarray, " images"]
) -> Float[np.ndarray, " draws"]:
    """The mean of `values` over the images, each as often as drawn; images whose value is NaN are left out."""
    there = np.isfinite(values)
    return ratio(weights[:, there] @ values[there], weights[:, there].sum(axis=1))


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where below is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)


def _drawn(results: Sequence[Figures], resamples: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Of each of `results` every figure's value at every draw; the draws are the same for all."""
    names = list(plain(results[0]))
    if not len(results[0].names):
        return [{name: np.full(resamples, np.nan) for name in names}]
    _, member = np.unique(np.asarray(results[0].objects, dtype=str), return_inverse=True)
    count = int(member.max()) + 1

    def figures(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        """drawn: numbers of objects, (..., draws, objects) -> (results * figures, draws)."""
        weights = np.stack([np.bincount(row, minlength=count)[member] for row in np.atleast_2d(drawn)])
        return np.stack([result.figures(weights.astype(float))[name] for result in results for name in names])

    objects = np.arange(count)
    values = bootstrap(figures, [objects], resamples=resamples, seed=seed) if count > 1 else figures(objects)
    return [dict(zip(names, block, strict=True)) for block in np.split(values, len(results))]
