"""Claims as paired differences over seeds or models: verdict, p-value, and the words for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from relevit.experiments.experiment import Claim
from relevit.statistics import over_seeds
from relevit.statistics.estimate import LEVEL, Estimate

GROUP_WORDS = {"all": "", "set_a": ", classes of set A", "rest": ", other classes"}


@dataclass(frozen=True)
class Finding:
    """What became of a claim.

    Attributes:
        says: the claim. compared: what is compared, in words.
        difference: in points over `count` seeds (real data: models), None where nothing was tested.
        verdict: "holds", "does not hold", "not settled", or why it was not tested.
        p: two-sided, below 0.05 where the verdict is settled (`p_value`); None where nothing was tested.
        hypothesis: what is compared, the same text for the same comparison in other experiments; "" for one of its own.
    """

    says: str
    compared: str
    difference: Estimate | None
    count: int
    verdict: str
    p: float | None = None
    hypothesis: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = self.difference
        ends: dict[str, float | None] = {"mean": None, "low": None, "high": None}
        if found is not None:
            ends = {"mean": found.value, "low": found.low, "high": found.high}
        words = {"says": self.says, "compared": self.compared}
        tested = {"verdict": self.verdict, "p": self.p, "hypothesis": self.hypothesis}
        return {**words, **ends, "seeds": self.count, **tested}


def verdict(expects: str, margin: float, found: Estimate) -> str:
    """Whether a claim holds: "holds", "does not hold", or "not settled" where the interval leaves it open."""
    if found.count < 2:
        return "not settled"
    if expects == "same":
        inside = -margin <= found.low and found.high <= margin
        outside = found.low > margin or found.high < -margin
        return "holds" if inside else "does not hold" if outside else "not settled"
    if not found.settled:
        return "not settled"
    return "holds" if (found.low > 0) == (expects == "higher") else "does not hold"


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
    error = (found.high - found.low) / 2 / stats.t.ppf((1 + LEVEL) / 2, found.count - 1)
    if error == 0.0:
        return 1.0 if verdict(expects, margin, found) == "not settled" else 0.0
    beyond = abs(found.value) - margin if expects == "same" else found.value
    return float(2 * stats.t.sf(abs(beyond) / error, found.count - 1))


def hypothesis(test: str, claim: Claim) -> str:
    """What a declared claim tests, so that the same comparison is known again in other experiments."""
    expects = f"same within {claim.margin:g}" if claim.expects == "same" else claim.expects
    return f"{test}: {claim.arm} less {claim.against}, {claim.on}, {claim.group}, {claim.figure}, {expects}"


def finding(claim: Claim, test: str, differences: Mapping[str, Sequence[float]], over: str = "seeds") -> Finding:
    """What became of a claim.

    Args:
        claim: as it was declared.
        test: what is measured, the same text for the same measurement (multiple_testing.py).
        differences: in points: of one model one for each seed, of several models those of each.
        over: "seeds", or "models": then each model counts by its mean, and there must be two or more.
    """
    place = claim.on or claim.figure
    within = f", within {claim.margin:g}" if claim.expects == "same" else ""
    tested = hypothesis(test, claim)
    if over == "models":
        place += f", {claim.figure.replace('r', 'R@')}"
        tested += f", over {', '.join(sorted(differences))}"
    compared = f"{claim.arm} less {claim.against}, {place}{GROUP_WORDS[claim.group]}{within}"
    values = [value for own in differences.values() for value in own]
    if over == "models":
        values = [float(over_seeds.mean(own).value) for own in differences.values()]
        if len(values) == 1:
            return Finding(claim.says, compared, None, 1, "needs two models", None, tested)
    if not values:
        return Finding(claim.says, compared, None, 0, "not run", None, tested)
    found = over_seeds.mean(values)
    judged, p = verdict(claim.expects, claim.margin, found), p_value(claim.expects, claim.margin, found)
    return Finding(claim.says, compared, found, found.count, judged, p, tested)
