"""The relevance map against the formula written out: one gradient per block, the full token-by-token matrix, float64.

The attention maps of the reference are caught in timm's own unfused attention, at its call of `Tensor.softmax`.
"""

import pytest
import torch
import torch.nn.functional as F

import relevit
from families import FAMILIES, build, readout_of
from relevit.explainers import engines, scale_to_unit
from relevit.models.attention import attention_modules, token_layout


def direct(model, images, target, monkeypatch, second_order=False):
    """(logits, map on the patch grid): R <- R + mean over heads of relu(G A) R, then the readout row of R - I."""
    caught = []
    original = torch.Tensor.softmax

    def softmax(self, *args, **kwargs):
        caught.append(original(self, *args, **kwargs))
        if not caught[-1].requires_grad:
            caught[-1].requires_grad_()
        return caught[-1]

    for module in attention_modules(model):
        module.fused_attn = False
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "softmax", softmax)
        logits = model(images)
    for module in attention_modules(model):
        module.fused_attn = True
    layout = token_layout(model, *images.shape[-2:])
    means = []
    for attention in caught:
        total = sum(logits[i, c] for i, c in enumerate(target.tolist()))
        (gradient,) = torch.autograd.grad(total, attention, retain_graph=True, create_graph=second_order)
        means.append(torch.clamp(gradient * attention, min=0).mean(dim=1))
    eye = torch.eye(layout.tokens, dtype=images.dtype)
    matrix = eye.expand(len(images), -1, -1)
    for mean in means[: len(model.blocks)]:
        matrix = matrix + mean @ matrix
    if readout_of(layout) == "attention_pool":
        pooled = F.pad(means[-1], (layout.tokens - means[-1].shape[2], 0))
        row = (pooled @ matrix)[:, 0]
    elif readout_of(layout) == "cls":
        row = (matrix - eye)[:, 0]
    elif readout_of(layout) == "distilled":
        row = ((matrix - eye)[:, 0] + (matrix - eye)[:, 1]) / 2
    elif readout_of(layout) == "mean":
        row = (matrix - eye)[:, layout.prefix :].mean(dim=1)
    else:
        row = (matrix - eye).mean(dim=1)
    return logits, row[:, layout.prefix :].reshape(len(images), *layout.grid)


def finish(grid, size):
    """Bilinear to the image, then each map min-max scaled."""
    maps = []
    for one in F.interpolate(grid[:, None], size=size, mode="bilinear")[:, 0]:
        maps.append((one - one.min()) / (one.max() - one.min()))
    return torch.stack(maps)


def gradients(model, loss):
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(model.named_parameters(), found, strict=True)
    }


ONE_OF_EACH = ["vit", "vit_mean", "vit_mean_of_all", "deit_distilled", "dinov2_registers", "siglip"]


def compare(family, seed, monkeypatch, second_order):
    model, images = build(family, seed)
    model, images = model.double(), images.double()
    target = torch.tensor([5, 0, 3])
    wanted_logits, wanted = direct(model, images, target, monkeypatch, second_order)
    logits, raw = relevit.forward_with_relevance(
        model, images, target, upscale=False, normalize=False, second_order=second_order
    )
    torch.testing.assert_close(logits, wanted_logits, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(raw, wanted, rtol=1e-9, atol=0)

    weights = torch.randn(3, *images.shape[-2:], dtype=torch.float64)
    wanted_maps = finish(wanted, images.shape[-2:])
    wanted_gradients = gradients(model, (wanted_maps * weights).sum() + F.cross_entropy(wanted_logits, target))
    logits, maps = relevit.forward_with_relevance(model, images, target, second_order=second_order)
    torch.testing.assert_close(maps, wanted_maps, rtol=1e-8, atol=1e-10)
    found = gradients(model, (maps * weights).sum() + F.cross_entropy(logits, target))
    for name, gradient in wanted_gradients.items():
        torch.testing.assert_close(
            found[name],
            gradient,
            rtol=1e-6,
            atol=1e-8 * float(gradient.abs().max()) + 1e-12,
            msg=lambda m, n=name: f"{n}: {m}",
        )
    return wanted_gradients


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_formula(family, seed, monkeypatch):
    """Map and weight gradients, elementwise, for each readout."""
    compare(family, seed, monkeypatch, second_order=False)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(ONE_OF_EACH)))
def test_formula_in_every_family(family, monkeypatch):
    compare(family, 4, monkeypatch, second_order=False)


@pytest.mark.parametrize("family", [*ONE_OF_EACH, "beit", "eva02"])
def test_second_order(family, monkeypatch):
    """Against the formula whose G keep their graph; and it is not what the first order gives."""
    second = compare(family, 5, monkeypatch, second_order=True)
    first = compare(family, 5, monkeypatch, second_order=False)
    name = "blocks.0.norm1.weight"
    assert (second[name] - first[name]).norm() > 1e-3 * first[name].norm()


@pytest.mark.parametrize("bytes_in_cache", [1, 50_000, 1 << 30])
def test_images_at_a_time(bytes_in_cache, monkeypatch):
    """One image, some, or all at once: the same."""
    monkeypatch.setattr(engines.map, "_CACHE_BYTES", bytes_in_cache)
    compare("beit", 6, monkeypatch, second_order=False)
    compare("siglip", 6, monkeypatch, second_order=False)


def test_attention_dropout_is_honoured(monkeypatch):
    """The derivative by the weights before dropout: a dropped entry has none."""
    model, images = build("vit", 7, attn_drop_rate=0.4)
    model, images, target = model.double().train(), images.double(), torch.tensor([5, 0, 3])
    torch.manual_seed(11)
    _, wanted = direct(model, images, target, monkeypatch)
    torch.manual_seed(11)
    found = relevit.relevance(model, images, target, upscale=False, normalize=False)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)
    assert (
        found - relevit.relevance(model.eval(), images, target, upscale=False, normalize=False)
    ).abs().max() > 1e-3 * found.max()


def test_backward_twice():
    """A retained graph gives the same gradients again; a loss of the logits alone does not touch the maps."""
    model, images = build("vit", 8)
    logits, maps = relevit.forward_with_relevance(model, images)
    loss = maps.square().mean() + logits.square().mean()
    parameters = list(model.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    alone = torch.autograd.grad(logits.square().mean(), parameters, retain_graph=True)
    plain = torch.autograd.grad(model(images).square().mean(), parameters)
    second = torch.autograd.grad(loss, parameters)
    for a, b, c, d in zip(first, second, alone, plain, strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(c, d, rtol=1e-3, atol=1e-6)


def test_gradient_by_the_images():
    """The map is differentiable by the images too, with frozen weights."""
    model, images = build("vit", 9)
    model, images = model.double().requires_grad_(False), images.double()[:1].requires_grad_()
    relevit.relevance(model, images, 2).square().sum().backward()
    assert images.grad.abs().sum() > 0


def test_scale_to_unit():
    maps = torch.tensor([[[2.0, 4.0], [3.0, 10.0]], [[5.0, 5.0], [5.0, 5.0 + 1e-6]], [[0.0, 0.0], [0.0, 1e-30]]])
    expected = torch.tensor([[[0.0, 0.25], [0.125, 1.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    torch.testing.assert_close(scale_to_unit(maps), expected)
