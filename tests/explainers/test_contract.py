"""What every explainer owes to every supported model family."""

import copy
from functools import cache

import pytest
import timm
import torch
import torch.nn.functional as F

import relevit
from families import FAMILIES, UNSUPPORTED, build, readout_of
from relevit.explainers import EXPLAINERS, integrated_gradients, smoothgrad
from relevit.models.attention import attention_modules, token_layout

MANY = ((integrated_gradients, "STEPS"), (smoothgrad, "SAMPLES"))
"""Explainers that run the model many times, and how often."""


@pytest.fixture(params=sorted(EXPLAINERS))
def method(request, monkeypatch):
    for module, number in MANY:
        monkeypatch.setattr(module, number, 2)
    return request.param


@cache
def built(family, **arguments):
    return build(family, **arguments)


def copy_of(family, **arguments):
    """A model of its own, and the images."""
    model, images = built(family, **arguments)
    return copy.deepcopy(model), images.clone()


def state(model):
    """Everything that a call could leave changed."""
    modules = list(model.modules())
    return {
        "parameters": [
            (p.detach().clone(), p.requires_grad, None if p.grad is None else p.grad.clone())
            for p in model.parameters()
        ],
        "mode": [m.training for m in modules],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._forward_hooks_always_called)) for m in modules
        ],
        "fused": [getattr(m, "fused_attn", None) for m in modules],
        "attributes": [sorted(m.__dict__) for m in modules],
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def settings(method):
    """What makes the map carry a graph, where it can."""
    return {"explainer": method, "second_order": EXPLAINERS[method].needs_second_order}


def at_the_end(model, name):
    """Biases that are added after all that is not linear: no derivative of a logit depends on them."""
    pooled = getattr(model, "attn_pool", None) is not None
    own = ("head.bias", "head_dist.bias", "fc_norm.bias", *([] if pooled else ["norm.bias"]))
    return name in own or (pooled and name == "attn_pool.mlp.fc2.bias")


def unreached(model, name, method):
    """Weights that a map does not depend on."""
    if EXPLAINERS[method].needs_second_order:
        return at_the_end(model, name)
    return after_last_attention(model, name)


def after_last_attention(model, name):
    """Weights that the attention maps do not depend on: what follows the last softmax."""
    if name.startswith(("norm.", "fc_norm.", "head")):
        return getattr(model, "attn_pool", None) is None or not name.startswith("norm.")
    if getattr(model, "attn_pool", None) is not None:
        return name.startswith(("attn_pool.proj", "attn_pool.norm", "attn_pool.mlp"))
    last = f"blocks.{len(model.blocks) - 1}."
    later = ("attn.proj", "attn.norm", "attn.v_", "norm2", "mlp.", "ls", "gamma", "attn_out_proj", "mlp_out_proj")
    return name.startswith(last) and name.removeprefix(last).startswith(later)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.quick_where(lambda method, family: method == "gae" or family == "vit")
def test_contract(family, method):
    """Layout, shape, range, the model's own logits, gradients in every weight that a map depends on, nothing changed."""
    model, images = copy_of(family)
    _, _, size, prefix, readout = FAMILIES[family]
    layout = token_layout(model, *size)
    assert (layout.grid, layout.prefix, readout_of(layout)) == ((3, 5), prefix, readout)
    for module in attention_modules(model):
        assert module.fused_attn
    plain = model(images)
    before = state(model)

    logits, maps = relevit.forward_with_relevance(model, images, **settings(method))
    assert same(before, state(model))
    torch.testing.assert_close(logits, plain, rtol=1e-4, atol=1e-5)
    assert maps.shape == (3, *size) and maps.dtype == torch.float32
    assert maps.isfinite().all() and maps.requires_grad == EXPLAINERS[method].trains and logits.requires_grad
    torch.testing.assert_close(maps.amin(dim=(1, 2)), torch.zeros(3))
    whole = torch.ones(3)
    if method == "attention_gradcam":  # nothing of which speaks for the class
        whole = (relevit.relevance(model, images, explainer=method, normalize=False).amax(dim=(1, 2)) > 0).float()
    torch.testing.assert_close(maps.amax(dim=(1, 2)), whole)
    small = relevit.relevance(model, images, target=4, explainer=method, upscale=False, normalize=False)
    assert small.shape == (3, 3, 5) and (small >= 0).all()

    if EXPLAINERS[method].trains:
        ((maps - 0.3) ** 2).sum().backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == (EXPLAINERS[method].trains and not unreached(model, name, method)), name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    before = state(model)
    again = relevit.relevance(model, images, explainer=method)  # .grad is filled now, and stays
    assert same(before, state(model)) and not (again.requires_grad and EXPLAINERS[method].needs_second_order)
    torch.testing.assert_close(again, maps, rtol=1e-3, atol=1e-5)


