"""What jobs on the built-in benchmark do: trials of rates, the rule's choice, fine-tunings with their figures, measurements."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from relevit.data.builtin.digits import (
    CLASSES,
    SET_A,
    TEST_SETS,
    Pictures,
    test_set,
    training_samples,
    validation_samples,
)
from relevit.data.builtin.sets import builtin_set
from relevit.errors import UserError
from relevit.evaluation.frozen.linear_probe import train_linear_probe
from relevit.experiments.experiment import SHARE
from relevit.experiments.sources import work
from relevit.explainers import forward_with_relevance
from relevit.explainers.foreground_share import foreground_share
from relevit.files import atomic_folder
from relevit.masking.make import automatic_masks
from relevit.models import families
from relevit.models.interpolation import interpolate
from relevit.models.loading import is_checkpoint, load, save_checkpoint
from relevit.models.working import working
from relevit.statistics import interval
from relevit.training.learning_rate import choose_rate
from relevit.training.loop import finetune
from relevit.training.losses import confidence_loss

EPOCHS = 50
TUNING_SEED = 100  # of the samples for the choice of the rate, of no seed that is reported
VALIDATION_PER_CLASS = 30
SHARE_SET, SHARE_PICTURES = "in_distribution", 400  # where the share of relevance on the foreground is measured
OBJECTS = 800  # of a test set
HEAD_PER_CLASS, HEAD_SEED = 60, 400  # pictures for a linear head, and their draw, which no training sample has


# Jobs.


def trial(rate: float | None, folder: Path, **spec: Any) -> dict[str, float]:
    """What the rule looks at: validation accuracy (percent) and classification loss (Eq. 4) after a training with the samples of
    TUNING_SEED at a rate; before any training for rate None."""
    if rate is None:
        model = _start(spec.get("start", "original"), folder)
    else:
        model = train(seed=TUNING_SEED, rate=rate, folder=folder, **spec)
    pictures = validation_samples(VALIDATION_PER_CLASS)
    logits = logits_of(model, pictures)
    accuracy = float((logits.argmax(1).numpy() == pictures.labels).mean())
    return {"accuracy": 100 * accuracy, "classification_loss": confidence_loss(logits).item()}


def choose(trials: Mapping[str, str], after: Mapping[str, Any], start: str = "original") -> dict[str, Any]:
    """The paper's rule, on the results of the trials (rate to key)."""
    before = after[f"{start}-rate"]
    rate = choose_rate(before, {float(rate): after[key] for rate, key in trials.items()})
    return {"rate": rate, "original": before, "trials": after}


def original(views: int, folder: Path, start: str = "original") -> dict[str, Any]:
    """The figures of the model that is fine-tuned."""
    key = start if start == "original" else f"{start}-figures"
    return measured(_start(start, folder), key, views, folder)


def cell(
    name: str, seed: int, views: int, after: Mapping[str, Any], folder: Path, factor: float = 1.0, **spec: Any
) -> dict[str, Any]:
    """One fine-tuning, at the rate that was chosen before; its weights go to the folder's models/NAME."""
    (choice,) = after.values()
    rate, began = choice["rate"] * factor, time.monotonic()
    model = train(seed=seed, rate=rate, folder=folder, **spec)
    seconds = time.monotonic() - began
    save_checkpoint(folder / "models" / name, model)
    found = {"rate": rate, "train_seconds": seconds, **measured(model, name, views, folder)}
    if spec.get("masks") == "automatic":
        samples = training_samples(
            spec.get("per_class", 3), seed, chosen_classes(spec.get("classes"), spec.get("choice"))
        )
        found["masks"] = mask_figures(_start(spec.get("start", "original"), folder), samples)
    return found


def interpolated(name: str, share: float, views: int, folder: Path) -> dict[str, Any]:
    """The figures of the model whose weights are the original's, moved by `share` of the way to those of a cell
    (WiSE-FT, Wortsman et al. 2022)."""
    model = interpolate(model_of(None, folder), model_of(name, folder), share)
    return measured(model, f"{name}-interpolated-{share:g}", views, folder)


