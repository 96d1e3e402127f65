"""evaluation/resampling.py, per_image.py and data/part.py: draws, intervals, paired differences, some of a set's images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from relevit.evaluation.maps.segmentation import COUNTS, Segmentation
from relevit.evaluation.measured import Measured
from relevit.statistics.weighted import differences, intervals, plain, weighted_mean


def table(names: list[str], objects: list[str], columns: Mapping[str, Any]) -> pa.Table:
    known = {"image": names, "class": [""] * len(names), "object": objects}
    return pa.table({**known, **{name: np.asarray(values) for name, values in columns.items()}})


def result(values: np.ndarray, objects: list[str] | None = None, names: list[str] | None = None) -> Measured:
    names = names or [f"image {number}" for number in range(len(values))]
    return Measured(table(names, objects or names, {}), {"figure": values}, {"figure": (0, 100)})


def test_images_of_one_object_are_drawn_together() -> None:
    seen: list[np.ndarray] = []

    class Watched(Measured):
        def figures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
            seen.append(weights)
            return super().figures(weights)

    objects = ["b", "a", "b", "c", "a"]
    intervals(Watched(table(list("12345"), objects, {}), {"figure": np.arange(5.0)}), resamples=29, seed=1)
    weights = max(seen, key=len)
    assert weights.shape == (29, 5)
    assert np.array_equal(weights[:, 0], weights[:, 2]) and np.array_equal(weights[:, 1], weights[:, 4])
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all() and len(np.unique(weights, axis=0)) > 5


def test_the_interval_of_a_mean_is_the_normal_one_of_many_images() -> None:
    values = np.random.default_rng(0).normal(50, 10, 1009)
    low, high = intervals(result(values))["figure"].ends
    half = 1.96 * values.std() / np.sqrt(1009)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    copied = result(np.repeat(values, 3), [f"object {number}" for number in np.repeat(np.arange(1009), 3)])
    assert intervals(copied)["figure"].ends == pytest.approx((low, high), abs=0.2 * half)


def test_the_interval_of_an_iou_of_the_set_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 90, (13, 4))
    precision = rng.random(13)
    names = [f"{number:02d}" for number in range(13)]
    columns = {**dict(zip(COUNTS, counts.T, strict=True)), "average_precision": precision}
    found = Segmentation().figures(table(names, names, columns))
    drawn: dict[str, list[float]] = {"miou": [], "pixel_accuracy": [], "map": []}
    for drawn_images in np.random.default_rng(5).integers(0, 13, (300, 13)):
        weights = np.bincount(drawn_images, minlength=13)
        sums, total = np.zeros(4), 0.0
        for image, times in enumerate(weights):
            sums += times * counts[image]
            total += times * precision[image]
        both, false, missed, hit = sums
        drawn["miou"].append(50 * (both / (both + false + missed) + hit / (hit + false + missed)))
        drawn["pixel_accuracy"].append(100 * (both + hit) / sums.sum())
        drawn["map"].append(100 * total / 13)
    ends = intervals(found, resamples=300, seed=5)
    for name, values in drawn.items():
        assert ends[name].ends == pytest.approx(np.quantile(values, [0.025, 0.975]), rel=1e-12)


def test_a_paired_difference_is_that_of_the_same_images() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 10, 101)  # what is hard for both
    first, second = 50 + hard, 53 + hard + rng.normal(0, 0.1, 101)
    found = differences(result(second), result(first))["figure"]
    assert found.value == pytest.approx((second - first).mean()) and 2.9 < found.low < found.value < found.high < 3.1
    low, high = intervals(result(first))["figure"].ends
    assert high - low > 3  # unpaired, nothing would be settled


def test_images_of_only_one_model_are_left_out_of_differences() -> None:
    one = result(np.array([1.0, 2.0, 4.0]), names=["c", "a", "d"])
    other = result(np.array([10.0, 20.0, 70.0]), names=["a", "b", "c"])
    assert differences(one, other)["figure"].value == pytest.approx(1.5 - 40)
    assert differences(one, result(np.array([1.0]), names=["x"])) == {}


def test_where_all_images_agree_the_interval_is_wilsons() -> None:
    assert intervals(result(np.full(30, 100.0)))["figure"].ends == pytest.approx(
        (100 * 30 / (30 + 1.96**2), 100), abs=0.01
    )
    found = differences(result(np.full(30, 60.0)), result(np.full(30, 60.0)))["figure"]
    unseen = 1.96**2 / (30 + 1.96**2)
    assert found.value == 0 and found.ends == pytest.approx((-100 * unseen, 100 * unseen), abs=0.01)


def test_a_few_hits_that_differ_settle_nothing() -> None:
    """Four of a hundred, all one way: McNemar's exact test says p = 0.125, a bootstrap would leave 0 outside."""
    first, second = np.zeros(100), 100.0 * (np.arange(100) < 4)
    found = differences(result(second), result(first))["figure"]
    middle = 4 / 102  # Bonett and Price (2012): one image more that only the one hits, and one that only the other does
    half = 1.959964 * np.sqrt(((4 + 2) / 102 - middle**2) / 102)
    assert found.value == 4 and found.ends == pytest.approx((100 * (middle - half), 100 * (middle + half)), abs=1e-4)
    assert found.low < 0 < found.value < found.high
    nearly = result(np.where(second > 0, 99.9, 0.0))  # no hits: the bootstrap
    assert differences(nearly, result(first))["figure"].low > 0


def test_undefined_values_are_left_out_of_the_mean() -> None:
    values = np.array([1.0, np.nan, 5.0])
    weights = np.array([[1.0, 1, 1], [2, 7, 1], [0, 3, 0]])
    assert weighted_mean(weights, values) == pytest.approx([3, 7 / 3, np.nan], nan_ok=True)
    assert plain(result(values)) == {"figure": 3}
    content = result(values).to_dict()
    assert content["per_image"]["figure"] == [1, None, 5] and content["classes"] == {}
    assert np.isfinite(intervals(result(values))["figure"].ends).all()
