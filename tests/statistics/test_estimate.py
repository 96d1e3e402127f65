"""statistics/estimate.py and over_seeds.py: what an estimate says of itself; Student's interval by the table."""

import math

import numpy as np
import pytest

from relevit.statistics import over_seeds
from relevit.statistics.estimate import Estimate


def test_an_estimate_shifted_scaled_and_turned() -> None:
    found = Estimate(0.25, 0.125, 0.5, 7, "objects")
    assert found.percent == Estimate(25, 12.5, 50, 7, "objects")
    assert found.less(0.25) == Estimate(0, -0.125, 0.25, 7, "objects")
    assert found.turned() == Estimate(-0.25, -0.5, -0.125, 7, "objects")
    assert found.settled and found.turned().settled and not found.less(0.25).settled
    assert not found.less(0.125).settled and not found.less(0.5).settled  # 0 is an end
    assert found.to_dict("percent") == {"percent": 0.25, "interval": [0.125, 0.5], "objects": 7}


def test_ends_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match=r"low end 2\.0 is above"):
        Estimate(1.0, 2.0, 0.5, 3, "seeds")


def test_intervals_over_seeds_are_students() -> None:
    values = [3.0, 5.0, 11.0]
    found = over_seeds.mean(values)
    half = 4.302652729911275 * math.sqrt(
        sum((x - 19 / 3) ** 2 for x in values) / 2 / 3
    )  # the table's t for two degrees
    assert found.value == pytest.approx(19 / 3) and (found.count, found.over) == (3, "seeds")
    assert found.high - found.value == pytest.approx(half)
    assert found.value - found.low == pytest.approx(half)


@pytest.mark.parametrize("values", [[7.0], [7.0, 7.0]])
def test_seeds_without_variance_have_no_width(values: list[float]) -> None:
    assert over_seeds.mean(values) == Estimate(7.0, 7.0, 7.0, len(values), "seeds")
    nearly = over_seeds.mean([0.1 + 0.2, 0.3])  # the last bit alone: no warning
    assert np.isfinite(nearly.ends).all()
