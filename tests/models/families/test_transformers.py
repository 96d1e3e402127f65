"""transformers' classifiers against the library's own eager attention and image processors; folders of its own form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import relevit
from foreign_models import TRANSFORMERS, dinov3_backbone, images_for, transformers_model
from relevit.errors import UserError
from relevit.masking.features import accept_size, patch_features
from relevit.models import families
from relevit.models.attention import token_layout, unsupported_reason
from relevit.models.families.image_processor import as_processor, as_view
from relevit.models.model_facts import class_name, class_number
from relevit.models.saving import save_checkpoint
from relevit.models.view import EvaluationView

transformers = pytest.importorskip("transformers")
TARGET = torch.tensor([3, 1])
READ = {
    "ViT": {0: 1.0}, "DeiT": {0: 1.0}, "ViTMSN": {0: 1.0}, "BEiT, shared bias, class token": {0: 1.0},
    "DeiT with teacher": {0: 0.5, 1: 0.5},
    "Dinov2": {0: 0.5, **dict.fromkeys(range(1, 10), 0.5 / 9)},
    "Dinov2WithRegisters": {0: 0.5, **dict.fromkeys(range(5, 14), 0.5 / 9)},
    "BEiT": dict.fromkeys(range(1, 10), 1 / 9), "Data2VecVision": dict.fromkeys(range(1, 10), 1 / 9),
    "CLIP": dict.fromkeys(range(1, 10), 1 / 9), "IJepa": dict.fromkeys(range(9), 1 / 9),
    "SigLIP": dict.fromkeys(range(9), 1 / 9),
}  # fmt: skip
"""The weight with which each class reads its tokens, by its code."""


def eager(kind: str) -> tuple[nn.Module, nn.Module]:
    """A model in double precision, and its twin with the library's own attention written out."""
    model = transformers_model(kind).double()
    twin = transformers_model(kind, attn_implementation="eager").double()
    twin.load_state_dict(model.state_dict())
    return model, twin


def direct(model: nn.Module, images: Tensor, weights: dict[int, float], prefix: int) -> tuple[Tensor, Tensor]:
    """Logits and R <- R + mean over heads of relu(G A) R of the attentions that the library returns."""
    output = model(images, output_attentions=True)
    score = output.logits.gather(1, TARGET[:, None]).sum()
    gradients = torch.autograd.grad(score, output.attentions, retain_graph=True)
    tokens = output.attentions[0].shape[-1]
    row = torch.zeros(tokens, dtype=images.dtype)
    row[list(weights)] = torch.tensor(list(weights.values()), dtype=images.dtype)
    start = matrix = torch.eye(tokens, dtype=images.dtype).expand(len(images), -1, -1)
    for attention, gradient in zip(output.attentions, gradients, strict=True):
        matrix = matrix + (attention * gradient).relu().mean(dim=1) @ matrix
    return output.logits, torch.einsum("q,bqk->bk", row, matrix - start)[:, prefix:].unflatten(1, (3, 3))


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: one for name, one in zip(names, found, strict=True) if one is not None}


@pytest.mark.parametrize("kind", sorted(TRANSFORMERS))
def test_against_eager_attention(kind: str) -> None:
    """Maps, logits and the gradients of a loss of both; the library's own softmax is of single precision."""
    model, twin = eager(kind)
    images = images_for(model)
    logits, maps = relevit.forward_with_relevance(model, images, TARGET, upscale=False, normalize=False)
    prefix = token_layout(model, *images.shape[-2:]).prefix
    wanted_logits, wanted = direct(twin, images, READ[kind], prefix)
    torch.testing.assert_close(logits, wanted_logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(maps, wanted, rtol=1e-5, atol=1e-6 * float(wanted.detach().max()))
    ours = gradients(model, maps.square().sum() + logits.square().mean())
    theirs = gradients(twin, wanted.square().sum() + wanted_logits.square().mean())
    assert ours.keys() == theirs.keys()
    for name, one in theirs.items():
        torch.testing.assert_close(ours[name], one, rtol=1e-4, atol=1e-5 * float(one.abs().max() + 1), msg=name)


@pytest.mark.parametrize("kind", sorted(TRANSFORMERS))
def test_the_rows_that_logits_read(kind: str) -> None:
    """The derivative of the logits by the last block's output is zero exactly where the readout is."""
    model = transformers_model(kind).double()
    images, seen = images_for(model), []
    last = families.of_module(model).blocks(model)[-1]
    last.register_forward_hook(lambda _, args, out: seen.append(out[0] if isinstance(out, tuple) else out))
    logits = families.logits_of(model, images)
    (gradient,) = torch.autograd.grad(logits.square().sum(), seen[0])
    layout = token_layout(model, *images.shape[-2:])
    weights = layout.weigh(torch.zeros(1, layout.tokens))[0]
    assert ((gradient.abs().amax(dim=(0, 2)) > 0) == (weights > 0)).all()
    assert dict(enumerate(weights.tolist())) == pytest.approx(
        {**dict.fromkeys(range(layout.tokens), 0.0), **READ[kind]}
    )


@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "SigLIP", "Data2VecVision"])
def test_folders(kind: str, tmp_path: Path) -> None:
    """A folder of save_pretrained is read, with its image processor; what we write, the library reads."""
    model = transformers_model(kind)
    model.save_pretrained(tmp_path / "theirs")
    processor = transformers.ViTImageProcessor(size={"height": 56, "width": 56}, image_mean=[0.1, 0.2, 0.3])
    processor.save_pretrained(tmp_path / "theirs")
    loaded, view = relevit.load(tmp_path / "theirs")
    images = images_for(model)
    assert torch.equal(families.logits_of(loaded, images), families.logits_of(model, images))
    assert view.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert class_name(loaded, 2) == "kind 2 (2)" and class_number(loaded, "kind 6") == 6
    save_checkpoint(tmp_path / "ours", loaded, extra={"epoch": 3})
    again = type(model).from_pretrained(tmp_path / "ours")
    assert torch.equal(again(images).logits, families.logits_of(model, images))
    kept = transformers.AutoImageProcessor.from_pretrained(tmp_path / "ours", use_fast=False)
    assert tuple(kept.image_mean) == (0.1, 0.2, 0.3)
    assert relevit.load(tmp_path / "ours")[1].mean.equal(view.mean)
    assert json.loads((tmp_path / "ours" / "relevit.json").read_text())["epoch"] == 3