def measure(
    test: str,
    data: str,
    name: str | None,
    limit: int,
    folder: Path,
    train: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """A test of relevit.evaluation.measurements, by name, of the model of a cell on `limit` pictures of a set."""
    return work.measure(test, (model_of(name, folder), load("builtin")[1]), data, limit, options, train)


def effects(name: str, test_set_name: str, arm: str, folder: Path) -> dict[str, Any]:
    """The page of what a cell's model changed on a set, class by class and picture by picture."""
    view, label = load("builtin")[1], f"builtin/{test_set_name}"
    models = {"original": ((model_of(None, folder), view), "original"), arm: ((model_of(name, folder), view), name)}
    return work.effects(models, label, builtin_set(test_set_name, 3), f"{test_set_name}-{name}", folder, "standard")


def linear_head(name: str, folder: Path) -> dict[str, Any]:
    """The built-in model with a new head, trained by `train_linear_probe` on shortcut pictures of the training objects of all classes,
    in the folder's starts/NAME. The other weights stay."""
    out = folder / "starts" / name
    if is_checkpoint(out):  # its result was not written: it was interrupted just before
        shutil.rmtree(out)
    model, view = load("builtin")
    return train_linear_probe(model, view, _head_pictures(folder / "starts" / "pictures"), out).to_dict()


def _head_pictures(out: Path) -> Path:
    """The pictures in class folders whose names sort as the benchmark's classes are numbered."""
    if not out.exists():
        drawn = training_samples(HEAD_PER_CLASS, HEAD_SEED, tuple(range(len(CLASSES))))
        with atomic_folder(out) as made:
            for number, (image, label) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
                place = made / f"{label:02d} {CLASSES[label]}"
                place.mkdir(exist_ok=True)
                Image.fromarray(image).save(place / f"{number:05d}.png")
    return out


# Models.


@cache
def _start(name: str, folder: Path) -> nn.Module:
    return load("builtin" if name == "original" else str(folder / "starts" / name))[0]


def model_of(name: str | None, folder: Path) -> nn.Module:
    """The model that the cell `name` left in the output folder; the original for None."""
    if name is None:
        return load("builtin")[0]
    place = folder / "models" / name
    if not is_checkpoint(place):
        raise UserError(f"{place} is gone: remove {folder / 'jobs' / name}.json to have it made again")
    return load(str(place))[0]


def train(
    method: str,
    seed: int,
    rate: float,
    folder: Path | None = None,
    masks: str = "annotated",
    per_class: int = 3,
    classes: int | None = None,
    choice: int | None = None,
    start: str = "original",
    explainer: str = "gae",
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A copy of the built-in model, or of another start, fine-tuned by an arm of that specification: on `per_class` samples of each
    of its classes; with automatic masks, without the samples in which no object was found."""
    model = _start(start, folder or Path())
    samples = training_samples(per_class, seed, chosen_classes(classes, choice))
    if masks == "automatic":
        masked = with_automatic_masks(model, samples)
        samples = masked.subset(np.flatnonzero(has_object(masked)))
    tuned = finetune(
        copy.deepcopy(model),
        samples,
        None,
        method=method,
        explainer=explainer,
        epochs=EPOCHS,
        lr=rate,
        resize=1.0,
        flip=0.0,
        seed=seed,
        previews=0,
        track=(),
        progress=False,
        **(options or {}),
    )
    return tuned.model


def chosen_classes(classes: int | None = None, choice: int | None = None) -> tuple[int, ...]:
    """The classes whose samples are used: those of set A, the first `classes` of them in an order shuffled once; or, by
    `choice`, as many of all classes, drawn by that seed."""
    count = classes or len(SET_A)
    if choice is not None:
        drawn = np.random.default_rng((301, choice)).permutation(len(CLASSES))[:count]
    elif count == len(SET_A):
        return SET_A
    else:
        drawn = np.random.default_rng(302).permutation(SET_A)[:count]
    return tuple(sorted(int(number) for number in drawn))


def with_automatic_masks(model: nn.Module, pictures: Pictures) -> Pictures:
    """The pictures with the masks that TokenCut finds with a model's features (protocol: keys of the last block, refined by the
    bilateral solver), at their own size; empty where it finds no object. Labels and exact masks play no part in them."""
    masks = automatic_masks(model, [Image.fromarray(image) for image in pictures.images])
    return replace(pictures, masks=np.stack([mask.mask for mask in masks]).astype(np.float32))


def has_object(pictures: Pictures) -> np.ndarray:
    """Whether the mask of each picture has any object, bool (n,)."""
    return np.asarray(pictures.masks.any(axis=(1, 2)))


def overlap(masks: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Intersection over union of bool masks (n, height, width), (n,) in [0, 1]; of two empty ones 1."""
    union = (masks | exact).sum(axis=(1, 2))
    return np.where(union > 0, (masks & exact).sum(axis=(1, 2)) / np.maximum(union, 1), 1.0)


def mask_figures(model: nn.Module, samples: Pictures) -> dict[str, Any]:
    """How good the automatic masks of samples are, in percent with an interval by object: their mean intersection over union with
    the exact ones (at least half object), and the share of samples in which an object was found."""
    masked = with_automatic_masks(model, samples)
    iou = overlap(masked.masks > 0, samples.masks >= 0.5)
    figures = {
        "iou": interval.mean(iou, samples.objects, (0.0, 1.0)).percent,
        "found": interval.share(has_object(masked), samples.objects).percent,
    }
    return {name: {"mean": figure.value, "low": figure.low, "high": figure.high} for name, figure in figures.items()}


# Figures.


def measured(model: nn.Module, key: str, views: int, folder: Path) -> dict[str, Any]:
    """Accuracy on every test set, `views` pictures of each object, and the share of relevance on the foreground in percent."""
    shutil.rmtree(
        folder / "evaluations" / key, ignore_errors=True
    )  # of a call that was interrupted, or of other weights
    sets = {f"builtin/{name}": builtin_set(name, views) for name in TEST_SETS}
    found = work.evaluate((model, load("builtin")[1]), sets, key, folder, "standard")
    share = 100 * float(share_on_foreground(model, share_pictures(3)).mean())
    return {"views": views, "sets": found, SHARE: share}


def share_pictures(views: int = 1) -> Pictures:
    """The pictures on which the share of relevance on the foreground is measured."""
    pictures = test_set(SHARE_SET, "test", views)
    return pictures.subset(np.sort(np.random.default_rng(5).permutation(len(pictures))[:SHARE_PICTURES]))


def share_on_foreground(model: nn.Module, pictures: Pictures) -> np.ndarray:
    """Share of each picture's relevance that lies on the object, (n,) in [0, 1]."""
    return foreground_share(maps_of(model, pictures), torch.from_numpy(pictures.masks)).numpy()


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (n, H, W, 3) to float (n, 3, H, W), normalised with mean and standard deviation 0.5, as the built-in model
    wants it."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def hits_of(model: nn.Module, pictures: Pictures) -> np.ndarray:
    """Whether each picture's class is predicted, bool (n,)."""
    return logits_of(model, pictures).argmax(1).numpy() == pictures.labels


def logits_of(model: nn.Module, pictures: Pictures, batch: int = 100) -> Tensor:
    """Logits (n, classes)."""
    images = [to_tensor(pictures.images[i : i + batch]) for i in range(0, len(pictures), batch)]
    with working(model) as device, torch.inference_mode():
        return torch.cat([families.logits_of(model, some.to(device)).cpu() for some in images])


def maps_of(model: nn.Module, pictures: Pictures, batch: int = 50) -> Tensor:
    """Relevance maps (n, H, W) of the predicted classes."""
    images = [to_tensor(pictures.images[i : i + batch]) for i in range(0, len(pictures), batch)]
    with working(model) as device, torch.no_grad():
        return torch.cat([forward_with_relevance(model, some.to(device))[1].cpu() for some in images])
