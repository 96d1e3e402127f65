"""Every training method in one table: a loss, as named weighted terms, and a view of the samples.

To add a method, write a function from `Outputs` to terms (or take one that is here) and name it in METHODS. The loop in
training.py is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from relevit.data.composition.compose import Backgrounds, as_picture, paste
from relevit.errors import UserError
from relevit.training import input_gradients as baselines
from relevit.training import label_free as beyond
from relevit.training.input_gradients import InputGradient
from relevit.training.losses import background_loss, confidence_loss, foreground_loss, label_loss
from relevit.training.terms import Options, Outputs, Term, total

if TYPE_CHECKING:
    from relevit.data.samples import Sample

__all__ = ["METHODS", "PAPER", "Method", "Outputs", "Term", "get_method", "settings", "swap_background", "total"]

PAPER = {  # Sec. 3 of the paper: Eq. 3 and 5; the temperature divides the logits of the classification term
    "temperature": 1.0,
    "lambda_bg": 2.0,
    "lambda_fg": 0.3,
    "lambda_relevance": 0.8,
    "lambda_classification": 0.2,
}

View = Callable[["Sample", int, Backgrounds, torch.Generator, Options], "Sample"]
"""Alters a sample before the training view: (sample, its index, the filled backgrounds of all, generator, options)."""


class Method(NamedTuple):
    """A training method.

    loss: its terms, from a batch's outputs and the options. needs_maps: whether they use relevance maps. needs_labels:
    whether they use labels beyond picking the map's class. target: whose map, "label" or "predicted"; None leaves it to
    the caller. view: None, or what alters a sample. options: the method's numbers and their defaults.

    second_order: whether the maps need the graph of the attention's gradients. input_gradient: None, or the score whose
    gradient by the images is wanted. other: None, or a view that gives each sample a second picture, cropped and flipped
    as the first; it is seen in validation, too. reference: whether the logits of the model as it was before training are
    wanted. shuffle: False takes the samples in their own order.
    """

    description: str
    loss: Callable[[Outputs, Options], dict[str, Term]]
    needs_maps: bool = False
    needs_labels: bool = False
    target: str | None = None
    view: View | None = None
    options: Mapping[str, float] = PAPER
    second_order: bool = False
    input_gradient: InputGradient | None = None
    other: View | None = None
    reference: bool = False
    shuffle: bool = True


def _relevance_terms(outputs: Outputs, options: Options) -> dict[str, Term]:
    """Eq. 3 within Eq. 5."""
    assert outputs.maps is not None  # the loop computes them for a method with needs_maps
    arguments = outputs.maps, outputs.masks, outputs.ignore
    weight = options["lambda_relevance"]
    return {
        "background": Term(weight * options["lambda_bg"], background_loss(*arguments)),
        "foreground": Term(weight * options["lambda_fg"], foreground_loss(*arguments)),
    }


def relevance_with_confidence(outputs: Outputs, options: Options) -> dict[str, Term]:
    """Eq. 5 of the paper."""
    confidence = confidence_loss(outputs.logits, options["temperature"])
    return _relevance_terms(outputs, options) | {"confidence": Term(options["lambda_classification"], confidence)}


def relevance_with_labels(outputs: Outputs, options: Options) -> dict[str, Term]:
    """Eq. 5 with the labels in place of the model's own predictions (Table 4, "w/ ground-truth")."""
    labels = label_loss(outputs.logits, outputs.labels, options["temperature"])
    return _relevance_terms(outputs, options) | {"label": Term(options["lambda_classification"], labels)}


def keeping(*names: str) -> Callable[[Outputs, Options], dict[str, Term]]:
    """Eq. 5 with the terms of these names alone (the ablations of Table 4): background, foreground, confidence."""

    def loss(outputs: Outputs, options: Options) -> dict[str, Term]:
        terms = relevance_with_confidence(outputs, {**PAPER, **options})
        return {name: terms[name] for name in names}

    return loss


def labels_alone(outputs: Outputs, options: Options) -> dict[str, Term]:
    """Plain cross-entropy with the labels."""
    return {"label": Term(1.0, label_loss(outputs.logits, outputs.labels, options["temperature"]))}


def swap_background(
    sample: Sample, index: int, backgrounds: Backgrounds, generator: torch.Generator, options: Options
) -> Sample:
    """With probability `swap_probability`, the object on the filled background of another sample drawn at random.

    Mask and label stay. The draw comes from `generator` alone.
    """
    swaps = torch.rand((), generator=generator).item() < options["swap_probability"]
    other = int(torch.randint(max(1, len(backgrounds) - 1), (), generator=generator))
    if not swaps or len(backgrounds) < 2:
        return sample
    other += other >= index  # any sample but this one
    return sample._replace(image=paste(as_picture(sample.image), sample.mask, backgrounds[other]))


