"""The confidence in an automatic mask: hand-made values, and the way it moves with each of its figures."""

import math
from itertools import pairwise

import numpy as np
import pytest

from relevit.errors import UserError
from relevit.masking.quality import mask_quality

GOOD = (0.2, 0.8)


def block(height, width, top, bottom, left, right):
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_hand_made_values():
    # 7 x 11: 32 pixels on the border. The refined mask: 4 x 3 = 12 pixels, 4 of them on the left border.
    refined, coarse = block(7, 11, 2, 6, 0, 3), block(7, 11, 2, 6, 0, 4)
    quality = mask_quality((0.3, 0.4), coarse, refined)
    assert quality.eigengap == pytest.approx(0.25)
    assert quality.agreement == pytest.approx(12 / 16)
    assert quality.share == pytest.approx(12 / 77)
    assert quality.border == pytest.approx(4 / 32)
    assert quality.confidence == pytest.approx((0.25 * 0.75 * 1.0 * (28 / 32)) ** 0.25)


def test_small_and_large_masks():
    small = block(100, 100, 50, 51, 40, 60)  # 20 of 10000 pixels, a tenth of the least share
    assert mask_quality(GOOD, small, small).confidence == pytest.approx((0.75 * 0.1) ** 0.25)
    large = block(101, 103, 2, -2, 2, -2)  # nearly all, without touching the border
    share = 97 * 99 / (101 * 103)
    assert mask_quality(GOOD, large, large).confidence == pytest.approx((0.75 * (1 - share) / 0.2) ** 0.25)
    everything = np.ones((5, 7), dtype=bool)
    quality = mask_quality(GOOD, everything, everything)
    assert (quality.confidence, quality.share, quality.border) == (0.0, 1.0, 1.0)


def test_an_object_of_seventy_percent_is_no_fault():
    mask = block(101, 103, 8, -8, 9, -9)
    assert mask_quality(GOOD, mask, mask).confidence == pytest.approx(0.75**0.25)


def test_empty_masks_have_no_confidence():
    empty, some = np.zeros((7, 11), dtype=bool), block(7, 11, 2, 5, 3, 7)
    for coarse, refined in [(empty, empty), (some, empty), (empty, some)]:
        quality = mask_quality(GOOD, coarse, refined)
        assert quality.confidence == 0.0
        assert quality.agreement == 0.0
        assert all(math.isfinite(value) for value in quality)


def test_agreement_below_a_half_drops_the_mask():
    coarse = block(23, 29, 4, 14, 5, 15)
    half = mask_quality(GOOD, coarse, block(23, 29, 4, 9, 5, 15))  # IoU exactly 0.5
    assert half.confidence == pytest.approx((0.75 * 0.5) ** 0.25)
    assert mask_quality(GOOD, coarse, block(23, 29, 4, 8, 5, 15)).confidence == 0.0  # IoU 0.4


@pytest.mark.parametrize(
    "eigenvalues", [(0.5, 0.5), (0.0, 0.0), (math.nan, 1.0), (0.1, math.nan), (0.1, math.inf), (0.6, 0.5)]
)
def test_a_cut_that_is_not_unique_has_no_confidence(eigenvalues):
    mask = block(23, 29, 4, 14, 5, 15)
    quality = mask_quality(eigenvalues, mask, mask)
    assert (quality.confidence, quality.eigengap) == (0.0, 0.0)


def test_eigenvalue_a_little_below_zero_by_rounding():
    mask = block(23, 29, 4, 14, 5, 15)
    assert mask_quality((-1e-9, 0.5), mask, mask) == mask_quality((0.0, 0.5), mask, mask)


def rising(values):
    return all(b > a for a, b in pairwise(values))


def test_monotone_in_the_eigengap():
    mask = block(23, 29, 4, 14, 5, 15)
    assert rising([mask_quality((second, 0.9), mask, mask).confidence for second in (0.9, 0.7, 0.4, 0.1, 0.0)])


def test_monotone_in_the_agreement():
    coarse = block(23, 29, 4, 14, 5, 15)
    refined = [block(23, 29, 4, bottom, 5, 15) for bottom in (9, 10, 12, 14)]
    assert rising([mask_quality(GOOD, coarse, mask).confidence for mask in refined])


def test_falls_with_the_contact_with_the_border():
    masks = [block(23, 29, 0, 10, left, left + 10) for left in (5, 0)]  # one side, two sides; the same area
    inside = block(23, 29, 5, 15, 5, 15)
    values = [mask_quality(GOOD, mask, mask).confidence for mask in (*reversed(masks), inside)]
    assert rising(values)


def test_rises_with_specks_and_falls_with_nearly_everything():
    specks = [block(101, 103, 50, 51, 40, 40 + width) for width in (1, 20, 60)]
    assert rising([mask_quality(GOOD, mask, mask).confidence for mask in specks])
    huge = [block(101, 103, edge, -edge, edge, -edge) for edge in (1, 2, 3)]
    assert rising(
        [mask_quality(GOOD, mask, mask).confidence / (1 - mask_quality(GOOD, mask, mask).border) for mask in huge]
    )


def test_range_over_random_masks():
    rng = np.random.default_rng(3)
    for _ in range(50):
        masks = rng.random((2, 7, 13)) < rng.random()
        second, third = np.sort(rng.random(2))
        quality = mask_quality((float(second), float(third)), masks[0], masks[1])
        assert all(0 <= value <= 1 for value in quality)


def test_one_pixel():
    one = np.ones((1, 1), dtype=bool)
    assert mask_quality(GOOD, one, one)[1:] == (pytest.approx(0.75), 1.0, 1.0, 1.0)


def test_sizes_differ():
    with pytest.raises(UserError, match=r"\(7, 11\).*\(7, 13\)"):
        mask_quality(GOOD, np.ones((7, 11), dtype=bool), np.ones((7, 13), dtype=bool))
