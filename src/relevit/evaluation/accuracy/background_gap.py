"""The background gap: how much accuracy a model loses when the background is another class's.

Xiao et al., "Noise or Signal: The Role of Image Backgrounds in Object Recognition" (ICLR 2021): the accuracy on
`mixed_same` minus the accuracy on `mixed_rand`, in percentage points. The same objects are in both sets, so the interval
is paired: a bootstrap over objects of each object's own difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from relevit.evaluation.accuracy.recall import Accuracy
from relevit.statistics.intervals import cluster_bootstrap, wilson

SAME, RANDOM = "mixed_same", "mixed_rand"


@dataclass(frozen=True)
class BackgroundGap:
    """R@1 on `mixed_same` minus R@1 on `mixed_rand` over the objects of both, each object with the same weight.

    Attributes:
        gap: percentage points; positive where the right background helps.
        interval: its 95% interval.
        objects: how many objects are in both sets.
    """

    gap: float
    interval: tuple[float, float]
    objects: int

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield "background_gap", self.gap
        yield "background_gap_low", self.interval[0]
        yield "background_gap_high", self.interval[1]

    def to_dict(self) -> dict:
        """Ready for JSON."""
        ends = [round(end, 4) for end in self.interval]
        return {"background_gap": round(self.gap, 4), "interval": ends, "objects": self.objects}


def background_gap(same: Accuracy, random: Accuracy, *, seed: int = 0) -> BackgroundGap | None:
    """The gap between two sets that know their `objects`; None where no object is in both.

    `seed`: of the bootstrap's draws.
    """
    if same.objects is None or random.objects is None:
        return None
    both = np.intersect1d(same.objects, random.objects)
    if not len(both):
        return None
    rates = [_by_object(each.hit1, np.asarray(each.objects), both) for each in (same, random)]
    differences = 100.0 * (rates[0] - rates[1])  # (objects,)
    return BackgroundGap(float(differences.mean()), _interval(differences, both, seed), len(both))


def _interval(differences: np.ndarray, objects: np.ndarray, seed: int) -> tuple[float, float]:
    """Where all objects differ alike the bootstrap has no width: then as many as Wilson's interval of none out of all
    objects allows may differ by as much as can be."""
    low, high = cluster_bootstrap(differences, objects, seed=seed)
    if np.ptp(differences) > 0:
        return low, high
    unseen = wilson(0, len(objects))[1]
    return low - unseen * (low + 100.0), high + unseen * (100.0 - high)


def background_gaps(
    accuracies: Mapping[str, Mapping[str, Accuracy]],
) -> dict[str, dict[str, BackgroundGap]]:
    """folder -> model -> gap, for every folder FOLDER whose sets FOLDER/mixed_same and FOLDER/mixed_rand were measured."""
    gaps: dict[str, dict[str, BackgroundGap]] = {}
    for name, models in accuracies.items():
        folder, _, kind = name.rpartition("/")
        other = accuracies.get(f"{folder}/{RANDOM}", {})
        if kind != SAME:
            continue
        found = {model: background_gap(models[model], other[model]) for model in models if model in other}
        gaps[folder] = {model: gap for model, gap in found.items() if gap is not None}
    return {folder: models for folder, models in gaps.items() if models}


def _by_object(hits: np.ndarray, shown: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """The share of hits of each of `objects` (sorted, all of them in the set); `shown`: the object of each hit."""
    names, member = np.unique(shown, return_inverse=True)
    share = np.bincount(member, hits) / np.bincount(member)
    return share[np.searchsorted(names, objects)]
