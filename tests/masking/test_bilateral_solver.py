"""The bilateral solver against dictionaries and dense matrices, its polarity, and what it does at edges."""

import itertools
import math
from fractions import Fraction

import cv2
import numpy as np
import pytest
from scipy import ndimage

from relevit.errors import UserError
from relevit.masking.bilateral_solver import _TABLE, _number, _one_component, refine_mask


def textbook_system(image, coarse, spatial, luma, chroma, strength, confidence):
    """The dense system matrix, the right side, the start, and the cell of every pixel: all from loops over pixels."""
    cells, cell_of = {}, {}
    for y, x in itertools.product(range(image.shape[0]), range(image.shape[1])):
        r, g, b = (Fraction(int(value)) for value in image[y, x])
        yuv = (
            Fraction("0.299") * r + Fraction("0.587") * g + Fraction("0.114") * b,
            Fraction("-0.168736") * r - Fraction("0.331264") * g + Fraction("0.5") * b + 128,
            Fraction("0.5") * r - Fraction("0.418688") * g - Fraction("0.081312") * b + 128,
        )
        key = (x // spatial, y // spatial, yuv[0] // luma, yuv[1] // chroma, yuv[2] // chroma)
        cell_of[y, x] = cells.setdefault(key, len(cells))
    keys = list(cells)
    blur = np.zeros((len(keys), len(keys)))
    for i, one in enumerate(keys):
        for j, other in enumerate(keys):
            apart = sum(abs(a - b) for a, b in zip(one, other, strict=True))
            blur[i, j] = 10 if apart == 0 else 1 if apart == 1 else 0
    count, target = np.zeros(len(keys)), np.zeros(len(keys))
    for pixel, cell in cell_of.items():
        count[cell] += 1
        target[cell] += confidence * float(coarse[pixel])
    n = np.ones(len(keys))
    for _ in range(10):
        n = np.sqrt(n * count / (blur @ n))
    m = n * (blur @ n)
    matrix = strength * (np.diag(m) - n[:, None] * blur * n[None, :]) + confidence * np.diag(count)
    return matrix, target, target / (confidence * count), cell_of


def textbook_gradients(matrix, right, start, steps, tolerance):
    """Preconditioned conjugate gradients, as in any textbook."""
    scale = 1 / np.maximum(np.diag(matrix), 1e-5)
    x, r = start.copy(), right - matrix @ start
    p = scale * r
    for _ in range(steps):
        if np.linalg.norm(r) <= tolerance * np.linalg.norm(right):
            break
        z = scale * r
        alpha = (r @ z) / (p @ matrix @ p)
        x, after = x + alpha * p, r - alpha * matrix @ p
        p = scale * after + (after @ (scale * after)) / (r @ z) * p
        r = after
    return x


def scattered(height, width, seed):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((height, width, 3)), (2, 2, 0))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return (255 * smooth).astype(np.uint8), rng.random((height, width)) < 0.4


@pytest.mark.parametrize(
    ("height", "width", "seed", "sigmas", "strength", "steps"),
    [
        (13, 17, 0, (4, 16, 8), 256.0, 25),
        (19, 11, 1, (5, 32, 16), 32.0, 7),
        (7, 23, 2, (16, 16, 8), 256.0, 25),
        (17, 13, 3, (3, 300, 300), 4.0, 25),
    ],
)
def test_soft_values_equal_a_dense_solver_with_dictionaries(height, width, seed, sigmas, strength, steps):
    image, coarse = scattered(height, width, seed)
    matrix, right, start, cell_of = textbook_system(image, coarse, *sigmas, strength, 0.9)
    values = textbook_gradients(matrix, right, start, steps, 1e-5)
    expected = np.array([[values[cell_of[y, x]] for x in range(width)] for y in range(height)])
    assert 2 < len(values) < height * width
    assert np.abs(values - start).max() > 0.05  # something was solved
    spatial, luma, chroma = sigmas
    refined = refine_mask(
        image, coarse, sigma_spatial=spatial, sigma_luma=luma, sigma_chroma=chroma, strength=strength, confidence=0.9,
        iterations=steps,
    )  # fmt: skip
    np.testing.assert_allclose(refined.soft, expected, rtol=0, atol=1e-6)


