"""evaluation/calibration.py against torchmetrics and by hand."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from relevit.evaluation.accuracy.calibration import calibration


def test_against_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(5)
    logits, labels = 2 * torch.randn(1009, 7, generator=generator), torch.randint(7, (1009,), generator=generator)
    labels = torch.where(torch.rand(1009, generator=generator) < 0.4, logits.argmax(1), labels)
    confidence, answer = logits.softmax(1).max(1)
    expected = multiclass_calibration_error(logits.softmax(1), labels, 7, n_bins=15, norm="l1").item()
    found = calibration(confidence.numpy(), (answer == labels).numpy())
    assert found.ece == pytest.approx(100 * expected, abs=1e-3) and sum(found.counts) == 1009


def test_by_hand() -> None:
    # two bins: (0, 0.5] has 0.25 miss, 0.5 hit; (0.5, 1] has 0.75 hit, 1 hit, 0.9 miss
    found = calibration(np.array([0.25, 0.5, 0.75, 1.0, 0.9]), np.array([False, True, True, True, False]), bins=2)
    assert found.counts == [2, 3]
    assert found.hits == pytest.approx([50, 200 / 3]) and found.confidences == pytest.approx([37.5, 265 / 3])
    assert found.ece == pytest.approx(2 / 5 * 12.5 + 3 / 5 * (265 / 3 - 200 / 3))


def test_edges_belong_to_the_lower_bin_and_zero_to_the_first() -> None:
    found = calibration(np.array([0.0, 1 / 3, 2 / 3, 1.0]), np.array([True] * 4), bins=3)
    assert found.counts == [2, 1, 1]


def test_what_has_no_confidence_is_left_out() -> None:
    found = calibration(np.array([np.nan, 0.8], np.float32), np.array([False, True]))
    assert found.ece == pytest.approx(20, abs=1e-4) and sum(found.counts) == 1
    assert np.isnan(calibration(np.array([], np.float32), np.array([], bool)).ece)
    assert dict(found)["ece"] == found.ece and found.to_dict()["ece"] == pytest.approx(20, abs=1e-3)