def test_nothing_is_drawn(method):
    """The same twice, bit for bit, and the global generator is as before."""
    model, images = copy_of("vit")
    before = torch.get_rng_state()
    first = relevit.relevance(model, images, explainer=method)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(5)
    assert torch.equal(first, relevit.relevance(model, images, explainer=method))


@pytest.mark.parametrize("family", ["vit", "beit", "deit_distilled", "eva02", "siglip"])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.quick_where(lambda method, family: method == "gae" or family == "vit")
def test_without_gradients(family, context, method):
    model, images = copy_of(family)
    with_graph_logits, with_graph = relevit.forward_with_relevance(model, images, explainer=method)
    before = state(model)
    with context():
        logits, maps = relevit.forward_with_relevance(model, images + 0, explainer=method)
    assert not maps.requires_grad and not logits.requires_grad
    torch.testing.assert_close(maps, with_graph)
    torch.testing.assert_close(logits, with_graph_logits)
    assert same(before, state(model))


@pytest.mark.parametrize("target", [2, torch.tensor([2, 0, 1])])
def test_a_target_in_inference_mode(target, method):
    model, images = copy_of("vit")
    expected = relevit.relevance(model, images, target, method).detach()
    with torch.inference_mode():
        found = relevit.relevance(model, images, target if isinstance(target, int) else target + 0, method)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("family", ["vit", "beit", "siglip"])
@pytest.mark.quick_where(lambda method, family: method == "gae" or family == "vit")
def test_frozen_weights(family, method):
    """All frozen: the same map without a graph. The first blocks frozen: the others have the same gradients."""
    model, images = copy_of(family)
    maps = relevit.relevance(model, images, **settings(method))
    if EXPLAINERS[method].trains:
        maps.square().sum().backward()
    frozen = copy.deepcopy(model).requires_grad_(False)
    again = relevit.relevance(frozen, images, **settings(method))
    assert not again.requires_grad
    torch.testing.assert_close(again, maps.detach())
    if not EXPLAINERS[method].trains:
        return
    frozen.blocks[1].requires_grad_(True)
    for second_order in (False, True):
        if EXPLAINERS[method].needs_second_order and not second_order:
            continue
        again = relevit.relevance(frozen, images, explainer=method, second_order=second_order)
        torch.testing.assert_close(again.detach(), maps.detach())
        frozen.zero_grad()
        again.square().sum().backward()
        assert all(p.grad is None for n, p in frozen.named_parameters() if not n.startswith("blocks.1."))
        if second_order == EXPLAINERS[method].needs_second_order:
            for theirs, ours in zip(model.blocks[1].parameters(), frozen.blocks[1].parameters(), strict=True):
                torch.testing.assert_close(theirs.grad, ours.grad)


@pytest.mark.parametrize("family", ["vit", "beit", "vit_mean", "siglip"])
@pytest.mark.quick_where(lambda method, family: method == "gae" or family == "vit")
def test_state_after_an_exception(family, method):
    model, images = copy_of(family)
    model.train()
    model.blocks[1].eval()
    attention_modules(model)[0].fused_attn = False
    model.head.weight.grad = torch.ones_like(model.head.weight)

    def fail(*_):
        raise RuntimeError("planted")

    last = model.blocks[-1].attn.register_forward_pre_hook(fail)
    before = state(model)
    for grad in (torch.enable_grad, torch.no_grad):
        with grad(), pytest.raises(RuntimeError, match="planted"):
            relevit.relevance(model, images, explainer=method)
        assert same(before, state(model))
    last.remove()
    before = state(model)
    with pytest.raises(relevit.UserError, match="outside of the model's classes 0 to 6"):
        relevit.relevance(model, images, target=7, explainer=method)
    relevit.relevance(model, images, explainer=method)
    assert same(before, state(model))
    assert F.scaled_dot_product_attention(*torch.ones(3, 1, 1, 2, 2)).shape == (1, 1, 2, 2)


@pytest.mark.parametrize("method", sorted(set(EXPLAINERS) - {"integrated_gradients", "smoothgrad"}))
def test_one_forward_pass(method):
    model, images = copy_of("vit")
    calls = []
    model.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    relevit.forward_with_relevance(model, images, **settings(method))[1].sum().backward()
    assert len(calls) == 1


@pytest.mark.parametrize("family", ["vit", "vit_qk_norm", "eva02", "siglip", "beit"])
@pytest.mark.quick_where(lambda method, family: method == "gae" or family == "vit")
def test_half_precision(family, method):
    """Under autocast and in a bfloat16 model: maps in float32, finite, near those of single precision; gradients finite."""
    model, images = copy_of(family)
    reference = relevit.relevance(model, images, target=2, explainer=method).detach()
    with torch.autocast("cpu", torch.bfloat16):
        logits, maps = relevit.forward_with_relevance(model, images, target=2, **settings(method))
        (maps.mean() + logits.float().mean()).backward()
    assert maps.dtype == torch.float32 and maps.isfinite().all()
    assert (maps - reference).abs().mean() < 0.1
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    if family == "vit":
        maps = relevit.relevance(model.bfloat16(), images.bfloat16(), target=2, explainer=method)
        assert maps.dtype == torch.float32 and (maps - reference).abs().mean() < 0.1


