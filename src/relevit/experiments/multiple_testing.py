"""The claims of a page as one family of tests: which verdicts stay settled after Holm's correction over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relevit.experiments.claims import Finding
from relevit.statistics.multiple_testing import holm

LEVEL = 0.05
SETTLED = ("holds", "does not hold")


@dataclass(frozen=True)
class AfterHolm:
    """A claim in its family. p: Holm's, of its comparison; None where it was not tested. stays: whether its verdict is settled after
    the correction, too; None where it is not settled before. counted: the experiment where its comparison counts; "" for itself."""

    p: float | None = None
    stays: bool | None = None
    counted: str = ""


@dataclass(frozen=True)
class Family:
    """standings: of each experiment's claims, in their order. stated: how many claims; different: how many comparisons they are;
    tested: how many of these have a p; settled: by their own intervals; stay: after the correction."""

    standings: Mapping[str, Sequence[AfterHolm]]
    stated: int
    different: int
    tested: int
    settled: int
    stay: int

    @property
    def sentence(self) -> str:
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


def family(findings: Mapping[str, Sequence[Finding]]) -> Family:
    """All claims of a page, by experiment.

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

    def after_holm(finding: Finding) -> AfterHolm:
        comparison = _comparison(finding)
        if comparison not in counting or finding.p is None:
            return AfterHolm()
        where, first = counting[comparison]
        same = adjusted[comparison] < LEVEL and finding.verdict == first.verdict
        stays = same if finding.verdict in SETTLED else None
        return AfterHolm(adjusted[comparison], stays, "" if first is finding else where)

    settled = [comparison for comparison, (_, finding) in counting.items() if finding.verdict in SETTLED]
    return Family(
        {name: [after_holm(finding) for finding in several] for name, several in findings.items()},
        stated=sum(len(several) for several in findings.values()),
        different=len(alike),
        tested=len(counting),
        settled=len(settled),
        stay=sum(adjusted[comparison] < LEVEL for comparison in settled),
    )


def _comparison(finding: Finding) -> object:
    return finding.hypothesis or (finding.says, finding.compared)
