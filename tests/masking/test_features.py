"""`patch_features` of every family against the block's own weights, and `accept_size`."""

import pytest
import timm
import torch
from torch import nn

import relevit
from families import FAMILIES, SMALL, build
from relevit.masking.features import KINDS, accept_size, patch_features


def by_hand(model, images, block):
    """Query, key and value of a block's patches, (batch, patches, dim), from its input and its projection's weights,
    before any rotation; and the block's output."""
    seen = {}
    hooks = [
        model.blocks[block].register_forward_hook(lambda m, a, out: seen.update(token=out)),
        *(
            [model.blocks[block].attn.register_forward_pre_hook(lambda m, a: seen.update(x=a[0]))]
            if hasattr(model.blocks[block], "attn")
            else [model.blocks[block].in_norm.register_forward_hook(lambda m, a, out: seen.update(x=out))]
        ),
    ]
    with torch.no_grad():
        model(images)
        for hook in hooks:
            hook.remove()
        x = seen["x"]
        attention = getattr(model.blocks[block], "attn", model.blocks[block])
        if getattr(attention, "q_proj", None) is not None:
            parts = [attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)]
        elif hasattr(attention, "in_proj"):
            parts = list(attention.in_proj(x)[..., -72:].chunk(3, dim=-1))
        else:
            parts = list((x @ attention.qkv.weight.T).chunk(3, dim=-1))
            if attention.qkv.bias is not None:
                parts = [part + bias for part, bias in zip(parts, attention.qkv.bias.chunk(3), strict=True)]
            if getattr(attention, "q_bias", None) is not None:
                parts[0], parts[2] = parts[0] + attention.q_bias, parts[2] + attention.v_bias
        for index, norm in enumerate(("q_norm", "k_norm")):
            if isinstance(getattr(attention, norm, None), nn.LayerNorm):
                heads = parts[index].unflatten(-1, (3, 8))
                parts[index] = getattr(attention, norm)(heads).flatten(-2)
    # the patches are the last 15 tokens, whatever stands before them
    return {
        name: part[:, -15:] for name, part in zip(KINDS, [parts[1], parts[0], parts[2], seen["token"]], strict=True)
    }


@pytest.mark.parametrize("backbone", [False, True], ids=["classifier", "backbone"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_features_are_those_of_the_block(family, backbone):
    model, images = build(family, **({"num_classes": 0} if backbone else {}))
    for block, kind in [
        (1, "key"),
        (-1, "key"),
        (1, "query"),
        (0, "value"),
        (-1, "value"),
        (0, "token"),
        (-1, "token"),
    ]:
        features, grid = patch_features(model, images, kind=kind, block=block)
        assert grid == (3, 5)
        assert not features.requires_grad
        assert features.shape == (3, 15, 24)
        torch.testing.assert_close(features, by_hand(model, images, block)[kind], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "deit_distilled", "dinov3", "siglip"])
def test_patches_are_in_row_major_order(family):
    """One patch differs: before any attention has mixed the patches, only its features differ."""
    model, images = build(family)
    odd = images[:1].clone()
    patch = images.shape[-1] // 5
    odd[:, :, patch : 2 * patch, 3 * patch : 4 * patch] += 1.0  # row 1, column 3
    plain, odd = (patch_features(model, x, kind="value", block=0)[0][0] for x in (images[:1], odd))
    assert (plain - odd).abs().amax(dim=1).gt(1e-3).nonzero().flatten().tolist() == [1 * 5 + 3]


@pytest.mark.parametrize("family", ["eva02", "dinov3"])
def test_keys_are_not_rotated(family):
    """Before any attention, equal patches have equal keys wherever they are (EVA-02's position embedding taken away)."""
    model, images = build(family)
    if getattr(model, "pos_embed", None) is not None:
        nn.init.zeros_(model.pos_embed)
    keys, _ = patch_features(model, torch.ones_like(images), block=0)
    torch.testing.assert_close(keys, keys[:, :1].expand_as(keys))


@pytest.mark.parametrize("pool", ["", "max", "avg", "token"])
def test_no_readout_is_needed(pool):
    model = timm.create_model(
        "vit_tiny_patch16_224", **(SMALL | {"num_classes": 0, "img_size": (48, 80)}), global_pool=pool
    )
    assert patch_features(model, torch.randn(2, 3, 48, 80))[0].shape == (2, 15, 24)


def state(model):
    hooks = [
        (name, len(m._forward_hooks), len(m._forward_pre_hooks), m.training, getattr(m, "fused_attn", None))
        for name, m in model.named_modules()
    ]
    tensors = {name: (id(x), x._version) for name, x in [*model.named_parameters(), *model.named_buffers()]}
    return hooks, tensors, model.__dict__.get("grad_checkpointing")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["vit", "dinov3", "beit", "vit_parallel"])
