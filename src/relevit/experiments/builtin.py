"""The experiment on the built-in benchmark: methods side by side, from the same model, on the same samples and steps.

A cell is one fine-tuning: a method, a number of samples a class, a seed. Its learning rate follows the paper's rule, on
validation samples of the held-out classes: the highest rate of a grid at which validation accuracy falls by at most 2.5
points and the classification loss (Eq. 4) does not rise (if it rises at every rate, accuracy decides alone). Test sets are only ever measured, never used for a choice.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from relevit.data.builtin.digits import (
    SET_A,
    TEST_SETS,
    Pictures,
    test_set,
    training_samples,
    validation_samples,
)
from relevit.experiments.automatic import with_automatic_masks
from relevit.explainers import forward_with_relevance
from relevit.explainers.foreground_share import foreground_share
from relevit.models.working import working
from relevit.statistics import interval
from relevit.training.loop import FinetuneResult, finetune
from relevit.training.losses import confidence_loss

METHODS = ("relevance", "control", "background_swap", "relevance+background_swap")
AUTOMATIC = {
    "relevance_with_automatic_masks": "relevance"
}  # name in the tables to method; masks from the model's own features
RATES = (1e-5, 3e-5, 1e-4, 3e-4)
PER_CLASS = (3, 20)
SEEDS = (0, 1, 2, 3, 4)
EPOCHS = 50
TUNING_SEED = 100  # samples for the choice of the rate, of no seed that is reported
VALIDATION_PER_CLASS = 30
SHARE_SET, SHARE_PICTURES = "in_distribution", 400  # where the share of relevance on the foreground is measured


@dataclass(frozen=True)
class Measured:
    """A model on a set: hits (n,) bool, predicted class (n,), its probability (n,)."""

    hits: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (n, H, W, 3) to float (n, 3, H, W), normalised with mean and standard deviation 0.5, as the built-in model
    wants it."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def logits_of(model: nn.Module, pictures: Pictures, batch: int = 100) -> Tensor:
    """Logits (n, classes)."""
    with working(model) as device, torch.inference_mode():
        parts = [
            model(to_tensor(pictures.images[i : i + batch]).to(device)).cpu() for i in range(0, len(pictures), batch)
        ]
    return torch.cat(parts)


def measure(model: nn.Module, pictures: Pictures) -> Measured:
    """Predictions of a model on a set."""
    probability, predicted = logits_of(model, pictures).softmax(1).max(1)
    return Measured(predicted.numpy() == pictures.labels, predicted.numpy(), probability.numpy())


def maps_of(model: nn.Module, pictures: Pictures, batch: int = 50) -> Tensor:
    """Relevance maps (n, H, W) of the predicted classes."""
    with working(model) as device, torch.no_grad():
        parts = [
            forward_with_relevance(model, to_tensor(pictures.images[i : i + batch]).to(device))[1].cpu()
            for i in range(0, len(pictures), batch)
        ]
    return torch.cat(parts)


def share_on_foreground(model: nn.Module, pictures: Pictures) -> np.ndarray:
    """Share of each picture's relevance that lies on the object, (n,) in [0, 1]."""
    return foreground_share(maps_of(model, pictures), torch.from_numpy(pictures.masks)).numpy()


def share_pictures(views: int = 1) -> Pictures:
    """The pictures on which the share of relevance on the foreground is measured."""
    pictures = test_set(SHARE_SET, "test", views)
    chosen = np.sort(np.random.default_rng(5).permutation(len(pictures))[:SHARE_PICTURES])
    return pictures.subset(chosen)


def fine_tune(
    original: nn.Module,
    method: str,
    per_class: int,
    seed: int,
    lr: float,
    out: Path | None = None,
    progress: bool = False,
    *,
    classes: Sequence[int] = SET_A,
    **options: Any,
) -> FinetuneResult:
    """A copy of the original, fine-tuned on `per_class` samples of each of `classes` by a method.

    A name of AUTOMATIC is its method with automatic masks in place of the exact ones, on the same samples, but for those
    in which no object was found. options: further arguments of `finetune`.
    """
    samples = training_samples(per_class, seed, tuple(classes))
    if method in AUTOMATIC:
        samples = with_automatic_masks(original, samples).pictures
    return finetune(
        copy.deepcopy(original),
        samples,
        out,
        method=AUTOMATIC.get(method, method),
        epochs=EPOCHS,
        lr=lr,
        resize=1.0,
        flip=0.0,
        seed=seed,
        previews=0,
        tensorboard=False,
        progress=progress,
        **options,
    )


def mask_figures(original: nn.Module, per_class: int, seed: int) -> dict[str, Any]:
    """How good the automatic masks of the samples of `fine_tune` are, in percent with an interval by object: their mean
    intersection over union with the exact ones, and the share of samples in which an object was found."""
    samples = training_samples(per_class, seed)
    masks = with_automatic_masks(original, samples)
    return {"iou": _figure(masks.iou, samples.objects), "found": _figure(masks.found, samples.objects)}


def rate_figures(model: nn.Module) -> dict[str, float]:
    """What the rule for the rate looks at: accuracy (percent) and classification loss on the validation samples."""
    pictures = validation_samples(VALIDATION_PER_CLASS)
    logits = logits_of(model, pictures)
    hits = logits.argmax(1).numpy() == pictures.labels
    return {"accuracy": 100 * float(hits.mean()), "classification_loss": confidence_loss(logits).item()}


def all_figures(model: nn.Module, views: int = 3) -> dict[str, Any]:
    """Every figure of a model in percent: by set the accuracy over all classes, over set A and over the rest, each with
    an interval clustered by object; and the share of relevance on the foreground."""
    figures: dict[str, Any] = {}
    for name in TEST_SETS:
        pictures = test_set(name, "test", views)
        hits = measure(model, pictures).hits
        in_a = np.isin(pictures.labels, SET_A)
        figures[name] = {
            "all": _figure(hits, pictures.objects),
            "set_a": _figure(hits[in_a], pictures.objects[in_a]),
            "rest": _figure(hits[~in_a], pictures.objects[~in_a]),
        }
    pictures = share_pictures(views)
    figures["foreground_share"] = _figure(share_on_foreground(model, pictures), pictures.objects)
    return figures


def _figure(values: np.ndarray, objects: np.ndarray) -> dict[str, float]:
    found = interval.mean(values, objects, bounds=(0.0, 1.0)).percent
    return {"mean": found.value, "low": found.low, "high": found.high}
