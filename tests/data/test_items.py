"""Items of any data set in one form: every kind of image and mask, and refusals that say what was expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from relevit.data.sample import Sample, as_sample
from relevit.errors import UserError

HEIGHT, WIDTH = 5, 7
MASK = (np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.5).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "mask",
    [
        MASK,
        MASK.astype(bool),
        MASK.astype(np.uint8),
        (255 * MASK).astype(np.uint8),
        torch.from_numpy(MASK),
        torch.from_numpy(MASK) > 0,
        torch.from_numpy(MASK)[None],
        torch.from_numpy(255 * MASK).long(),
        Image.fromarray((255 * MASK).astype(np.uint8)),
        Image.fromarray(MASK > 0),
    ],
    ids=lambda mask: f"{type(mask).__name__} {getattr(mask, 'dtype', '')}",
)
def test_masks_of_every_kind(mask: Any) -> None:
    sample = as_sample((PIXELS, mask, 3))
    assert np.array_equal(sample.mask, MASK) and sample.mask.dtype == np.float32


def test_images_of_every_kind() -> None:
    assert np.array_equal(as_sample((PIXELS, MASK, 3)).image, PIXELS)
    assert np.array_equal(as_sample((PIXELS[..., 0], MASK, 3)).image, np.stack([PIXELS[..., 0]] * 3, -1))
    for picture in (Image.fromarray(PIXELS), Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]]))):
        image = as_sample((picture, MASK, 3)).image
        assert isinstance(image, Image.Image) and np.array_equal(np.asarray(image), PIXELS)
    tensor = torch.randn(3, HEIGHT, WIDTH)
    assert as_sample((tensor, MASK, 3)).image is tensor
    assert as_sample((tensor.double(), MASK, 3)).image.dtype == torch.float32  # type: ignore[union-attr]


@pytest.mark.parametrize("label", [3, np.int64(3), torch.tensor(3), np.array(3)])
def test_labels_names_and_ignored_pixels(label: Any) -> None:
    sample = as_sample((PIXELS, MASK, label, MASK == 0, "mine"))
    assert sample.label == 3 and type(sample.label) is int
    assert sample.ignore is not None and np.array_equal(sample.ignore, MASK == 0)
    assert sample.name == "mine"
    assert as_sample((PIXELS, MASK, None), 17)[2:] == (-1, None, "sample 17")
    assert as_sample(Sample(PIXELS, MASK, 3, name="x")).name == "x"


@pytest.mark.parametrize(
    ("item", "hint"),
    [
        ((PIXELS, MASK), "sample 17 must be .*tuple of 2"),
        ({"image": PIXELS}, "not dict"),
        ((PIXELS.astype(float), MASK, 3), "uint8"),
        ((torch.zeros(3, 5, 7, dtype=torch.uint8), MASK, 3), "float"),
        ((torch.zeros(5, 7, 3), MASK, 3), r"\(3, height, width\)"),
        ((PIXELS, MASK.T, 3), r"mask is 5 x 7 pixels, the image 7 x 5"),
        ((torch.zeros(3, 7, 5), MASK, 3), r"mask is 7 x 5 pixels, the image 5 x 7"),
        ((PIXELS, MASK, 3, MASK.T), r"ignored region is 5 x 7"),
        ((PIXELS, MASK * 2, 3), r"\[0, 1\]"),
        ((PIXELS, "mask.png", 3), "not str"),
        ((PIXELS, MASK, 2.5), "whole number"),
        ((PIXELS, MASK, -2), "whole number"),
        ((PIXELS, MASK, "cow", None, "mine"), "mine: the label"),
    ],
)
def test_other_things_are_refused(item: Any, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        as_sample(item, 17)
