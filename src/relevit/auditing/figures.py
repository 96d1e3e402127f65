"""From answers to figures: accuracy with each background, what the background's class does, where the relevance lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from relevit.auditing.conditions import ALONE, CONDITIONS, ORIGINAL, OTHER, OWN, Donors
from relevit.auditing.measure import Observed
from relevit.evaluation.accuracy.recall import Accuracy
from relevit.statistics import interval, paired
from relevit.statistics.estimate import Estimate


@dataclass(frozen=True)
class Contrast:
    """What the class of the background does: the same objects on backgrounds of their own and of another class.

    own, other, original: accuracy in percent over the pictures of which both versions exist; difference: own minus other.
    """

    own: float
    other: float
    original: float
    difference: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        rates = {name: round(getattr(self, name), 4) for name in ("own", "other", "original")}
        return {**rates, **self.difference.to_dict()}


@dataclass(frozen=True)
class Excess:
    """How often something was answered, how often that would be by chance (both percent), and the difference."""

    rate: float
    chance: float
    difference: Estimate

    @classmethod
    def of(cls, values: np.ndarray, chance: np.ndarray, shown: np.ndarray) -> Excess:
        """Of shares in [0, 1], by picture."""
        difference = paired.difference(chance, values, shown).percent
        return cls(100.0 * float(values.mean()), 100.0 * float(chance.mean()), difference)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        rates = {"percent": round(self.rate, 4), "by_chance": round(self.chance, 4)}
        return {**rates, "above_chance": self.difference.to_dict()}


@dataclass(frozen=True)
class ClassFigures:
    """One class: how many pictures, accuracy in percent by condition (None where there is none), the fall from a background
    of its own class to another class's (where there is no own one: from the picture as it is), share of relevance and area
    of the background in percent."""

    name: str
    pictures: int
    accuracy: dict[str, float | None]
    fall: Estimate
    share: float | None
    area: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "class": self.name,
            "pictures": self.pictures,
            "fall": self.fall.to_dict(),
            "accuracy": {key: _rounded(rate) for key, rate in self.accuracy.items()},
            "relevance_on_background": _rounded(self.share),
            "area_of_background": _rounded(self.area),
        }


@dataclass(frozen=True)
class ModelFigures:
    """Everything that an audit measures of one model; percent and percentage points.

    accuracy: by condition. falls: accuracy as they are minus accuracy in the condition, over the same pictures. contrast:
    own class's background minus another's; None where no class has two pictures. pull: answering the class that an exchanged
    background belongs to. alone: naming the right class from the background alone. share, area: of relevance and of the
    picture, on the background; share None for a model without maps. flat: maps without any relevance, which have no share.
    """

    accuracy: dict[str, Accuracy]
    falls: dict[str, Estimate]
    contrast: Contrast | None
    pull: Excess
    alone: Excess
    share: Estimate | None
    area: Estimate
    more: Estimate | None
    flat: int
    classes: list[ClassFigures]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: accuracies and shares in percent, differences in points."""
        return {
            "accuracy": {
                key: {
                    "percent": round(accuracy.r1, 4),
                    "interval": [round(end, 4) for end in accuracy.r1_interval.ends],
                    "pictures": len(accuracy),
                }
                for key, accuracy in self.accuracy.items()
                if len(accuracy)
            },
            "fall_from_original": {key: fall.to_dict() for key, fall in self.falls.items()},
            "own_minus_other_background": None if self.contrast is None else self.contrast.to_dict(),
            "named_the_exchanged_background": self.pull.to_dict(),
            "named_from_the_background_alone": self.alone.to_dict(),
            "relevance_on_background": None if self.share is None else self.share.to_dict("percent"),
            "area_of_background": self.area.to_dict("percent"),
            "relevance_minus_area": None if self.more is None else self.more.to_dict(),
            "maps_without_relevance": self.flat,
            "classes": [group.to_dict() for group in self.classes],
        }


