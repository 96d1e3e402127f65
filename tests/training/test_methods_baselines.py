"""GradMask and RRR against finite differences and loops over pixels, in float64, on a tiny transformer."""

import math

import numpy as np
import pytest
import torch

from relevit.errors import UserError
from relevit.training.accelerator import make_accelerator
from relevit.training.batches import Batch
from relevit.training.input_gradients import (
    InputGradient,
    background_squares,
    label_logit,
    logits_and_input_gradient,
    sum_of_log_probabilities,
)
from relevit.training.loop import finetune
from relevit.training.methods import METHODS
from relevit.training.step import Step
from relevit.training.terms import total
from tiny_run import TinySamples, arguments, same, tiny_model

BATCH, HEIGHT, WIDTH = 3, 12, 20
CLASSES = 7
SCORES = {"gradmask": label_logit, "rrr": sum_of_log_probabilities}


def model_and_batch(seed: int = 0) -> tuple[torch.nn.Module, Batch]:
    """A model in which attention and every other part matter, and three images of 12 x 20 with soft masks, in float64."""
    size = {"img_size": (HEIGHT, WIDTH), "num_classes": CLASSES, "embed_dim": 12, "num_heads": 3}
    model = tiny_model(seed, drop=0.0, **size).double()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    images = torch.randn(BATCH, 3, HEIGHT, WIDTH, generator=rng, dtype=torch.float64)
    values = torch.tensor([0.0, 0.0, 1.0, 0.3], dtype=torch.float64)
    masks = values[torch.randint(4, (BATCH, HEIGHT, WIDTH), generator=rng)]
    ignore = torch.rand(BATCH, HEIGHT, WIDTH, generator=rng) < 0.2
    return model, Batch(images, masks, ignore, torch.tensor([2, 6, 0]), ["a", "b", "c"])


def outputs_of(name: str, model: torch.nn.Module, batch: Batch, options: dict[str, float]):
    return Step(METHODS[name], options, model, make_accelerator("float32")).forward(batch, with_maps=False)


def loss_of(name: str, model: torch.nn.Module, batch: Batch, options: dict[str, float]) -> torch.Tensor:
    return total(METHODS[name].loss(outputs_of(name, model, batch, options), options))