def test_many_steps_reach_the_least_squares_solution():
    image, coarse = scattered(11, 13, 5)
    matrix, right, _, cell_of = textbook_system(image, coarse, 16, 16, 8, 256.0, 0.999)
    values = np.linalg.solve(matrix, right)
    expected = np.array([[values[cell_of[y, x]] for x in range(13)] for y in range(11)])
    refined = refine_mask(image, coarse, iterations=2000, tolerance=1e-12)
    np.testing.assert_allclose(refined.soft, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bound", [31, _TABLE * 1000 + 1])
def test_numbering_through_a_table_and_by_sorting(bound):
    keys = np.random.default_rng(0).integers(0, bound, 1000)
    distinct, places = _number(keys, bound)
    np.testing.assert_array_equal(distinct, sorted(set(keys.tolist())))
    np.testing.assert_array_equal(distinct[places], keys)


@pytest.mark.parametrize("sigma", [1, 1e12])
def test_the_finest_and_the_coarsest_grid(sigma):
    image, coarse = scattered(13, 17, 6)
    soft = refine_mask(image, coarse, sigma_spatial=sigma, sigma_luma=sigma, sigma_chroma=sigma, strength=0).soft
    np.testing.assert_allclose(soft, coarse if sigma == 1 else np.full(coarse.shape, coarse.mean()), atol=1e-6)


def disc(height, width, share):
    """An ellipse in the middle that covers this share of the picture."""
    y, x = np.mgrid[:height, :width]
    radius = math.sqrt(share / math.pi)
    return ((y + 0.5) / height - 0.5) ** 2 + ((x + 0.5) / width - 0.5) ** 2 < radius**2


def painted(mask, seed=0, inside=(200, 120, 40), outside=(40, 90, 160)):
    """A picture with a clear edge: two colours and some noise."""
    noise = np.random.default_rng(seed).normal(0, 4, (*mask.shape, 3))
    return np.clip(np.where(mask[..., None], inside, outside) + noise, 0, 255).astype(np.uint8)


def blocky(mask, size=16, least=0.5):
    """The mask in blocks, as nearest upsampling from patches leaves it."""
    height, width = mask.shape
    rows, cols = math.ceil(height / size), math.ceil(width / size)
    small = np.array([[mask[size * r : size * r + size, size * c : size * c + size].mean() >= least for c in range(cols)]
                      for r in range(rows)])  # fmt: skip
    return np.kron(small, np.ones((size, size), dtype=bool))[:height, :width].astype(bool)


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize(("height", "width"), [(131, 197), (197, 131), (160, 240)])
@pytest.mark.parametrize("least", [0.1, 0.5, 0.9])
def test_the_refined_border_follows_the_edge(height, width, least):
    mask = disc(height, width, 0.3)
    coarse = blocky(mask, least=least)
    refined = refine_mask(painted(mask), coarse).mask
    # Distance of every pixel to the true border, from either side.
    away = np.maximum(
        cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5),
        cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5),
    )
    assert away[coarse != mask].max() > 5
    assert not (refined != mask).any() or away[refined != mask].max() <= 2
    assert overlap(refined, mask) > 0.98 > overlap(coarse, mask)


def test_an_object_over_most_of_the_picture_keeps_its_mask():
    mask = disc(163, 241, 0.7)
    coarse = blocky(mask)
    assert 0.65 < mask.mean() < 0.75
    refined = refine_mask(painted(mask), coarse).mask
    assert overlap(refined, mask) > 0.98
    assert refined[80, 120] and not refined[0, 0]


def test_a_small_object_keeps_its_mask_and_not_the_background():
    mask = disc(163, 241, 0.1)
    refined = refine_mask(painted(mask), blocky(mask)).mask
    assert overlap(refined, mask) > 0.9
    assert refined[80, 120] and not refined[0, 0]


def test_axes_are_not_swapped():
    mask = np.zeros((101, 151), dtype=bool)
    mask[20:40, 90:140] = True
    coarse = np.zeros_like(mask)
    coarse[16:48, 88:144] = True
    np.testing.assert_array_equal(refine_mask(painted(mask), coarse).mask, mask)


def test_colours_are_red_green_blue():
    """By luma alone, red 60 (Y 17.9) lies in another cell than black, and blue 60 (Y 6.8) in the same."""
    coarse = np.zeros((29, 31), dtype=bool)
    coarse[:, 15:] = True
    red, blue = np.zeros((2, 29, 31, 3), dtype=np.uint8)
    red[:, 15:, 0] = 60
    blue[:, 15:, 2] = 60
    assert len(np.unique(refine_mask(red, coarse, sigma_spatial=100, sigma_chroma=1000).soft)) == 2
    assert len(np.unique(refine_mask(blue, coarse, sigma_spatial=100, sigma_chroma=1000).soft)) == 1


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (77, 77, 77)])
def test_a_picture_of_one_colour(colour):
    image = np.full((37, 53, 3), colour, dtype=np.uint8)
    coarse = blocky(disc(37, 53, 0.5), size=4)
    refined = refine_mask(image, coarse)
    assert np.isfinite(refined.soft).all()
    assert len(np.unique(refined.soft)) <= 3 * 4  # nothing but the tiles of 16 pixels: grey does not scatter over cells


