"""Holm's correction, by hand and by its properties."""

from itertools import pairwise

import numpy as np
import pytest

from relevit.statistics.multiple_testing import holm


def test_holm_by_hand() -> None:
    """Sorted 0.003, 0.01, 0.02, 0.03, 0.6: times 5, 4, 3, 2, 1 that is 0.015, 0.04, 0.06, 0.06, 0.6."""
    assert holm([0.02, 0.6, 0.003, 0.03, 0.01]) == pytest.approx([0.06, 0.6, 0.015, 0.06, 0.04])
    # An adjusted p is never below that of a smaller one: 2 x 0.021 would be below 3 x 0.02.
    assert holm([0.021, 0.02, 0.2]) == pytest.approx([0.06, 0.06, 0.2])
    assert holm([0.9, 0.5, 0.8]) == [1.0, 1.0, 1.0] and holm([]) == [] and holm([0.04]) == [0.04]
    draws = np.random.default_rng(0).random(40) ** 3
    assert all(one <= other for one, other in pairwise(sorted(holm(draws.tolist()))))
    assert all(
        adjusted >= own * sum(draws >= own) - 1e-12 or adjusted == 1
        for own, adjusted in zip(draws, holm(draws.tolist()), strict=True)
    )
