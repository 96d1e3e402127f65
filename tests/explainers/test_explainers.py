"""Each explainer against a second derivation in float64: explicit loops over blocks and heads, explicit passes, or captum.

GAE has a file of its own (test_gae.py), AttnLRP too (test_explainers_lrp.py).
"""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import InputXGradient

import relevit
from families import build, readout_of
from relevit.explainers import EXPLAINERS, integrated_gradients, on_patches, on_pixels, smoothgrad
from relevit.models.attention import attention_modules, token_layout

ONE_OF_EACH = [
    "vit",
    "vit_mean",
    "vit_mean_of_all",
    "deit_distilled",
    "dinov2_registers",
    "siglip",
    "perception_encoder",
]
TARGET = torch.tensor([5, 0, 3])


def double(family, seed=1):
    model, images = build(family, seed)
    return model.double(), images.double()


def caught(model, images, monkeypatch):
    """(logits, attention maps) of timm's own unfused attention, caught at its call of `Tensor.softmax`."""
    maps = []
    original = torch.Tensor.softmax

    def softmax(self, *args, **kwargs):
        maps.append(original(self, *args, **kwargs))
        return maps[-1]

    for module in attention_modules(model):
        module.fused_attn = False
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "softmax", softmax)
        logits = model(images)
    for module in attention_modules(model):
        module.fused_attn = True
    return logits, maps


def one_by_one(model, images, maps, of_image):
    """Maps on the patch grid; of_image(attentions of one image, rows that are read, where the patches begin) -> row over patches."""
    layout = token_layout(model, *images.shape[-2:])
    rows = {
        "cls": [0],
        "distilled": [0, 1],
        "mean": range(layout.prefix, layout.tokens),
        "mean_all": range(layout.tokens),
        "attention_pool": [0],
    }[readout_of(layout)]
    found = [of_image(i, list(rows), layout).reshape(layout.grid) for i in range(len(images))]
    return torch.stack(found)


def raw_attention(model, images, target, monkeypatch, second_order):
    _, maps = caught(model, images, monkeypatch)

    def of_image(i, rows, layout):
        last, patches = maps[-1][i], layout.grid[0] * layout.grid[1]
        total = torch.zeros(patches, dtype=images.dtype)
        for head in range(last.shape[0]):
            for row in rows:
                total = total + last[head, row, -patches:]
        return total / (last.shape[0] * len(rows))

    return one_by_one(model, images, maps, of_image)


def product(matrices, model, rows, layout):
    """Rows of the whole product of (M_l + I) / row sums, token by token; a pooling attention's are multiplied from the left."""
    blocks = matrices[: len(model.blocks)]
    whole = torch.eye(layout.tokens, dtype=blocks[0].dtype)
    for one in blocks:
        one = one + torch.eye(layout.tokens, dtype=one.dtype)
        whole = torch.diag(1 / one.sum(dim=1)) @ one @ whole
    if readout_of(layout) == "attention_pool":
        pooled = matrices[-1]
        whole = pooled @ whole[-pooled.shape[1] :]
    return whole[rows].mean(dim=0)[layout.prefix :]


def rollout(model, images, target, monkeypatch, second_order):
    _, maps = caught(model, images, monkeypatch)

    def of_image(i, rows, layout):
        return product([sum(one[i]) / one.shape[1] for one in maps], model, rows, layout)

    return one_by_one(model, images, maps, of_image)


def gradient_rollout(model, images, target, monkeypatch, second_order):
    logits, maps = caught(model, images, monkeypatch)
    score = sum(logits[i, c] for i, c in enumerate(target.tolist()))
    means = []
    for one in maps:  # one backward pass each
        (gradient,) = torch.autograd.grad(score, one, retain_graph=True, create_graph=second_order)
        means.append(torch.clamp(one * gradient, min=0).sum(dim=1) / one.shape[1])

    def of_image(i, rows, layout):
        return product([one[i] for one in means], model, rows, layout)

    return one_by_one(model, images, maps, of_image)