def test_grey_pictures_do_not_scatter_by_rounding():
    """U = V = 128 on every grey, which is a border between cells: all greys must fall to one side of it."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    coarse = np.arange(256)[None] >= 120
    soft = refine_mask(ramp, coarse, sigma_spatial=1000, strength=1e-9).soft[0]
    # Without smoothing, a cell's value is the mean of its 16 greys; 120 cuts the eighth cell (112 to 127) in halves.
    np.testing.assert_allclose(soft, np.repeat([0.0] * 7 + [0.5] + [1.0] * 8, 16), atol=1e-6)


def test_empty_and_full_masks():
    image, _ = scattered(37, 41, 0)
    empty = refine_mask(image, np.zeros((37, 41), dtype=bool))
    assert not empty.mask.any() and not empty.soft.any()
    full = refine_mask(image, np.ones((37, 41), dtype=bool))
    assert full.mask.all()
    np.testing.assert_allclose(full.soft, 1, atol=1e-6)


def test_a_speck_without_support_in_the_picture_leaves_nothing():
    image = np.full((61, 67, 3), 90, dtype=np.uint8)
    coarse = np.zeros((61, 67), dtype=bool)
    coarse[30, 31] = True
    refined = refine_mask(image, coarse)
    assert not refined.mask.any() and 0 < refined.soft.max() < 0.5


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 37), (37, 1), (2, 3)])
def test_tiny_pictures(height, width):
    image, _ = scattered(height, width, 0) if height * width > 1 else (np.full((1, 1, 3), 7, dtype=np.uint8), None)
    assert refine_mask(image, np.ones((height, width), dtype=bool)).mask.all()
    assert not refine_mask(image, np.zeros((height, width), dtype=bool)).mask.any()


def test_the_inputs_stay_as_they_were_however_they_lie_in_memory():
    mask = disc(67, 71, 0.4)
    image, coarse = painted(mask), blocky(mask)
    before = image.copy(), coarse.copy()
    image.setflags(write=False)
    coarse.setflags(write=False)
    first = refine_mask(image, coarse)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(coarse, before[1])
    other = refine_mask(np.asfortranarray(image), np.asfortranarray(coarse))
    np.testing.assert_array_equal(first.soft, other.soft)


def test_the_component_with_most_overlap_is_kept_not_the_largest():
    mask = np.zeros((31, 41), dtype=bool)
    mask[2:29, 2:20] = True  # large
    mask[10:20, 25:35] = True
    mask[14:16, 28:32] = False  # a hole
    coarse = np.zeros_like(mask)
    coarse[8:22, 15:37] = True  # overlaps both, the small one more
    kept = _one_component(mask, coarse)
    expected = np.zeros_like(mask)
    expected[10:20, 25:35] = True
    np.testing.assert_array_equal(kept, expected)
    assert not _one_component(mask, np.zeros_like(mask)).any()
    assert not _one_component(np.zeros_like(mask), coarse).any()


@pytest.mark.parametrize("seed", range(8))
def test_holes_and_components_as_scipy_finds_them(seed):
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.random((43, 59)), 1.0) > 0.5
    coarse = rng.random((43, 59)) < 0.3
    labels, count = ndimage.label(ndimage.binary_fill_holes(mask))
    overlaps = [int((coarse & (labels == label)).sum()) for label in range(1, count + 1)]
    assert overlaps.count(max(overlaps)) == 1
    np.testing.assert_array_equal(_one_component(mask, coarse), labels == 1 + int(np.argmax(overlaps)))


def test_user_errors_name_the_argument():
    image, coarse = scattered(13, 17, 0)
    with pytest.raises(UserError, match=r"mask is \(13, 16\) but the picture is \(13, 17\)"):
        refine_mask(image, coarse[:, :-1])
    with pytest.raises(UserError, match=r"mask is \(17, 13\)"):
        refine_mask(image, coarse.T)
    with pytest.raises(UserError, match="uint8"):
        refine_mask(image / 255, coarse)
    with pytest.raises(UserError, match="uint8"):
        refine_mask(image[..., 0], coarse)
    with pytest.raises(UserError, match="bool"):
        refine_mask(image, coarse.astype(np.uint8))
    with pytest.raises(UserError, match="no pixels"):
        refine_mask(image[:0], coarse[:0])
    for name in ("sigma_spatial", "sigma_luma", "sigma_chroma", "confidence"):
        for value in (0, -3, math.nan):
            with pytest.raises(UserError, match=name):
                refine_mask(image, coarse, **{name: value})
    with pytest.raises(UserError, match="strength"):
        refine_mask(image, coarse, strength=-1)
