"""Differences of two models: against the formula from counts, with a width where none differ, an object once; McNemar by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from relevit.statistics.estimate import Estimate
from relevit.statistics.paired import difference, difference_of_images, mcnemar

Z = 1.959963984540054


def from_counts(gained: int, lost: int, count: int) -> tuple[float, float]:
    """Bonett and Price (2012), Eq. 4."""
    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    half = Z * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    return max(-1, up - down - half), min(1, up - down + half)


def pairs(gained: int, lost: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits before and after, of which so many differ; half of the others are hits of both."""
    number = np.arange(count)
    both = number % 2 == 0
    before = np.where(number < gained, False, np.where(number < gained + lost, True, both))
    return before, np.where(number < gained, True, np.where(number < gained + lost, False, both))


def of(values: list[float], objects: str | None = None, bound: float = 1.0) -> Estimate:
    return difference(
        np.zeros(len(values)), np.array(values), None if objects is None else np.array(list(objects)), bound=bound
    )


@pytest.mark.parametrize(
    "counts", [(0, 0, 101), (4, 0, 100), (6, 0, 100), (17, 5, 83), (0, 13, 13), (7, 7, 31), (1, 0, 1), (40, 29, 211)]
)
def test_against_the_formula_from_counts(counts: tuple[int, int, int]) -> None:
    gained, lost, count = counts
    for found in (difference(*pairs(*counts)), difference_of_images(*pairs(*counts))):
        assert (found.count, found.over) == (count, "images")
        assert found.value == pytest.approx((gained - lost) / count)
        assert found.ends == pytest.approx(from_counts(*counts))
        assert found.low <= found.value <= found.high


def test_few_that_differ_are_settled_no_sooner_than_by_mcnemar() -> None:
    assert not difference(*pairs(4, 0, 100)).settled  # McNemar's exact p: 0.125
    assert difference(*pairs(6, 0, 100)).settled  # 0.031
    assert difference(*pairs(0, 6, 100)).settled
    none = difference(*pairs(0, 0, 100))
    assert none.low == pytest.approx(-none.high) and none.high > 0.02  # a width, though none differs


def test_few_that_differ_do_not_contradict_mcnemar() -> None:
    for gained in range(25):
        for lost in range(25 - gained):
            found = difference_of_images(*pairs(gained, lost, 100))
            assert -1 <= found.low <= (gained - lost) / 100 <= found.high <= 1
            if found.settled:  # McNemar's mid-p, Fagerland et al. 2013, which is not above the exact one
                chance = binom.pmf(gained, gained + lost, 0.5)
                assert mcnemar(gained, lost) - chance < 0.05


def test_an_object_counts_once() -> None:
    assert of([1.0, 1.0, 1.0, 0.0, -1.0, -1.0], "aaabcc").ends == of([1.0, 0.0, -1.0], "abc").ends
    half = of([1.0, 0.0, -1.0], "aab")
    assert half.value == pytest.approx((0.5 - 1) / 2) and (half.count, half.over) == (2, "objects")


def test_bounds() -> None:
    wide = of([2.0, -1.0, 0.0], bound=2.0)
    assert wide.value == pytest.approx(1 / 3) and -2 <= wide.low < wide.high <= 2
    with pytest.raises(ValueError, match="must lie in -1 to 1"):
        of([1.5])
    with pytest.raises(ValueError, match="one object is needed"):
        of([1.0, 0.0], "a")
    with pytest.raises(ValueError, match="one object is needed"):
        of([])


@pytest.mark.parametrize(("before", "after", "middle"), [(1, 1, 0.0), (0, 1, 1.0), (1, 0, -1.0)])
@pytest.mark.parametrize("objects", [None, np.arange(97)])
def test_equal_differences_still_have_a_width(
    before: int, after: int, middle: float, objects: np.ndarray | None
) -> None:
    low, high = difference_of_images(np.full(97, before, bool), np.full(97, after, bool), objects).ends
    assert -1 <= low <= middle <= high <= 1 and 0.03 < high - low < 0.09


def test_many_that_differ_against_direct_resampling() -> None:
    rng = np.random.default_rng(3)
    before = rng.random(211) < 0.6
    after = np.where(rng.random(211) < 0.2, ~before, before)
    differences = after.astype(int) - before.astype(int)
    means = [differences[rng.integers(0, 211, 211)].mean() for _ in range(20_000)]
    expected = np.quantile(means, [0.025, 0.975])
    # pairs are kept: two independent draws would be this much wider
    apart = [after[rng.integers(0, 211, 211)].mean() - before[rng.integers(0, 211, 211)].mean() for _ in range(5000)]
    for objects in (None, np.arange(211)):
        low, high = difference_of_images(before, after, objects).ends
        assert low == pytest.approx(expected[0], abs=1.5 / 211) and high == pytest.approx(expected[1], abs=1.5 / 211)
        assert high - low < 0.75 * np.diff(np.quantile(apart, [0.025, 0.975]))[0]


def test_objects_are_drawn_as_a_whole() -> None:
    once = (np.arange(53) % 3 == 0, np.arange(53) % 5 == 0)
    copies = [np.repeat(hits, 11) for hits in once]
    by_object = difference_of_images(copies[0], copies[1], np.repeat(np.arange(53), 11))
    assert by_object.ends == pytest.approx(difference_of_images(once[0], once[1], np.arange(53)).ends)
    assert np.diff(difference_of_images(copies[0], copies[1]).ends) < 0.5 * np.diff(by_object.ends)


def test_objects_of_unlike_sizes_weigh_by_their_images() -> None:
    sizes = np.array([1, 2, 3, 5, 7, 11])
    objects = np.repeat(np.arange(6), sizes)
    found = difference_of_images(np.zeros(29, bool), objects == 5, objects)
    assert -1 <= found.low < 11 / 29 < found.high <= 1 and found.value == pytest.approx(11 / 29)
    weighed = np.array([0, 0, 0, 0, 0, 11]) * 6 / 29  # objects of which the mean is the difference over images
    more = np.concatenate([weighed, [66 / 29, -66 / 29]])
    half = Z * more.std() / np.sqrt(8)
    assert found.ends == pytest.approx((max(-1, more.mean() - half), min(1, more.mean() + half)))


def test_same_seed_same_interval() -> None:
    before, after, objects = np.arange(97) % 2 == 0, np.arange(97) % 3 == 0, np.arange(97)
    assert difference_of_images(before, after, objects, seed=5) == difference_of_images(before, after, objects, seed=5)
    assert difference_of_images(before, after, objects, seed=5) != difference_of_images(before, after, objects, seed=6)


@pytest.mark.parametrize(
    ("corrected", "ruined"), [(3, 11), (11, 3), (7, 7), (0, 5), (24, 0), (7, 17), (7, 18), (31, 53), (13, 13), (0, 0)]
)
def test_mcnemars_p_is_the_tails_of_a_fair_coin(corrected: int, ruined: int) -> None:
    """Exact also where many differ."""
    n, least = corrected + ruined, min(corrected, ruined)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    assert mcnemar(corrected, ruined) == pytest.approx(min(1.0, 2 * tail), rel=1e-12)
    assert mcnemar(corrected, ruined) == mcnemar(ruined, corrected)
