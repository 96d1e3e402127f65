"""CLIP and SigLIP of open_clip and transformers as classifiers, against a direct computation with the library."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relevit
from command_line import call, fails
from foreign_models import images_for, roughened
from relevit.errors import UserError
from relevit.models import families
from relevit.models.attention import capture, token_layout
from relevit.models.families.zero_shot import PLAIN, ZeroShot, class_head, read_words
from relevit.models.saving import read_saved, save_checkpoint

NAMES = ["ant", "bee", "cow"]
TOWER = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}


def of_open_clip() -> Any:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    vision = {"layers": 3, "width": 24, "head_width": 8, "patch_size": 16, "image_size": 48}
    text = {"context_length": 7, "vocab_size": 50, "width": 24, "heads": 3, "layers": 1}
    tower = roughened(open_clip.model.CLIP(16, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text)))
    tower.visual.preprocess_cfg = {"size": (48, 48), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "resize_mode": "shortest"}  # fmt: skip
    return tower


def of_transformers(kind: str) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    text = {
        **TOWER,
        "vocab_size": 50,
        "max_position_embeddings": 7,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    config = getattr(transformers, f"{kind}Config")(
        vision_config={**TOWER, "image_size": 48, "patch_size": 16}, text_config=text, projection_dim=16
    )
    return roughened(getattr(transformers, f"{kind}Model")(config))


TOWERS = {
    "open_clip": of_open_clip,
    "CLIP": partial(of_transformers, "CLIP"),
    "SigLIP": partial(of_transformers, "Siglip"),
}


def encoded(tower: Any, texts: list[str]) -> Tensor:
    """Text features of a toy tokenizer."""
    tokens = torch.tensor([[1, *(3 + ord(letter) % 40 for letter in text[-5:]), 2] for text in texts])
    if hasattr(tower, "encode_text"):
        return tower.encode_text(tokens)
    output = tower.get_text_features(input_ids=tokens)
    return output if isinstance(output, Tensor) else output.pooler_output


def built(kind: str) -> ZeroShot:
    tower = TOWERS[kind]()
    about = {"open_clip": "tiny"} if kind == "open_clip" else {"view": {"input_size": (3, 48, 48), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash"}}  # fmt: skip
    return ZeroShot(tower, class_head(partial(encoded, tower), NAMES, ["a {}.", "the {}."]), NAMES, about).eval()


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_logits_are_scaled_cosines(kind: str) -> None:
    model: Any = built(kind)
    images, tower = images_for(model), model.tower
    texts = [[f"a {name}.", f"the {name}."] for name in NAMES]
    classes = F.normalize(torch.stack([F.normalize(encoded(tower, pair), dim=1).mean(dim=0) for pair in texts]), dim=1)
    if kind == "open_clip":
        features = tower.encode_image(images)
    else:
        output = tower.get_image_features(pixel_values=images)
        features = output if isinstance(output, Tensor) else output.pooler_output
    wanted = tower.logit_scale.exp() * F.cosine_similarity(features[:, None], classes[None], dim=2)
    bias = getattr(tower, "logit_bias", None)
    torch.testing.assert_close(model(images), wanted if bias is None else wanted + bias, rtol=1e-4, atol=1e-5)
    assert families.labels(model) == dict(enumerate(NAMES)) and families.class_count(model) == 3


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_maps(kind: str) -> None:
    """Of the image tower alone: as many as its attentions, the module's own logits, gradients in the image tower."""
    model = built(kind)
    images = images_for(model)
    layout = token_layout(model, 48, 48)
    with capture(model) as captured:
        logits = model(images)
    torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-4)
    assert (
        len(captured.maps) == {"open_clip": 3, "CLIP": 2, "SigLIP": 2 + 1}[kind]
        and layout.pooled == (kind == "SigLIP")
        and layout.grid == (3, 3)
    )
    maps = relevit.relevance(model, images, 1, upscale=False, normalize=False)
    maps.square().sum().backward()
    assert maps.isfinite().all() and maps.max() > 0
    grown = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert grown and all("visual" in name or "vision" in name for name in grown)


