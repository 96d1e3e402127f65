"""Ablations and the methods beyond the paper: what their terms are, and the second picture and the original's logits."""

import math

import numpy as np
import pytest
import torch

from method_terms import needed, outputs
from relevit.data.composition.compose import Backgrounds
from relevit.errors import UserError
from relevit.models.loading import data_config
from relevit.models.view import EvaluationView, TrainingView
from relevit.training import losses
from relevit.training.batches import Items, altered_by, collate
from relevit.training.loop import finetune
from relevit.training.methods import METHODS, another_background, total
from tiny_run import InterruptingSamples, TinySamples, arguments, tiny_model, weights_of

ABLATIONS = {
    "without_classification": {"background": 1.4, "foreground": 0.35},
    "without_background": {"foreground": 0.35, "confidence": 0.4},
    "without_foreground": {"background": 1.4, "confidence": 0.4},
    "with_labels": {"background": 1.4, "foreground": 0.35, "label": 0.4},
    "only_background": {"background": 1.4},
    "only_foreground": {"foreground": 0.35},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations(name):
    """The terms of Eq. 5 that stay, with its weights; lambda 0.7 (2 L_bg + 0.5 L_fg) + 0.4 L_cls."""
    o = outputs(3)
    numbers = {"temperature": 0.65, "lambda_bg": 2.0, "lambda_fg": 0.5, "lambda_relevance": 0.7}
    numbers |= {"lambda_classification": 0.4}
    method = METHODS[name]
    options = {**method.options, **{key: value for key, value in numbers.items() if key in method.options}}
    values = {
        "background": losses.background_loss(o.maps, o.masks, o.ignore),
        "foreground": losses.foreground_loss(o.maps, o.masks, o.ignore),
        "confidence": losses.confidence_loss(o.logits, 0.65),
        "label": losses.label_loss(o.logits, o.labels, 0.65),
    }
    terms = method.loss(o, options)
    assert {key: term.weight for key, term in terms.items()} == pytest.approx(ABLATIONS[name], rel=1e-12)
    assert all(term.value.item() == values[key].item() for key, term in terms.items())
    assert method.needs_maps and method.needs_labels == (name == "with_labels") and method.alteration is None
    dropped = {"background": "lambda_bg", "foreground": "lambda_fg", "confidence": "lambda_classification"}
    for term, option in dropped.items():
        kept = term in terms or (term == "confidence" and "label" in terms)
        assert (option in method.options) == kept


def test_share_loss_by_loops():
    o = outputs(1)
    raw = o.raw.clone()
    raw[1] = 0
    raw[0, 0, 0] = -5.0  # of an explainer with signs: no relevance
    expected = 0.0
    for b in (0, 2):
        inside = everything = 0.0
        for y in range(5):
            for x in range(7):
                if not o.ignore[b, y, x]:
                    value = max(raw[b, y, x].item(), 0.0)
                    everything += value
                    inside += value * o.masks[b, y, x].item()
        expected -= math.log(inside / everything + 1e-6) / 3
    loss = losses.share_loss(raw.requires_grad_(), o.masks, o.ignore)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert raw.grad.isfinite().all() and (raw.grad[1] == 0).all()
    inside = (o.masks > 0) & ~o.ignore & (raw > 0)
    assert (raw.grad[[0, 2]][inside[[0, 2]]] < 0).all()  # more relevance on the object lowers the loss
    scaled = losses.share_loss(1000 * raw.detach(), o.masks, o.ignore)
    assert scaled.item() == pytest.approx(expected, rel=1e-12)


def test_agreement_is_a_divergence_from_a_constant():
    """KL(p || q) written out; no gradient to p, and at p = q none at all."""
    rng = np.random.default_rng(0)
    logits, reference = rng.normal(size=(2, 3, 11)) * 2
    expected = 0.0
    for q_row, p_row in zip(logits / 0.7, reference / 0.7, strict=True):
        q, p = (np.exp(row) / np.exp(row).sum() for row in (q_row, p_row))
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 3
    found, constant = (torch.from_numpy(x).requires_grad_() for x in (logits, reference))
    loss = losses.agreement_loss(found, constant, 0.7)
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    loss.backward()
    assert constant.grad is None and (found.grad != 0).any()
    again = torch.from_numpy(reference).requires_grad_()
    losses.agreement_loss(again, constant, 0.7).backward()
    assert again.grad.abs().max() < 1e-15


@pytest.mark.parametrize("name", ["relevance_share", "consistency", "distillation"])
def test_beyond_the_paper_needs_no_labels(name):
    method = METHODS[name]
    assert method.target == "predicted" and not method.needs_labels
    o = needed(name, outputs())
    with_labels = total(method.loss(o, method.options))
    without = total(method.loss(o._replace(labels=torch.full((3,), -1)), method.options))
    assert with_labels.item() == without.item()
    samples = [sample._replace(label=-1) for sample in TinySamples(6)]
    result = finetune(tiny_model(), samples, None, **arguments(epochs=1, method=name, validation=samples[:3]))
    assert result.metrics["after"]["loss"] > 0


def test_terms_of_consistency_and_distillation():
    o = outputs(2)
    terms = METHODS["consistency"].loss(o, METHODS["consistency"].options)
    expected = 0.8 * losses.agreement_loss(o.other_logits, o.logits) + 0.2 * losses.confidence_loss(o.logits)
    assert total(terms).item() == pytest.approx(expected.item(), rel=1e-12)
    terms = METHODS["distillation"].loss(o, METHODS["distillation"].options)
    expected = 0.8 * losses.agreement_loss(o.other_logits, o.reference_logits)
    expected += 0.2 * losses.agreement_loss(o.logits, o.reference_logits)
    assert total(terms).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("resize", [1.0, 1.5])
def test_the_second_picture_is_the_same_object_elsewhere(resize):
    samples = TinySamples(5)
    view = TrainingView(data_config(tiny_model()), resize, 0.5)
    other = altered_by(another_background, samples, {})
    plain, paired = Items(samples, view, seed=3), Items(samples, view, seed=3, other=other)
    identity = Items(samples, view, seed=3, other=lambda sample, index, generator: sample)
    places = set()
    for epoch in range(6):
        for index in range(5):
            first, second = plain[epoch, index], paired[epoch, index]
            assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1]) and first[3:] == second[3:5]
            assert torch.equal(identity[epoch, index][5], first[0])  # the same crop and flip
            away = (second[5] != second[0]).any(0)
            assert away[first[1] == 0].float().mean() > 0.5  # another background
            assert resize > 1 or not away[first[1] == 1].any()  # resampling mixes in what is beside the object
            assert torch.equal(paired[epoch, index][5], second[5])
            places.add((index, second[5].numpy().tobytes()))
    assert len(places) > 15  # other draws in other epochs
    batch = collate([paired[0, index] for index in range(3)])
    assert torch.equal(batch.others[2], paired[0, 2][5])
    assert collate([plain[0, 0]]).others is None


