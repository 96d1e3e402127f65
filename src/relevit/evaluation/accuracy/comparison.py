"""Two models on the same images: the difference in R@1 with a paired interval, McNemar's test, and which images changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from relevit.errors import UserError
from relevit.evaluation.accuracy.predictions import Predictions
from relevit.statistics import paired
from relevit.statistics.estimate import Estimate


@dataclass(frozen=True)
class Comparison:
    """R@1 of one model minus that of another over the images that both could read; percentage points.

    Attributes:
        change: positive where the model is better than the other; its interval is paired.
        p_value: McNemar's, two-sided.
        corrected: names of the images that the other got wrong and the model gets right.
        ruined: those that the other got right and the model gets wrong.
        images: how many images were compared.
    """

    change: Estimate
    p_value: float
    corrected: list[str]
    ruined: list[str]
    images: int

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield "r1_difference", self.change.value
        yield "r1_difference_low", self.change.low
        yield "r1_difference_high", self.change.high
        yield "p_value", self.p_value
        yield "corrected", float(len(self.corrected))
        yield "ruined", float(len(self.ruined))

    def to_dict(self) -> dict:
        """Ready for JSON."""
        return {
            "r1_difference": round(self.change.value, 4),
            "interval": [round(end, 4) for end in self.change.ends],
            "p_value": float(f"{self.p_value:.6g}"),
            "images": self.images,
            "corrected": self.corrected,
            "ruined": self.ruined,
        }


def changed(before: Predictions, after: Predictions) -> dict[str, Bool[np.ndarray, " images"]]:
    """Which images, the same of both, were corrected, answered alike, and ruined."""
    return {
        "corrected": ~before.hit1 & after.hit1,
        "unchanged": before.top5[:, 0] == after.top5[:, 0],
        "ruined": before.hit1 & ~after.hit1,
    }


def compare(first: Predictions, model: Predictions, *, seed: int = 0) -> Comparison:
    """`model` against `first`, image by image; both are of one benchmark.

    The interval is `paired.difference_of_images`', over objects where they are known. McNemar's p takes images as independent,
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
    return Comparison(
        paired.difference_of_images(before, after, objects, seed=seed).percent,
        paired.mcnemar(len(corrected), len(ruined)),
        [model.keys[two[i]] for i in corrected],
        [model.keys[two[i]] for i in ruined],
        len(two),
    )
