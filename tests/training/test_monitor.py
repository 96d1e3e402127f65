import math

import pytest
import torch

from relevit.training.monitor import NonFiniteLossError, check_finite, collapse_warning, collapsed


def test_finite_values_pass():
    check_finite(3, {"loss": 1.0, "background": 0.0}, ["a"])


def test_the_faulty_samples_are_named():
    logits = torch.zeros(3, 5)
    logits[1, 2] = math.nan
    values, names = {"background": 0.1, "confidence": math.nan}, ["cat", "cow", "dog"]
    message = r"step 7: confidence is nan, with the training samples cow\. "
    with pytest.raises(NonFiniteLossError, match=message) as error:
        check_finite(7, values, names, logits, torch.zeros(3, 2, 2))
    assert "cat" not in str(error.value)


def test_all_samples_are_named_where_nothing_is_known():
    with pytest.raises(NonFiniteLossError, match="gradient is inf, with the validation samples cat, dog"):
        check_finite(7, {"gradient": math.inf}, ["cat", "dog"], role="validation")


def test_collapsed_maps():
    maps = torch.zeros(5, 8, 8)
    maps[1] = 1  # high everywhere
    maps[2, 3, 4] = 1  # one of 64 patches
    maps[3, :4] = 1  # half of the picture
    maps[4, 2:4, 2:4] = 1  # a small object
    assert collapsed(maps, 64).tolist() == [True, True, True, False, False]


def test_collapse_warning():
    assert collapse_warning(3, 0.5) is None
    assert "in epoch 3 the relevance map was flat" in str(collapse_warning(3, 0.75))
    assert "75%" in str(collapse_warning(3, 0.75))
