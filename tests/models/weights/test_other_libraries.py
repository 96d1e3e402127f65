"""ARCHITECTURE@FILE for models of torchvision and transformers: the file's weights, or one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from checkpoint_forms import save
from foreign_models import images_for, torchvision_model, transformers_model
from relevit.errors import UserError
from relevit.models import families
from relevit.models.loading import load


@pytest.fixture(params=["torchvision", "hf"])
def library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, nn.Module]:
    """A name, and a model of it with other weights than the name's."""
    if request.param == "hf":
        transformers_model("ViT").save_pretrained(tmp_path / "vit")  # type: ignore[operator]
        return f"hf:{tmp_path / 'vit'}", transformers_model("ViT", seed=3).eval()

    def tiny(name: str, weights: Any = None, num_classes: int = 1000, **_: Any) -> nn.Module:
        return VisionTransformer(48, 16, num_layers=3, num_heads=3, hidden_dim=24, mlp_dim=48, num_classes=num_classes)

    monkeypatch.setattr("torchvision.models.get_model", tiny)
    return "torchvision:vit_b_16", torchvision_model(seed=3).eval()


def without_head(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith(("head", "classifier"))}


def test_the_weights_of_the_file(library: tuple[str, nn.Module], tmp_path: Path) -> None:
    name, model = library
    path = save(tmp_path, {"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}})
    net, _ = load(f"{name}@{path}")
    images = images_for(model)
    assert torch.equal(families.logits_of(net, images), families.logits_of(model, images))
    assert families.class_count(net) == families.class_count(model)


def test_a_file_without_a_head(library: tuple[str, nn.Module], tmp_path: Path) -> None:
    name, model = library
    path = save(tmp_path, without_head(model))
    with pytest.raises(UserError, match="have no head"):
        load(f"{name}@{path}")
    net, _ = load(f"{name}@{path}", head=False)
    assert torch.equal(next(iter(net.parameters())), next(iter(model.parameters())))
    net, _ = load(f"{name}@{path}", num_classes=5)
    assert families.class_count(net) == 5


@pytest.mark.parametrize("said", ["image_size=96", "mean=0.5,0.5,0.5", "class_names=names.txt"])
def test_what_is_for_timm_alone(said: str, library: tuple[str, nn.Module], tmp_path: Path) -> None:
    name, model = library
    path = save(tmp_path, model.state_dict())
    with pytest.raises(UserError, match=f"{said.split('=')[0]} is for timm's models"):
        load(f"{name}@{path}?{said}")


def test_models_of_images_and_texts_take_no_file(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    path = save(tmp_path, {"weight": torch.ones(2)})
    with pytest.raises(UserError, match="which takes no file of weights"):
        load(f"open_clip:ViT-B-32@{path}")
