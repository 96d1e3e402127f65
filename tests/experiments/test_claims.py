"""p-values of claims, and Holm's correction over a page of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from relevit.experiments.claims import Family, Finding, corrected, hypothesis, p_value, verdict
from relevit.experiments.experiment import Claim, Design
from relevit.experiments.paper import PAPER
from relevit.statistics.estimate import Estimate
from relevit.statistics.over_seeds import mean as over_seeds

# p-values.


@pytest.mark.parametrize("seed", range(3))
def test_p_of_a_direction_is_the_t_tests(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0.7, 1.3, 5).tolist()
    expected = float(stats.ttest_1samp(values, 0.0).pvalue)
    for expects in ("higher", "lower"):
        assert p_value(expects, 1.0, over_seeds(values)) == pytest.approx(expected, rel=1e-9)


def test_p_of_sameness_by_hand() -> None:
    """Of 4 seeds with mean 0.4 and standard deviation 0.6: standard error 0.3. To the margin 1.0 it is 2 standard errors; beyond
    the margin 0.1 it is 1. Student's t of 3 degrees of freedom has 1/2 - (x / (1 + x^2) + arctan x) / pi above t = x sqrt(3)."""
    values = [0.4 + 0.6 * np.sqrt(3) / 2 * sign for sign in (1, -1, 1, -1)]
    assert np.std(values, ddof=1) == pytest.approx(0.6)

    def above(t: float) -> float:
        x = t / np.sqrt(3)
        return 0.5 - (x / (1 + x * x) + np.arctan(x)) / np.pi

    found = over_seeds(values)
    assert p_value("same", 1.0, found) == pytest.approx(2 * above(2.0))
    assert p_value("same", 0.1, found) == pytest.approx(2 * above(1.0))
    # Inside the margin: twice the larger of the two one-sided tests.
    one, other = (
        stats.ttest_1samp(values, end, alternative=way).pvalue for end, way in ((1.0, "less"), (-1.0, "greater"))
    )
    assert p_value("same", 1.0, found) == pytest.approx(2 * max(one, other))
    assert p_value("same", 1.0, over_seeds([-value for value in values])) == pytest.approx(2 * above(2.0))


@pytest.mark.parametrize("expects", ["higher", "lower", "same"])
@pytest.mark.quick_where(lambda expects: expects == "higher")
def test_a_verdict_is_settled_where_p_is_below_a_twentieth(expects: str) -> None:
    draws = np.random.default_rng(11)
    seen = {word: 0 for word in ("holds", "does not hold", "not settled")}
    for _ in range(1500):
        values = draws.normal(draws.normal(0, 1.5), draws.uniform(0.05, 1.5), draws.integers(2, 7)).tolist()
        found = over_seeds(values)
        judged, p = verdict(expects, 1.0, found), p_value(expects, 1.0, found)
        assert p is not None and (p < 0.05) == (judged != "not settled"), found
        seen[judged] += 1
    assert min(seen.values()) > 100


def test_p_without_variance_or_without_seeds() -> None:
    assert p_value("higher", 1.0, Estimate(3.0, 3.0, 3.0, 1, "seeds")) is None
    still = {mean: Estimate(mean, mean, mean, 2, "seeds") for mean in (0.0, 0.5, 1.0, 2.0)}
    assert [p_value("higher", 1.0, found) for found in still.values()] == [1.0, 0.0, 0.0, 0.0]
    assert [p_value("same", 1.0, found) for found in still.values()] == [0.0, 0.0, 0.0, 0.0]
    assert verdict("same", 1.0, still[1.0]) == "holds"


@pytest.mark.parametrize(
    ("expects", "low", "high", "seeds", "says"),
    [
        ("higher", 0.1, 2.0, 5, "holds"),
        ("higher", -0.1, 2.0, 5, "not settled"),
        ("higher", -2.0, -0.1, 5, "does not hold"),
        ("lower", -2.0, -0.1, 5, "holds"),
        ("lower", 0.1, 2.0, 5, "does not hold"),
        ("same", -0.9, 0.9, 5, "holds"),
        ("same", 0.2, 0.9, 5, "holds"),
        ("same", -0.9, 1.1, 5, "not settled"),
        ("same", 1.1, 3.0, 5, "does not hold"),
        ("same", -3.0, -1.1, 5, "does not hold"),
        ("higher", 3.0, 3.0, 1, "not settled"),
    ],
)
def test_verdicts(expects: str, low: float, high: float, seeds: int, says: str) -> None:
    assert verdict(expects, 1.0, Estimate((low + high) / 2, low, high, seeds, "seeds")) == says


