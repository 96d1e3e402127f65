"""evaluation/intervals.py, against Wilson's formula, exact coverage and a slow bootstrap."""

import math

import numpy as np
import pytest

from relevit.statistics.intervals import cluster_bootstrap, wilson


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (7, 7), (3, 11), (811, 1009), (1, 1)])
def test_wilson_solves_its_quadratic(hits: int, count: int) -> None:
    # The ends are where the score statistic equals z: (p_hat - p)^2 = z^2 p (1 - p) / n.
    z, share = 1.959963984540054, hits / count
    for end in wilson(hits, count):
        assert math.isclose((share - end) ** 2, z**2 * end * (1 - end) / count, rel_tol=1e-9, abs_tol=1e-12)
    low, high = wilson(hits, count)
    assert 0 <= low <= share <= high <= 1 and low < high


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_single_image_clusters_agree_with_wilson() -> None:
    hits = np.arange(997) % 5 != 0
    low, high = cluster_bootstrap(hits, np.arange(997), resamples=4000)
    expected = wilson(int(hits.sum()), 997)
    assert low == pytest.approx(expected[0], abs=0.004) and high == pytest.approx(expected[1], abs=0.004)


def test_copies_of_one_image_count_once() -> None:
    once = np.arange(101) % 3 == 0
    copied = np.repeat(once, 7)
    assert cluster_bootstrap(copied, np.repeat(np.arange(101), 7)) == cluster_bootstrap(once, np.arange(101))
    as_independent = cluster_bootstrap(copied, np.arange(707))
    assert np.diff(as_independent)[0] < 0.5 * np.diff(cluster_bootstrap(once, np.arange(101)))[0]


def test_unequal_clusters_against_a_loop() -> None:
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 13, 53)
    clusters = rng.permutation(np.repeat([f"digit {i}" for i in range(53)], sizes))
    values = rng.normal(size=len(clusters))
    groups = [values[clusters == name] for name in np.unique(clusters)]
    means = []
    for _ in range(4000):
        means.append(np.concatenate([groups[i] for i in rng.integers(0, 53, 53)]).mean())
    low, high = cluster_bootstrap(values, clusters, resamples=4000)
    width = high - low
    assert low == pytest.approx(np.quantile(means, 0.025), abs=0.06 * width)
    assert high == pytest.approx(np.quantile(means, 0.975), abs=0.06 * width)


def test_same_seed_same_interval() -> None:
    values, clusters = np.arange(37.0), np.arange(37) // 3
    assert cluster_bootstrap(values, clusters, seed=3) == cluster_bootstrap(values, clusters, seed=3)
    assert cluster_bootstrap(values, clusters, seed=3) != cluster_bootstrap(values, clusters, seed=4)


@pytest.mark.parametrize(("values", "clusters"), [([], []), ([1.0, 0.0], [1]), ([[1.0]], [[1]])])
def test_what_does_not_fit_is_refused(values: list, clusters: list) -> None:
    with pytest.raises(ValueError, match="one cluster"):
        cluster_bootstrap(np.array(values), np.array(clusters))
