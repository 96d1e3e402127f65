"""What every explainer owes to every family of models of other libraries."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import relevit
from foreign_models import FOREIGN, images_for
from relevit.explainers import EXPLAINERS, integrated_gradients, smoothgrad
from relevit.models import families
from relevit.models.attention import token_layout

_UNUSED = ("mask_token", "pooler", "logit_scale", "logit_bias")


@cache
def built(kind: str) -> nn.Module:
    return FOREIGN[kind]()


@cache
def used(kind: str) -> frozenset[str]:
    """The weights on which the logits depend."""
    model = built(kind)
    loss = families.logits_of(model, images_for(model)).square().sum()
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return frozenset(name for name, one in zip(names, found, strict=True) if one is not None)


@pytest.mark.parametrize("kind", sorted(FOREIGN))
@pytest.mark.parametrize("explainer", sorted(EXPLAINERS))
@pytest.mark.quick_where(lambda explainer, kind: explainer == "gae" or kind == "ViT")
def test_contract(explainer: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shape, range, the model's own logits, a gradient in every weight that logits depend on, nothing changed."""
    monkeypatch.setattr(integrated_gradients, "STEPS", 2)
    monkeypatch.setattr(smoothgrad, "SAMPLES", 2)
    model: Any = copy.deepcopy(built(kind))
    images = images_for(model)
    plain = families.logits_of(model, images)
    before = {name: sorted(module.__dict__) for name, module in model.named_modules()}
    second_order = EXPLAINERS[explainer].needs_second_order
    logits, maps = relevit.forward_with_relevance(model, images, explainer=explainer, second_order=second_order)
    assert before == {name: sorted(module.__dict__) for name, module in model.named_modules()}
    torch.testing.assert_close(logits, plain, rtol=1e-4, atol=1e-5)
    assert maps.shape == (2, *images.shape[-2:]) and maps.isfinite().all() and 0 <= maps.min() and maps.max() <= 1
    patches = relevit.relevance(model, images, 4, explainer, upscale=False, normalize=False)
    assert patches.shape == (2, *token_layout(model, *images.shape[-2:]).grid) and (patches >= 0).all()
    assert maps.requires_grad == EXPLAINERS[explainer].trains
    if maps.requires_grad:
        (maps.square().mean() + logits.square().mean()).backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.isfinite().all()}
        assert reached == used(kind)
