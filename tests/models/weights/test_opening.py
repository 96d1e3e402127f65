"""Checkpoints of one's own training loop: every form gives the model that was saved; what is guessed is said; misfits are named."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from checkpoint_forms import ARCHITECTURE, CLASSES, FORMS, TINY, build, clip, pictures, renamed, safetensors_file, save
from relevit.errors import UserError
from relevit.models.loading import data_config, load, opened
from relevit.models.weights.opening import Opened
from relevit.models.weights.options import FileOptions


def of_file(
    path: Path, architecture: str = ARCHITECTURE, *, head: bool = True, told: Any = (), **arguments: Any
) -> Opened:
    return opened(architecture, path, FileOptions.of(dict(told)), {**TINY, **arguments}, head=head)


def same(model: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_model_that_was_saved(form: str, tmp_path: Path) -> None:
    model = build()
    expected = model(pictures())
    path = FORMS[form](tmp_path, model)
    net, _ = load(f"{ARCHITECTURE}@{path}", model_args=TINY)
    assert torch.equal(net(pictures()), expected)
    assert net.num_classes == CLASSES and net.pretrained_cfg["num_classes"] == CLASSES


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_and_said(kind: torch.dtype, tmp_path: Path) -> None:
    model = build().to(kind)
    found = of_file(safetensors_file(tmp_path, model, kind))
    assert same(found.model, model.float()) and found.model.head.weight.dtype == torch.float32
    assert any(f"stored as {str(kind)[6:]}" in note for note in found.notes)


def test_mean_pooling_is_read_from_the_names(tmp_path: Path) -> None:
    """MAE's fine-tuning has fc_norm in place of norm."""
    model = build(global_pool="avg")
    found = of_file(save(tmp_path, {"model": model.state_dict()}))
    assert found.model.global_pool == "avg" and torch.equal(found.model.eval()(pictures()), model(pictures()))


SETS = {
    "as timm": (("state_dict", "state_dict_ema"), "state_dict_ema"),
    "as timm, DeiT": (("model_ema", "model"), "model_ema"),
    "no rule of timm's for ema": (("ema", "model"), "model"),
    "the model by its name": (("net", "teacher"), "net"),
    "a student's teacher": (("student", "teacher"), "teacher"),
    "no rule": (("left", "right"), None),
}


@pytest.mark.parametrize("name", SETS)
def test_of_several_sets_one_is_chosen_and_said(name: str, tmp_path: Path) -> None:
    keys, chosen = SETS[name]
    models = {key: build(seed) for seed, key in enumerate(keys)}
    path = save(tmp_path, {key: renamed(model.state_dict(), "module.") for key, model in models.items()})
    for key in keys:
        assert same(of_file(path, told={"weights": key}).model, models[key])
    with pytest.raises(UserError, match="has no set of weights called middle"):
        of_file(path, told={"weights": "middle"})
    if chosen is None:
        with pytest.raises(
            UserError, match=r"2 sets of weights that fit: left/module, right/module; choose one with --weights"
        ):
            of_file(path)
        return
    found = of_file(path)
    assert same(found.model, models[chosen])
    assert chosen in found.notes[0] and "choose with --weights" in found.notes[0]
    assert all(key in found.notes[0] for key in keys)


@pytest.mark.parametrize(("wanted", "key"), [("ema", "state_dict_ema"), ("model", "state_dict")])
def test_the_average_or_the_model_is_asked_for(wanted: str, key: str, tmp_path: Path) -> None:
    models = {"state_dict": build(0), "state_dict_ema": build(1)}
    path = save(tmp_path, {name: model.state_dict() for name, model in models.items()})
    found, _ = load(f"{ARCHITECTURE}@{path}?weights={wanted}", model_args=TINY)
    assert same(found, models[key])


def test_two_models_in_one_state_dictionary(tmp_path: Path) -> None:
    """As Lightning keeps a module's model and its average; another network of other shapes is no candidate."""
    model, average, small = build(0), build(1), timm.create_model(ARCHITECTURE, **{**TINY, "embed_dim": 12})
    parts = {"model.": model, "ema_model.module.": average, "teacher.": small}
    weights = {key: value for prefix, net in parts.items() for key, value in renamed(net.state_dict(), prefix).items()}
    path = save(tmp_path, {"state_dict": weights})
    found = of_file(path)
    assert same(found.model, model) and "ema_model" in found.notes[0] and "teacher" not in found.notes[0]
    assert same(of_file(path, told={"weights": "ema"}).model, average)


