"""statistics/interval.py and resampling.py, against Wilson's formula, exact coverage and a slow bootstrap."""

import math

import numpy as np
import pytest

from relevit.statistics import interval
from relevit.statistics.interval import wilson
from relevit.statistics.resampling import bootstrap, percentiles


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (7, 7), (3, 11), (811, 1009), (1, 1)])
def test_wilson_solves_its_quadratic(hits: int, count: int) -> None:
    # The ends are where the score statistic equals z: (p_hat - p)^2 = z^2 p (1 - p) / n.
    z, share = 1.959963984540054, hits / count
    found = interval.share(np.arange(count) < hits)
    for end in found.ends:
        assert math.isclose((share - end) ** 2, z**2 * end * (1 - end) / count, rel_tol=1e-9, abs_tol=1e-12)
    assert found.ends == wilson(hits, count) and (found.value, found.count, found.over) == (share, count, "images")
    assert 0 <= found.low <= share <= found.high <= 1 and found.low < found.high


def test_wilson_of_nothing_is_everything() -> None:
    none = interval.share(np.zeros(0, bool))
    assert math.isnan(none.value) and none.ends == wilson(0, 0) == (0.0, 1.0) and none.count == 0


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (20.0, 60.0)])
@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
def test_where_all_agree_wilsons_width_is_left(low: float, high: float, at: float) -> None:
    """As many of the unseen objects as Wilson's interval of none of 29 allows, z^2 / (29 + z^2), at the bound."""
    value, unseen = low + at * (high - low), 1.959963984540054**2 / (29 + 1.959963984540054**2)
    found = interval.mean(np.full(58, value), np.arange(58) // 2, bounds=(low, high))
    assert found.value == pytest.approx(value) and found.count == 29
    assert found.ends == pytest.approx((value - unseen * (value - low), value + unseen * (high - value)))
    single = interval.mean(np.full(3, value), np.zeros(3), bounds=(low, high))
    assert single.count == 1 and single.low < single.high
    assert interval.mean(np.full(58, value)).ends == pytest.approx((value, value))  # nothing is known of the bounds


@pytest.mark.parametrize("hits", [0, 1])
def test_hits_of_objects_all_or_none_are_wilsons(hits: int) -> None:
    found = interval.share(np.full(22, hits, bool), np.arange(22) // 2)
    assert found.ends == pytest.approx(wilson(11 * hits, 11)) and found.count == 11 and found.over == "objects"


def test_single_image_clusters_agree_with_wilson() -> None:
    hits = np.arange(997) % 5 != 0
    low, high = interval.mean(hits, np.arange(997), resamples=4000).ends
    expected = wilson(int(hits.sum()), 997)
    assert low == pytest.approx(expected[0], abs=0.004) and high == pytest.approx(expected[1], abs=0.004)


def test_copies_of_one_image_count_once() -> None:
    once = np.arange(101) % 3 == 0
    copied = np.repeat(once, 7)
    assert interval.mean(copied, np.repeat(np.arange(101), 7)).ends == interval.mean(once, np.arange(101)).ends
    as_independent = interval.mean(copied, np.arange(707))
    assert np.diff(as_independent.ends)[0] < 0.5 * np.diff(interval.mean(once, np.arange(101)).ends)[0]


def test_unequal_clusters_against_a_loop() -> None:
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 13, 53)
    clusters = rng.permutation(np.repeat([f"digit {i}" for i in range(53)], sizes))
    values = rng.normal(size=len(clusters))
    groups = [values[clusters == name] for name in np.unique(clusters)]
    means = []
    for _ in range(4000):
        means.append(np.concatenate([groups[i] for i in rng.integers(0, 53, 53)]).mean())
    low, high = interval.mean(values, clusters, resamples=4000).ends
    width = high - low
    assert low == pytest.approx(np.quantile(means, 0.025), abs=0.06 * width)
    assert high == pytest.approx(np.quantile(means, 0.975), abs=0.06 * width)


def test_same_seed_same_interval() -> None:
    values, clusters = np.arange(37.0), np.arange(37) // 3
    assert interval.mean(values, clusters, seed=3) == interval.mean(values, clusters, seed=3)
    assert interval.mean(values, clusters, seed=3) != interval.mean(values, clusters, seed=4)


@pytest.mark.parametrize(("values", "clusters"), [([], []), ([1.0, 0.0], [1]), ([[1.0]], [[1]])])
def test_what_does_not_fit_is_refused(values: list, clusters: list) -> None:
    with pytest.raises(ValueError, match="one object"):
        interval.mean(np.array(values), np.array(clusters))


def test_draws_go_together_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = np.arange(5.0)

    def kept(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        assert all(np.array_equal(drawn[0], 10 * rows) for rows in drawn[1:])  # the objects of all samples alike
        return drawn[-1].max(axis=axis) + 10 * drawn[-1].min(axis=axis)

    whole = bootstrap(kept, [10 * objects, objects], resamples=29, seed=1)
    assert whole.shape == (29,) and len(np.unique(whole)) > 5
    monkeypatch.setattr("relevit.statistics.resampling._CELLS", 11)  # blocks of two draws
    assert np.array_equal(bootstrap(kept, [10 * objects, objects], resamples=29, seed=1), whole)


def test_undefined_draws_do_not_count() -> None:
    assert percentiles(np.array([np.nan, 3.0, np.nan, 1.0])) == pytest.approx((1.05, 2.95))
    assert np.isnan(percentiles(np.full(3, np.nan))).all()