def figures(
    seen: Observed, targets: np.ndarray, classes: Sequence[str], donors: Donors, objects: np.ndarray | None = None
) -> ModelFigures:
    """The figures of one model on n pictures.

    targets: the model's class of each picture (n,). classes: their names. objects: what each shows (n,).
    """
    groups = np.asarray(classes)
    shown = np.arange(len(targets)) if objects is None else np.asarray(objects)
    hit = {key: matches(seen.predicted[key], targets) for key in CONDITIONS}
    accuracy, falls = {}, {}
    for key, there in seen.possible.items():
        own = None if objects is None else shown[there]
        accuracy[key] = Accuracy(hit[key][there], hit[key][there], groups[there], own)
        if key != ORIGINAL and there.any():
            falls[key] = paired.difference(hit[key][there], hit[ORIGINAL][there], shown[there]).percent
    share, more = None, None
    if seen.share is not None:
        known = ~np.isnan(seen.share)
        if known.any():
            share = interval.mean(seen.share[known], shown[known], bounds=(0.0, 1.0)).percent
            more = interval.mean((seen.share - seen.area)[known], shown[known], bounds=(-1.0, 1.0)).percent
    area = interval.mean(seen.area, shown, bounds=(0.0, 1.0)).percent
    return ModelFigures(
        accuracy,
        falls,
        contrast(hit, seen.possible, shown),
        pull(seen.predicted[OTHER], targets, donors, shown),
        background_alone(seen.predicted[ALONE], targets, shown),
        share,
        area,
        more,
        0 if seen.share is None else int(np.isnan(seen.share).sum()),
        by_class(hit, seen, groups, shown),
    )


def matches(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Whether the answer is the class, bool (n,). -1 is no answer and no class: it matches nothing, itself included."""
    return (predicted == targets) & (predicted >= 0)


def contrast(hit: Mapping[str, np.ndarray], possible: Mapping[str, np.ndarray], shown: np.ndarray) -> Contrast | None:
    """The pictures that have both versions; None where there is none."""
    both = possible[OWN] & possible[OTHER]
    if not both.any():
        return None
    own, other, original = (100.0 * float(hit[key][both].mean()) for key in (OWN, OTHER, ORIGINAL))
    return Contrast(own, other, original, paired.difference(hit[OTHER][both], hit[OWN][both], shown[both]).percent)


def pull(predicted: np.ndarray, targets: np.ndarray, donors: Donors, shown: np.ndarray) -> Excess:
    """How often the answer to an object on another class's background is that background's class.

    By chance: the background's class was drawn among all other classes with the same chance for each, so a model that does
    not look at it names it in 1 / (classes - 1) of the cases in which it names a wrong one of them.
    """
    there = donors.other >= 0
    named, chance = named_another(predicted, targets, donors)
    return Excess.of(named[there], chance[there], shown[there])


def named_another(predicted: np.ndarray, targets: np.ndarray, donors: Donors) -> tuple[np.ndarray, np.ndarray]:
    """Whether the class of the exchanged background was named, and the chance of it, for each picture (n,)."""
    known = np.unique(targets)
    wrong = np.isin(predicted, known) & (predicted != targets) & (predicted >= 0)
    behind = np.where(donors.other >= 0, targets[donors.other], -1)
    return matches(predicted, behind).astype(float), np.where(wrong, 1.0 / max(1, len(known) - 1), 0.0)


def background_alone(predicted: np.ndarray, targets: np.ndarray, shown: np.ndarray) -> Excess:
    """How often the picture without its object is named by the class of the object that was there.

    By chance: the answer meets the class of another picture, drawn among all others with the same chance.
    """
    classes, place = np.unique(targets, return_inverse=True)
    number = np.bincount(place)
    where = np.searchsorted(classes, predicted).clip(0, len(classes) - 1)
    of_answer = np.where(matches(predicted, classes[where]), number[where], 0)  # pictures of the class that was named
    right = matches(predicted, targets)
    chance = (of_answer - right) / max(1, len(targets) - 1)
    return Excess.of(right.astype(float), chance, shown)


def by_class(hit: dict[str, np.ndarray], seen: Observed, groups: np.ndarray, shown: np.ndarray) -> list[ClassFigures]:
    """Each class alone; first those whose fall is surely the largest: by the lower end of its interval, so that a class of
    few pictures does not come first by luck."""
    found = []
    for name in sorted(set(groups.tolist())):
        own = groups == name
        rates: dict[str, float | None] = {}
        for key in CONDITIONS:
            there = own & seen.possible[key]
            rates[key] = 100.0 * float(hit[key][there].mean()) if there.any() else None
        before = OWN if (own & seen.possible[OWN]).any() else ORIGINAL
        both = own & seen.possible[before] & seen.possible[OTHER]
        if not both.any():
            continue
        fall = paired.difference(hit[OTHER][both], hit[before][both], shown[both]).percent
        share = None
        if seen.share is not None and not np.isnan(seen.share[own]).all():
            share = 100.0 * float(np.nanmean(seen.share[own]))
        found.append(ClassFigures(name, int(own.sum()), rates, fall, share, 100.0 * float(seen.area[own].mean())))
    return sorted(found, key=lambda each: (-each.fall.low, -each.fall.value, each.name))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