def attention_gradcam(model, images, target, monkeypatch, second_order):
    logits, maps = caught(model, images, monkeypatch)
    score = sum(logits[i, c] for i, c in enumerate(target.tolist()))
    (gradient,) = torch.autograd.grad(score, maps[-1], retain_graph=True, create_graph=second_order)

    def of_image(i, rows, layout):
        patches = layout.grid[0] * layout.grid[1]
        total = torch.zeros(patches, dtype=images.dtype)
        for head in range(maps[-1].shape[1]):
            for row in rows:
                weight = gradient[i, head, row, -patches:].sum() / patches
                total = total + weight * maps[-1][i, head, row, -patches:]
        return torch.clamp(total / (maps[-1].shape[1] * len(rows)), min=0)

    return one_by_one(model, images, maps, of_image)


REFERENCES = {
    "raw_attention": raw_attention,
    "rollout": rollout,
    "gradient_rollout": gradient_rollout,
    "attention_gradcam": attention_gradcam,
}


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("family", ONE_OF_EACH)
@pytest.mark.parametrize("method", REFERENCES)
def test_of_attention(method, family, second_order, monkeypatch):
    """Map and gradients of the weights, elementwise, for each readout."""
    model, images = double(family)
    wanted = REFERENCES[method](model, images, TARGET, monkeypatch, second_order)
    found = relevit.relevance(model, images, TARGET, method, upscale=False, normalize=False, second_order=second_order)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-15)
    assert found.std() > 1e-6
    weights = torch.randn(found.shape, dtype=torch.float64)
    parameters = dict(model.named_parameters())
    one, two = (
        torch.autograd.grad((weights * maps).sum(), list(parameters.values()), allow_unused=True)
        for maps in (wanted, found)
    )
    largest = max(float(g.abs().max()) for g in one if g is not None)
    for name, a, b in zip(parameters, one, two, strict=True):
        a, b = (torch.zeros_like(parameters[name]) if g is None else g for g in (a, b))
        torch.testing.assert_close(b, a, rtol=1e-7, atol=1e-10 * largest, msg=lambda m, n=name: f"{n}: {m}")


def test_rollout_is_a_distribution():
    """Of a class token: what the patches do not get, the prefix tokens have."""
    model, images = double("deit_distilled")
    maps = relevit.relevance(model, images, explainer="rollout", upscale=False, normalize=False)
    assert (maps > 0).all() and (maps.sum(dim=(1, 2)) < 1).all() and (maps.sum(dim=(1, 2)) > 0.5).all()


@pytest.mark.parametrize("family", ["vit", "eva02", "siglip"])
def test_input_x_gradient(family):
    """Against captum; its sum over channels, of which the positive part is kept."""
    model, images = double(family)
    captums = InputXGradient(model).attribute(images.clone().requires_grad_(), target=TARGET).detach()
    found = relevit.relevance(model, images, TARGET, "input_x_gradient", normalize=False)
    assert (captums.sum(dim=1) < 0).any()
    torch.testing.assert_close(found, captums.sum(dim=1).clamp(min=0), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("method", ["input_x_gradient", "attn_lrp"])
@pytest.mark.parametrize("family", ["vit", "dinov2_registers", "eva02", "vit_qk_norm", "clip_quickgelu", "siglip"])
def test_pixel_maps_by_finite_differences(family, method):
    """The second-order gradient of a weighted map, by the weights, along random directions."""
    model, images = double(family)
    weights = torch.randn(3, *images.shape[-2:], dtype=torch.float64)

    def value():
        maps = relevit.relevance(model, images, TARGET, method, normalize=False, second_order=True)
        return (weights * maps).sum()

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(value(), parameters, allow_unused=True)
    generator = torch.Generator().manual_seed(3)
    for part in range(3):  # patch embedding and position; blocks; the rest
        names = [n for n, _ in model.named_parameters()]
        chosen = [i for i, n in enumerate(names) if (0 if "embed" in n else 1 if n.startswith("blocks") else 2) == part]
        directions = {i: torch.randn(parameters[i].shape, generator=generator, dtype=torch.float64) for i in chosen}
        slope = sum((gradients[i] * d).sum() for i, d in directions.items() if gradients[i] is not None)
        values = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                for i, d in directions.items():
                    parameters[i].add_(step * d)
                values.append(value().item())
        with torch.no_grad():
            for i, d in directions.items():
                parameters[i].add_(1e-6 * d)
        # a pixel whose evidence changes its sign within the step moves the difference by less than the tolerance
        assert float(slope) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-6)


