"""Mended weights go back into the form of the user's file: his own code loads them, strictly, without relevit."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

import relevit
from checkpoint_forms import ARCHITECTURE, CLASSES, FORMS, TINY, build, clip, in_shards, pictures, renamed, save
from relevit.errors import UserError
from relevit.models.weights.exporting import export_like
from relevit.models.weights.reading import read


def back(folder: Path, path: Path, mended: nn.Module, **options: Any) -> Path:
    place = folder / ("back" if path.is_dir() or path.name.endswith(".json") else f"back{path.suffix}")
    return export_like(mended, read(path), place, **options).path


def plain(path: Path, *keys: str) -> Any:
    """What a user's own program reads."""
    content = torch.load(path, weights_only=False)
    for key in keys:
        content = content[key]
    return content


def lightning(path: Path) -> nn.Module:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = build(5)
            self.criterion = nn.CrossEntropyLoss(weight=torch.ones(CLASSES))

    module = Module()
    module.load_state_dict(plain(path, "state_dict"), strict=True)
    return module.model


def by_timm(path: Path) -> nn.Module:
    model = build(5)
    timm.models.load_checkpoint(model, str(path), use_ema=True, strict=True, weights_only=False)
    return model


def bare(*keys: str, prefix: str = "") -> Callable[[Path], nn.Module]:
    def load(path: Path) -> nn.Module:
        model = build(5)
        weights = {name.removeprefix(prefix): value for name, value in plain(path, *keys).items()}
        model.load_state_dict(weights, strict=True)
        return model

    return load


def parallel(path: Path) -> nn.Module:
    model = nn.DataParallel(build(5))
    model.load_state_dict(plain(path), strict=True)
    return model.module


def accelerated(path: Path) -> nn.Module:
    model = build(5)
    accelerate.load_checkpoint_in_model(model, str(path))
    return model


def wrapped(path: Path) -> nn.Module:
    from transformers import TimmWrapperForImageClassification

    return TimmWrapperForImageClassification.from_pretrained(path).timm_model


def apart(path: Path) -> nn.Module:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = build(5, num_classes=0)
            self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(24, CLASSES))

    own = Classifier()
    own.load_state_dict(plain(path), strict=True)
    model = build(5)
    model.load_state_dict(own.encoder.state_dict(), strict=False)
    model.head.load_state_dict(own.classifier[1].state_dict())
    return model


LOADERS: dict[str, Callable[[Path], nn.Module]] = {
    "bare": bare(),
    "state_dict": bare("state_dict"),
    "nested": bare("run", "checkpoint", "model"),
    "prefix model._orig_mod.net.": bare("state_dict", prefix="model._orig_mod.net."),
    "DataParallel": parallel,
    "Lightning": lightning,
    "timm's train.py": by_timm,
    "DeiT with an average": bare("model_ema"),
    "head beside the backbone": apart,
    "accelerate's state": accelerated,
    "accelerate's model, shards": accelerated,
    "Trainer": accelerated,
    "transformers' TimmWrapper": wrapped,
    "before zip files": bare("model"),
}


@pytest.mark.parametrize("form", LOADERS)
def test_the_users_own_code_takes_the_mended_weights(form: str, tmp_path: Path) -> None:
    path, mended = FORMS[form](tmp_path, build()), build(3)
    place = back(tmp_path, path, mended)
    model = LOADERS[form](place).eval()
    assert torch.equal(model(pictures()), mended(pictures()))
    if path.is_file():
        assert zipfile.is_zipfile(place) != (form == "before zip files")


def test_everything_else_in_the_file_is_as_before(tmp_path: Path) -> None:
    path = FORMS["Lightning"](tmp_path, build())
    before, after = plain(path), plain(back(tmp_path, path, build(3)))
    assert list(after) == list(before) and list(after["state_dict"]) == list(before["state_dict"])
    assert type(after["state_dict"]) is type(before["state_dict"])
    assert after["hyper_parameters"] == before["hyper_parameters"] and after["callbacks"] == before["callbacks"]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_number_formats_and_metadata_stay(kind: torch.dtype, tmp_path: Path) -> None:
    weights = renamed({name: value.to(kind) for name, value in build().state_dict().items()}, "net.")
    safetensors.torch.save_file(weights, tmp_path / "w.safetensors", metadata={"mine": "yes"})
    place = back(tmp_path, tmp_path / "w.safetensors", build(3))
    found = safetensors.torch.load_file(place)
    assert {name: value.dtype for name, value in found.items()} == dict.fromkeys(weights, kind)
    assert torch.equal(found["net.norm.bias"], build(3).norm.bias.to(kind))
    with safetensors.safe_open(place, "pt") as opened:
        assert opened.metadata() == {"mine": "yes"}


