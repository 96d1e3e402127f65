"""Partial fine-tuning: what moves, and that nothing else does, to the bit."""

import sys

import pytest
import timm
import torch

import relevit
from families import build
from relevit.errors import UserError
from relevit.training.loop import finetune
from relevit.training.trainable import TrainableWeights, check_trainable
from tiny_run import CLASSES, InterruptingSamples, TinySamples, arguments, tiny_model, weights_of

MODES = {
    "all": lambda name: True,
    "attention": lambda name: ".attn." in name,
    "last:1": lambda name: name.startswith("blocks.1."),
    "last:2": lambda name: name.startswith("blocks."),
    "lora:2": lambda name: name.endswith(("attn.qkv.weight", "attn.proj.weight")),
}


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers, those too that no state dict holds."""
    return {name: t.detach().clone() for name, t in [*model.named_parameters(), *model.named_buffers()]}


def flags(model: torch.nn.Module) -> dict[str, bool]:
    return {name: p.requires_grad for name, p in model.named_parameters()}


def kinds(model: torch.nn.Module) -> dict[str, type]:
    return {name: type(module) for name, module in model.named_modules()}


@pytest.mark.parametrize("trainable", MODES)
@pytest.mark.parametrize("method", ["relevance", "control"])
def test_only_what_is_named_moves(trainable, method, tmp_path):
    """With a weight decay under which anything that gets to the optimiser moves."""
    model = tiny_model()
    before, kind, flag = tensors(model), kinds(model), flags(model)
    usual = arguments(method=method, trainable=trainable, epochs=2, weight_decay=0.5, max_steps=5, previews=0)
    result = finetune(model, TinySamples(14), tmp_path / "run", **usual)
    after = tensors(model)
    assert kinds(model) == kind and flags(model) == flag and "peft_config" not in vars(model)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    named = {name for name in after if MODES[trainable](name)}
    assert moved <= named
    # relevance trains whatever the logits depend on; a bias that is 0 needs a gradient to move
    assert named - moved <= {name for name in named if name.endswith("bias")} or trainable == "all"
    loaded = timm.create_model(f"local-dir:{result.checkpoint}", pretrained=True)
    assert all(torch.equal(tensor, after[name]) for name, tensor in tensors(loaded).items())
    if trainable == "lora:2":
        for name in moved:
            change = torch.linalg.svdvals((after[name] - before[name]).double())
            assert change[1] > 1e-6 and change[2] < 1e-3 * change[0]  # of rank 2


def test_weights_that_the_caller_froze_stay():
    model = tiny_model()
    model.blocks[1].attn.qkv.requires_grad_(False)
    before, flag = tensors(model), flags(model)
    finetune(model, TinySamples(6), None, **arguments(trainable="last:1", epochs=1, weight_decay=0.5))
    after = tensors(model)
    assert flags(model) == flag
    assert torch.equal(after["blocks.1.attn.qkv.weight"], before["blocks.1.attn.qkv.weight"])
    assert not torch.equal(after["blocks.1.mlp.fc1.weight"], before["blocks.1.mlp.fc1.weight"])


@pytest.mark.parametrize("family", ["vit", "beit", "eva02", "eva02_separate_qkv", "siglip", "vit_parallel"])
def test_adapters_change_nothing_at_first_then_all_of_them_learn(family):
    """Each linear layer of the attention gets a gradient through its adapter, where timm multiplies by its weight, too;
    maps are captured; merged weights give what the adapters give; and all of it is taken back."""
    model, images = build(family)
    kind, flag, before = kinds(model), flags(model), tensors(model)
    separate = [getattr(m, "qkv_bias_separate", None) for m in model.modules()]
    with torch.no_grad():
        plain = relevit.forward_with_relevance(model, images)
    with TrainableWeights(model, "lora:3", seed=5) as trained:
        adapted = relevit.forward_with_relevance(model, images)
        for one, other in zip(plain, adapted, strict=True):
            torch.testing.assert_close(one, other.detach(), rtol=1e-3, atol=1e-4)
        assert sum(p.numel() for p in trained.parameters) == sum(
            p.numel() for p in model.parameters() if p.requires_grad
        )
        with torch.no_grad():
            rng = torch.Generator().manual_seed(0)
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(0.05 * torch.randn(parameter.shape, generator=rng))
        logits, maps = relevit.forward_with_relevance(model, images)
        (maps.square().mean() + logits.square().sum()).backward()
        assert all(p.grad is not None and (p.grad != 0).any() for p in trained.parameters)
        inner = tensors(model)
        with trained.merged() as merged, torch.no_grad():
            assert merged is model and kinds(model) == kind
            torch.testing.assert_close(model(images), logits.detach(), rtol=1e-3, atol=1e-3)
            assert not torch.allclose(logits.detach(), plain[0], rtol=1e-2, atol=1e-2)
        assert all(torch.equal(tensor, inner[name]) for name, tensor in tensors(model).items())
    after = tensors(model)
    assert kinds(model) == kind and flags(model) == flag and after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [getattr(m, "qkv_bias_separate", None) for m in model.modules()] == separate


def test_adapters_are_drawn_from_the_seed():
    def drawn(seed):
        model = tiny_model()
        torch.manual_seed(int(torch.randint(1000, ())))
        with TrainableWeights(model, "lora:2", seed) as trained:
            return [p.detach().clone() for p in trained.parameters]

    one, again, other = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("trainable", ["lora:2", "last:1"])
def test_an_interrupted_run_goes_on(trainable, tmp_path):
    usual = arguments(trainable=trainable, epochs=2, previews=0)
    whole = finetune(tiny_model(), TinySamples(14), tmp_path / "whole", **usual)
    model = tiny_model()
    kind, flag = kinds(model), flags(model)
    with pytest.raises(KeyboardInterrupt):
        finetune(model, InterruptingSamples(14, after=40), tmp_path / "run", **usual)
    assert kinds(model) == kind and flags(model) == flag
    finetune(model, TinySamples(14), tmp_path / "run", **usual)  # the same module, half trained
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "whole")
    again = finetune(whole.model, TinySamples(14), tmp_path / "whole", **usual)  # finished, in place
    assert again.metrics["steps"] == 8


def test_without_a_folder_the_merged_weights_are_kept(tmp_path):
    usual = arguments(trainable="lora:2", epochs=1, previews=0)
    written = finetune(tiny_model(), TinySamples(6), tmp_path / "run", **usual)
    kept = finetune(tiny_model(), TinySamples(6), None, **usual)
    assert all(torch.equal(t, tensors(written.model)[name]) for name, t in tensors(kept.model).items())


def test_it_is_part_of_the_configuration(tmp_path):
    finetune(tiny_model(), TinySamples(6), tmp_path / "run", **arguments(trainable="attention", epochs=1))
    with pytest.raises(UserError, match="trainable: 'attention' in the folder, 'all' now"):
        finetune(tiny_model(), TinySamples(6), tmp_path / "run", **arguments(epochs=1))


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        ("head", "trainable must be all, attention, last:K"),
        ("last", "trainable must be"),
        ("last:0", "trainable must be"),
        ("lora:-1", "trainable must be"),
        ("attention:2", "trainable must be"),
        ("last:3", "the model has 2 blocks"),
    ],
)
def test_bad_values(trainable, message, tmp_path):
    with pytest.raises(UserError, match=message):
        finetune(tiny_model(), TinySamples(6), tmp_path / "run", **arguments(trainable=trainable))
    assert not (tmp_path / "run").exists()


def test_for_vision_transformers_alone():
    network = timm.create_model("resnet10t", num_classes=CLASSES)
    check_trainable(network, "all")
    for trainable in ("attention", "last:1", "lora:2"):
        with pytest.raises(UserError, match="is for vision transformers"):
            check_trainable(network, trainable)
    with pytest.raises(UserError, match="nothing would be trained"):
        check_trainable(tiny_model().requires_grad_(False), "attention")


def test_without_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install relevit\[lora\]"):
        check_trainable(tiny_model(), "lora:2")


@pytest.mark.parametrize("trainable", MODES)
def test_nothing_else_requires_a_gradient_meanwhile(trainable):
    model = tiny_model()
    model.pos_embed.requires_grad_(False)
    flag = flags(model)
    with TrainableWeights(model, trainable) as trained:
        inside = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert {id(p) for p in inside.values()} == {id(p) for p in trained.parameters}
        if trainable == "lora:2":
            assert len(inside) == 2 * 4 and all("lora_" in name for name in inside)
        else:
            assert set(inside) == {name for name in flag if MODES[trainable](name) and name != "pos_embed"}
    assert flags(model) == flag
