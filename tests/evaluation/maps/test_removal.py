"""Pixels taken out of pictures: orders, counts and fill by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pixel_model import HEIGHT, VIEW, WIDTH
from relevit.evaluation.maps.perturbation import SHARES
from relevit.evaluation.maps.removal import filled, pixel_count, random_ranks, removal_ranks, with_pixels_removed


def test_order_by_hand() -> None:
    maps = torch.tensor([[0.5, 0.9, 0.5, 0.1, 0.9], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert removal_ranks(maps, most_first=True).tolist() == [[2, 0, 3, 4, 1], [0, 1, 2, 3, 4]]
    assert removal_ranks(maps, most_first=False).tolist() == [[1, 3, 2, 0, 4], [0, 1, 2, 3, 4]]


def test_counts() -> None:
    assert [pixel_count(share, 35) for share in SHARES] == [3, 7, 10, 14, 17, 21, 24, 28, 31]
    assert pixel_count(0.29, 100) == 29 and int(0.29 * 100) == 28  # floats alone would lose one
    assert pixel_count(0.0, 35) == 0 and pixel_count(1.0, 35) == 35


def test_exactly_the_first_pixels_are_replaced() -> None:
    images = torch.randn(2, 3, HEIGHT, WIDTH)
    other = torch.full_like(images, 100.0)
    ranks = torch.stack([torch.randperm(35), torch.randperm(35)])
    seen = []

    class Recorder(nn.Module):
        def forward(self, pictures: Tensor) -> Tensor:
            seen.append(pictures)
            return pictures.flatten(1)

    counts = [0, 3, 35]
    replaced = with_pixels_removed(
        Recorder(), images, other, ranks, counts, lambda logits, rows: (logits == 100).sum(dim=1), 4
    )
    assert replaced.tolist() == [[0, 9, 105], [0, 9, 105]]
    pictures = torch.cat(seen).unflatten(0, (2, 3))
    for image in range(2):
        for step, count in enumerate(counts):
            gone = (ranks[image] < count).view(HEIGHT, WIDTH)
            assert (pictures[image, step][:, gone] == 100).all()
            assert torch.equal(pictures[image, step][:, ~gone], images[image][:, ~gone])


def test_fill() -> None:
    images = torch.stack(
        [VIEW(picture) for picture in np.random.default_rng(3).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)]
    )
    black = VIEW(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert torch.allclose(filled(images, "black", VIEW)[1], black, atol=1e-6)
    assert black[0, 0, 0] == pytest.approx(-2) and black[1, 0, 0] == pytest.approx(-1)  # 0 after it would be the mean
    grey = VIEW(np.full((HEIGHT, WIDTH, 3), 51, np.uint8))
    assert torch.allclose(filled(images, 0.2, VIEW)[0], grey, atol=1e-6)
    assert filled(images, "mean", VIEW).abs().max() == 0
    assert torch.allclose(VIEW.mean + VIEW.std * filled(images, "mean", VIEW)[0], VIEW.mean.expand(3, HEIGHT, WIDTH))


def test_blur_against_a_direct_sum() -> None:
    images = torch.randn(2, 3, 61, 47, dtype=torch.float64)
    blurred = filled(images, "blur", VIEW)
    sigma = 47 / 20
    reach = int(3 * sigma)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    padded = np.pad(images[1, 2].numpy(), reach, mode="reflect")
    expected = sum(
        weights[i] * weights[j] * padded[i : i + 61, j : j + 47]
        for i in range(len(offsets))
        for j in range(len(offsets))
    )
    assert np.allclose(blurred[1, 2].numpy(), expected, atol=1e-9)


def test_random_patches_leave_as_regions() -> None:
    from relevit.models.loading import load

    model, _ = load("builtin", pretrained=False)
    ranks = random_ranks(model, torch.randn(2, 3, 48, 48), [0, 1], "patches", 0)
    assert sorted(ranks[0].tolist()) == list(range(48 * 48))
    gone = (ranks < 1000).view(2, 48, 48)
    # next to a removed pixel there is mostly another one; of single pixels 1000 of 2304 would be, 43 %
    assert (gone[:, :, 1:] & gone[:, :, :-1]).sum() / gone[:, :, :-1].sum() > 0.8
    assert not torch.equal(gone[0], gone[1])