def test_a_model_that_does_not_fit_is_told_what_would(tmp_path: Path) -> None:
    with torch.device("meta"):
        real = timm.create_model("vit_small_patch16_224", num_classes=7)
    weights = {f"module.{name}": torch.zeros(()).expand(value.shape) for name, value in real.state_dict().items()}
    path = save(tmp_path, {"model": weights})
    with pytest.raises(UserError) as caught:
        opened("vit_base_patch16_224", path, FileOptions(), {})
    text = str(caught.value)
    assert "These are the shapes of vit_small_patch16_224" in text and "with 7 classes" in text
    assert "cls_token (1, 1, 384) in place of (1, 1, 768)" in text and "blocks.*.attn.qkv.weight" in text
    assert text.count(" in place of ") == 10


@pytest.mark.parametrize("change", ["too deep", "too shallow", "other names", "no weights"])
def test_misfits_are_refused(change: str, tmp_path: Path) -> None:
    weights: Any = build(depth=3 if change == "too deep" else 1 if change == "too shallow" else 2).state_dict()
    if change == "other names":
        weights = {f"x{number}": value for number, value in enumerate(weights.values())}
    if change == "no weights":
        weights = {"epoch": 3, "names": ["a"]}
    match = {
        "too deep": r"w\.pth do not fit.*12 unexpected \(blocks\.\*\.",
        "too shallow": r"12 missing \(blocks\.\*\.",
        "other names": "missing.*unexpected",
        "no weights": r"w\.pth holds no weights",
    }[change]
    with pytest.raises(UserError, match=match):
        of_file(save(tmp_path, weights))


def test_a_position_embedding_of_another_size_is_resampled(tmp_path: Path) -> None:
    model = build(img_size=48)
    path = save(tmp_path, model.state_dict())
    found = of_file(path)
    assert found.model.pos_embed.shape == (1, 5, 24)
    assert any("pos_embed from (1, 10, 24) to (1, 5, 24)" in note for note in found.notes)
    kept = opened(ARCHITECTURE, path, FileOptions(image_size=48), {**TINY, "img_size": 32})
    assert same(kept.model, model) and data_config(kept.model)["input_size"] == (3, 48, 48)
    told = save(tmp_path, {"model": model.state_dict(), "args": argparse.Namespace(img_size=48)}, "told.pth")
    arguments = {key: value for key, value in TINY.items() if key != "img_size"}
    assert same(opened(ARCHITECTURE, told, FileOptions(), arguments).model, model)


def test_a_missing_head_is_an_error_but_where_none_is_needed(tmp_path: Path) -> None:
    weights = {name: value for name, value in build().state_dict().items() if not name.startswith("head")}
    path = save(tmp_path, weights)
    with pytest.raises(UserError, match=r"no head: head\.weight is missing\. Train one with relevit probe"):
        of_file(path)
    backbone = of_file(path, head=False)
    assert backbone.model.num_classes == 0 and torch.equal(backbone.model.pos_embed, weights["pos_embed"])
    new = of_file(path, num_classes=5)
    assert new.model.head.weight.shape == (5, 24) and any("new and untrained" in note for note in new.notes)


def test_another_number_of_classes_than_the_heads_is_said(tmp_path: Path) -> None:
    found = of_file(save(tmp_path, build().state_dict()), num_classes=5)
    assert found.model.head.weight.shape == (5, 24)
    assert any("head for 7 classes, which is thrown away" in note for note in found.notes)