def test_the_model_is_as_before(family, kind):
    model, images = build(family)
    model.train()
    model.blocks[1].eval()  # modules of different modes keep them
    model.grad_checkpointing = True
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    before = state(model)
    patch_features(model, images, kind=kind)
    assert state(model) == before
    assert all(parameter.grad is None for parameter in model.parameters())

    def fail(module, args):
        raise ValueError("planted")

    handle = model.blocks[1].register_forward_pre_hook(fail)
    planted = state(model)
    with pytest.raises(ValueError, match="planted"):
        patch_features(model, images, kind=kind)
    assert state(model) == planted
    handle.remove()


def test_it_runs_in_evaluation_mode():
    model, images = build("vit", proj_drop_rate=0.5, patch_drop_rate=0.5)
    expected = patch_features(model, images)[0]
    torch.testing.assert_close(patch_features(model.train(), images)[0], expected, rtol=0, atol=0)


def test_it_ends_at_the_block():
    model, images = build("vit")
    ran = []
    for index, block in enumerate(model.blocks):
        block.mlp.register_forward_hook(lambda m, a, out, index=index: ran.append(index))
    patch_features(model, images, block=1)
    assert ran == [0]
    ran.clear()
    patch_features(model, images, kind="token", block=-2)
    assert ran == [0, 1]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_another_size(family):
    """An accepted size gives the right grid, and the model is as before: the same parameters, the same output."""
    model, images = build(family)
    patch = images.shape[-1] // 5
    other = torch.randn(2, 3, 2 * patch, 7 * patch)
    before, output = state(model), model(images)
    with accept_size(model, 2 * patch, 7 * patch):
        features, grid = patch_features(model, other)
    assert grid == (2, 7) and features.shape == (2, 14, 24)
    assert state(model)[0] == before[0]
    assert {name: x[0] for name, x in state(model)[1].items()} == {name: x[0] for name, x in before[1].items()}
    torch.testing.assert_close(model(images), output, rtol=0, atol=0)
    with accept_size(model, *images.shape[-2:]):
        torch.testing.assert_close(model(images), output, rtol=0, atol=0)
    with (
        pytest.raises(relevit.UserError, match="no multiple of the patch size"),
        accept_size(model, 2 * patch + 1, patch),
    ):
        pass


def test_an_accepted_size_is_the_dynamic_one():
    """The position embedding is resampled as by a model that was created with dynamic_img_size=True."""
    fixed = build("vit")[0]
    dynamic = build("vit", dynamic_img_size=True)[0]
    dynamic.load_state_dict(fixed.state_dict())
    other = torch.randn(2, 3, 32, 112)
    expected = patch_features(dynamic, other)
    with accept_size(fixed, 32, 112):
        features = patch_features(fixed, other)
    assert features[1] == expected[1] == (2, 7)
    torch.testing.assert_close(features[0], expected[0])


def test_a_size_is_taken_back_after_an_exception():
    model, images = build("beit")
    output = model(images)
    with pytest.raises(ValueError, match="planted"), accept_size(model, 32, 112):
        raise ValueError("planted")
    torch.testing.assert_close(model(images), output, rtol=0, atol=0)

    def half(img_size):
        model.patch_embed.set_input_size(img_size=img_size)
        raise RuntimeError("planted")

    model.set_input_size = half
    with pytest.raises(relevit.UserError, match=r"cannot be made to take images of 32 x 112 pixels .planted."):
        with accept_size(model, 32, 112):
            pass
    torch.testing.assert_close(model(images), output, rtol=0, atol=0)


def test_what_is_done_to_the_model_meanwhile_stays():
    model, _ = build("vit")
    with accept_size(model, 32, 112):
        model.train()
        model.blocks[0].note = "kept"
    assert model.training and model.blocks[0].note == "kept"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "keys"}, "kind must be one of key, query, value, token, not 'keys'"),
        ({"block": 3}, "block is 3, but the model has 3 blocks: 0 to 2, or -3 to -1"),
        ({"block": -4}, "block is -4, but the model has 3 blocks"),
        ({"images": torch.randn(1, 3, 48, 64)}, "images are 48 x 64 pixels, but the model takes 48 x 80"),
        ({"images": torch.randn(1, 4, 48, 80)}, "images have 4 channels, but the model takes 3"),
        ({"images": torch.randn(3, 48, 80)}, r"images are torch.float32 of shape \(3, 48, 80\)"),
        ({"images": torch.zeros(1, 3, 48, 80, dtype=torch.uint8)}, "must be normalised floating-point numbers"),
        ({"model": timm.create_model("resnet18")}, "ResNet has no global attention maps"),
    ],
)
def test_user_errors(change, message):
    model, images = build("vit")
    with pytest.raises(relevit.UserError, match=message):
        patch_features(change.pop("model", model), change.pop("images", images), **change)


def test_no_patch_at_all():
    model = build("vit_dynamic")[0]
    with pytest.raises(relevit.UserError, match="less than one patch"):
        patch_features(model, torch.zeros(1, 3, 0, 48))
