"""Every training method in one table: a loss, as named weighted terms, and an alteration of the samples.

To add a method, write a function from `LossInputs` to terms (or take one that is here) and name it in METHODS. The loop in
loop.py is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from relevit.data.composition.compose import Backgrounds, as_picture, paste
from relevit.errors import UserError
from relevit.extensions import Table
from relevit.training import input_gradients, label_free
from relevit.training.input_gradients import InputGradient
from relevit.training.losses import background_loss, confidence_loss, foreground_loss, label_loss
from relevit.training.terms import LossInputs, Numbers, Term, total

if TYPE_CHECKING:
    from relevit.data.sample import Sample

__all__ = ["METHODS", "PAPER", "LossInputs", "Method", "Term", "get_method", "numbers_of", "swap_background", "total"]

PAPER = {  # Sec. 3 of the paper: Eq. 3 and 5; the temperature divides the logits of the classification term
    "temperature": 1.0,
    "lambda_bg": 2.0,
    "lambda_fg": 0.3,
    "lambda_relevance": 0.8,
    "lambda_classification": 0.2,
}

Alteration = Callable[["Sample", int, Backgrounds, torch.Generator, Numbers], "Sample"]
"""Alters a sample before the training view: (sample, its index, the filled backgrounds of all, generator, the method's numbers)."""


class Method(NamedTuple):
    """A training method.

    loss: its terms, from what a batch gave and the method's numbers. needs_maps: whether they use relevance maps. needs_labels:
    whether they use labels beyond picking the map's class. target: whose map, "label" or "predicted"; None leaves it to
    the caller. alteration: None, or what alters a sample. options: the method's numbers and their defaults.

    second_order: whether the maps need the graph of the attention's gradients. input_gradient: None, or the score whose
    gradient by the images is wanted. other: None, or an alteration that gives each sample a second picture, cropped and flipped
    as the first; it is seen in validation, too. reference: whether the logits of the model as it was before training are
    wanted. shuffle: False takes the samples in their own order.
    """

    description: str
    loss: Callable[[LossInputs, Numbers], dict[str, Term]]
    needs_maps: bool = False
    needs_labels: bool = False
    target: str | None = None
    alteration: Alteration | None = None
    options: Mapping[str, float] = PAPER
    second_order: bool = False
    input_gradient: InputGradient | None = None
    other: Alteration | None = None
    reference: bool = False
    shuffle: bool = True


def _relevance_terms(inputs: LossInputs, numbers: Numbers) -> dict[str, Term]:
    """Eq. 3 within Eq. 5."""
    assert inputs.maps is not None  # the loop computes them for a method with needs_maps
    arguments = inputs.maps, inputs.masks, inputs.ignore
    weight = numbers["lambda_relevance"]
    return {
        "background": Term(weight * numbers["lambda_bg"], background_loss(*arguments)),
        "foreground": Term(weight * numbers["lambda_fg"], foreground_loss(*arguments)),
    }


def relevance_with_confidence(inputs: LossInputs, numbers: Numbers) -> dict[str, Term]:
    """Eq. 5 of the paper."""
    confidence = confidence_loss(inputs.logits, numbers["temperature"])
    return _relevance_terms(inputs, numbers) | {"confidence": Term(numbers["lambda_classification"], confidence)}


def relevance_with_labels(inputs: LossInputs, numbers: Numbers) -> dict[str, Term]:
    """Eq. 5 with the labels in place of the model's own predictions (Table 4, "w/ ground-truth")."""
    labels = label_loss(inputs.logits, inputs.labels, numbers["temperature"])
    return _relevance_terms(inputs, numbers) | {"label": Term(numbers["lambda_classification"], labels)}


def keeping(*names: str) -> Callable[[LossInputs, Numbers], dict[str, Term]]:
    """Eq. 5 with the terms of these names alone (the ablations of Table 4): background, foreground, confidence."""

    def loss(inputs: LossInputs, numbers: Numbers) -> dict[str, Term]:
        terms = relevance_with_confidence(inputs, {**PAPER, **numbers})
        return {name: terms[name] for name in names}

    return loss


def labels_alone(inputs: LossInputs, numbers: Numbers) -> dict[str, Term]:
    """Plain cross-entropy with the labels."""
    return {"label": Term(1.0, label_loss(inputs.logits, inputs.labels, numbers["temperature"]))}


def swap_background(
    sample: Sample, index: int, backgrounds: Backgrounds, generator: torch.Generator, numbers: Numbers
) -> Sample:
    """With probability `swap_probability`, the object on the filled background of another sample drawn at random.

    Mask and label stay. The draw comes from `generator` alone.
    """
    swaps = torch.rand((), generator=generator).item() < numbers["swap_probability"]
    other = int(torch.randint(max(1, len(backgrounds) - 1), (), generator=generator))
    if not swaps or len(backgrounds) < 2:
        return sample
    other += other >= index  # any sample but this one
    return sample._replace(image=paste(as_picture(sample.image), sample.foreground, backgrounds[other]))


def another_background(
    sample: Sample, index: int, backgrounds: Backgrounds, generator: torch.Generator, numbers: Numbers
) -> Sample:
    """The object on the filled background of another sample drawn at random, always."""
    return swap_background(sample, index, backgrounds, generator, {"swap_probability": 1.0})


_NUMBERS_OF_TERMS = {
    "background": {"lambda_bg"},
    "foreground": {"lambda_fg"},
    "confidence": {"temperature", "lambda_classification"},
}


def _ablation(what: str, *terms: str) -> Method:
    """The paper's method with the terms of these names alone, and the numbers that they use."""
    unused = set().union(*(numbers for term, numbers in _NUMBERS_OF_TERMS.items() if term not in terms))
    options = {name: value for name, value in PAPER.items() if name not in unused}
    return Method(f"ablation (Table 4): {what}", keeping(*terms), needs_maps=True, options=options)


def _by_input_gradient(
    description: str, loss: Callable[..., dict[str, Term]], score: Callable[..., torch.Tensor], *, correct: bool
) -> Method:
    """A baseline of the images' gradient: correct, with the gradient's own graph, or as in the paper's setup, without."""
    gradient = InputGradient(score, graph=correct)
    options = input_gradients.INPUT_GRADIENTS
    return Method(description, loss, needs_labels=True, options=options, input_gradient=gradient, shuffle=correct)


METHODS: Table[Method] = Table(
    "methods",
    {
        "relevance": Method(
            "the paper's: relevance on the foreground, off the background, and confidence in the prediction (Eq. 5)",
            relevance_with_confidence,
            needs_maps=True,
        ),
        "relevance_label_free": Method(
            "the paper's without labels: the map of the predicted class",
            relevance_with_confidence,
            needs_maps=True,
            target="predicted",
        ),
        "control": Method(
            "plain cross-entropy with the labels on the same samples and steps",
            labels_alone,
            needs_labels=True,
            options={"temperature": 1.0},
        ),
        "background_swap": Method(
            "cross-entropy with the labels, the object also on other samples' backgrounds",
            labels_alone,
            needs_labels=True,
            alteration=swap_background,
            options={"temperature": 1.0, "swap_probability": 0.5},
        ),
        "relevance+background_swap": Method(
            "the paper's relevance terms and cross-entropy with the labels, the object also on other samples' backgrounds",
            relevance_with_labels,
            needs_maps=True,
            needs_labels=True,
            alteration=swap_background,
            options={**PAPER, "swap_probability": 0.5},
        ),
        "gradmask": _by_input_gradient(
            "the label's logit must not change with the background: GradMask, with the gradient's own graph",
            input_gradients.gradmask,
            input_gradients.label_logit,
            correct=True,
        ),
        "rrr": _by_input_gradient(
            "the log-probabilities must not change with the background: RRR, with the gradient's own graph",
            input_gradients.rrr,
            input_gradients.sum_of_log_probabilities,
            correct=True,
        ),
        "gradmask_as_released": _by_input_gradient(
            "GradMask as in the paper's setup: its term is a constant, the samples are not shuffled",
            input_gradients.gradmask,
            input_gradients.label_logit,
            correct=False,
        ),
        "rrr_as_released": _by_input_gradient(
            "RRR as in the paper's setup: its term is a constant, the samples are not shuffled",
            input_gradients.rrr,
            input_gradients.sum_of_log_probabilities,
            correct=False,
        ),
        "without_classification": _ablation("the paper's without its classification term", "background", "foreground"),
        "without_background": _ablation("the paper's without its background term", "foreground", "confidence"),
        "without_foreground": _ablation("the paper's without its foreground term", "background", "confidence"),
        "with_labels": Method(
            "ablation (Table 4): the paper's with the labels in place of the model's own predictions",
            relevance_with_labels,
            needs_maps=True,
            needs_labels=True,
        ),
        "only_background": _ablation("the background term alone", "background"),
        "only_foreground": _ablation("the foreground term alone", "foreground"),
        "relevance_share": Method(
            "ours, label-free: minus the log of the share of raw relevance on the foreground, and confidence",
            label_free.relevance_share,
            needs_maps=True,
            target="predicted",
            options=label_free.SHARE,
            second_order=True,
        ),
        "consistency": Method(
            "ours, label-free: before another background the object gets the image's prediction, and confidence",
            label_free.consistency,
            target="predicted",
            options=label_free.CONSISTENCY,
            other=another_background,
        ),
        "distillation": Method(
            "ours, label-free: before another background the object gets what the original model says of the image",
            label_free.distillation,
            target="predicted",
            options=label_free.DISTILLATION,
            other=another_background,
            reference=True,
        ),
    },
)


def get_method(name: str) -> Method:
    """The method called `name`. Raises UserError that lists those there are."""
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    return METHODS[name]


def numbers_of(name: str, weights: Mapping[str, Any], options: Mapping[str, float] | None = None) -> dict[str, float]:
    """The numbers that a method runs with: its defaults, then `weights` where it has them and they are not None, then
    `options`, which must all be known to it (UserError)."""
    method = get_method(name)
    chosen = {key: weights[key] if weights.get(key) is not None else value for key, value in method.options.items()}
    for key, value in (options or {}).items():
        if key not in method.options:
            raise UserError(f"method {name!r} has no option {key!r}: it has {', '.join(method.options)}")
        chosen[key] = value
    for key, value in chosen.items():
        if not isinstance(value, int | float) or not value >= 0 or (key == "temperature" and value == 0):
            bound = "above" if key == "temperature" else "of at least"
            raise UserError(f"{key} must be a number {bound} 0, not {value!r}")
    return chosen
