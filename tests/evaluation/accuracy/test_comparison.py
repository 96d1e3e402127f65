"""evaluation/comparison.py: McNemar's p by hand, the paired bootstrap against direct resampling, names of what changed."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from relevit.errors import UserError
from relevit.evaluation.accuracy.comparison import compare, mcnemar, paired_interval
from relevit.evaluation.accuracy.predictions import Predictions


def rows(hit: list[int], keys: list[str] | None = None, objects: list[str] | None = None) -> Predictions:
    count = len(hit)
    return Predictions(
        keys or [f"{i}.png" for i in range(count)],
        np.array(["a"] * count),
        [(1,)] * count,
        np.zeros((count, 5), np.int32),
        np.full(count, 0.5, np.float32),
        np.array(hit, bool),
        np.ones(count, bool),
        None if objects is None else np.array(objects),
    )


@pytest.mark.parametrize(("corrected", "ruined"), [(3, 11), (11, 3), (7, 7), (0, 5), (24, 0)])
def test_exact_p_is_the_tails_of_a_fair_coin(corrected: int, ruined: int) -> None:
    n, least = corrected + ruined, min(corrected, ruined)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    assert mcnemar(corrected, ruined) == pytest.approx(min(1.0, 2 * tail), rel=1e-12)


def test_exact_below_25_then_chi_squared_with_continuity_correction() -> None:
    exact = 2 * sum(math.comb(24, k) for k in range(8)) / 2**24
    assert mcnemar(7, 17) == pytest.approx(exact, rel=1e-12)
    # one degree of freedom: the tail of chi squared is that of a normal variable at the root
    assert mcnemar(7, 18) == pytest.approx(math.erfc(math.sqrt(100 / 25 / 2)), rel=1e-12)
    assert mcnemar(31, 53) == mcnemar(53, 31) == pytest.approx(math.erfc(math.sqrt(21**2 / 84 / 2)), rel=1e-12)
    assert mcnemar(13, 13) == mcnemar(0, 0) == 1.0


def test_difference_and_names_have_the_right_sign() -> None:
    found = compare(rows([1, 1, 0, 0, 1]), rows([1, 0, 1, 1, 1]))
    assert found.difference == pytest.approx(20.0) and found.images == 5
    assert found.corrected == ["2.png", "3.png"] and found.ruined == ["1.png"]
    assert found.interval[0] < 20 < found.interval[1] and found.p_value == 1.0
    assert dict(found)["corrected"] == 2 and found.to_dict()["ruined"] == ["1.png"]


def test_images_are_paired_by_name() -> None:
    """What only one of the models could read counts for neither."""
    first = rows([1, 0, 1, 0], ["a", "b", "c", "d"])
    other = rows([1, 0, 1], ["b", "c", "e"])
    found = compare(first, other)
    assert found.images == 2 and found.corrected == ["b"] and found.ruined == ["c"] and found.difference == 0
    with pytest.raises(UserError, match="no image"):
        compare(first, rows([1], ["x"]))


def test_bootstrap_against_direct_resampling() -> None:
    rng = np.random.default_rng(3)
    before = rng.random(211) < 0.6
    after = np.where(rng.random(211) < 0.2, ~before, before)
    differences = after.astype(int) - before.astype(int)
    means = [differences[rng.integers(0, 211, 211)].mean() for _ in range(20_000)]
    low, high = paired_interval(before, after, resamples=20_000)
    expected = np.quantile(means, [0.025, 0.975])
    assert low == pytest.approx(expected[0], abs=1.5 / 211) and high == pytest.approx(expected[1], abs=1.5 / 211)
    # pairs are kept: two independent draws would be this much wider
    apart = [after[rng.integers(0, 211, 211)].mean() - before[rng.integers(0, 211, 211)].mean() for _ in range(5000)]
    assert high - low < 0.75 * np.diff(np.quantile(apart, [0.025, 0.975]))[0]


def test_objects_are_drawn_as_a_whole() -> None:
    once = (np.arange(53) % 3 == 0, np.arange(53) % 5 == 0)
    copies = [np.repeat(each, 11) for each in once]
    by_object = paired_interval(copies[0], copies[1], np.repeat(np.arange(53), 11))
    alone = paired_interval(once[0], once[1], np.arange(53))
    assert by_object == pytest.approx(alone)
    assert np.diff(paired_interval(*copies)) < 0.5 * np.diff(by_object)


@pytest.mark.parametrize(("before", "after", "middle"), [(1, 1, 0.0), (0, 1, 1.0), (1, 0, -1.0)])
def test_equal_differences_still_have_a_width(before: int, after: int, middle: float) -> None:
    low, high = paired_interval(np.full(97, before, bool), np.full(97, after, bool))
    assert -1 <= low <= middle <= high <= 1 and 0.03 < high - low < 0.09


def pairs(corrected: int, ruined: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits before and after, of which so many differ."""
    before = np.arange(count) % 2 == 0
    order = np.argsort(before, kind="stable")  # first those that are wrong before
    after = before.copy()
    after[order[:corrected]] = True
    after[order[len(order) - ruined :]] = False
    return before, after


def test_few_that_differ_do_not_contradict_mcnemar() -> None:
    low, high = paired_interval(*pairs(4, 0, 100))
    # by hand, (4 + 1) and (0 + 1) of (100 + 2), Bonett and Price 2012: 4/102 +- 1.95996 sqrt(6/102 - (4/102)^2) / sqrt(102)
    assert low == pytest.approx(4 / 102 - 1.9599640 * np.sqrt((6 / 102 - (4 / 102) ** 2) / 102)) and low < 0
    assert high == pytest.approx(4 / 102 + 1.9599640 * np.sqrt((6 / 102 - (4 / 102) ** 2) / 102))
    for corrected in range(25):
        for ruined in range(25 - corrected):
            low, high = paired_interval(*pairs(corrected, ruined, 100))
            assert -1 <= low <= (corrected - ruined) / 100 <= high <= 1
            if low > 0 or high < 0:  # McNemar's mid-p, Fagerland et al. 2013, which is not above the exact one
                chance = binom.pmf(corrected, corrected + ruined, 0.5)
                assert mcnemar(corrected, ruined) - chance < 0.05


def test_objects_of_unlike_sizes_weigh_by_their_images() -> None:
    sizes = np.array([1, 2, 3, 5, 7, 11])
    objects = np.repeat(np.arange(6), sizes)
    after = objects == 5
    low, high = paired_interval(np.zeros(29, bool), after, objects)
    assert -1 <= low < 11 / 29 < high <= 1
    weighed = np.array([0, 0, 0, 0, 0, 11]) * 6 / 29  # objects of which the mean is the difference over images
    more = np.concatenate([weighed, [66 / 29, -66 / 29]])
    half = 1.9599640 * more.std() / np.sqrt(8)
    assert (low, high) == pytest.approx((max(-1, more.mean() - half), min(1, more.mean() + half)))


def test_same_seed_same_interval() -> None:
    before, after = np.arange(97) % 2 == 0, np.arange(97) % 3 == 0
    assert paired_interval(before, after, seed=5) == paired_interval(before, after, seed=5)
    assert paired_interval(before, after, seed=5) != paired_interval(before, after, seed=6)
