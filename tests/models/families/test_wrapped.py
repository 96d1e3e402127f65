"""`relevit.wrap`: the facts that are found of a module, its maps against a second derivation, and a planted wrong fact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relevit
from foreign_models import WRAPPED, OwnSoftmax, torchvision_model, vit_pytorch_model
from relevit.errors import UserError
from relevit.models import families
from relevit.models.attention import token_layout
from relevit.models.saving import save_checkpoint
from relevit.models.wrapping import wrap
from relevit.training.loop import finetune
from tiny_run import TinySamples, arguments, same, weights

FOUND = {  # prefix, suffix, first and last token that is read with its share
    "vit-pytorch ViT": (1, 0, [(0, 1, 1.0)]),
    "vit-pytorch mean": (0, 0, [(0, 9, 1.0)]),
    "vit-pytorch SimpleViT": (0, 0, [(0, 9, 1.0)]),
    "vit-pytorch registers": (0, 4, [(0, 9, 1.0)]),
    "vit-pytorch distilled": (1, 0, [(0, 1, 1.0)]),
    "own softmax": (1, 0, [(0, 1, 0.5), (1, 10, 0.5)]),
    "DINO's style": (1, 0, [(0, 1, 1.0)]),
    "torchvision as it is": (1, 0, [(0, 1, 1.0)]),
}


@pytest.mark.parametrize("kind", sorted(WRAPPED))
def test_facts(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = wrap(WRAPPED[kind](), 48)
    facts, (prefix, suffix, read) = model.facts, FOUND[kind]
    assert (facts.prefix, facts.suffix, facts.grid, facts.patch_size) == (prefix, suffix, (3, 3), (16, 16))
    assert [(branch.start, branch.stop, branch.share) for branch in facts.readout] == read
    assert facts.maps == 3 and facts.class_count == 7
    told = capsys.readouterr()
    assert "3 x 3 patches (found)" in " ".join((told.out + told.err).split())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def direct(model: Any, images: Tensor, target: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The map of what the module's own softmax gives, with full matrices, float64."""
    caught: list[Tensor] = []
    plain, method = torch.softmax, torch.Tensor.softmax

    def catch(result: Tensor) -> Tensor:
        caught.append(result)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(torch, "softmax", lambda *args, **kwargs: catch(plain(*args, **kwargs)))
        patch.setattr(torch.Tensor, "softmax", lambda *args, **kwargs: catch(method(*args, **kwargs)))
        logits = model(images)
    gradients = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), caught, retain_graph=True)
    start = matrix = torch.eye(caught[0].shape[-1], dtype=images.dtype).expand(len(images), -1, -1)
    for attention, gradient in zip(caught, gradients, strict=True):
        positive = (attention * gradient).relu().reshape(len(images), -1, *attention.shape[-2:])
        matrix = matrix + positive.mean(dim=1) @ matrix
    layout = token_layout(model, *images.shape[-2:])
    row = torch.einsum("bq,bqk->bk", layout.weigh(images.new_zeros(len(images), layout.tokens)), matrix - start)
    return row[:, layout.prefix : layout.prefix + 9].unflatten(1, (3, 3))


@pytest.mark.parametrize("kind", [kind for kind in sorted(WRAPPED) if kind != "torchvision as it is"])
def test_maps_of_a_softmax_of_its_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = wrap(WRAPPED[kind](), 48, check=False, verbose=False).double()
    images, target = torch.randn(2, 3, 48, 48, dtype=torch.float64), torch.tensor([3, 1])
    maps = relevit.relevance(model, images, target, upscale=False, normalize=False)
    wanted = direct(model, images, target, monkeypatch)
    torch.testing.assert_close(maps, wanted, rtol=1e-9, atol=1e-12)
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(m.square().sum(), parameters, allow_unused=True) for m in (maps, wanted))
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prefix": 2}, "prefix is wrong"),
        ({"suffix": 1}, "suffix is wrong"),
        ({"grid": (1, 9)}, "grid is wrong"),
        ({"readout": "patches"}, "readout is wrong"),
        ({"readout": [0.5, 0.5] + [0.0] * 8}, "readout is wrong"),
        ({"attentions": ["transformer.layers.0.0", "transformer.layers.1.0"]}, "attentions are wrong"),
    ],
)
def test_a_wrong_fact_is_found(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        wrap(vit_pytorch_model("ViT"), 48, verbose=False, **wrong)


class Twice(OwnSoftmax):
    """Multiplies its attention with itself behind our back: the derivative by what was taken is another one."""

    def forward(self, images: Tensor) -> Any:
        softmax = torch.softmax

        def unseen(*args: Any, **kwargs: Any) -> Tensor:
            weights = softmax(*args, **kwargs)
            return weights + (weights - weights.detach())

        torch.softmax = unseen
        try:
            return super().forward(images)
        finally:
            torch.softmax = softmax


def test_a_derivative_that_is_not_that_of_the_weights_is_found() -> None:
    with pytest.raises(UserError, match="attentions are wrong"):
        wrap(Twice(), 48, verbose=False)


def test_given_facts_are_kept() -> None:
    model = wrap(
        vit_pytorch_model("ViT"), (48, 48), grid=(3, 3), prefix=1, readout="class token", output=None, verbose=False
    )
    assert model.facts.how["grid"] == "given" and model.facts.how["suffix"] == "found"
    with pytest.raises(UserError, match="class_names are 2"):
        wrap(vit_pytorch_model("ViT"), 48, class_names=["a", "b"], verbose=False)
    with pytest.raises(UserError, match="10 weights"):
        wrap(vit_pytorch_model("ViT"), 48, readout=[1.0], verbose=False)
    with pytest.raises(UserError, match="48 x 48"):
        relevit.relevance(model, torch.zeros(1, 3, 64, 64))


def test_modules_without_global_attention() -> None:
    with pytest.raises(UserError, match="no attention over all its tokens"):
        wrap(nn.Sequential(nn.Conv2d(3, 7, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 48, verbose=False)
    from torchvision.models import get_model

    with pytest.raises(UserError, match="attention"):
        wrap(get_model("swin_t", weights=None, num_classes=7), 64, verbose=False)


def test_a_run_comes_back(tmp_path: Path) -> None:
    """Saved by the names of the module's own state dict, and loaded into a module of the same code."""
    model = wrap(vit_pytorch_model("ViT"), 48, class_names=list("abcdefg"), verbose=False, check=False)
    result = finetune(model, TinySamples(4), tmp_path / "run", **arguments(epochs=1))
    with pytest.raises(UserError, match="whose code is yours"):
        relevit.load(tmp_path / "run")
    other = wrap(vit_pytorch_model("ViT"), 48, verbose=False, check=False)
    again, view = relevit.load(other, checkpoint=tmp_path / "run" / "best")
    assert same(weights(again), weights(result.model)) and view.height == 48
    save_checkpoint(tmp_path / "saved", model)
    module = vit_pytorch_model("ViT")
    from safetensors.torch import load_file

    module.load_state_dict(load_file(tmp_path / "saved" / "model.safetensors"))
    assert families.labels(model)[6] == "g" and torchvision_model() is not None
