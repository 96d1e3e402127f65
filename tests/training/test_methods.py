import numpy as np
import pytest
import torch

from method_terms import needed, outputs
from relevit.data.composition.compose import Backgrounds
from relevit.errors import UserError
from relevit.training import losses
from relevit.training.methods import METHODS, PAPER, Term, get_method, numbers_of, swap_background, total
from tiny_run import TinySamples


def test_relevance_is_eq_5():
    o, numbers = outputs(), {**PAPER, "temperature": 0.65, "lambda_bg": 1.7, "lambda_relevance": 0.6}
    relevance = losses.relevance_loss(o.maps, o.masks, o.ignore, lambda_bg=1.7)
    expected = losses.total_loss(relevance, losses.confidence_loss(o.logits, 0.65), lambda_relevance=0.6)
    for name in ("relevance", "relevance_label_free"):
        assert total(METHODS[name].loss(o, numbers)).item() == pytest.approx(expected.item(), rel=1e-12)


def test_label_methods():
    o = outputs()
    cross_entropy = torch.nn.functional.cross_entropy(o.logits, o.labels)
    without_maps = o._replace(maps=None)
    for name in ("control", "background_swap"):
        assert not METHODS[name].needs_maps and METHODS[name].needs_labels
        loss = total(METHODS[name].loss(without_maps, METHODS[name].options))
        assert loss.item() == pytest.approx(cross_entropy.item(), rel=1e-12)
    both = METHODS["relevance+background_swap"]
    expected = 0.8 * losses.relevance_loss(o.maps, o.masks, o.ignore) + 0.2 * cross_entropy
    assert total(both.loss(o, both.options)).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_needs(name):
    """The loss runs with its own options and what the loop hands to it; some gradient is there, and finite."""
    o, method = needed(name, outputs()), METHODS[name]
    terms = method.loss(o, method.options)
    total(terms).backward()
    gradients = [x.grad for x in (o.logits, o.maps, o.raw, o.input_gradient, o.other_logits) if x is not None]
    assert any(g is not None and (g != 0).any() for g in gradients)
    assert all(g.isfinite().all() for g in gradients if g is not None)
    assert method.description and all(isinstance(term, Term) for term in terms.values())


def test_a_term_of_weight_zero_counts_for_nothing():
    terms = {"a": Term(2.0, torch.tensor(3.0)), "b": Term(0.0, torch.tensor(float("nan")))}
    assert total(terms).item() == 6
    with pytest.raises(UserError, match="all weights"):
        total({"b": terms["b"]})


def test_settings():
    weights = {"temperature": 0.5, "lambda_bg": None, "lambda_fg": 1.0}
    assert numbers_of("control", weights) == {"temperature": 0.5}
    assert numbers_of("relevance", weights) == {**PAPER, "temperature": 0.5, "lambda_fg": 1.0}
    chosen = numbers_of("relevance+background_swap", weights, {"swap_probability": 0.9, "lambda_bg": 3})
    assert chosen["swap_probability"] == 0.9 and chosen["lambda_bg"] == 3
    with pytest.raises(UserError, match="no option 'swap_probability'"):
        numbers_of("control", {}, {"swap_probability": 0.5})
    with pytest.raises(UserError, match="temperature must be a number above 0"):
        numbers_of("control", {"temperature": 0.0})
    with pytest.raises(UserError, match=r"unknown method 'relevanse': choose one of relevance, "):
        get_method("relevanse")


def test_swap_puts_the_object_on_another_background():
    samples = TinySamples(6)
    backgrounds = Backgrounds(samples)
    options = {"swap_probability": 0.5}
    swapped, others = 0, set()
    for seed in range(200):
        sample = samples[2]
        view = swap_background(sample, 2, backgrounds, torch.Generator().manual_seed(seed), options)
        again = swap_background(sample, 2, backgrounds, torch.Generator().manual_seed(seed), options)
        assert (view.image == again.image).all()
        assert view.mask is sample.mask and view.label == sample.label and view.name == sample.name
        inside = sample.mask > 0
        assert (view.image[inside] == sample.image[inside]).all()
        if (view.image != sample.image).any():
            swapped += 1
            found = [i for i in range(6) if (view.image[~inside] == backgrounds[i][~inside]).all()]
            assert len(found) == 1 and found[0] != 2
            others |= set(found)
    assert 70 < swapped < 130
    assert others == {0, 1, 3, 4, 5}


def test_swap_with_probability_zero_and_one_and_alone():
    samples = TinySamples(4)
    backgrounds = Backgrounds(samples)
    generator = torch.Generator().manual_seed(0)
    never = [swap_background(samples[0], 0, backgrounds, generator, {"swap_probability": 0.0}) for _ in range(20)]
    assert all((view.image == samples[0].image).all() for view in never)
    always = [swap_background(samples[0], 0, backgrounds, generator, {"swap_probability": 1.0}) for _ in range(20)]
    assert all((view.image != samples[0].image).any() for view in always)
    alone = TinySamples(1)
    view = swap_background(alone[0], 0, Backgrounds(alone), generator, {"swap_probability": 1.0})
    assert np.array_equal(view.image, alone[0].image)