OF_ATTENTION_ALONE = {"raw_attention", "rollout"}  # the same map for every class


def test_odd_sizes_and_flat_maps(method):
    """Batch of one, one patch, and heads without any gradient: zeros and no NaN, in the gradients too."""
    model, images = copy_of("vit")
    together = relevit.relevance(model, images, explainer=method)
    torch.testing.assert_close(relevit.relevance(model, images[1:2], explainer=method), together[1:2])

    model, images = copy_of("vit", img_size=16)
    maps = relevit.relevance(model, images[:, :, :16, :16], **settings(method))
    assert maps.isfinite().all()
    if "patches" in kind(method):
        assert torch.equal(maps, torch.zeros(3, 16, 16))
    finite_gradients(model, maps)

    model, images = copy_of("vit")
    torch.nn.init.zeros_(model.head.weight)
    model.zero_grad()
    maps = relevit.relevance(model, images, **settings(method))
    assert torch.equal(maps, torch.zeros(3, 48, 80)) == (method not in OF_ATTENTION_ALONE)
    finite_gradients(model, maps)


def kind(method):
    model, images = copy_of("vit")
    return "patches" if EXPLAINERS[method](model, images, None)[1].shape == (3, 3, 5) else "pixels"


def finite_gradients(model, maps):
    if maps.requires_grad:
        maps.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_training_with_dropout(method):
    """Dropout in training: logits and maps come from one pass through the same dropped model, and all is finite."""
    model, images = copy_of("vit", attn_drop_rate=0.3, proj_drop_rate=0.2, drop_path_rate=0.2)
    model.train()
    torch.manual_seed(3)
    logits, maps = relevit.forward_with_relevance(model, images, target=1, **settings(method))
    torch.manual_seed(3)
    again, same_maps = relevit.forward_with_relevance(model, images, target=1, **settings(method))
    assert torch.equal(logits, again) and torch.equal(maps, same_maps)
    assert (logits - model.eval()(images)).abs().max() > 1e-3
    finite_gradients(model, maps)


def test_targets(method):
    model, images = copy_of("vit")
    predicted = model(images).argmax(dim=1)
    assert len(set(predicted.tolist())) > 1
    by_default = relevit.relevance(model, images, explainer=method)
    torch.testing.assert_close(relevit.relevance(model, images, target=predicted, explainer=method), by_default)
    torch.testing.assert_close(relevit.relevance(model, images, predicted.to(torch.int32), method), by_default)
    of_two = relevit.relevance(model, images, target=2, explainer=method)
    torch.testing.assert_close(relevit.relevance(model, images, torch.tensor([2, 2, 2]), method), of_two)
    difference = (of_two - relevit.relevance(model, images, target=3, explainer=method)).abs().max()
    assert difference == 0 if method in OF_ATTENTION_ALONE else difference > 0.01


@pytest.mark.parametrize("name", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported_models(name):
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    for method in EXPLAINERS:
        with pytest.raises(
            relevit.UserError, match=r"no global attention maps over image patches.*; supported are .*BEiT, EVA-02"
        ):
            relevit.relevance(model, torch.zeros(1, 3, 224, 224), explainer=method)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"explainer": "grad"},
            "unknown explainer 'grad': known are attention_gradcam, attn_lrp, gae, gradient_rollout",
        ),
        ({"target": 7}, "target .* outside of the model's classes 0 to 6"),
        ({"target": -1}, "outside of the model's classes"),
        ({"target": torch.tensor([1, 2])}, r"one class per image, \(3,\), not \(2,\)"),
        ({"target": torch.tensor([1.0, 2.0, 3.0])}, "class indices"),
        ({"images": torch.zeros(3, 48, 80)}, r"images must be a float tensor"),
        ({"images": torch.zeros(2, 3, 48, 80, dtype=torch.uint8)}, "images must be a float tensor .* not torch.uint8"),
        ({"images": torch.zeros(0, 3, 48, 80)}, "batch of at least 1"),
        ({"images": torch.zeros(2, 1, 48, 80)}, "1 channels, but the model takes 3"),
        ({"images": torch.zeros(2, 3, 64, 80)}, r"64 x 80 pixels, but the model takes 48 x 80"),
    ],
)
def test_user_errors(arguments, message):
    model, images = copy_of("vit")
    with pytest.raises(relevit.UserError, match=message):
        relevit.relevance(model, **({"images": images} | arguments))
