"""The background gap: how much accuracy a model loses when the background is another class's.

Xiao et al., "Noise or Signal: The Role of Image Backgrounds in Object Recognition" (ICLR 2021): the accuracy on
`mixed_same` minus the accuracy on `mixed_rand`, in percentage points. The same objects are in both sets, so the interval
is paired: a bootstrap over objects of each object's own difference.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from relevit.evaluation.accuracy.recall import Accuracy
from relevit.statistics import interval
from relevit.statistics.estimate import Estimate

SAME, RANDOM = "mixed_same", "mixed_rand"


def background_gap(same: Accuracy, random: Accuracy, *, seed: int = 0) -> Estimate | None:
    """R@1 on `mixed_same` minus R@1 on `mixed_rand` over the objects of both, each object with the same weight, in percentage
    points: positive where the right background helps.

    None where no object is in both sets, or a set does not know its `objects`. `seed`: of the bootstrap's draws.
    """
    if same.objects is None or random.objects is None:
        return None
    both = np.intersect1d(same.objects, random.objects)
    if not len(both):
        return None
    rates = [_by_object(accuracy.hit1, np.asarray(accuracy.objects), both) for accuracy in (same, random)]
    return interval.mean(rates[0] - rates[1], both, bounds=(-1.0, 1.0), seed=seed).percent


def background_gaps(accuracies: Mapping[str, Mapping[str, Accuracy]]) -> dict[str, dict[str, Estimate]]:
    """folder -> model -> gap, for every folder FOLDER whose sets FOLDER/mixed_same and FOLDER/mixed_rand were measured."""
    gaps: dict[str, dict[str, Estimate]] = {}
    for name, models in accuracies.items():
        folder, _, kind = name.rpartition("/")
        other = accuracies.get(f"{folder}/{RANDOM}", {})
        if kind != SAME:
            continue
        of_models = {model: background_gap(models[model], other[model]) for model in models if model in other}
        gaps[folder] = {model: gap for model, gap in of_models.items() if gap is not None}
    return {folder: models for folder, models in gaps.items() if models}


def _by_object(hits: np.ndarray, shown: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """The share of hits of each of `objects` (sorted, all of them in the set); `shown`: the object of each hit."""
    names, member = np.unique(shown, return_inverse=True)
    share = np.bincount(member, hits) / np.bincount(member)
    return share[np.searchsorted(names, objects)]
