"""Two models on the same images: the difference in R@1 with a paired interval, McNemar's test, and which images changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped
from scipy.stats import binomtest, chi2

from relevit.errors import UserError
from relevit.evaluation.accuracy.predictions import Predictions
from relevit.statistics.intervals import LEVEL, cluster_bootstrap
from relevit.statistics.paired import paired_difference

EXACT_BELOW = 25  # discordant images: below, McNemar's test by the binomial distribution, and no bootstrap


@dataclass(frozen=True)
class Comparison:
    """R@1 of one model minus that of another over the images that both could read; percentage points.

    Attributes:
        difference: positive where the model is better than the other.
        interval: its 95% interval, see `paired_interval`.
        p_value: McNemar's, two-sided.
        corrected: names of the images that the other got wrong and the model gets right.
        ruined: those that the other got right and the model gets wrong.
        images: how many images were compared.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    corrected: list[str]
    ruined: list[str]
    images: int

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield "r1_difference", self.difference
        yield "r1_difference_low", self.interval[0]
        yield "r1_difference_high", self.interval[1]
        yield "p_value", self.p_value
        yield "corrected", float(len(self.corrected))
        yield "ruined", float(len(self.ruined))

    def to_dict(self) -> dict:
        """Ready for JSON."""
        return {
            "r1_difference": round(self.difference, 4),
            "interval": [round(end, 4) for end in self.interval],
            "p_value": float(f"{self.p_value:.6g}"),
            "images": self.images,
            "corrected": self.corrected,
            "ruined": self.ruined,
        }


def compare(first: Predictions, model: Predictions, *, seed: int = 0) -> Comparison:
    """`model` against `first`, image by image; both are of one benchmark.

    The interval is `paired_interval`'s, over objects where they are known. McNemar's p takes images as independent,
    always. seed: of the bootstrap's draws. Raises UserError where no image is in both.
    """
    one, two = np.arange(len(first)), np.arange(len(model))
    if first.keys != model.keys:
        place = {key: row for row, key in enumerate(first.keys)}
        pairs = [(place[key], row) for row, key in enumerate(model.keys) if key in place]
        one, two = np.array(pairs, np.int64).reshape(-1, 2).T
    if not len(two):
        raise UserError("no image was read for both models, there is nothing to compare")
    before, after = first.hit1[one], model.hit1[two]
    objects = None if model.objects is None else model.objects[two]
    corrected, ruined = np.flatnonzero(after & ~before), np.flatnonzero(before & ~after)
    low, high = paired_interval(before, after, objects, seed=seed)
    return Comparison(
        100.0 * (float(after.mean()) - float(before.mean())),
        (100.0 * low, 100.0 * high),
        mcnemar(len(corrected), len(ruined)),
        [model.keys[two[i]] for i in corrected],
        [model.keys[two[i]] for i in ruined],
        len(two),
    )


def mcnemar(corrected: int, ruined: int) -> float:
    """The two-sided p of McNemar's test (Q. McNemar, 1947) for `corrected` and `ruined` discordant pairs.

    Below 25 discordant pairs exactly, by the binomial distribution of a fair coin; else by chi squared with one degree of
    freedom and continuity correction, (|corrected - ruined| - 1)^2 / (corrected + ruined). Without any: 1.
    """
    discordant = corrected + ruined
    if discordant == 0:
        return 1.0
    if discordant < EXACT_BELOW:
        return float(binomtest(corrected, discordant).pvalue)
    return float(chi2.sf(max(abs(corrected - ruined) - 1, 0) ** 2 / discordant, 1))


def paired_interval(
    before: Bool[np.ndarray, " images"],
    after: Bool[np.ndarray, " images"],
    objects: Shaped[np.ndarray, " images"] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95% interval of mean(after) - mean(before) over images, each with both of its hits. Ends in [-1, 1].

    Where many images differ, the percentile interval of a paired bootstrap: without objects the numbers of corrected, ruined
    and equal images in a draw are multinomial, which is how they are drawn; with objects, whole objects are drawn
    (`cluster_bootstrap`). Where fewer than 25 images (objects) depart from the commonest difference, most often none, the
    bootstrap is too narrow, or has no width: then the adjusted interval of Bonett and Price (see paired.py), which goes with
    McNemar's exact test. An object weighs as much as it has images.
    """
    differences = after.astype(np.float64) - before  # -1, 0, 1
    count, sizes, units = len(differences), np.ones(len(differences)), differences
    if objects is not None:
        _, member = np.unique(objects, return_inverse=True)
        sizes = np.bincount(member).astype(np.float64)  # (objects,)
        units = np.bincount(member, differences) / sizes
    if len(units) - np.unique(units, return_counts=True)[1].max() < EXACT_BELOW:
        weights = sizes / sizes.mean()
        found = paired_difference(units * weights, reach=float(weights.max()))
        assert found is not None  # there is an image
        return max(found.low / 100, -1.0), min(found.high / 100, 1.0)
    if objects is not None:
        return cluster_bootstrap(differences, objects, resamples=resamples, seed=seed)
    kinds = np.array([(differences == value).sum() for value in (-1, 0, 1)])
    draws = np.random.default_rng(seed).multinomial(count, kinds / count, size=resamples)  # (resamples, 3)
    low, high = np.quantile((draws[:, 2] - draws[:, 0]) / count, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
