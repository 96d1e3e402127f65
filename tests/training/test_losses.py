"""Eq. 1 to 5 against loops over pixels written out in NumPy, in float64 and with distinct prime sizes."""

import math

import numpy as np
import pytest
import torch

from relevit.errors import UserError
from relevit.training.losses import (
    background_loss,
    confidence_loss,
    foreground_loss,
    foreground_share,
    label_loss,
    relevance_loss,
    total_loss,
)

BATCH, HEIGHT, WIDTH, CLASSES = 3, 5, 7, 11


def draw(seed, soft=True):
    rng = np.random.default_rng(seed)
    maps = rng.uniform(0, 1, (BATCH, HEIGHT, WIDTH))
    masks = rng.choice([0.0, 1.0, 0.25, 0.8] if soft else [0.0, 1.0], (BATCH, HEIGHT, WIDTH))
    ignore = rng.random((BATCH, HEIGHT, WIDTH)) < 0.3
    return maps, masks, ignore


def by_pixels(term, maps, masks, ignore=None):
    total, count = 0.0, 0
    for b in range(BATCH):
        for y in range(HEIGHT):
            for x in range(WIDTH):
                if ignore is not None and ignore[b, y, x]:
                    continue
                total += term(maps[b, y, x], masks[b, y, x])
                count += 1
    return total / count


def background_term(r, s):
    complement = 1.0 if s == 0 else 0.0 if s == 1 else s
    return (r * complement) ** 2


def foreground_term(r, s):
    return (r * s - s) ** 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("with_ignore", [False, True])
def test_relevance_terms(seed, soft, with_ignore):
    maps, masks, ignore = draw(seed, soft)
    region = ignore if with_ignore else None
    arguments = (torch.from_numpy(maps), torch.from_numpy(masks), torch.from_numpy(ignore) if with_ignore else None)
    background = by_pixels(background_term, maps, masks, region)
    foreground = by_pixels(foreground_term, maps, masks, region)
    assert background_loss(*arguments).item() == pytest.approx(background, rel=1e-12)
    assert foreground_loss(*arguments).item() == pytest.approx(foreground, rel=1e-12)
    assert relevance_loss(*arguments).item() == pytest.approx(2.0 * background + 0.3 * foreground, rel=1e-12)
    assert relevance_loss(*arguments, lambda_bg=0.7, lambda_fg=1.9).item() == pytest.approx(
        0.7 * background + 1.9 * foreground, rel=1e-12
    )


def test_mask_polarity():
    """Relevance on the object costs nothing in the background term, and the other way round."""
    masks = torch.zeros(1, 2, 3, dtype=torch.float64)
    masks[0, 0] = 1
    on_object, off_object = masks.clone(), 1 - masks
    assert background_loss(on_object, masks).item() == 0
    assert background_loss(off_object, masks).item() == 0.5
    assert foreground_loss(on_object, masks).item() == 0
    assert foreground_loss(off_object, masks).item() == 0.5
    assert foreground_loss(torch.ones_like(masks), masks).item() == 0  # target S: the background adds nothing


def test_fractional_pixels_keep_their_value_on_both_sides():
    maps = torch.full((1, 1, 1), 0.5, dtype=torch.float64)
    masks = torch.full((1, 1, 1), 0.3, dtype=torch.float64)
    assert background_loss(maps, masks).item() == pytest.approx(0.15**2)
    assert foreground_loss(maps, masks).item() == pytest.approx(0.15**2)


def test_ignored_pixels_have_no_influence():
    maps, masks, ignore = (torch.from_numpy(a) for a in draw(5))
    maps.requires_grad_()
    relevance_loss(maps, masks, ignore).backward()
    assert (maps.grad[ignore] == 0).all()
    assert (maps.grad[~ignore] != 0).any()
    nowhere = relevance_loss(maps, masks, torch.ones_like(ignore))
    assert nowhere.item() == 0


@pytest.mark.parametrize("temperature", [1.0, 0.55])
def test_classification_terms(temperature):
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(BATCH, CLASSES)) * 3, np.array([4, 0, 10])
    expected = {"confidence": 0.0, "label": 0.0}
    for row, label in zip(logits, labels, strict=True):
        log_sum = math.log(sum(math.exp(value / temperature) for value in row))
        expected["confidence"] += (log_sum - max(row) / temperature) / BATCH
        expected["label"] += (log_sum - row[label] / temperature) / BATCH
    tensor = torch.from_numpy(logits)
    assert confidence_loss(tensor, temperature).item() == pytest.approx(expected["confidence"], rel=1e-12)
    with_labels = label_loss(tensor, torch.from_numpy(labels), temperature)
    assert with_labels.item() == pytest.approx(expected["label"], rel=1e-12)


def test_total_loss():
    relevance, classification = torch.tensor(3.0), torch.tensor(7.0)
    assert total_loss(relevance, classification).item() == pytest.approx(0.8 * 3 + 0.2 * 7)
    assert total_loss(relevance, classification, 0.1, 2.0).item() == pytest.approx(0.1 * 3 + 2.0 * 7)


def test_foreground_share():
    maps, masks, ignore = draw(7)
    maps[1] = 0
    share = foreground_share(torch.from_numpy(maps), torch.from_numpy(masks), torch.from_numpy(ignore))
    for b in (0, 2):
        kept = ~ignore[b]
        assert share[b].item() == pytest.approx((maps[b] * masks[b])[kept].sum() / maps[b][kept].sum(), rel=1e-12)
    assert share[1].item() == 0


def test_half_precision_maps_are_summed_in_single_precision():
    maps, masks, _ = (torch.from_numpy(a) for a in draw(2))
    loss = relevance_loss(maps.bfloat16(), masks.float())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(relevance_loss(maps.bfloat16().double(), masks).item(), rel=1e-6)


def test_other_shapes_are_refused():
    maps = torch.zeros(2, 5, 7)
    with pytest.raises(UserError, match="masks are"):
        background_loss(maps, torch.zeros(2, 7, 5))
    with pytest.raises(UserError, match="ignore regions are"):
        foreground_loss(maps, maps, torch.zeros(2, 1, 7, dtype=torch.bool))
