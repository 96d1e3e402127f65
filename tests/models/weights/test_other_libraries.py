"""ARCHITECTURE@FILE for models of torchvision and transformers: the file's weights, or one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision.models import VisionTransformer

import relevit
from checkpoint_forms import save
from foreign_models import TRANSFORMERS, images_for, torchvision_model, transformers_model
from relevit.errors import UserError
from relevit.models import families
from relevit.models.loading import load
from relevit.training.loop import finetune
from tiny_run import TinySamples, arguments, same, weights


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_a_folder_of_transformers_goes_back(kind: str, tmp_path: Path) -> None:
    """A run on a folder of save_pretrained, exported like that folder: transformers alone loads it, number format and processor kept."""
    import transformers

    given, run, out = tmp_path / "given", tmp_path / "run", tmp_path / "out"
    transformers_model("ViT").to(getattr(torch, kind)).save_pretrained(given)  # type: ignore[operator]
    transformers.ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(given)
    (given / "README.md").write_text("mine")
    (given / "model.safetensors.index.json").write_text("{}")
    model, _ = load(given)
    net = finetune(model, TinySamples(4), run, **arguments(epochs=1)).model
    relevit.export(run, like=given, out=out)
    again = transformers.ViTForImageClassification.from_pretrained(out, dtype="auto")
    expected = {name: value.to(getattr(torch, kind)) for name, value in net.state_dict().items()}
    assert same(weights(again), expected) and again.config.id2label == model.config.id2label  # type: ignore[union-attr]
    assert transformers.AutoImageProcessor.from_pretrained(out).size["height"] == 48
    assert sorted(file.name for file in out.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json",
    ]  # fmt: skip
    transformers_model("DeiT").save_pretrained(tmp_path / "other")  # type: ignore[operator]
    with pytest.raises(UserError, match="is a DeiTForImageClassification, the model a ViT"):
        relevit.export(run, like=tmp_path / "other", out=tmp_path / "none")
    with pytest.raises(UserError, match="weights is for files with several sets"):
        relevit.export(run, like=given, out=tmp_path / "none", weights="ema")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "ViT" else pytest.mark.slow) for kind in sorted(TRANSFORMERS)]
)
def test_names_of_older_versions_of_transformers(kind: str, tmp_path: Path) -> None:
    """Files have other names than the modules of version 5: these are read, and written back under the file's names."""
    first, model = transformers_model(kind), transformers_model(kind, seed=3).eval()
    first.save_pretrained(tmp_path / "model")  # type: ignore[operator]
    model.save_pretrained(tmp_path / "other")  # type: ignore[operator]
    old = safetensors.torch.load_file(tmp_path / "other/model.safetensors")
    path = save(tmp_path, {"epoch": 3, "model": {f"module.{name}": value for name, value in old.items()}})
    net, _ = load(f"hf:{tmp_path / 'model'}@{path}")
    assert same(weights(net), weights(model))
    relevit.export(f"hf:{tmp_path / 'model'}@{path}", like=path, out=tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert back.keys() == {f"module.{name}" for name in old}
    assert all(torch.equal(back[f"module.{name}"], value) for name, value in old.items())