def test_another_background_is_always_another():
    samples = TinySamples(4)
    backgrounds = Backgrounds(samples)
    for seed in range(30):
        swapped = another_background(samples[1], 1, backgrounds, torch.Generator().manual_seed(seed), {})
        outside = samples[1].mask == 0
        found = [i for i in range(4) if (swapped.image[outside] == backgrounds[i][outside]).all()]
        assert found and found[0] != 1


def test_normalised_tensors_have_no_second_picture():
    samples = [s._replace(image=torch.zeros(3, 16, 16)) for s in TinySamples(4)]
    with pytest.raises(UserError, match="put on other backgrounds only in pictures"):
        finetune(tiny_model(), samples, None, **arguments(method="consistency", validation=None))


def test_the_reference_is_the_model_before_even_if_interrupted(tmp_path, monkeypatch):
    """Its logits in the last step are those of the original, though the module that is given again is half trained."""
    seen = []
    inner = METHODS["distillation"]

    def loss(outputs, options):
        seen.append(outputs.reference_logits.clone())
        assert not outputs.reference_logits.requires_grad
        return inner.loss(outputs, options)

    monkeypatch.setitem(METHODS, "distillation", inner._replace(loss=loss))
    usual = arguments(method="distillation", epochs=2)
    whole = finetune(tiny_model(), TinySamples(14), tmp_path / "whole", **usual)
    undisturbed, model = [*seen], tiny_model()
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        finetune(model, InterruptingSamples(14, after=45), tmp_path / "run", **usual)
    assert not torch.equal(model.head.weight, tiny_model().head.weight)
    resumed = finetune(model, TinySamples(14), tmp_path / "run", **usual)
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "whole")
    assert {**resumed.metrics, "seconds": 0} == {**whole.metrics, "seconds": 0}
    assert all(torch.equal(one, other) for one, other in zip(seen[-4:], undisturbed[-4:], strict=True))
    view, samples = EvaluationView(data_config(tiny_model())), TinySamples(7, seed=1)
    last = [view.with_mask(samples[i].image, samples[i].mask, None)[0] for i in range(4, 7)]  # of validation
    with torch.no_grad():
        expected = tiny_model().eval()(torch.stack(last))
    assert torch.equal(seen[-1], expected)
