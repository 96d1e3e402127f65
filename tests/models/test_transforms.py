"""Views: the evaluation view equals timm's, the training view moves image and mask alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from relevit.errors import UserError
from relevit.models.view import TrainingView, evaluation_view

CONFIG = {
    "input_size": (3, 23, 29),
    "mean": (0.5, 0.25, 0.125),
    "std": (0.5, 0.2, 0.1),
    "interpolation": "bilinear",
    "crop_pct": 0.875,
    "crop_mode": "center",
}
PLAIN = {**CONFIG, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(31, 53), (53, 31), (17, 19), (29, 29), (20, 97)])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("input_size", [(3, 23, 23), (3, 23, 29)])
@pytest.mark.parametrize(("interpolation", "crop_pct"), [("bilinear", 0.875), ("bicubic", 1.0)])
def test_the_evaluation_view_is_timms(
    size: tuple[int, int], crop_mode: str, input_size: tuple[int, ...], interpolation: str, crop_pct: float
) -> None:
    config = {
        **CONFIG,
        "input_size": input_size,
        "interpolation": interpolation,
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
    }
    picture = Image.fromarray(noise(*size))
    assert torch.equal(evaluation_view(config)(picture), create_transform(**config, is_training=False)(picture))


def test_a_uint8_array_and_a_grey_picture_are_taken_too() -> None:
    view = evaluation_view(CONFIG)
    values = noise(31, 53)
    assert torch.equal(view(values), view(Image.fromarray(values)))
    assert view(Image.fromarray(values[..., 0])).shape == (3, 23, 29)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(31, 53), (53, 31), (20, 97)])
def test_the_mask_goes_with_the_picture_in_evaluation(crop_mode: str, size: tuple[int, int]) -> None:
    # A picture that is white where the mask is 1: image and mask must be the same after any geometry.
    mask = (np.random.default_rng(1).random(size) > 0.5).astype(np.float32)
    white = np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=-1)
    image, soft, ignore = evaluation_view({**PLAIN, "crop_mode": crop_mode}).with_mask(white, mask)
    assert image.shape == (3, 23, 29) and soft.shape == (23, 29) and ignore.dtype == torch.bool
    assert (image[0] - soft).abs().max() < 0.02
    assert not ignore.any()


def test_training_moves_image_mask_and_ignored_pixels_alike() -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((31, 53)).astype(np.float32)
    ignore = rng.random((31, 53)) > 0.9
    white = np.stack([np.round(mask * 255), ignore * 255, 0 * mask], -1).astype(np.uint8)
    view = TrainingView(PLAIN, resize=1.5)
    seen = set()
    for seed in range(8):
        image, soft, region = view(white, mask, ignore, torch.Generator().manual_seed(seed))
        assert image.shape == (3, 23, 29)
        assert (image[0] - soft).abs().max() < 0.02
        assert region[image[1] > 0.02].all() and not region[image[1] == 0].all()
        seen.add(tuple(image[0].flatten()[:3].tolist()))
    assert len(seen) == 8  # another crop each time


def test_the_same_generator_gives_the_same_view() -> None:
    values, mask = noise(31, 53), np.ones((31, 53), np.float32)
    one, other = (TrainingView(CONFIG)(values, mask, None, torch.Generator().manual_seed(5))[0] for _ in range(2))
    assert torch.equal(one, other)


def test_resize_one_without_flip_is_the_identity() -> None:
    values = noise(23, 29)
    mask = np.random.default_rng(0).random((23, 29)).astype(np.float32)
    view = TrainingView(PLAIN, resize=1.0, flip=0.0)
    image, soft, ignore = view(values, mask, None, torch.Generator())
    assert torch.equal(image, torch.from_numpy(values).permute(2, 0, 1) / 255)
    assert torch.equal(soft, torch.from_numpy(mask)) and not ignore.any()
    flipped, turned, _ = TrainingView(PLAIN, resize=1.0, flip=1.0)(values, mask, None, torch.Generator())
    assert torch.equal(flipped.flip(-1), image) and torch.equal(turned.flip(-1), soft)


def test_squashing_keeps_the_whole_picture() -> None:
    # A vertical edge in the middle stays in the middle whatever the shape of the picture; a soft pixel stays soft.
    mask = np.zeros((31, 54), np.float32)
    mask[:, 27:] = 1
    soft = TrainingView({**PLAIN, "input_size": (3, 23, 29)}, resize=1.0, flip=0.0)(noise(31, 54), mask).mask
    assert (soft[:, :13] == 0).all() and (soft[:, 16:] == 1).all()  # exactly, not 0.9999999
    assert ((soft[:, 14] > 0) & (soft[:, 14] < 1)).all()


def test_half_of_the_views_are_flipped() -> None:
    mask = np.zeros((23, 29), np.float32)
    mask[:, 20:] = 1
    view, generator = TrainingView(PLAIN, resize=1.0), torch.Generator().manual_seed(0)
    flips = sum(bool(view(noise(23, 29), mask, None, generator).mask[0, 0]) for _ in range(200))
    assert 75 <= flips <= 125


def test_restore_undoes_the_normalisation() -> None:
    values = noise(23, 29)
    view = TrainingView(CONFIG, resize=1.0, flip=0.0)
    assert np.array_equal(view.restore(view(values, np.ones((23, 29), np.float32)).image), values)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UserError, match="resize"):
        TrainingView(CONFIG, resize=0.9)
    with pytest.raises(UserError, match="flip"):
        TrainingView(CONFIG, flip=1.1)
    with pytest.raises(UserError, match="mask is 5 x 3 pixels, its picture 29 x 23"):
        TrainingView(CONFIG)(noise(23, 29), np.ones((3, 5), np.float32))
    with pytest.raises(UserError, match="uint8"):
        evaluation_view(CONFIG)(np.zeros((5, 7, 3)))
    with pytest.raises(UserError, match="interpolation"):
        evaluation_view({**CONFIG, "interpolation": "wavelet"})