def test_shards_keep_their_names(tmp_path: Path) -> None:
    index = in_shards(tmp_path, build())
    place = back(tmp_path, index, build(3))
    assert sorted(file.name for file in place.iterdir()) == sorted(file.name for file in index.parent.iterdir())
    model = build(5)
    accelerate.load_checkpoint_in_model(model, str(place))
    assert torch.equal(model(pictures()), build(3)(pictures()))


def test_one_set_alone_is_written_when_asked(tmp_path: Path) -> None:
    path = save(tmp_path, {"state_dict": build(0).state_dict(), "state_dict_ema": build(1).state_dict()})
    found = plain(back(tmp_path, path, build(3), weights="ema"))
    assert torch.equal(found["state_dict_ema"]["head.bias"], build(3).head.bias)
    assert torch.equal(found["state_dict"]["head.bias"], build(0).head.bias)
    both = export_like(build(3), read(path), tmp_path / "both.pth")
    assert torch.equal(plain(both.path, "state_dict")["head.bias"], build(3).head.bias)
    assert any("all sets that fit: state_dict, state_dict_ema" in note for note in both.notes)


def of_clip(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = timm.create_model("vit_base_patch16_clip_224", **{**TINY, "num_classes": 11}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
        model.head.bias.zero_()
    return model


@pytest.mark.parametrize("prefix", ["", "model.clip."])
def test_converted_weights_go_back_by_numbers(prefix: str, tmp_path: Path) -> None:
    """Against the names and shapes of CLIP written by hand."""
    path = save(tmp_path, renamed(clip(of_clip(0), True), prefix))
    found = plain(back(tmp_path, path, of_clip(3)))
    expected = renamed(clip(of_clip(3), True), prefix)
    assert list(found) == list(plain(path)) and set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    biased = of_clip(3)
    nn.init.ones_(biased.head.bias)
    with pytest.raises(UserError, match=r"has no place for head\.bias"):
        back(tmp_path, path, biased)


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, {"a": torch.ones(3)})
    with pytest.raises(UserError, match="no weights of this model's architecture"):
        back(tmp_path, path, build())


def test_import_and_export_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from command_line import call, fails

    path = FORMS["timm's train.py"](tmp_path, build())
    size = "{img_size: 32, embed_dim: 24, depth: 2, num_heads: 3}"
    call(
        "import",
        path,
        "--architecture",
        ARCHITECTURE,
        "--out",
        tmp_path / "mine",
        "--model-args",
        size,
        "--weights",
        "model",
    )
    text = capsys.readouterr().out
    assert "weights of" in text and "state_dict, as given" in text and "crop 32 x 32" in text
    raw, _ = relevit.load(tmp_path / "mine")
    call("export", tmp_path / "mine", "--like", path, "--out", tmp_path / "back.pth")
    assert torch.equal(plain(tmp_path / "back.pth", "state_dict_ema")["norm.bias"], raw.norm.bias)
    for name in ("w.pth", "w.safetensors", "folder"):
        call("export", tmp_path / "mine", "--out", tmp_path / name)
    assert torch.equal(plain(tmp_path / "w.pth")["norm.bias"], raw.norm.bias)
    again = timm.create_model(f"local-dir:{tmp_path}/folder", pretrained=True)
    assert torch.equal(again.norm.bias, raw.norm.bias)
    assert "is there already" in fails(capsys, "export", tmp_path / "mine", "--out", tmp_path / "w.pth")
    call("info", f"{ARCHITECTURE}@{path}", "--model-args", size, "--weights", "ema")
    assert "state_dict_ema, as given" in capsys.readouterr().err
    said = fails(capsys, "info", ARCHITECTURE, "--weights", "ema")
    assert "--weights is said of a file of weights: give the model as ARCHITECTURE@FILE" in said
