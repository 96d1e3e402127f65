"""Masks of a batch of pictures: polarity, axes, sizes."""

import numpy as np
import pytest
import torch
from PIL import Image

import relevit.masking.make as automatic
from relevit.errors import UserError
from relevit.masking.make import automatic_masks
from relevit.masking.refinement import NO_OBJECT, OBJECT, backbone_size, finished_mask, working_size
from relevit.models.attention import patch_size
from tiny_masks import colour_features, picture
from tiny_run import tiny_model


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    monkeypatch.setattr(automatic, "patch_features", colour_features)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("box", [(24, 4, 36, 16), (4, 16, 12, 24), (0, 0, 8, 12)])
@pytest.mark.parametrize("refine", [False, True])
def test_polarity_and_axes(model, box, refine):
    """The box is aligned with the patches, so that the mask is exact; the picture is wider than high."""
    image, expected = picture(40, 28, box)
    (made,) = automatic_masks(model, [image], refine=refine)
    np.testing.assert_array_equal(made.coarse, expected)
    np.testing.assert_array_equal(made.mask, expected)
    assert made.outcome == OBJECT and made.quality.agreement == 1
    assert made.quality.share == pytest.approx(expected.mean())


def test_refinement_finds_the_edge_between_patches(model):
    image, expected = picture(44, 36, (10, 5, 29, 23))
    (coarse,) = automatic_masks(model, [image], refine=False)
    (fine,) = automatic_masks(model, [image])
    assert (coarse.mask != expected).sum() > 0
    np.testing.assert_array_equal(fine.mask, expected)
    np.testing.assert_array_equal(fine.coarse, coarse.mask)


def test_order_is_kept_whatever_the_sizes_and_the_batch(model):
    boxes = [
        ((40, 28), (4, 4, 16, 16)),
        ((28, 40), (12, 20, 24, 32)),
        ((40, 28), (24, 8, 36, 20)),
        ((20, 20), (4, 4, 12, 8)),
    ]
    pairs = [picture(*size, box, seed=i) for i, (size, box) in enumerate(boxes)]
    for batch_size in (1, 2, 16):
        made = automatic_masks(model, [image for image, _ in pairs], batch_size=batch_size)
        for one, (_, expected) in zip(made, pairs, strict=True):
            np.testing.assert_array_equal(one.mask, expected)


def test_size_is_the_short_side_and_masks_have_the_pictures_own(model):
    image, expected = picture(80, 56, (48, 8, 72, 32))
    seen = []

    def spy(model, images, **options):
        seen.append(tuple(images.shape))
        return colour_features(model, images, **options)

    automatic.patch_features = spy  # restored by the fixture's monkeypatch
    (made,) = automatic_masks(model, [image], size=28)
    (bounded,) = automatic_masks(model, [image], max_side=40)
    assert seen == [(1, 3, 28, 40)] * 2
    for mask in (made, bounded):
        assert mask.mask.shape == mask.coarse.shape == (56, 80)
        np.testing.assert_array_equal(mask.coarse, expected)
    np.testing.assert_array_equal(bounded.mask, expected)  # refined at its own size
    assert (made.mask != expected).mean() < 0.02  # refined at half of it


def test_no_object_in_a_flat_picture(model):
    (made,) = automatic_masks(model, [Image.new("RGB", (32, 24), (200, 200, 200))])
    assert made.outcome == NO_OBJECT and not made.mask.any() and made.quality.confidence == 0
    assert made.mask.shape == (24, 32)


def test_sizes():
    assert backbone_size(500, 375, (16, 16)) == (496, 368)  # 31.25 and 23.44 patches
    assert backbone_size(24, 40, (16, 16)) == (32, 48)  # halves are rounded up
    assert backbone_size(3000, 1000, (16, 16), max_side=480) == (480, 160)
    assert backbone_size(5, 5, (16, 14)) == (28, 32)  # two patches at least
    assert backbone_size(640, 480, (16, 16), size=224) == (304, 224)  # 298.67
    assert working_size(640, 480, None) == (640, 480)
    assert working_size(640, 480, 224) == (299, 224)
    width, height = working_size(6000, 4000, None)
    assert width * height == pytest.approx(2e6, rel=1e-2) and width / height == pytest.approx(1.5, rel=1e-3)


def test_a_large_picture_is_refined_at_a_smaller_size():
    image, expected = picture(2400, 1600, (600, 400, 1200, 800))
    made = finished_mask(image, expected[::16, ::16][:100, :150], (0.1, 0.9))
    assert made.mask.shape == (1600, 2400)
    assert (made.mask != expected).mean() < 0.01


def test_grey_pictures_and_the_models_mode(model):
    image, expected = picture()
    model.train()
    (made,) = automatic_masks(model, [image.convert("L")])
    np.testing.assert_array_equal(made.mask, expected)
    assert model.training
    model.eval()


def test_errors(model):
    with pytest.raises(UserError, match="no global attention maps"):
        patch_size(torch.nn.Linear(2, 2))
    for name in ("size", "max_side", "batch_size"):
        with pytest.raises(UserError, match=name):
            automatic_masks(model, [picture()[0]], **{name: 0})
    assert automatic_masks(model, []) == []
