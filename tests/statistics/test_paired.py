"""Means of bounded values: against the formula from counts, with a width where none differ, an object once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from relevit.statistics.paired import bounded_mean, paired_difference


def from_counts(gained: int, lost: int, count: int) -> tuple[float, float]:
    """Bonett and Price (2012), Eq. 4, in points."""
    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    half = 1.959963984540054 * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    return 100 * max(-1, up - down - half), 100 * min(1, up - down + half)


def values(gained: int, lost: int, count: int) -> np.ndarray:
    return np.array([1.0] * gained + [-1.0] * lost + [0.0] * (count - gained - lost))


@pytest.mark.parametrize(
    "counts", [(0, 0, 101), (4, 0, 100), (6, 0, 100), (17, 5, 83), (0, 13, 13), (7, 7, 31), (1, 0, 1)]
)
def test_against_the_formula_from_counts(counts: tuple[int, int, int]) -> None:
    gained, lost, count = counts
    found = paired_difference(values(*counts))
    assert found is not None and found.count == count
    assert found.points == pytest.approx(100 * (gained - lost) / count)
    assert (found.low, found.high) == pytest.approx(from_counts(*counts))
    assert found.low <= found.points <= found.high


def test_few_that_differ_are_settled_no_sooner_than_by_mcnemar() -> None:
    assert not paired_difference(values(4, 0, 100)).settled  # type: ignore[union-attr]  # McNemar's exact p: 0.125
    assert paired_difference(values(6, 0, 100)).settled  # type: ignore[union-attr]  # 0.031
    assert paired_difference(values(0, 6, 100)).settled  # type: ignore[union-attr]
    none = paired_difference(values(0, 0, 100))
    assert none is not None and none.low == pytest.approx(-none.high) and none.high > 2  # a width, though none differs


def test_an_object_counts_once() -> None:
    one = paired_difference(np.array([1.0, 0.0, -1.0]))
    again = paired_difference(np.array([1.0, 1.0, 1.0, 0.0, -1.0, -1.0]), np.array(list("aaabcc")))
    assert one == again
    half = paired_difference(np.array([1.0, 0.0, -1.0]), np.array(list("aab")))
    assert half is not None and half.points == pytest.approx(100 * (0.5 - 1) / 2) and half.count == 2


def test_bounds() -> None:
    wide = paired_difference(np.array([2.0, -1.0, 0.0]), reach=2.0)
    assert wide is not None and wide.points == pytest.approx(100 / 3)
    share = bounded_mean(np.array([0.2, 0.4, 0.9]))
    assert share is not None and share.points == pytest.approx(50) and 0 <= share.low < 50 < share.high <= 100
    assert paired_difference(np.array([])) is None
    with pytest.raises(ValueError, match="must lie in -1 to 1"):
        paired_difference(np.array([1.5]))
    with pytest.raises(ValueError, match="one object is needed"):
        paired_difference(np.array([1.0, 0.0]), np.array(["a"]))
