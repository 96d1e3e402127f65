"""Fine-tuning, probing and loading again of models of other libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import relevit
from foreign_models import FOREIGN, images_for
from relevit.models import families
from relevit.training.loop import finetune
from tiny_run import TinySamples, arguments, same, weights


@pytest.mark.parametrize("kind", ["ViT", "CLIP", "torchvision"])
def test_a_run_comes_back(kind: str, tmp_path: Path) -> None:
    """Trained, saved in the library's form, loaded from the run, and finished when called again."""
    model = FOREIGN[kind]()
    result = finetune(model, TinySamples(4), tmp_path / "run", **arguments(epochs=1))
    for place in ("run", "run/last"):
        again, _ = relevit.load(tmp_path / place)
        assert type(again) is type(model) and same(weights(again), weights(result.model))
    once_more = finetune(relevit.load(tmp_path / "run")[0], TinySamples(4), tmp_path / "run", **arguments(epochs=1))
    assert once_more.metrics == result.metrics


@pytest.mark.parametrize("kind", sorted(FOREIGN))
def test_heads(kind: str) -> None:
    """The head applied to the features gives the logits, also a new one."""
    model = FOREIGN[kind]().double()
    images, family = images_for(model), families.of_module(model)
    features = families.features(model, images)
    weight, bias = torch.randn(3, features.shape[1]).double(), torch.randn(3).double()
    family.replace_head(model, weight, bias, ["ant", "bee", "cow"])
    torch.testing.assert_close(families.logits_of(model, images), features @ weight.T + bias)
    assert families.class_count(model) == 3 and families.labels(model) == {0: "ant", 1: "bee", 2: "cow"}
