"""Figures of the built-in benchmark from the hits that cells keep; means and paired differences over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from relevit.data.builtin.digits import SET_A, TEST_SETS, test_set
from relevit.experiments.cells import unpacked
from relevit.experiments.filled import Finding
from relevit.experiments.multiple_testing import hypothesis
from relevit.statistics import interval, over_seeds
from relevit.statistics.estimate import Estimate

if TYPE_CHECKING:
    from relevit.experiments.grids import Contrast

SHIFTED = TEST_SETS[1:]  # every set but the usual one
GROUPS = ("all", "set_a", "rest")
SHARE = "foreground_share"


@cache
def _about(name: str, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the pictures of a set: whether the class is of set A, and the number of the object."""
    pictures = test_set(name, "test", views)
    return np.isin(pictures.labels, SET_A), pictures.objects


def hits(result: Mapping[str, Any], name: str, views: int, figure: str = "r1", group: str = "all") -> np.ndarray:
    """A cell's hits on a set, bool (pictures,). Fewer views than it was measured on are the first ones of it."""
    in_a, _ = _about(name, views)
    values = unpacked(result["hits"][name][figure], len(in_a))
    chosen = {"all": np.ones_like(in_a), "set_a": in_a, "rest": ~in_a}[group]
    return values[chosen]


def value(result: Mapping[str, Any], name: str, views: int, figure: str = "r1", group: str = "all") -> float:
    """A figure of a cell in percent: on a set, "shifted" for the mean of all shifted sets, or SHARE."""
    if name == SHARE:
        return float(result[SHARE])
    if name == "shifted":
        return float(np.mean([value(result, each, views, figure, group) for each in SHIFTED]))
    return 100 * float(hits(result, name, views, figure, group).mean())


def of_original(result: Mapping[str, Any], name: str, views: int, figure: str = "r1", group: str = "all") -> Estimate:
    """A figure of the original model, in percent, with an interval over the test objects where there is one."""
    if name == SHARE:
        share = value(result, name, views, figure, group)
        return Estimate(share, share, share, 1, "objects")
    sets = SHIFTED if name == "shifted" else (name,)
    values = np.concatenate([hits(result, each, views, figure, group) for each in sets])
    objects = []
    for each in sets:
        in_a, numbers = _about(each, views)
        objects.append(numbers[{"all": np.ones_like(in_a), "set_a": in_a, "rest": ~in_a}[group]])
    found = interval.mean(values, np.concatenate(objects), bounds=(0.0, 1.0)).percent
    return replace(found, value=value(result, name, views, figure, group))


def verdict(expects: str, margin: float, found: Estimate) -> str:
    """Whether a claim holds: "holds", "does not hold", or "not settled" where the interval leaves it open."""
    low, high = found.low, found.high
    if found.count < 2:
        return "not settled"
    if expects == "same":
        return (
            "holds"
            if -margin <= low and high <= margin
            else "does not hold"
            if low > margin or high < -margin
            else "not settled"
        )
    if expects == "lower":
        low, high = -high, -low
    return "holds" if low > 0 else "does not hold" if high < 0 else "not settled"


def p_value(expects: str, margin: float, found: Estimate) -> float | None:
    """Two-sided p of a claim, by Student's t over seeds; None for fewer than two. It is below 0.05 where `verdict` is settled, and
    only there.

    "higher", "lower": of the hypothesis that the mean difference is zero, t = mean / standard error. "same": of the hypothesis that
    it is just as large as the margin, t = (|mean| - margin) / standard error. Inside the margin that is twice the larger p of the two
    one-sided tests (Schuirmann 1987) that the difference is below the margin, and above its negative: the nearer end decides, and
    a 95% interval inside the margin is a test at 2.5% on each side. Outside of it, that is twice the p of the one-sided test that the
    difference goes beyond the margin. Without any variance p is 0 or 1, as the verdict is settled or not.
    """
    if found.count < 2:
        return None
    error = (found.high - found.low) / 2 / stats.t.ppf(0.975, found.count - 1)
    if error == 0.0:
        return 1.0 if verdict(expects, margin, found) == "not settled" else 0.0
    beyond = abs(found.value) - margin if expects == "same" else found.value
    return float(2 * stats.t.sf(abs(beyond) / error, found.count - 1))


def finding(claim: Contrast, test: str, differences: Sequence[float]) -> Finding:
    """What became of a declared claim, by its differences in points, one a seed; "not run" without any. test: what is measured, the
    same text for the same measurement (family.py)."""
    group = {"all": "", "set_a": ", classes of set A", "rest": ", other classes"}[claim.group]
    within = f", within {claim.margin:g}" if claim.expects == "same" else ""
    compared, tested = f"{claim.arm} less {claim.against}, {claim.on}{group}{within}", hypothesis(test, claim)
    if not differences:
        return Finding(claim.says, compared, None, None, None, 0, "not run", None, tested)
    found = over_seeds.mean(differences)
    judged, p = verdict(claim.expects, claim.margin, found), p_value(claim.expects, claim.margin, found)
    return Finding(claim.says, compared, found.value, found.low, found.high, found.count, judged, p, tested)
