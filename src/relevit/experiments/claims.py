"""Claims as paired differences over seeds or models: verdict, p-value, and the words for both; and the claims of a page as one
family of tests: which verdicts stay settled after Holm's correction over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats

from relevit.experiments.experiment import GROUPS, Claim
from relevit.statistics import over_seeds
from relevit.statistics.estimate import LEVEL, Estimate
from relevit.statistics.multiple_testing import holm

SETTLED, ALPHA = ("holds", "does not hold"), 0.05


@dataclass(frozen=True)
class Finding:
    """What became of a claim.

    Attributes:
        says: the claim. compared: what is compared, in words.
        difference: in points over `count` seeds (real data: models), None where nothing was tested.
        verdict: "holds", "does not hold", "not settled", or why it was not tested.
        p: two-sided, below 0.05 where the verdict is settled (`p_value`); None where nothing was tested.
        hypothesis: what is compared, the same text for the same comparison in other experiments; "" for one of its own.
        p_holm: of its comparison, among all of the page; None where it was not tested. stays: whether its verdict is settled after the
            correction, too; None where it is not settled before. counted: the experiment where its comparison counts, None where
            it was not tested (`corrected`).
    """

    says: str
    compared: str
    difference: Estimate | None
    count: int
    verdict: str
    p: float | None = None
    hypothesis: str = ""
    p_holm: float | None = None
    stays: bool | None = None
    counted: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = self.difference
        ends: dict[str, float | None] = {"mean": None, "low": None, "high": None}
        if found is not None:
            ends = {"mean": found.value, "low": found.low, "high": found.high}
        tested = ("verdict", "p", "hypothesis", "p_holm", "stays", "counted")
        words = {"says": self.says, "compared": self.compared, **ends, "seeds": self.count}
        return words | {name: getattr(self, name) for name in tested}


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
    compared = f"{claim.arm} less {claim.against}, {place}{GROUPS[claim.group]}{within}"
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


@dataclass(frozen=True)
class Family:
    """The claims of a page. stated: how many claims; different: how many comparisons they are; tested: how many of these have a p;
    settled: by their own intervals; stay: after the correction."""

    stated: int
    different: int
    tested: int
    settled: int
    stay: int

    @property
    def says(self) -> str:
        """In words; nothing where nothing was tested."""
        if not self.tested:
            return ""
        repeats = " (one that several experiments show counts once, where it has the most seeds)"
        comparisons = "different comparisons were" if self.tested > 1 else "comparison was"
        start = f"{self.tested} {comparisons} tested{repeats if self.different < self.stated else ''}:"
        if not self.settled:
            return f"{start} none is settled by its 95% interval."
        return (
            f"{start} {self.settled} settled by the 95% interval alone, {self.stay or 'none'} of these also after Holm's "
            f"correction over all {self.tested}."
        )


def corrected(findings: Mapping[str, Sequence[Finding]]) -> tuple[dict[str, list[Finding]], Family]:
    """All claims of a page, by experiment, after Holm's correction; and how they stand together.

    Claims of one hypothesis are one comparison. Where several were tested, the one with the most seeds counts, the first of
    these on the page: nothing is chosen by its result. The others have its adjusted p, and a settled verdict of theirs stays so if
    that is below 0.05 and its verdict is the same. Claims that were not tested are not in the family.
    """
    alike: dict[object, list[tuple[str, Finding]]] = {}
    for name, several in findings.items():
        for finding in several:
            alike.setdefault(_comparison(finding), []).append((name, finding))
    counting: dict[object, tuple[str, Finding]] = {}
    for comparison, repeats in alike.items():
        tested = [(name, finding) for name, finding in repeats if finding.p is not None]
        if tested:
            counting[comparison] = max(tested, key=lambda repeat: repeat[1].count)  # of equals the first
    adjusted = dict(zip(counting, holm([finding.p or 0.0 for _, finding in counting.values()]), strict=True))

    def after_holm(finding: Finding) -> Finding:
        comparison = _comparison(finding)
        if finding.p is None:
            return finding
        where, first = counting[comparison]
        same = adjusted[comparison] < ALPHA and finding.verdict == first.verdict
        stays = same if finding.verdict in SETTLED else None
        return replace(finding, p_holm=adjusted[comparison], stays=stays, counted=where)

    settled = [comparison for comparison, (_, finding) in counting.items() if finding.verdict in SETTLED]
    stay = sum(adjusted[comparison] < ALPHA for comparison in settled)
    stated = sum(len(several) for several in findings.values())
    family = Family(stated, len(alike), len(counting), len(settled), stay)
    return {name: [after_holm(finding) for finding in several] for name, several in findings.items()}, family


def _comparison(finding: Finding) -> object:
    return finding.hypothesis or (finding.says, finding.compared)
