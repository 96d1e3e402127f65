"""Loading: names, runs, checkpoints and files give the same model; the preprocessing is the one that belongs to it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import _builder

from relevit.errors import UserError
from relevit.models import loading as models
from relevit.models.loading import data_config, load, save_checkpoint

NAME = "vit_tiny_patch16_224"
TINY: dict[str, Any] = {"img_size": 24, "patch_size": 6, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return timm.create_model(NAME, **TINY).eval()


def same(one: Any, other: Any) -> bool:
    pixels = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    return torch.equal(one(pixels), other(pixels))


def test_a_name_gives_an_untrained_model_without_pretrained() -> None:
    model, transform = load(NAME, pretrained=False, **TINY)
    assert not model.training and model.num_classes == 7
    pixels = transform(Image.new("RGB", (31, 53), (255, 255, 255)))
    assert pixels.shape == (3, 24, 24) and pixels.dtype == torch.float32
    assert torch.equal(pixels, torch.ones(3, 24, 24))  # mean 0.5, std 0.5
    assert model(pixels[None]).shape == (1, 7)


def test_a_run_gives_its_best_checkpoint_and_last_by_name(model: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run/best", model)
    last = timm.create_model(NAME, **TINY).eval()
    save_checkpoint(tmp_path / "run/last", last)
    (tmp_path / "run/config.json").write_text('{"seed": 3}')  # the run's own, of other content
    for name in (tmp_path / "run", str(tmp_path / "run"), f"local-dir:{tmp_path}/run/best", tmp_path / "run/best"):
        assert same(load(name)[0], model)
    assert same(load(tmp_path / "run/last")[0], last)
    shutil.rmtree(tmp_path / "run/best")
    with pytest.raises(UserError, match=r"no best checkpoint yet.*run/last"):
        load(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/last")
    with pytest.raises(UserError, match="neither a run nor a checkpoint"):
        load(tmp_path / "run")


def test_the_builtin_model_is_a_checkpoint_of_the_package(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "original", model)
    monkeypatch.setattr(models, "BUILTIN", tmp_path / "original")
    assert same(load("builtin")[0], model)
    assert same(load("builtin", pretrained=False)[0], model) is False


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar"])
def test_a_file_of_weights_needs_the_name_of_its_model(suffix: str, model: Any, tmp_path: Path) -> None:
    path = tmp_path / f"tuned{suffix}"
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, path)
    assert same(load(path, model=NAME, **TINY)[0], model)
    assert same(load(NAME, checkpoint=path, **TINY)[0], model)
    with pytest.raises(UserError, match=r"architecture.*model=NAME"):
        load(path)
    with pytest.raises(UserError, match="do not fit"):
        load(path, model=NAME, **{**TINY, "depth": 3})


def test_a_file_beside_its_config_needs_no_name(model: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, model)
    assert same(load(tmp_path / "model.safetensors")[0], model)
    assert same(load(NAME, checkpoint=tmp_path, **TINY)[0], model)


def test_a_wrapped_file_beside_its_config(model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Container and prefix are taken off, and which of several sets is taken is said."""
    save_checkpoint(tmp_path, model)
    weights = {f"module._orig_mod.{name}": value for name, value in model.state_dict().items()}
    average = {name: value * 0 for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": weights}, tmp_path / "one.pth")
    torch.save(weights, tmp_path / "bare.pth")
    torch.save({"state_dict": weights, "state_dict_ema": average}, tmp_path / "two.pth")
    assert same(load(tmp_path / "one.pth")[0], model) and same(load(tmp_path / "bare.pth")[0], model)
    assert not capsys.readouterr().err
    assert not same(load(tmp_path / "two.pth")[0], model)
    assert "state_dict_ema, which timm would evaluate" in " ".join(capsys.readouterr().err.split())
    assert same(load(f"{tmp_path / 'two.pth'}?weights=model")[0], model)
    with pytest.raises(UserError, match=r"mean is told by .*config.json: give NAME@"):
        load(f"{tmp_path / 'one.pth'}?mean=0.5,0.5,0.5")


def test_another_number_of_classes_gives_a_new_head_when_asked(model: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", model)
    changed, _ = load(tmp_path / "a", num_classes=5)
    assert changed.head.weight.shape == (5, 24)
    assert torch.equal(changed.pos_embed, model.pos_embed)
    same_count, _ = load(tmp_path / "a", num_classes=7)
    assert torch.equal(same_count.head.weight, model.head.weight)
    of_the_file, _ = load(tmp_path / "a/model.safetensors", model=NAME, **{**TINY, "num_classes": None})
    assert torch.equal(of_the_file.head.weight, model.head.weight)


def test_another_input_size_resizes_the_position_embedding(model: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, model)
    larger, transform = load(tmp_path, img_size=36)
    assert transform(Image.new("RGB", (50, 50))).shape == (3, 36, 36)
    assert larger(torch.zeros(1, 3, 36, 36)).shape == (1, 7)
    assert torch.equal(larger.head.weight, model.head.weight)


def test_arguments_of_a_saved_model_may_be_overridden(model: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, model)
    changed, _ = load(tmp_path, drop_path_rate=0.5, proj_drop_rate=0.25)
    assert changed.blocks[0].mlp.drop1.p == 0.25
    assert same(changed, model)


def test_paper_preprocessing_is_one_for_every_model() -> None:
    deit = timm.create_model("deit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=3)
    own = data_config(deit)
    assert own["mean"] == (0.485, 0.456, 0.406) and own["crop_pct"] == 0.9 and own["interpolation"] == "bicubic"
    paper = data_config(deit, "paper")
    assert paper == {
        "input_size": (3, 224, 224),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "crop_mode": "center",
    }
    # A picture whose short side is 256: no resizing, the middle 224, white to 1 and black to -1.
    values = np.zeros((256, 300, 3), np.uint8)
    values[16:240, 38:262] = 255
    _, transform = load("deit_tiny_patch16_224", pretrained=False, protocol="paper", depth=1, embed_dim=24, num_heads=3)
    assert torch.equal(transform(Image.fromarray(values)), torch.ones(3, 224, 224))


def test_the_preprocessing_of_a_fine_tuned_model_goes_with_it(model: Any, tmp_path: Path) -> None:
    model.pretrained_cfg["mean"] = (0.1, 0.2, 0.3)
    save_checkpoint(tmp_path / "a", model)
    assert data_config(load(tmp_path / "a")[0])["mean"] == (0.1, 0.2, 0.3)
    save_checkpoint(tmp_path / "b", model, data_config=data_config(model, "paper"))
    assert data_config(load(tmp_path / "b")[0]) == data_config(model, "paper")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vit_tiny_patch16_225", "Did you mean vit_tiny_patch16_224"),
        ("runs/none", "There is no runs/none"),
        ("none.pth", r"There is no none\.pth"),
        ("zzzzzzzz", "neither a timm model nor a file or folder"),
        (f"{NAME}.no_such_tag", "no_such_tag"),
    ],
)
def test_unknown_names_are_told(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        load(name)


def test_weights_that_cannot_be_downloaded_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("Name or service not known\nand more lines")

    monkeypatch.setattr(_builder, "load_state_dict_from_hf", offline)
    monkeypatch.setattr(_builder, "load_custom_from_hf", offline)
    monkeypatch.setattr(_builder, "download_cached_file", offline)
    with pytest.raises(UserError, match=r"deit_tiny_patch16_224 could not be downloaded .*checkpoint=FILE") as caught:
        load("deit_tiny_patch16_224", depth=1)
    assert "\n" not in str(caught.value)


def test_a_model_without_pretrained_weights_is_told() -> None:
    with pytest.raises(UserError, match="no pretrained weights for vit_base_patch16_18x2_224"):
        load("vit_base_patch16_18x2_224", depth=1, embed_dim=24, num_heads=3)


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(UserError, match=r"could not build vit_tiny_patch16_224.*depht"):
        load(NAME, pretrained=False, depht=3)


def test_weights_twice_are_refused(model: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, model)
    with pytest.raises(UserError, match="not both"):
        load(tmp_path, checkpoint="other.pth")


def test_architecture_at_file_and_modules(model: Any, tmp_path: Path) -> None:
    """Weights of a file in a timm model by one name; a module is taken as it is, mode and all."""
    torch.save(model.state_dict(), tmp_path / "w@1.pth")
    assert same(load(f"{NAME}@{tmp_path}/w@1.pth", **TINY)[0], model)
    assert same(load(f"{NAME}@{tmp_path}/w@1.pth", num_classes=7, model_args={**TINY, "num_classes": 3})[0], model)
    with pytest.raises(UserError, match="names its weights: leave out checkpoint"):
        load(f"{NAME}@{tmp_path}/w@1.pth", checkpoint="x.pth")
    net, view = load(model.train())
    assert net is model and net.training and view(Image.new("RGB", (31, 53))).shape == (3, 24, 24)
    assert load((model, len))[1] is len and load((model, len), protocol="paper")[1] is not len
    for changed in ({"checkpoint": "x.pth"}, {"num_classes": 3}, {"model_args": {"img_size": 8}}, {"drop_rate": 0.1}):
        with pytest.raises(UserError, match="is for a model given by its name"):
            load(model, **changed)
