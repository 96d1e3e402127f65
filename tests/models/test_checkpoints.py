"""Checkpoints: plain timm loads them in one line with the same logits; broken and foreign files are refused by name."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from timm.models import VisionTransformer
from torch import nn

from relevit import files
from relevit.errors import UserError
from relevit.models.checkpoints import fill, read_checkpoint, read_config
from relevit.models.families.timm_models import checkpoint_config
from relevit.models.loading import data_config
from relevit.models.saving import save_checkpoint

TINY = {"img_size": 24, "patch_size": 6, "embed_dim": 24, "depth": 2, "num_heads": 3}
SMALL = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", {**TINY, "num_classes": 7}),
    "vit, 1000 classes, mean pooling": ("vit_tiny_patch16_224", {**TINY, "global_pool": "avg"}),
    "distilled deit": ("deit_tiny_distilled_patch16_224", {**SMALL, "num_classes": 5}),
    "deit III": ("deit3_small_patch16_224", SMALL),
    "dinov2 with registers": ("vit_small_patch14_reg4_dinov2", {**SMALL, "img_size": 28, "num_classes": 3}),
    "beit": ("beit_base_patch16_224", SMALL),
    "eva02": ("eva02_tiny_patch14_224", {**SMALL, "img_size": 28, "num_classes": 3}),
    "clip": ("vit_base_patch16_clip_224", {**SMALL, "num_classes": 11}),
    "siglip": ("vit_base_patch16_siglip_224", {**SMALL, "num_classes": 11}),
}


def build(kind: str = "vit", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    name, arguments = MODELS[kind]
    model = timm.create_model(name, **arguments).eval()
    for parameter in model.parameters():  # heads and layer scales start at zero or near it: a swap would not show
        nn.init.normal_(parameter, std=0.1)
    return model


def images(model: nn.Module) -> torch.Tensor:
    return torch.randn(2, *data_config(model)["input_size"], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", MODELS)
def test_plain_timm_loads_a_checkpoint_in_one_line(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    save_checkpoint(tmp_path / "run" / "best", model)
    again = timm.create_model(f"local-dir:{tmp_path}/run/best", pretrained=True).eval()
    assert type(again) is type(model)
    assert torch.equal(again(images(model)), model(images(model)))
    assert data_config(again) == data_config(model)


def test_a_head_that_was_replaced_is_saved(tmp_path: Path) -> None:
    model = build("distilled deit")
    model.reset_classifier(13)
    save_checkpoint(tmp_path, model)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert again(images(model)).shape == (2, 13)
    assert torch.equal(again(images(model)), model.eval()(images(model)))


def test_the_config_is_readable_and_tells_everything(tmp_path: Path) -> None:
    model = build()
    data = {**data_config(model), "mean": (0.1, 0.2, 0.3), "crop_pct": 1.0, "interpolation": "bilinear"}
    save_checkpoint(tmp_path, model, extra={"epoch": 3, "note": "ä"}, data_config=data)
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert '"note": "ä"' in text
    config = json.loads(text)
    assert config["architecture"] == "vit_tiny_patch16_224" and config["num_classes"] == 7
    assert config["relevit"]["epoch"] == 3
    assert config["model_args"]["img_size"] == [24, 24] and config["model_args"]["depth"] == 2
    assert "url" not in config["pretrained_cfg"] and "hf_hub_id" not in config["pretrained_cfg"]
    found = data_config(timm.create_model(f"local-dir:{tmp_path}"))
    assert found["mean"] == (0.1, 0.2, 0.3) and found["crop_pct"] == 1.0 and found["interpolation"] == "bilinear"
    assert found["input_size"] == (3, 24, 24)


def test_label_names_go_along_while_the_classes_are_the_same() -> None:
    model = build()
    model.pretrained_cfg.update(num_classes=7, label_names=tuple("abcdefg"))
    assert checkpoint_config(model)["pretrained_cfg"]["label_names"] == list("abcdefg")
    model.reset_classifier(5)
    assert "label_names" not in checkpoint_config(model)["pretrained_cfg"]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_checkpoint(tmp_path / name, build())
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_tied_and_sliced_weights_are_saved_each_by_itself(tmp_path: Path) -> None:
    model = build()
    model.blocks[1].mlp.fc1.weight = model.blocks[0].mlp.fc1.weight
    model.head.weight = nn.Parameter(torch.randn(24, 14)[:, ::2].t())
    save_checkpoint(tmp_path, model)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_saving_leaves_the_model_alone(tmp_path: Path) -> None:
    model = build().train()
    before = {name: (value.data_ptr(), value.clone()) for name, value in model.state_dict().items()}
    save_checkpoint(tmp_path, model)
    assert model.training
    for name, value in model.state_dict().items():
        assert value.data_ptr() == before[name][0] and torch.equal(value, before[name][1])


def test_a_new_checkpoint_replaces_the_old_as_a_whole(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last", build(seed=0), extra={"epoch": 1})
    save_checkpoint(tmp_path / "last", build(seed=1), extra={"epoch": 2})
    config, weights = read_checkpoint(tmp_path / "last")
    assert config["relevit"]["epoch"] == 2
    assert torch.equal(weights["head.weight"], build(seed=1).head.weight)
    assert os.listdir(tmp_path) == ["last"] and sorted(os.listdir(tmp_path / "last")) == [
        "config.json",
        "model.safetensors",
    ]


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "last", build(seed=0))

    def full(*_: object, **__: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(safetensors.torch, "save_file", full)
        with pytest.raises(UserError, match=r"disk is full.*last"):
            save_checkpoint(tmp_path / "last", build(seed=1))
    monkeypatch.setattr(files, "_put", lambda new, place: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(UserError, match=r"disk is full.*last"):
        save_checkpoint(tmp_path / "last", build(seed=1))
    assert torch.equal(read_checkpoint(tmp_path / "last").weights["head.weight"], build(seed=0).head.weight)
    assert os.listdir(tmp_path) == ["last"]


def test_a_reader_sees_one_save_even_while_another_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from relevit.models import checkpoints

    save_checkpoint(tmp_path / "last", build(seed=0), extra={"epoch": 1})
    plain, calls = checkpoints.read_config, []

    def read_and_replace(folder: Path) -> dict[str, Any]:
        config = plain(folder)
        calls.append(config["relevit"]["epoch"])
        if len(calls) == 1:
            save_checkpoint(tmp_path / "last", build(seed=1), extra={"epoch": 2})
        return config

    monkeypatch.setattr(checkpoints, "read_config", read_and_replace)
    config, weights = checkpoints.read_checkpoint(tmp_path / "last")
    assert calls == [1, 2] and config["relevit"]["epoch"] == 2
    assert torch.equal(weights["head.weight"], build(seed=1).head.weight)


def test_models_that_a_config_cannot_rebuild_are_refused(tmp_path: Path) -> None:
    arguments = {**TINY, "num_classes": 7}
    with pytest.raises(UserError, match=r"timm\.create_model"):
        save_checkpoint(tmp_path / "a", VisionTransformer(**arguments))
    with pytest.raises(UserError, match=r"timm\.create_model"):
        save_checkpoint(tmp_path / "a", nn.Linear(3, 5))
    model = build()
    model.head = nn.Sequential(nn.Linear(24, 5), nn.Linear(5, 7))
    with pytest.raises(UserError, match=r"altered.*head\.0"):
        save_checkpoint(tmp_path / "a", model)
    with pytest.raises(UserError, match="JSON"):
        save_checkpoint(tmp_path / "a", build(), extra={"device": torch.device("cpu")})
    assert not (tmp_path / "a").exists()


def test_broken_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        read_checkpoint(tmp_path)
    save_checkpoint(tmp_path / "a", build())
    whole = (tmp_path / "a/model.safetensors").read_bytes()
    (tmp_path / "a/model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a/model\.safetensors cannot be read"):
        read_checkpoint(tmp_path / "a")
    (tmp_path / "a/model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no file .*a/model\.safetensors"):
        read_checkpoint(tmp_path / "a")
    for text in ("{", "[]", '{"seed": 1}', "\udcff"):
        (tmp_path / "a/config.json").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(UserError, match=r"a/config\.json"):
            read_config(tmp_path / "a")


def test_weights_that_do_not_fit_are_told_by_name() -> None:
    model = build()
    weights = {name: value for name, value in model.state_dict().items() if name not in ("head.bias", "norm.bias")}
    weights["extra.one"] = torch.ones(1)
    weights["pos_embed"] = torch.ones(1, 5, 24)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        UserError, match=r"old\.pth do not fit.*vit_tiny.*2 missing \(norm\.bias, head\.bias\)"
    ) as caught:
        fill(model, weights, "old.pth")
    assert "1 unexpected (extra.one)" in str(caught.value)
    assert "pos_embed (1, 5, 24) in place of (1, 17, 24)" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