PROCESSORS: dict[str, dict[str, Any]] = {
    "ViTImageProcessorPil": {"size": {"height": 53, "width": 47}},
    "DeiTImageProcessorPil": {"size": {"height": 61, "width": 61}, "crop_size": {"height": 48, "width": 48}},
    "CLIPImageProcessorPil": {"size": {"shortest_edge": 59}, "crop_size": {"height": 48, "width": 48}},
    "SiglipImageProcessorPil": {"size": {"height": 48, "width": 48}},
    "BitImageProcessorPil": {"size": {"shortest_edge": 61}, "crop_size": {"height": 42, "width": 42}},
}


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("shape", [(71, 103), (97, 60), (64, 64)])
def test_views_are_those_of_the_image_processor(name: str, shape: tuple[int, int]) -> None:
    processor = getattr(transformers, name)(**PROCESSORS[name])
    config = as_view(processor.to_dict(), (48, 48), any_size=True)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    wanted = processor(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(EvaluationView(config)(picture), wanted, rtol=0, atol=1e-5)
    back = as_processor(config, processor.to_dict())
    assert as_view(back, (48, 48), any_size=True) == config


def test_pixels_that_are_not_scaled_are_refused() -> None:
    with pytest.raises(UserError, match="1/255"):
        as_view({"do_rescale": False}, (48, 48))
    with pytest.raises(UserError, match="longest_edge"):
        as_view({"size": {"longest_edge": 48}}, (48, 48))


def test_other_numbers_of_classes(tmp_path: Path) -> None:
    """A new head, and a classifier made of a backbone."""
    transformers_model("Dinov2").save_pretrained(tmp_path / "classifier")
    dinov2: Any = transformers_model("Dinov2")
    dinov2.dinov2.save_pretrained(tmp_path / "backbone")
    for folder in ("classifier", "backbone"):
        model, _ = relevit.load(tmp_path / folder, num_classes=3)
        assert families.class_count(model) == 3 and unsupported_reason(model) is None
    backbone, _ = relevit.load(tmp_path / "backbone")
    assert "num_classes" in str(unsupported_reason(backbone))


@pytest.mark.parametrize("kind", sorted(TRANSFORMERS))
def test_features_of_patches(kind: str) -> None:
    """Keys by the projection's own weights; images of another size by the library's own resampling."""
    model = transformers_model(kind)
    images, seen = images_for(model), {}
    block = families.of_module(model).blocks(model)[1]
    keys = next(part for name, part in block.named_modules() if name.endswith(("k_proj", "key")))
    handle = keys.register_forward_hook(lambda _, args, out: seen.update(key=out))
    features, grid = patch_features(model, images, kind="key", block=1)
    handle.remove()
    prefix = token_layout(model, *images.shape[-2:]).prefix
    assert grid == (3, 3)
    torch.testing.assert_close(features, seen["key"][:, prefix:])
    before = families.logits_of(model, images)
    patch = images.shape[-1] // 3
    with accept_size(model, 2 * patch, 5 * patch):
        other = patch_features(model, torch.randn(1, 3, 2 * patch, 5 * patch), kind="token")
    assert other[1] == (2, 5) and other[0].shape == (1, 10, 24) and other[0].isfinite().all()
    assert torch.equal(families.logits_of(model, images), before)


def test_backbone_with_rotary_embedding() -> None:
    """DINOv3 has no classifier here: keys before the rotation for masks, and why there are no maps."""
    model = dinov3_backbone()
    features, grid = patch_features(model, torch.randn(2, 3, 48, 80))
    assert grid == (3, 5) and features.shape == (2, 15, 24)
    assert "no classifier" in str(unsupported_reason(model))


def test_what_is_refused() -> None:
    swin = transformers.SwinConfig(embed_dim=12, depths=[1, 1], num_heads=[2, 2], image_size=32, window_size=4)
    assert "windows" in str(unsupported_reason(transformers.SwinForImageClassification(swin)))
    tower = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 48}
    config = transformers.Siglip2Config(vision_config=tower, text_config=tower)
    assert "SiglipForImageClassification" in str(unsupported_reason(transformers.Siglip2ForImageClassification(config)))
    with pytest.raises(UserError, match="48 x 48"):
        relevit.relevance(transformers_model("ViT"), torch.zeros(1, 3, 64, 64))


def test_names_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="could not be loaded by transformers"):
        relevit.load("hf:nobody/no-such-model")
