"""Per-class effects (paper, appendix K): what became of each class's accuracy from one model to another.

The paper's "distribution of changes" is only as wide as it looks if classes really differ: with 50 images a class, a model
that changes all classes alike shows changes of several points either way. So the spread of the changes is compared with the
spread that the same images give when they are shared out among the classes at random, and a class counts as settled only
after the false discovery rate over all classes is controlled (Benjamini and Hochberg, 1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import false_discovery_control

from relevit.errors import UserError
from relevit.evaluation.accuracy.predictions import Predictions
from relevit.statistics import paired
from relevit.statistics.estimate import Estimate

RATE = 0.05  # of the classes that are called settled, at most this share is expected to be wrong
SHUFFLES = 500


@dataclass(frozen=True)
class ClassEffect:
    """One class. before, after: accuracy in percent; change: after minus before in points, with its 95% interval; corrected,
    ruined: numbers of the images of this class, in the predictions' order; p: of McNemar's exact test; adjusted: the same
    over all classes (Benjamini and Hochberg)."""

    name: str
    images: int
    before: float
    after: float
    change: Estimate
    corrected: list[int]
    ruined: list[int]
    p: float
    adjusted: float

    @property
    def settled(self) -> bool:
        """Whether the change is settled, over all classes."""
        return self.adjusted <= RATE

    def to_dict(self) -> dict:
        """Ready for JSON."""
        return {
            "class": self.name,
            "images": self.images,
            "before": round(self.before, 4),
            "after": round(self.after, 4),
            "change": self.change.to_dict(),
            "corrected": len(self.corrected),
            "ruined": len(self.ruined),
            "p": self.p,
            "p_adjusted": self.adjusted,
            "settled": self.settled,
        }


@dataclass(frozen=True)
class ClassEffects:
    """The effects on all classes, sorted from the most helped to the most harmed (then by name).

    Attributes:
        classes: one entry a class.
        change: over all images, in points.
        spread: standard deviation of the classes' changes, in points.
        by_chance: the mean spread when the images are shared out among the classes at random, in points: what is to be expected
            where the change is the same for all classes.
        spread_p: how often such a spread is at least as large.
        chance: the classes' changes of all random shares, in points (shares, classes), for a plot.
    """

    classes: list[ClassEffect]
    change: Estimate
    spread: float
    by_chance: float
    spread_p: float
    chance: Float[np.ndarray, "shares classes"]

    def count(self, sign: int, *, settled: bool = False) -> int:
        """How many classes changed upwards (1), downwards (-1) or not at all (0); of those that are settled, if asked."""
        return sum(int(np.sign(each.change.value)) == sign and (each.settled or not settled) for each in self.classes)

    def most_helped(self, count: int) -> list[ClassEffect]:
        """The first that gained anything."""
        return [each for each in self.classes if each.change.value > 0][:count]

    def most_harmed(self, count: int) -> list[ClassEffect]:
        """The first that lost anything, from the largest loss."""
        return [each for each in reversed(self.classes) if each.change.value < 0][:count]

    def to_dict(self) -> dict:
        """Ready for JSON."""
        return {
            "change": self.change.to_dict(),
            "helped": self.count(1),
            "harmed": self.count(-1),
            "unchanged": self.count(0),
            "helped_settled": self.count(1, settled=True),
            "harmed_settled": self.count(-1, settled=True),
            "false_discovery_rate": RATE,
            "spread": round(self.spread, 4),
            "spread_by_chance": round(self.by_chance, 4),
            "spread_p": self.spread_p,
            "classes": [each.to_dict() for each in self.classes],
        }


def class_effects(before: Predictions, after: Predictions, *, seed: int = 0) -> ClassEffects:
    """The effects of going from one model to another, from their answers to the same images of one benchmark.

    An object that several images show counts once, by its mean. `seed`: of the random shares.

    Raises UserError where the two did not answer to the same images, or there is none.
    """
    if list(before.keys) != list(after.keys):
        raise UserError("the two models' predictions are not of the same images: measure both on the same benchmark")
    if not len(before.keys):
        raise UserError("there are no predictions to compare: no image could be read")
    names = np.asarray(before.groups).astype(str)
    objects = np.arange(len(names)) if before.objects is None else np.asarray(before.objects)
    gained = after.hit1.astype(float) - before.hit1.astype(float)
    found, values = [], []
    for name in np.unique(names):
        own = np.flatnonzero(names == name)
        change = paired.difference(before.hit1[own], after.hit1[own], objects[own]).percent
        mine = _by_object(gained[own], objects[own])
        p = paired.mcnemar(int((mine > 0).sum()), int((mine < 0).sum()))
        rates = [
            100.0 * float(_by_object(each.hit1[own].astype(float), objects[own]).mean()) for each in (before, after)
        ]
        lists = [[int(i) for i in own[gained[own] == sign]] for sign in (1, -1)]
        found.append((str(name), len(own), rates[0], rates[1], change, lists[0], lists[1], p))
        values.append(mine)
    adjusted = false_discovery_control([each[-1] for each in found], method="bh")
    classes = [ClassEffect(*each, float(q)) for each, q in zip(found, adjusted, strict=True)]
    everything = np.concatenate(values)
    total = paired.difference(np.zeros(len(everything)), everything, np.arange(len(everything))).percent
    spread = 100.0 * float(np.std([mine.mean() for mine in values]))
    chance = _shared_out(everything, [len(mine) for mine in values], seed)
    spreads = chance.std(axis=1)
    p = (1 + int((spreads >= spread - 1e-9).sum())) / (1 + len(spreads))
    classes.sort(key=lambda each: (-each.change.value, each.name))
    return ClassEffects(classes, total, spread, float(spreads.mean()), p, chance)


def _by_object(values: Shaped[np.ndarray, " images"], objects: Shaped[np.ndarray, " images"]) -> np.ndarray:
    _, member = np.unique(objects, return_inverse=True)
    return np.bincount(member, values) / np.bincount(member)


def _shared_out(values: np.ndarray, sizes: Sequence[int], seed: int) -> np.ndarray:
    """Mean changes (SHUFFLES, classes), in points, of classes of these sizes that get their objects at random."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(sizes)[:-1]
    starts = np.concatenate([[0], ends]).astype(int)
    shares = [np.add.reduceat(rng.permutation(values), starts) / np.asarray(sizes) for _ in range(SHUFFLES)]
    return 100.0 * np.stack(shares)