def test_integrated_gradients(monkeypatch):
    """Against explicit passes at NumPy's nodes; and the sum over pixels is what the logit gains (completeness)."""
    model, images = double("vit")
    nodes, weights = np.polynomial.legendre.leggauss(7)
    signed = torch.zeros_like(images)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        point = (node * images).requires_grad_()
        logits = model(point)
        (gradient,) = torch.autograd.grad(logits[[0, 1, 2], TARGET].sum(), point)
        signed += weight * gradient * images
    found = integrated_gradients.attributions(model, images, TARGET, 7)
    torch.testing.assert_close(
        found, signed, rtol=1e-5, atol=1e-6 * float(signed.abs().max())
    )  # captum weighs in float32
    monkeypatch.setattr(integrated_gradients, "STEPS", 7)
    _, maps = integrated_gradients.explain(model, images, TARGET)
    torch.testing.assert_close(maps, found.sum(dim=1).clamp(min=0))

    many = integrated_gradients.attributions(model, images, TARGET, 300)
    with torch.no_grad():
        gained = (model(images) - model(torch.zeros_like(images)))[[0, 1, 2], TARGET]
    torch.testing.assert_close(many.sum(dim=(1, 2, 3)), gained, rtol=1e-3, atol=1e-4)


def test_smoothgrad(monkeypatch):
    """Against explicit passes, one at a time, on noise drawn by a generator of one's own."""
    model, images = double("vit")
    generator = torch.Generator().manual_seed(7)
    noise = [torch.normal(torch.zeros(n, 3, 48, 80), 1.0, generator=generator) for n in (16, 3)]
    for name, value in {"SAMPLES": 19, "NOISE": 0.2, "SEED": 7}.items():
        monkeypatch.setattr(smoothgrad, name, value)
    _, maps = smoothgrad.explain(model, images, TARGET)
    for i in range(3):
        spread = 0.2 * (images[i].max() - images[i].min())
        mean = torch.zeros_like(images[0])
        for one in torch.cat(noise):
            point = (images[i] + spread * one).requires_grad_()
            (gradient,) = torch.autograd.grad(model(point[None])[0, TARGET[i]], point)
            mean += gradient / 19
        torch.testing.assert_close(maps[i], mean.abs().max(dim=0).values, rtol=1e-4, atol=1e-5 * float(maps[i].max()))
    monkeypatch.setattr(smoothgrad, "SEED", 8)
    _, other = smoothgrad.explain(model, images, TARGET)
    assert (other - maps).abs().max() > 0.01 * maps.max()


@pytest.mark.parametrize("method", sorted(EXPLAINERS))
def test_maps_on_pixels_and_patches(method):
    """A map of the image's size stays as it is, or is averaged over each patch; a patch map is upscaled, or stays."""
    model, images = build("vit")
    _, found = EXPLAINERS[method](model, images, TARGET)
    arguments = partial(relevit.relevance, model, images, TARGET, method, normalize=False)
    large, small = arguments(), arguments(upscale=False)
    if found.shape == (3, 48, 80):
        torch.testing.assert_close(large, found)
        for row in range(3):
            for column in range(5):
                block = found[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
                torch.testing.assert_close(small[:, row, column], block.mean(dim=(1, 2)))
    else:
        assert method not in ("input_x_gradient", "integrated_gradients", "smoothgrad", "attn_lrp")
        torch.testing.assert_close(small, found)
        torch.testing.assert_close(large, F.interpolate(found[:, None], (48, 80), mode="bilinear")[:, 0])


def test_patches_that_leave_the_image():
    """With padding to whole patches, the last ones are averaged over what of them is in the image."""
    model, _ = build("vit_dynamic", dynamic_img_pad=True)
    images = torch.randn(2, 3, 40, 50)
    maps = torch.rand(2, 40, 50)
    found = on_patches(maps, model, images)
    assert found.shape == (2, 3, 4)
    torch.testing.assert_close(found[:, 2, 3], maps[:, 32:, 48:].mean(dim=(1, 2)))
    torch.testing.assert_close(found[:, 1, 2], maps[:, 16:32, 32:48].mean(dim=(1, 2)))
    assert torch.equal(on_pixels(maps, images), maps)
    assert torch.equal(on_patches(found, model, images), found)


def test_table():
    """What trains says so; the paper's comes first; each has a line that describes it."""
    assert next(iter(EXPLAINERS)) == "gae"
    assert {name for name, one in EXPLAINERS.items() if not one.trains} == {"integrated_gradients", "smoothgrad"}
    assert all(one.description for one in EXPLAINERS.values())
