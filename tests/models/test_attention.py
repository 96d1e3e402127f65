"""`capture`, the token layout, and what is said about models that are not supported."""

import peft
import pytest
import timm
import torch
from torch import nn

import relevit
from families import FAMILIES, SMALL, build
from relevit.models.attention import capture, composed_attention, patch_grid, token_layout, unsupported_reason


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_capture(family):
    """One map per attention, rows that sum to one, in the graph, and the model's own output."""
    model, images = build(family)
    plain = model(images)
    with capture(model) as captured:
        logits = model(images)
        model(images)  # the maps are those of the latest forward pass
    torch.testing.assert_close(logits, plain, rtol=1e-4, atol=1e-5)
    pooled = FAMILIES[family][4] == "attention_pool"
    tokens = 15 + FAMILIES[family][3]
    assert len(captured.maps) == 3 + pooled
    for weights in captured.maps[:3]:
        assert weights.shape == (3, 3, tokens, tokens) and weights.requires_grad
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 3, tokens))
    if pooled:
        assert captured.maps[3].shape[2] == 1 and captured.maps[3].shape[3] in (15, tokens)


def test_capture_with_unfused_attention():
    model, images = build("vit")
    for block in model.blocks:
        block.attn.fused_attn = False
    with capture(model) as captured:
        model(images)
    assert len(captured.maps) == 3
    assert not any(block.attn.fused_attn for block in model.blocks)


def test_outside_of_the_attention_nothing_is_caught():
    model, images = build("vit")
    with capture(model) as captured:
        torch.nn.functional.scaled_dot_product_attention(*torch.ones(3, 1, 1, 2, 2))
        assert captured.maps == []
        model(images)
    model(images)
    assert len(captured.maps) == 3


@pytest.mark.parametrize("masked", ["no", "bool", "bias", "causal", "grouped"])
def test_composed_attention(masked):
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 6, 5, 7), torch.randn(2, 6, 5, 7), torch.randn(2, 6, 5, 7)
    arguments = {
        "no": {"scale": 0.7}, "bool": {"attn_mask": torch.rand(5, 5) > 0.3}, "bias": {"attn_mask": torch.randn(1, 6, 5, 5)},
        "causal": {"is_causal": True}, "grouped": {"enable_gqa": True},
    }[masked]  # fmt: skip
    if masked == "bool":
        arguments["attn_mask"].fill_diagonal_(True)
    if masked == "grouped":
        key, value = key[:, :2], value[:, :2]
    output, weights = composed_attention(query, key, value, **arguments)
    torch.testing.assert_close(output, nn.functional.scaled_dot_product_attention(query, key, value, **arguments))
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 6, 5))


def create(**arguments):
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, **(SMALL | {"img_size": (48, 80)} | arguments))


def test_layout_sizes():
    model = create(dynamic_img_size=True, img_size=64)
    assert token_layout(model, 32, 112).grid == (2, 7)
    with pytest.raises(relevit.UserError, match="no multiple of the patch size 16 x 16"):
        token_layout(model, 40, 112)
    assert token_layout(create(dynamic_img_size=True, dynamic_img_pad=True, img_size=64), 40, 112).grid == (3, 7)
    with pytest.raises(relevit.UserError, match=r"create the model with img_size=\(48, 64\) or dynamic_img_size=True"):
        token_layout(create(), 48, 64)


def test_padded_images():
    torch.manual_seed(0)
    model = create(dynamic_img_size=True, dynamic_img_pad=True, img_size=64)
    assert relevit.relevance(model, torch.randn(2, 3, 40, 70)).shape == (2, 40, 70)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: create(num_classes=0), "no classifier .num_classes=0."),
        (lambda: create(global_pool="max"), "pools its tokens by 'max'"),
        (lambda: create(global_pool="prr"), "pools its tokens by AttentionPoolPrr"),
        (lambda: create(attn_layer="diff"), "without a single global attention map"),
        (lambda: nn.Sequential(torch.compile(create())), "parts of the model are compiled by torch.compile"),
        (lambda: nn.Sequential(type("FSDPModule", (nn.Linear,), {})(3, 5)), "sharded by FSDP"),
    ],
)
def test_unsupported(model, message):
    model = model()
    assert message.split(" .")[0] in unsupported_reason(model)
    with pytest.raises(relevit.UserError, match=message), capture(model):
        pass


def test_supported():
    assert unsupported_reason(create()) is None


@pytest.mark.parametrize("arguments", [{"num_classes": 0}, {"global_pool": "max"}, {"global_pool": "prr"}])
def test_maps_without_a_readout(arguments):
    """Who needs no readout row is served; what the blocks lack is still refused."""
    model = create(**arguments)
    assert unsupported_reason(model, readout=False) is None
    assert patch_grid(model, 48, 80) == (3, 5)
    with capture(model, readout=False) as captured:
        model.forward_features(torch.randn(2, 3, 48, 80))
    assert [tuple(weights.shape) for weights in captured.maps] == [(2, 3, 16, 16)] * 3
    with pytest.raises(relevit.UserError, match="without a single global attention map"):
        patch_grid(create(attn_layer="diff"), 48, 80)


def test_dropped_patches_are_refused_in_training():
    model = create(patch_drop_rate=0.5).train()
    with pytest.raises(relevit.UserError, match="patch_drop_rate"):
        relevit.relevance(model, torch.randn(2, 3, 48, 80))
    assert relevit.relevance(model.eval(), torch.randn(2, 3, 48, 80)).shape == (2, 48, 80)


def test_distilled_training_is_refused():
    model, images = build("deit_distilled")
    model.train()
    model.set_distilled_training(True)
    with pytest.raises(relevit.UserError, match="set_distilled_training"):
        relevit.relevance(model, images)


def lora(model):
    """PEFT's adapters on the first projections of attention and of the MLP, of which none is zero."""
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["qkv", "fc1"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    return adapted


def in_place(model):
    model.compile(backend="eager")
    model.blocks[1].compile(backend="eager")
    return model


@pytest.mark.parametrize(
    ("wrap", "inner"),
    [
        (nn.DataParallel, lambda model: model.module),
        (lambda model: torch.compile(model, backend="eager"), lambda model: model._orig_mod),
        (in_place, lambda model: model),
        (lora, lambda model: model.merge_and_unload()),
        (lambda model: nn.DataParallel(torch.compile(lora(model), backend="eager")), None),
    ],
    ids=["data_parallel", "compiled", "compiled_in_place", "peft", "all_of_them"],
)
def test_wrapped_models_give_the_maps_of_what_is_inside(wrap, inner):
    images = torch.randn(2, 3, 48, 80, dtype=torch.float64)
    torch.manual_seed(0)
    model = wrap(create().double().eval())
    calls = [part._compiled_call_impl for part in model.modules()]
    logits, maps = relevit.forward_with_relevance(model, images, 3)
    maps.sum().backward()
    assert [part._compiled_call_impl for part in model.modules()] == calls
    assert any(parameter.grad is not None for parameter in model.parameters())
    if inner is not None:
        plain = inner(model)
        for part in plain.modules():
            part._compiled_call_impl = None
        expected = relevit.forward_with_relevance(plain, images, 3)
        torch.testing.assert_close((logits, maps), expected, rtol=0, atol=1e-12)
    assert unsupported_reason(model) is None