@pytest.mark.parametrize("kind", ["CLIP", "open_clip"])
def test_folders(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tower in its library's form, the classes beside it."""
    model = built(kind)
    images = images_for(model)
    save_checkpoint(tmp_path / "saved", model, extra={"epoch": 1})
    if kind == "open_clip":
        import open_clip

        monkeypatch.setattr(open_clip, "create_model", lambda name, pretrained=None: TOWERS["open_clip"]())
    again, view = relevit.load(tmp_path / "saved")
    assert torch.equal(again(images), model(images)) and families.labels(again)[2] == "cow" and view.height == 48
    assert read_saved(model, tmp_path / "saved").keys() == model.state_dict().keys()


def test_words(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("ant\n\n bee \n")
    assert read_words(file, "class names") == ["ant", "bee"] and PLAIN == ("a photo of a {}.",)
    with pytest.raises(UserError, match="where the class goes"):
        read_words(["a photo"], "templates")
    with pytest.raises(UserError, match="no file"):
        read_words(tmp_path / "none.txt", "class names")


def test_names() -> None:
    open_clip = pytest.importorskip("open_clip")
    assert "ViT-B-32" in open_clip.list_models()
    with pytest.raises(UserError, match="no architecture"):
        relevit.load("open_clip:ViT-Z/openai")
    with pytest.raises(UserError, match="choose weights of"):
        relevit.load("open_clip:ViT-B-32/nothing")
    with pytest.raises(UserError, match="class_names"):
        relevit.load("open_clip:ViT-B-32", pretrained=False)


def folder_of_clip(folder: Path) -> Path:
    """A CLIPModel with a tokenizer beside it, as the hub has them."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    of_transformers("CLIP").save_pretrained(folder)
    words = {word: number for number, word in enumerate(["[pad]", "[s]", "[e]", "[?]", "a", "the", *NAMES])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[?]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[pad]").save_pretrained(folder)
    return folder


def words_in(folder: Path) -> tuple[Path, Path]:
    (folder / "classes.txt").write_text("ant\nbee\n")
    (folder / "templates.txt").write_text("the {}\na {}\n")
    return folder / "classes.txt", folder / "templates.txt"


@pytest.mark.slow
def test_words_by_options_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--class-names and --templates go into the name, and give what the arguments of load give; a run keeps its words."""
    folder, (classes, templates) = folder_of_clip(tmp_path / "clip"), words_in(tmp_path)
    call("info", folder, "--class-names", classes, "--templates", templates)
    assert "2" in capsys.readouterr().out
    by_name: Any = relevit.load(f"hf:{folder}?class_names={classes}&templates={templates}")[0]
    plainly: Any = relevit.load(folder, class_names=["ant", "bee"], templates="plain")[0]
    assert families.labels(by_name) == {0: "ant", 1: "bee"} and not torch.equal(by_name.head, plainly.head)
    save_checkpoint(tmp_path / "run", plainly)
    assert torch.equal(relevit.load(f"{tmp_path}/run?templates={templates}")[0].head, by_name.head)
    with pytest.raises(UserError, match="give --class-names FILE"):
        relevit.load(folder)
    (tmp_path / "run" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        relevit.load(tmp_path / "run", class_names=classes)


def test_words_by_options_of_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_clip = pytest.importorskip("open_clip")
    classes, templates = words_in(tmp_path)
    monkeypatch.setattr(open_clip, "create_model", lambda name, pretrained=None: of_open_clip())
    tokens = lambda texts: torch.tensor([[1, *(3 + ord(letter) % 40 for letter in text[-5:]), 2] for text in texts])  # noqa: E731
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: tokens)
    call("info", "open_clip:ViT-B-32/openai", "--class-names", classes, "--templates", templates)
    model: Any = relevit.load(f"open_clip:ViT-B-32/openai?class_names={classes}&templates={templates}")[0]
    wanted = class_head(partial(encoded, model.tower), ["ant", "bee"], ["the {}", "a {}"])
    torch.testing.assert_close(model.head, wanted)
    save_checkpoint(tmp_path / "run", model)
    other: Any = relevit.load(f"{tmp_path / 'run'}?class_names={classes}&templates=plain")[0]
    torch.testing.assert_close(other.head, class_head(partial(encoded, model.tower), ["ant", "bee"], PLAIN))


@pytest.mark.parametrize(
    ("name", "option", "reason"),
    [
        ("vit_tiny_patch16_224", "--class-names", "is said of a model of images and texts"),
        ("torchvision:vit_b_16", "--templates", "is said of a model of images and texts"),
        ("vit_tiny_patch16_224", "--mean", "is said of a file of weights"),
        ("open_clip:ViT-B-32/openai", "--weights", "is said of a file of weights"),
        ("vit_tiny_patch16_224@w.pth", "--templates", "is said of a model of images and texts"),
        ("{folder}", "--class-names", "does not apply to {folder}, which has its own head"),
    ],
)
def test_words_of_other_models(
    name: str, option: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm

    classes, _ = words_in(tmp_path)
    if "folder" in name:
        tiny = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 2}
        save_checkpoint(tmp_path / "vit", timm.create_model("vit_tiny_patch16_224", **tiny))
    values = ["1", "1", "1"] if option == "--mean" else [classes]
    said = fails(capsys, "info", name.format(folder=tmp_path / "vit"), option, *values)
    assert f"{option} {reason.format(folder=tmp_path / 'vit')}" in said
