"""The claims of a page as one family of tests: which verdicts stay settled after Holm's correction over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relevit.experiments.filled import Finding
from relevit.statistics.multiple_testing import holm

if TYPE_CHECKING:
    from relevit.experiments.grids import Contrast

LEVEL = 0.05
SETTLED = ("holds", "does not hold")


@dataclass(frozen=True)
class Standing:
    """A claim in its family. p: Holm's, of its comparison; None where it was not tested. stays: whether its verdict is settled after
    the correction, too; None where it is not settled before. counted: the experiment where its comparison counts; "" for itself."""

    p: float | None = None
    stays: bool | None = None
    counted: str = ""


@dataclass(frozen=True)
class Family:
    """standings: of each experiment's claims, in their order. stated: how many claims; different: how many comparisons they are;
    tested: how many of these have a p; settled: by their own intervals; stay: after the correction."""

    standings: Mapping[str, Sequence[Standing]]
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


def hypothesis(test: str, claim: Contrast) -> str:
    """What a declared claim tests, so that the same comparison is known again in other experiments."""
    expects = f"same within {claim.margin:g}" if claim.expects == "same" else claim.expects
    return f"{test}: {claim.arm} less {claim.against}, {claim.on}, {claim.group}, {claim.figure}, {expects}"


def family(findings: Mapping[str, Sequence[Finding]]) -> Family:
    """All claims of a page, by experiment.

    Claims of one hypothesis are one comparison. Where several were tested, the one with the most seeds counts, the first of
    these on the page: nothing is chosen by its result. The others have its adjusted p, and a settled verdict of theirs stays so if
    that is below 0.05 and its verdict is the same. Claims that were not tested are not in the family.
    """
    alike: dict[object, list[tuple[str, Finding]]] = {}
    for name, own in findings.items():
        for finding in own:
            alike.setdefault(_identity(finding), []).append((name, finding))
    counts: dict[object, tuple[str, Finding]] = {}
    for key, several in alike.items():
        tested = [each for each in several if each[1].p is not None]
        if tested:
            counts[key] = max(tested, key=lambda each: each[1].seeds)  # of equals the first
    adjusted = dict(zip(counts, holm([found.p or 0.0 for _, found in counts.values()]), strict=True))

    def standing(finding: Finding) -> Standing:
        key = _identity(finding)
        if key not in counts or finding.p is None:
            return Standing()
        where, first = counts[key]
        stays = adjusted[key] < LEVEL and finding.verdict == first.verdict if finding.verdict in SETTLED else None
        return Standing(adjusted[key], stays, "" if first is finding else where)

    settled = [key for key, (_, finding) in counts.items() if finding.verdict in SETTLED]
    return Family(
        {name: [standing(finding) for finding in own] for name, own in findings.items()},
        stated=sum(len(own) for own in findings.values()),
        different=len(alike),
        tested=len(counts),
        settled=len(settled),
        stay=sum(adjusted[key] < LEVEL for key in settled),
    )


def _identity(finding: Finding) -> object:
    return finding.hypothesis or (finding.says, finding.compared)