@pytest.mark.parametrize("prefix", ["", "module.", "model.clip."])
@pytest.mark.parametrize("openai", [True, False])
def test_the_head_of_clip_is_kept_and_its_activation_said(prefix: str, openai: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = {**TINY, "num_classes": 11}
    model = timm.create_model("vit_base_patch16_clip_224", **size).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
        model.head.bias.zero_()
    path = save(tmp_path, renamed(clip(model, openai), prefix))
    found = opened("vit_base_patch16_clip_224", path, FileOptions(), {**TINY, "num_classes": 11})
    assert same(found.model, model) and not any("untrained" in note for note in found.notes)
    assert same(opened("vit_base_patch16_clip_224", path, FileOptions(), TINY).model, model)
    said = [note for note in found.notes if "QuickGELU" in note]
    assert len(said) == 1 and "vit_base_patch16_clip_quickgelu_224" in said[0]
    assert ("warning" in said[0]) == openai
    quick = opened("vit_base_patch16_clip_quickgelu_224", path, FileOptions(), TINY)
    assert not any("QuickGELU" in note for note in quick.notes)


def test_preprocessing_comes_from_the_user_the_file_or_timm(tmp_path: Path) -> None:
    options = argparse.Namespace(mean=[0.1, 0.2, 0.3], std=None, crop_pct=0.8, interpolation="bilinear")
    path = save(tmp_path, {"state_dict": build().state_dict(), "args": options})
    found = of_file(path, told={"std": "0.3,0.3,0.3", "resize": 64})
    used = data_config(found.model)
    assert used["mean"] == (0.1, 0.2, 0.3) and used["std"] == (0.3, 0.3, 0.3)
    assert used["crop_pct"] == 0.5 and used["interpolation"] == "bilinear"
    note = next(note for note in found.notes if note.startswith("preprocessing"))
    assert "short side 64" in note and "std, resize as given" in note
    assert "mean, interpolation from the file's own options" in note
    bare = of_file(save(tmp_path, build().state_dict(), "bare.pth"))
    assert (
        any("guessed, as timm has it" in note for note in bare.notes) and data_config(bare.model)["mean"] == (0.5,) * 3
    )


NAMES = list("gfedcba")


@pytest.mark.parametrize(
    "told",
    [
        {"class_names": NAMES},
        {"classes": tuple(NAMES), "meta": {"classes": 7}},
        {"class_to_idx": {name: index for index, name in enumerate(NAMES)}},
        {"idx_to_class": dict(enumerate(NAMES))},
        {"hyper_parameters": {"id2label": {str(index): name for index, name in enumerate(NAMES)}}},
        {"args": argparse.Namespace(class_names=NAMES)},
    ],
)
def test_class_names_are_found_in_the_file(told: dict[str, Any], tmp_path: Path) -> None:
    found = of_file(save(tmp_path, {"state_dict": build().state_dict(), **told}))
    assert found.model.pretrained_cfg["label_names"] == NAMES
    assert any(note.startswith("class names: from") for note in found.notes)


def test_class_names_beside_the_file_or_given(tmp_path: Path) -> None:
    path = save(tmp_path, build().state_dict())
    found = of_file(path)
    assert "label_names" not in found.model.pretrained_cfg
    assert any("numbers 0 to 6; --class-names FILE names them" in note for note in found.notes)
    (tmp_path / "class_to_idx.json").write_text(json.dumps({name: index for index, name in enumerate(NAMES)}))
    assert of_file(path).model.pretrained_cfg["label_names"] == NAMES
    (tmp_path / "own.txt").write_text("\n".join("ABCDEFG"))
    assert of_file(path, told={"class_names": tmp_path / "own.txt"}).model.pretrained_cfg["label_names"] == list(
        "ABCDEFG"
    )
    for name in NAMES:
        (tmp_path / "train" / name).mkdir(parents=True)
    assert of_file(path, told={"class_names": tmp_path / "train"}).model.pretrained_cfg["label_names"] == sorted(NAMES)
    (tmp_path / "own.txt").write_text("A\nB")
    with pytest.raises(UserError, match=r"own\.txt names 2 classes, but the weights have a head for 7"):
        of_file(path, told={"class_names": tmp_path / "own.txt"})


def test_what_is_said_of_a_file_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, {"state_dict": build().state_dict(), "state_dict_ema": build(1).state_dict()})
    for _ in range(2):
        load(f"{ARCHITECTURE}@{path}", model_args=TINY)
    text = capsys.readouterr().err
    assert text.count("state_dict_ema") == 1 and text.count("preprocessing") == 1
