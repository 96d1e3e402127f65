"""A linear probe, a head on frozen features: what turns a self-supervised backbone into a classifier (appendix L).

The features are those before the head (timm's `pre_logits`) of the evaluation view, computed once; the head is a multinomial
logistic regression (scikit-learn, L-BFGS) on standardised features, and the standardisation is then folded into its weights, so
that the result is a plain timm model. The strength of its regularisation is chosen on images that are held out of each class.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Float, Int
from PIL import Image
from safetensors import safe_open
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from relevit.data.benchmarks import class_folders
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.evaluation.shards import shard_ranges
from relevit.files import atomic_write
from relevit.folders import differences
from relevit.models.checkpoints import save_checkpoint
from relevit.models.fingerprints import of_weights as fingerprint
from relevit.models.loading import data_config, is_checkpoint
from relevit.models.working import working

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of scikit-learn: the smaller, the more regularised
FEATURES = "features"
_RAMP = (
    (np.arange(61 * 83 * 3) * 7 % 256).astype(np.uint8).reshape(61, 83, 3)
)  # its view tells one preprocessing from another


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
    progress: Callable[[int, int], None] | None = None,
) -> ProbeFigures:
    """Gives `model` a new head for the class folders of `images` and trains it, nothing else; a checkpoint in `out`.

    Class i is the i-th folder in sorted order (for ImageNet's wnids that is the usual order), and the folders' names go into the
    checkpoint. Features are kept in OUT/features while it runs, in parts, so that the same call goes on where it was stopped.
    Memory: images x features floats, and twice images x classes for the regression.

    Args:
        model: any timm model; its head is replaced, its other weights stay bit-identical.
        view: a picture to the model's input.
        images: a folder of class folders.
        out: the folder of the checkpoint; one that holds a checkpoint is not overwritten.
        strengths: values of C to choose from.
        held_out: the share of each class's images for the choice (at least one, where a class has two or more).
        seed: of the draw of the held-out images.
        max_iterations: of L-BFGS.
        batch_size, workers: of the forward passes.
        progress: called with (done, total) images.

    Raises:
        UserError: fewer than two classes, `out` taken or begun with another model or other images, strengths that are no
            positive numbers, no readable image of a class.
    """
    if not strengths or not all(value > 0 for value in strengths):
        raise UserError(f"strengths must be positive numbers, not {list(strengths)}")
    if not 0 < held_out < 1:
        raise UserError(f"held_out must be a share between 0 and 1, not {held_out}")
    data = images if isinstance(images, ImageSet) else class_folders(Path(images))
    if len(data.class_names) < 2:
        raise UserError(f"{data.name} holds one class folder: a head needs at least two classes")
    place = Path(out)
    if is_checkpoint(place):
        raise UserError(f"{place} holds a checkpoint already: give another folder")
    features, labels, unreadable = _features(model, view, data, place / FEATURES, batch_size, workers, progress)
    counts = np.bincount(labels, minlength=len(data.class_names))
    if not counts.all():
        raise UserError(f"no image of {data.class_names[int(counts.argmin())]} could be read: {unreadable[0]}")
    mean, std = features.mean(axis=0), features.std(axis=0)
    std = np.where(std > 1e-6 * std.max(), std, 1.0)
    scaled = (features - mean) / std
    apart = held_out_images(labels, held_out, seed)
    trials = {}
    for strength in sorted(float(value) for value in strengths):
        if apart.any() and len(strengths) > 1:
            fitted = _fit(scaled[~apart], labels[~apart], strength, max_iterations)
            trials[strength] = 100.0 * float((fitted.predict(scaled[apart]) == labels[apart]).mean())
    chosen = max(trials, key=lambda strength: (trials[strength], -strength)) if trials else float(strengths[0])
    head = _fit(scaled, labels, chosen, max_iterations)
    weight, bias = head_of(head, mean, std)
    _put_head(model, weight, bias)
    figures = ProbeFigures(
        len(labels),
        len(data.class_names),
        chosen,
        trials,
        100.0 * float((head.predict(scaled) == labels).mean()),
        unreadable,
    )
    given = getattr(model, "pretrained_cfg", None) or {}
    names = {"num_classes": len(data.class_names), "label_names": list(data.class_names), "label_descriptions": None}
    model.pretrained_cfg = {**given, **names}  # type: ignore[assignment]
    save_checkpoint(place, model, extra={"linear_probe": figures.to_dict()}, data_config=data_config(model))
    shutil.rmtree(place / FEATURES, ignore_errors=True)
    return figures


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


def _put_head(model: nn.Module, weight: np.ndarray, bias: np.ndarray) -> None:
    """The model's head replaced by a linear layer with these weights; of a distilled DeiT, both heads."""
    model.reset_classifier(len(weight))  # type: ignore[operator]
    heads = [getattr(model, name, None) for name in ("head", "head_dist")]
    layers = [head for head in heads if isinstance(head, nn.Linear)]
    if not layers or layers[0].weight.shape != weight.shape:
        raise UserError(f"{type(model).__name__} has no linear layer called head: a head cannot be trained for it")
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))


