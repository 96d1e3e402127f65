"""A linear probe, a head on frozen features: what turns a self-supervised backbone into a classifier (appendix L).

The features are those before the head (timm's `pre_logits`) of the evaluation view, computed once; the head is a multinomial
logistic regression (scikit-learn, L-BFGS) on standardised features, and the standardisation is then folded into its weights, so
that the result is a plain timm model. The strength of its regularisation is chosen on images that are held out of each class.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from relevit.data.benchmarks import class_folders
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.evaluation.engine import run
from relevit.evaluation.frozen.features import Features
from relevit.evaluation.measurement import LoadedModel
from relevit.evaluation.rows import array, counted, faults_of
from relevit.files import remove_leftovers
from relevit.folders import HIDDEN
from relevit.models.families import of_module
from relevit.models.families.family import unwrap
from relevit.models.loading import data_config, is_checkpoint
from relevit.models.saving import save_checkpoint

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of scikit-learn: the smaller, the more regularised
FEATURES = "features"


@dataclass(frozen=True)
class ProbeFigures:
    """How a head was trained.

    images, classes: how many. strength: the C that was chosen, from `held_out` {C: accuracy in percent on the held-out images}.
    training_accuracy: of the head that was trained on all images with it, in percent. unreadable: images left out.
    """

    images: int
    classes: int
    strength: float
    held_out: dict[float, float]
    training_accuracy: float
    unreadable: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "held_out": {str(strength): value for strength, value in self.held_out.items()}}


def train_linear_probe(
    model: nn.Module,
    view: Callable[[Any], Tensor],
    images: str | os.PathLike[str] | ImageSet,
    out: str | os.PathLike[str],
    *,
    strengths: Sequence[float] = STRENGTHS,
    held_out: float = 0.2,
    seed: int = 0,
    max_iterations: int = 500,
    batch_size: int = 64,
    workers: int = 0,
) -> ProbeFigures:
    """Gives `model` a new head for the class folders of `images` and trains it, nothing else; a checkpoint in `out`.

    Class i is the i-th folder in sorted order (for ImageNet's wnids that is the usual order), and the folders' names go into the
    checkpoint. Features are kept in OUT/features while it runs, in parts, so that the same call goes on where it was stopped.
    Memory: images x features floats, and twice images x classes for the regression.

    Args:
        model: any model that tells its features; its head is replaced, its other weights stay bit-identical.
        view: a picture to the model's input.
        images: a folder of class folders.
        out: the folder of the checkpoint; one that holds a checkpoint is not overwritten.
        strengths: values of C to choose from.
        held_out: the share of each class's images for the choice (at least one, where a class has two or more).
        seed: of the draw of the held-out images.
        max_iterations: of L-BFGS.
        batch_size, workers: of the forward passes.

    Raises:
        UserError: fewer than two classes, `out` taken or begun with another model or other images, strengths that are no
            positive numbers, no readable image of a class.
    """
    data, place = _checked(images, out, strengths, held_out), Path(out)
    features, labels, unreadable = _features(model, view, data, place / FEATURES, batch_size, workers)
    counts = np.bincount(labels, minlength=len(data.class_names))
    if not counts.all():
        raise UserError(f"no image of {data.class_names[int(counts.argmin())]} could be read: {unreadable[0]}")
    mean, std = features.mean(axis=0), features.std(axis=0)
    std = np.where(std > 1e-6 * std.max(), std, 1.0)
    scaled = (features - mean) / std
    trials = _trials(scaled, labels, strengths, held_out_images(labels, held_out, seed), max_iterations)
    chosen = max(trials, key=lambda strength: (trials[strength], -strength)) if trials else float(strengths[0])
    head = _fit(scaled, labels, chosen, max_iterations)
    weight, bias = (torch.from_numpy(values) for values in head_of(head, mean, std))
    of_module(model).replace_head(unwrap(model), weight, bias, list(data.class_names))
    accuracy = 100.0 * float((head.predict(scaled) == labels).mean())
    figures = ProbeFigures(len(labels), len(data.class_names), chosen, trials, accuracy, unreadable)
    save_checkpoint(place, model, extra={"linear_probe": figures.to_dict()}, data_config=data_config(model))
    shutil.rmtree(place / FEATURES, ignore_errors=True)
    return figures


def _checked(images: Any, out: str | os.PathLike[str], strengths: Sequence[float], held_out: float) -> ImageSet:
    """The class folders. Raises UserError for what can be wrong before any work."""
    if not strengths or not all(value > 0 for value in strengths):
        raise UserError(f"strengths must be positive numbers, not {list(strengths)}")
    if not 0 < held_out < 1:
        raise UserError(f"held_out must be a share between 0 and 1, not {held_out}")
    data = images if isinstance(images, ImageSet) else class_folders(Path(images))
    if len(data.class_names) < 2:
        raise UserError(f"{data.name} holds one class folder: a head needs at least two classes")
    if is_checkpoint(Path(out)):
        remove_leftovers(out)  # of a call that was killed when it had put the checkpoint in its place
        raise UserError(f"{out} holds a checkpoint already: give another folder")
    other = sorted({path.name for path in Path(out).iterdir()} - {FEATURES, HIDDEN}) if Path(out).is_dir() else []
    if other:  # the checkpoint replaces the folder as a whole
        raise UserError(f"{out} holds other files ({other[0]}): give another folder, nothing is overwritten")
    return data


def _trials(
    features: np.ndarray, labels: np.ndarray, strengths: Sequence[float], apart: np.ndarray, iterations: int
) -> dict[float, float]:
    """Strength -> accuracy in percent on the images held apart, of a head trained on the others; none where nothing is to be
    chosen."""
    if not apart.any() or len(strengths) < 2:
        return {}
    trials = {}
    for strength in sorted(float(value) for value in strengths):
        fitted = _fit(features[~apart], labels[~apart], strength, iterations)
        trials[strength] = 100.0 * float((fitted.predict(features[apart]) == labels[apart]).mean())
    return trials


def held_out_images(labels: Int[np.ndarray, " images"], share: float, seed: int) -> np.ndarray:
    """Which images are held out, (images,) bool: of each class its share, rounded, at least one and never all; none of a class
    with one image alone."""
    rng = np.random.default_rng(seed)
    apart = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        number = min(max(1, round(share * len(own))), len(own) - 1)
        apart[rng.permutation(own)[:number]] = True
    return apart


def head_of(
    fitted: LogisticRegression, mean: Float[np.ndarray, " features"], std: Float[np.ndarray, " features"]
) -> tuple[Float[np.ndarray, "classes features"], Float[np.ndarray, " classes"]]:
    """Weight and bias that give the regression's logits from features that are not standardised."""
    weight, bias = np.asarray(fitted.coef_, np.float64), np.asarray(fitted.intercept_, np.float64)
    if len(fitted.classes_) == 2:  # scikit-learn keeps one row, the logit of the second class against the first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / std
    return weight, bias - weight @ mean


def _fit(features: np.ndarray, labels: np.ndarray, strength: float, iterations: int) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as far as it comes: the held-out images tell
        return LogisticRegression(C=strength, max_iter=iterations, tol=1e-5).fit(features, labels)


def _features(
    model: nn.Module, view: Callable[[Any], Tensor], data: ImageSet, folder: Path, batch_size: int, workers: int
) -> tuple[Float[np.ndarray, "images features"], Int[np.ndarray, " images"], list[str]]:
    """Features and folder numbers of the readable images, and the reasons of the others; from the folder as far as they are
    there."""
    loaded, features = LoadedModel("model", model, view), Features()
    work = {"batch_size": batch_size, "workers": workers}
    with run([loaded], {"images": data}, features, command="probe", out=folder, **work) as done:  # type: ignore[arg-type]
        rows = done.rows["images"][loaded.name]
    unreadable = [fault.reason for fault in faults_of(rows)]
    there = counted(rows)
    if not len(there):
        raise UserError(f"no image of {data.name} could be read: {unreadable[0]}")
    labels = np.searchsorted(data.class_names, array(there, "class"))
    return features.figures(there), labels, unreadable