def another_background(
    sample: Sample, index: int, backgrounds: Backgrounds, generator: torch.Generator, options: Options
) -> Sample:
    """The object on the filled background of another sample drawn at random, always."""
    return swap_background(sample, index, backgrounds, generator, {"swap_probability": 1.0})


def _without(*names: str) -> dict[str, float]:
    return {name: value for name, value in PAPER.items() if name not in names}


METHODS: dict[str, Method] = {
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
        view=swap_background,
        options={"temperature": 1.0, "swap_probability": 0.5},
    ),
    "relevance+background_swap": Method(
        "the paper's relevance terms and cross-entropy with the labels, the object also on other samples' backgrounds",
        relevance_with_labels,
        needs_maps=True,
        needs_labels=True,
        view=swap_background,
        options={**PAPER, "swap_probability": 0.5},
    ),
    "gradmask": Method(
        "the label's logit must not change with the background: GradMask, with the gradient's own graph",
        baselines.gradmask,
        needs_labels=True,
        options=baselines.INPUT_GRADIENTS,
        input_gradient=InputGradient(baselines.label_logit),
    ),
    "rrr": Method(
        "the log-probabilities must not change with the background: RRR, with the gradient's own graph",
        baselines.rrr,
        needs_labels=True,
        options=baselines.INPUT_GRADIENTS,
        input_gradient=InputGradient(baselines.sum_of_log_probabilities),
    ),
    "gradmask_as_released": Method(
        "GradMask as in the paper's setup: its term is a constant, the samples are not shuffled",
        baselines.gradmask,
        needs_labels=True,
        options=baselines.INPUT_GRADIENTS,
        input_gradient=InputGradient(baselines.label_logit, graph=False),
        shuffle=False,
    ),
    "rrr_as_released": Method(
        "RRR as in the paper's setup: its term is a constant, the samples are not shuffled",
        baselines.rrr,
        needs_labels=True,
        options=baselines.INPUT_GRADIENTS,
        input_gradient=InputGradient(baselines.sum_of_log_probabilities, graph=False),
        shuffle=False,
    ),
    "without_classification": Method(
        "ablation (Table 4): the paper's without its classification term",
        keeping("background", "foreground"),
        needs_maps=True,
        options=_without("temperature", "lambda_classification"),
    ),
    "without_background": Method(
        "ablation (Table 4): the paper's without its background term",
        keeping("foreground", "confidence"),
        needs_maps=True,
        options=_without("lambda_bg"),
    ),
    "without_foreground": Method(
        "ablation (Table 4): the paper's without its foreground term",
        keeping("background", "confidence"),
        needs_maps=True,
        options=_without("lambda_fg"),
    ),
    "with_labels": Method(
        "ablation (Table 4): the paper's with the labels in place of the model's own predictions",
        relevance_with_labels,
        needs_maps=True,
        needs_labels=True,
    ),
    "only_background": Method(
        "ablation (Table 4): the background term alone",
        keeping("background"),
        needs_maps=True,
        options=_without("temperature", "lambda_fg", "lambda_classification"),
    ),
    "only_foreground": Method(
        "ablation (Table 4): the foreground term alone",
        keeping("foreground"),
        needs_maps=True,
        options=_without("temperature", "lambda_bg", "lambda_classification"),
    ),
    "relevance_share": Method(
        "ours, label-free: minus the log of the share of raw relevance on the foreground, and confidence",
        beyond.relevance_share,
        needs_maps=True,
        target="predicted",
        options=beyond.SHARE,
        second_order=True,
    ),
    "consistency": Method(
        "ours, label-free: before another background the object gets the image's prediction, and confidence",
        beyond.consistency,
        target="predicted",
        options=beyond.CONSISTENCY,
        other=another_background,
    ),
    "distillation": Method(
        "ours, label-free: before another background the object gets what the original model says of the image",
        beyond.distillation,
        target="predicted",
        options=beyond.DISTILLATION,
        other=another_background,
        reference=True,
    ),
}


def get_method(name: str) -> Method:
    """The method called `name`. Raises UserError that lists those there are."""
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    return METHODS[name]


def settings(name: str, weights: Mapping[str, Any], options: Mapping[str, float] | None = None) -> dict[str, float]:
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