# Holm's correction.


def found(hypothesis: str, p: float | None, says: str = "holds", seeds: int = 5) -> Finding:
    return Finding("a claim", "a less b", Estimate(1.0, 0.5, 1.5, seeds, "seeds"), seeds, says, p, hypothesis)


def test_a_page_of_claims() -> None:
    """Four comparisons are tested: 0.001, 0.015, 0.02, 0.3, adjusted 0.004, 0.045, 0.045, 0.3. Without the repeats counting once
    there would be seven, and 0.015 would not stay."""
    page = {
        "one": [found("x", 0.03, seeds=3), found("y", 0.015, "does not hold"), found("z", 0.3, "not settled")],
        "two": [
            found("x", 0.001),
            found("y", 0.015),
            found("x", 0.0005),
            found("w", 0.02),
            found("v", None, "not run"),
        ],
    }
    (one, two), own = _of(page)
    assert (own.stated, own.different, own.tested, own.settled, own.stay) == (8, 5, 4, 3, 3)
    # "x" counts with its most seeds, the first of them: not with its smallest p.
    assert two[0] == two[2] == one[0] == (pytest.approx(0.004), True, "two")
    assert one[1] == (pytest.approx(0.045), True, "one")
    assert two[1][1:] == (False, "one")  # the other verdict
    assert one[2] == (pytest.approx(0.3), None, "one") and two[4] == (None, None, None)
    assert two[3][1] is True
    assert own.says == (
        "4 different comparisons were tested (one that several experiments show counts once, where it has the most seeds): 3 "
        "settled by the 95% interval alone, 3 of these also after Holm's correction over all 4."
    )
    another = Finding("another", "a less b", Estimate(1, 0, 2, 5, "seeds"), 5, "holds", 0.04)
    (one,), less = _of({"one": [found("", 0.03), another]})
    assert (less.different, less.settled, less.stay) == (2, 2, 0)  # of hypotheses without a name each is one of its own
    assert [stays for _, stays, _ in one] == [False, False] and "(" not in less.says
    assert "2 settled by the 95% interval alone, none of these also after Holm's correction over all 2" in less.says
    open_ = _of({"one": [found("v", 0.4, "not settled")]})[1]
    assert open_.says == "1 comparison was tested: none is settled by its 95% interval."
    assert _of({"one": [found("v", None, "not run")]})[1].says == ""


def _of(page: dict[str, list[Finding]]) -> tuple[list[list[tuple[float | None, bool | None, str | None]]], Family]:
    """p after Holm, whether the verdict stays and where it counts, of each claim of each experiment; and their family."""
    findings, own = corrected(page)
    return [[(f.p_holm, f.stays, f.counted) for f in several] for several in findings.values()], own


def test_hypotheses_are_told_apart() -> None:
    claim = Claim("says", "a", "b", "on", "rest", "same", 2.5, "r5")
    assert hypothesis("accuracy", claim) == "accuracy: a less b, on, rest, r5, same within 2.5"
    designs = {name: row.builtin for name, row in PAPER.items() if isinstance(row.builtin, Design)}
    grids = {
        name: [hypothesis("accuracy", claim) for claim in design.claims]
        for name, design in designs.items()
        if design.test == "accuracy"
    }
    assert all(len(set(own)) == len(own) for own in grids.values())  # within an experiment all are different
    assert grids["figure4"] == grids["appendix_i"] and grids["table1"][0] in grids["appendix_f"]
    # Only in one direction: two claims of opposite directions would be one comparison.
    directions = {text.rpartition(", ")[::2] for own in grids.values() for text in own if "same" not in text}
    assert len({compared for compared, _ in directions}) == len(directions)
