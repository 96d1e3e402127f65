"""Every training method in one table: a loss, as named weighted terms, and a view of the samples.

To add a method, write a function from `Outputs` to terms (or take one that is here) and name it in METHODS. The loop in
training.py is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from relevit.data.compose import Backgrounds, as_picture, paste
from relevit.errors import UserError
from relevit.losses import background_loss, confidence_loss, foreground_loss, label_loss

if TYPE_CHECKING:
    from relevit.data.samples import Sample

Options = Mapping[str, float]

PAPER = {  # Sec. 3 of the paper: Eq. 3 and 5; the temperature divides the logits of the classification term
    "temperature": 1.0,
    "lambda_bg": 2.0,
    "lambda_fg": 0.3,
    "lambda_relevance": 0.8,
    "lambda_classification": 0.2,
}


class Outputs(NamedTuple):
    """What a loss may use: logits (batch, classes); maps, masks and ignore (batch, height, width); labels (batch,).

    `maps` is None where the method does not need maps, `ignore` where no sample has an ignore region.
    """

    logits: Tensor
    maps: Tensor | None
    masks: Tensor
    ignore: Tensor | None
    labels: Tensor


class Term(NamedTuple):
    """One term of a loss: a scalar and its weight in the total."""

    weight: float
    value: Tensor


class Method(NamedTuple):
    """A training method.

    loss: its terms, from a batch's outputs and the options. needs_maps: whether they use relevance maps. needs_labels:
    whether they use labels beyond picking the map's class. target: whose map, "label" or "predicted"; None leaves it to
    the caller. view: None, or a function that alters a sample before the training view, called as
    `view(sample, index, backgrounds, generator, options)`. options: the method's numbers and their defaults.
    """

    description: str
    loss: Callable[[Outputs, Options], dict[str, Term]]
    needs_maps: bool = False
    needs_labels: bool = False
    target: str | None = None
    view: Callable[[Sample, int, Backgrounds, torch.Generator, Options], Sample] | None = None
    options: Mapping[str, float] = PAPER


def total(terms: Mapping[str, Term]) -> Tensor:
    """The weighted sum of the terms. A term of weight zero is left out, so that it may be anything, infinity too."""
    weighted = [term.weight * term.value for term in terms.values() if term.weight != 0]
    if not weighted:
        raise UserError("all weights of the loss are zero: nothing would be trained")
    return torch.stack(weighted).sum()


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