class _Views(Dataset):
    """Every image as (view, folder's number), or (None, reason)."""

    def __init__(self, data: ImageSet, view: Callable[[Any], Tensor]) -> None:
        self.data, self.view = data, view
        self.number = {name: number for number, name in enumerate(data.class_names)}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor | None, Any]:
        try:
            image = self.data[index].image
        except UserError as error:
            return None, str(error)
        return self.view(image), self.number[(self.data.groups or ())[index]]


def _features(
    model: nn.Module,
    view: Callable[[Any], Tensor],
    data: ImageSet,
    folder: Path,
    batch_size: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[Float[np.ndarray, "images features"], Int[np.ndarray, " images"], list[str]]:
    """Features and folder numbers of the readable images, and the reasons of the others; part by part from the folder, or made."""
    identity = {
        "weights": fingerprint(model.state_dict()),
        "view": hashlib.sha256(view(Image.fromarray(_RAMP)).numpy().tobytes()).hexdigest(),
        "images": hashlib.sha256("\n".join(data.names).encode()).hexdigest(),
    }
    config = folder / "config.json"
    if config.exists():
        known = differences(json.loads(config.read_text(encoding="utf-8")), identity)
        if known:
            raise UserError(
                f"{folder} was begun with other input ({'; '.join(known)}): remove it or give another folder"
            )
    else:
        atomic_write(config, json.dumps(identity, indent=1) + "\n")
    found, labels, unreadable = [], [], []
    with working(model) as device, torch.inference_mode():
        for number, part in enumerate(shard_ranges(len(data))):
            file = folder / f"part-{number:05d}.safetensors"
            if not file.exists():
                loader = DataLoader(
                    Subset(_Views(data, view), list(part)), batch_size, num_workers=workers, collate_fn=list
                )
                values, own, reasons = [], [], []
                for batch in loader:
                    read = [(image, label) for image, label in batch if image is not None]
                    reasons += [reason for image, reason in batch if image is None]
                    if read:
                        images = torch.stack([image for image, _ in read]).to(device)  # (batch, 3, height, width)
                        values.append(_before_head(model, images).float().cpu().numpy())
                        own += [label for _, label in read]
                tensors = {
                    "features": np.concatenate(values) if values else np.zeros((0, 0), np.float32),
                    "labels": np.asarray(own, np.int64),
                }
                content = safetensors.numpy.save(tensors, {"unreadable": json.dumps(reasons)})
                atomic_write(file, content)
            with safe_open(file, "np") as opened:
                if len(opened.get_tensor("labels")):
                    found.append(opened.get_tensor("features"))
                    labels.append(opened.get_tensor("labels"))
                unreadable += json.loads(opened.metadata()["unreadable"])
            if progress is not None:
                progress(part.stop, len(data))
    if not found:
        raise UserError(f"no image of {data.name} could be read: {unreadable[0]}")
    return np.concatenate(found), np.concatenate(labels), unreadable


def _before_head(model: nn.Module, images: Tensor) -> Tensor:
    """What the head is applied to, (batch, features); of a distilled DeiT the mean of both tokens, which both heads then share."""
    return model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]
