"""torchvision's VisionTransformer against its own attention weights, its preprocessing and its names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.models import ViT_B_16_Weights, get_model

import relevit
from foreign_models import images_for, torchvision_model
from relevit.errors import UserError
from relevit.models import families
from relevit.models.attention import capture, unsupported_reason
from relevit.models.families.torchvision import _view
from relevit.models.multi_head import multi_head_attention
from relevit.models.saving import save_checkpoint
from relevit.models.view import EvaluationView


def test_against_the_weights_that_torch_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """float64: maps of the attention that nn.MultiheadAttention itself gives out, and of one autograd call a block."""
    model: Any = torchvision_model().double()
    images, target, caught = images_for(model), torch.tensor([3, 1]), []
    softmax = F.softmax

    def caught_softmax(*args: Any, **kwargs: Any) -> torch.Tensor:
        caught.append(softmax(*args, **kwargs))
        return caught[-1]

    for block in model.encoder.layers:  # with need_weights, torch writes its attention out
        plain = block.self_attention.forward
        block.self_attention.forward = lambda *args, plain=plain, **kw: plain(*args, **{**kw, "need_weights": True})
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "softmax", caught_softmax)
        wanted_logits = model(images)
    for block in model.encoder.layers:
        del block.self_attention.forward
    assert len(caught) == 3
    gradients = torch.autograd.grad(wanted_logits.gather(1, target[:, None]).sum(), caught, retain_graph=True)
    start = matrix = torch.eye(10, dtype=torch.float64).expand(2, -1, -1)
    for weights, gradient in zip(caught, gradients, strict=True):
        positive = (
            (weights * gradient).relu().unflatten(0, (2, -1)) if weights.ndim == 3 else (weights * gradient).relu()
        )
        matrix = matrix + positive.mean(dim=1) @ matrix
    wanted = (matrix - start)[:, 0, 1:].unflatten(1, (3, 3))
    logits, maps = relevit.forward_with_relevance(model, images, target, upscale=False, normalize=False)
    torch.testing.assert_close(logits, wanted_logits, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(maps, wanted, rtol=1e-9, atol=1e-12)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(maps.square().sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad(wanted.square().sum(), parameters, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("mask", [None, "float", "bool", "each"])
def test_multi_head_attention_step_by_step(apart: bool, mask: str | None) -> None:
    torch.manual_seed(0)
    layer = torch.nn.MultiheadAttention(12, 3, kdim=7 if apart else None, vdim=5 if apart else None).double()
    query = torch.randn(4, 2, 12, dtype=torch.float64)
    key, value = (torch.randn(6, 2, 7 if x else 5).double() for x in (1, 0)) if apart else (query, query)
    shape = (4, key.shape[0])
    masks = {
        None: None, "float": torch.randn(shape).double(), "bool": torch.rand(shape) > 0.7, "each": torch.randn(6, *shape).double(),
    }  # fmt: skip
    if mask == "bool":
        masks["bool"][:, 0] = False
    wanted, _ = layer(query, key, value, attn_mask=masks[mask], need_weights=True)

    def attend(q: Any, k: Any, v: Any, bias: Any, dropout: float) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, bias, dropout)

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is F.multi_head_attention_forward:
                return multi_head_attention(attend, *args, **(kwargs or {}))
            return func(*args, **(kwargs or {}))

    with Mode():
        found, _ = layer(query, key, value, attn_mask=masks[mask], need_weights=False)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_padding_is_refused() -> None:
    model: Any = torchvision_model()
    layer = model.encoder.layers[0].self_attention
    with capture(model), pytest.raises(UserError, match="padding"):
        x = torch.randn(2, 4, 24)
        layer(x, x, x, key_padding_mask=torch.zeros(2, 4, dtype=torch.bool))


def test_views_are_the_weights_own_transforms() -> None:
    settings = ViT_B_16_Weights.IMAGENET1K_V1.transforms()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (271, 303, 3), dtype=np.uint8))
    config = {"input_size": (3, 224, 224), **_view(settings)}
    torch.testing.assert_close(EvaluationView(config)(picture), settings(picture), rtol=0, atol=1e-5)


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, weights, categories; untrained without a download."""
    import torchvision.models

    def small(name: str, weights: Any = None, **arguments: Any) -> Any:
        return torchvision_model()

    monkeypatch.setattr(torchvision.models, "get_model", small)
    model, view = relevit.load("torchvision:vit_b_16/IMAGENET1K_SWAG_E2E_V1", pretrained=False)
    assert view.crop_pct == 1.0 and model._relevit_labels[0] == "tench"
    assert families.class_count(relevit.load("torchvision:vit_b_16", num_classes=4)[0]) == 4
    with pytest.raises(UserError, match="IMAGENET1K_V1"):
        relevit.load("torchvision:vit_b_16/NONE")
    with pytest.raises(UserError, match="vit_l_32"):
        relevit.load("torchvision:vit_b_17")


def test_folders(tmp_path: Path) -> None:
    """Weights by torchvision's own names, and all that rebuilds the model."""
    model: Any = torchvision_model(representation_size=20)
    model._relevit_labels = list("abcdefg")
    save_checkpoint(tmp_path / "saved", model)
    again, view = relevit.load(tmp_path / "saved")
    images = images_for(model)
    assert torch.equal(again(images), model(images)) and families.labels(again)[6] == "g"
    assert view.crop_pct == 224 / 256
    model.encoder.layers[0].mlp[0] = torch.nn.Linear(24, 50)
    model.encoder.layers[0].mlp[3] = torch.nn.Linear(50, 24)
    with pytest.raises(UserError, match="altered"):
        save_checkpoint(tmp_path / "other", model)


def test_what_is_refused() -> None:
    swin = get_model("swin_t", weights=None, num_classes=3)
    assert "windows" in str(unsupported_reason(swin))
    assert "no attention" in str(unsupported_reason(get_model("resnet18", weights=None)))
    with pytest.raises(UserError, match="48 x 48"):
        relevit.relevance(torchvision_model(), torch.zeros(1, 3, 64, 64))