@pytest.mark.parametrize("name", SCORES)
def test_input_gradient_against_finite_differences(name):
    """Of the score written out in plain numbers, at pixels spread over the images."""
    model, batch = model_and_batch()
    _, gradient = logits_and_input_gradient(model, batch.images, batch.labels, InputGradient(SCORES[name]), 0.7)

    def score(images: torch.Tensor) -> float:
        with torch.no_grad():
            rows = (model(images) / 0.7).numpy()
        found = 0.0
        for row, label in zip(rows, batch.labels.tolist(), strict=True):
            if name == "gradmask":
                found += row[label]
            else:
                below = sum(math.exp(value) for value in row)
                found += sum(math.log(math.exp(value) / below + 1e-11) for value in row)
        return found

    for b, c, y, x in [(0, 0, 0, 0), (1, 2, 5, 19), (2, 1, 11, 3), (2, 0, 7, 8)]:
        step = torch.zeros_like(batch.images)
        step[b, c, y, x] = 1e-5
        numeric = (score(batch.images + step) - score(batch.images - step)) / 2e-5
        assert gradient[b, c, y, x].item() == pytest.approx(numeric, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("with_ignore", [False, True])
def test_terms_by_loops_over_pixels(name, with_ignore):
    """The mean over batch, channels and pixels for GradMask, the sum for RRR; (gradient * Sbar)^2."""
    model, batch = model_and_batch(1)
    batch = batch if with_ignore else batch._replace(ignore=None)
    options = {"temperature": 0.6, "lambda_relevance": 0.7, "lambda_classification": 0.4}
    outputs = outputs_of(name, model, batch, options)
    terms = METHODS[name].loss(outputs, options)
    expected, count = 0.0, 0
    for b in range(BATCH):
        for y in range(HEIGHT):
            for x in range(WIDTH):
                if with_ignore and batch.ignore[b, y, x]:
                    continue
                s = batch.masks[b, y, x].item()
                complement = 1.0 if s == 0 else 0.0 if s == 1 else s
                for c in range(3):
                    expected += (outputs.input_gradient[b, c, y, x].item() * complement) ** 2
                    count += 1
    expected = expected / count if name == "gradmask" else expected
    assert terms["background"].value.item() == pytest.approx(expected, rel=1e-12)
    assert (terms["background"].weight, terms["label"].weight) == (0.7, 0.4)
    cross_entropy = 0.0
    for row, label in zip(model(batch.images).tolist(), batch.labels.tolist(), strict=True):
        cross_entropy += (math.log(sum(math.exp(v / 0.6) for v in row)) - row[label] / 0.6) / BATCH
    assert terms["label"].value.item() == pytest.approx(cross_entropy, rel=1e-10)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("seed", range(2))
def test_gradient_of_the_weights_against_finite_differences(name, seed):
    """Along random directions through all weights, and through the attention's alone: the penalty's own graph is whole."""
    model, batch = model_and_batch(seed)
    options = {"temperature": 0.7, "lambda_relevance": 0.8, "lambda_classification": 0.2}
    loss_of(name, model, batch, options).backward()
    rng = torch.Generator().manual_seed(seed + 10)
    for part in ("", "attn.qkv", "patch_embed"):
        chosen = [p for n, p in model.named_parameters() if part in n]
        direction = [torch.randn(p.shape, generator=rng, dtype=torch.float64) for p in chosen]
        analytic = sum((p.grad * d).sum().item() for p, d in zip(chosen, direction, strict=True))
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(chosen, direction, strict=True):
                    p.add_(d, alpha=sign * 1e-6)
            values.append(loss_of(name, model, batch, options).item())
            with torch.no_grad():
                for p, d in zip(chosen, direction, strict=True):
                    p.sub_(d, alpha=sign * 1e-6)
        assert analytic == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_as_released_has_no_gradient_from_its_term(name):
    """Its value is that of the correct form, its gradient that of the weighted cross-entropy alone, to the bit."""
    model, batch = model_and_batch()
    options = dict(METHODS[name].options)
    correct = METHODS[name].loss(outputs_of(name, model, batch, options), options)
    released = METHODS[f"{name}_as_released"].loss(outputs_of(f"{name}_as_released", model, batch, options), options)
    assert correct["background"].value.requires_grad and not released["background"].value.requires_grad
    assert released["background"].value.item() == pytest.approx(correct["background"].value.item(), rel=1e-9)
    weights = list(model.parameters())
    whole = torch.autograd.grad(total(released), weights, retain_graph=True)
    label = torch.autograd.grad(0.2 * released["label"].value, weights)
    assert all(torch.equal(one, other) for one, other in zip(whole, label, strict=True))


@pytest.mark.parametrize("name", ["gradmask", "rrr"])
def test_in_the_loop_the_weight_matters_if_correct(name):
    def trained(method: str, weight: float) -> dict[str, torch.Tensor]:
        usual = arguments(epochs=1, method=method, lambda_relevance=weight, validation=None)
        return finetune(tiny_model(drop=0.0), TinySamples(6), None, **usual).model.state_dict()

    assert same(trained(f"{name}_as_released", 0.8), trained(f"{name}_as_released", 50.0))
    assert not same(trained(name, 0.8), trained(name, 50.0))


@pytest.mark.parametrize("name", ["gradmask", "gradmask_as_released", "rrr_as_released"])
def test_order_of_the_samples(name, monkeypatch):
    """As in the paper's setup the samples are not shuffled; the correct forms shuffle them."""
    seen = []
    inner = METHODS[name]

    def loss(outputs, options):
        seen.extend(outputs.labels.tolist())
        return inner.loss(outputs, options)

    monkeypatch.setitem(METHODS, name, inner._replace(loss=loss))
    samples = TinySamples(13)
    samples.labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4])
    finetune(tiny_model(), samples, None, **arguments(method=name, epochs=2, validation=None))
    assert (seen == 2 * samples.labels.tolist()) == (name != "gradmask")


def test_without_gradients_nothing_has_a_graph():
    model, batch = model_and_batch()
    logits, gradient = logits_and_input_gradient(model, batch.images, batch.labels, InputGradient(label_logit))
    with torch.no_grad():
        constants = logits_and_input_gradient(model, batch.images, batch.labels, InputGradient(label_logit))
    assert logits.requires_grad and gradient.requires_grad
    assert not any(value.requires_grad for value in constants)
    torch.testing.assert_close(constants[1], gradient.detach())
    assert not batch.images.requires_grad and all(p.grad is None for p in model.parameters())


def test_other_shapes_are_refused():
    with pytest.raises(UserError, match="masks are"):
        background_squares(torch.zeros(2, 3, 5, 7), torch.zeros(2, 7, 5))
