"""What models answer to every version of every picture, and where they look on the pictures as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from relevit.auditing.conditions import CONDITIONS, ORIGINAL, Donors, Scene, background_of
from relevit.auditing.pictures import AuditPictures
from relevit.data.checks import Progress
from relevit.explainers import forward_with_relevance
from relevit.explainers.foreground_share import foreground_share
from relevit.models.attention import unsupported_reason
from relevit.models.view import EvaluationView
from relevit.models.working import working

_KEPT = 512  # scenes and backgrounds in memory at most


class Auditee(NamedTuple):
    """A model with its view, and the class index of each picture's class."""

    model: nn.Module
    view: EvaluationView
    targets: np.ndarray


@dataclass(frozen=True)
class Observed:
    """What one model did on n pictures.

    predicted: condition -> class indices (n,), -1 where a picture of that condition cannot be made, or where the logits are
    not finite. confidence: the same of its probability, NaN there. possible: condition -> bool (n,), where it can be made.
    share: of the relevance on the background (n,), NaN of a flat map; None for a model without maps. area: the background's
    share of the picture as the model sees it (n,).
    """

    predicted: Mapping[str, np.ndarray]
    confidence: Mapping[str, np.ndarray]
    possible: Mapping[str, np.ndarray]
    share: np.ndarray | None
    area: np.ndarray


class Versions:
    """The pictures of every condition, made when they are needed; scenes and filled backgrounds are kept a while."""

    def __init__(self, pictures: AuditPictures, donors: Donors) -> None:
        self.donors = donors
        self.scene: Callable[[int], Scene] = lru_cache(_KEPT)(pictures.scene)
        self.filled: Callable[[int], np.ndarray] = lru_cache(_KEPT)(lambda number: background_of(self.scene(number)))

    def picture(self, condition: str, number: int) -> np.ndarray | None:
        """uint8 (height, width, 3); None where it cannot be made."""
        return CONDITIONS[condition].make(number, self.scene(number), self.donors, self.filled)


class _Made(NamedTuple):
    """A scene, and its picture in every condition, None where it cannot be made."""

    scene: Scene
    pictures: dict[str, np.ndarray | None]


def observe(
    auditees: Mapping[str, Auditee],
    pictures: AuditPictures,
    donors: Donors,
    *,
    batch_size: int = 32,
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[str, Observed]:
    """Every model on every version of every picture, each made once for all models; by batches of `batch_size` pictures.

    workers: threads that make pictures. progress: called with (done, total) pictures. Models are left as they were.
    """
    count, versions = len(pictures), Versions(pictures, donors)
    with_maps = {name: unsupported_reason(each.model) is None for name, each in auditees.items()}
    predicted = {name: {key: np.full(count, -1) for key in CONDITIONS} for name in auditees}
    confidence = {name: {key: np.full(count, np.nan) for key in CONDITIONS} for name in auditees}
    possible = {key: np.zeros(count, bool) for key in CONDITIONS}
    share = {name: np.full(count, np.nan) for name in auditees}
    area = {name: np.full(count, np.nan) for name in auditees}

    def prepare(number: int) -> _Made:
        return _Made(versions.scene(number), {key: versions.picture(key, number) for key in CONDITIONS})

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for first in range(0, count, batch_size):
            numbers = range(first, min(first + batch_size, count))
            made = list(pool.map(prepare, numbers) if workers > 1 else map(prepare, numbers))
            for key in CONDITIONS:
                shown = [(place, made[place].pictures[key]) for place in range(len(made))]
                there = [(place, picture) for place, picture in shown if picture is not None]
                where = np.array([first + place for place, _ in there], int)
                possible[key][where] = True
                for name, each in auditees.items():
                    if not there:
                        continue
                    if key == ORIGINAL:
                        views = [each.view.with_mask(picture, made[place].scene.mask) for place, picture in there]
                        masks = torch.stack([view.mask for view in views])
                        images = torch.stack([view.image for view in views])
                        logits, on_object = looked(each.model, images, masks, with_maps[name])
                        area[name][where] = 1.0 - masks.double().mean(dim=(1, 2)).numpy()
                        share[name][where] = 1.0 - on_object
                    else:
                        logits = answered(each.model, torch.stack([each.view(picture) for _, picture in there]))
                    predicted[name][key][where], confidence[name][key][where] = first_class(logits)
            if progress is not None:
                progress(min(first + batch_size, count), count)
    return {
        name: Observed(
            predicted[name], confidence[name], possible, share[name] if with_maps[name] else None, area[name]
        )
        for name in auditees
    }


def first_class(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The class of the highest logit and its probability, -1 and NaN where a logit is not finite; each (batch,)."""
    finite = logits.isfinite().all(dim=1).numpy()
    probability, chosen = logits.double().softmax(dim=1).max(dim=1)
    return np.where(finite, chosen.numpy(), -1), np.where(finite, probability.numpy(), np.nan)


def answered(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (batch, classes), on the processor."""
    with working(model) as device, torch.no_grad():
        return model(images.to(device)).float().cpu()


def looked(model: nn.Module, images: Tensor, masks: Tensor, with_maps: bool) -> tuple[Tensor, np.ndarray]:
    """Logits, and the share of each map of the predicted class that lies on the object (batch,), NaN of a flat map."""
    if not with_maps:
        return answered(model, images), np.full(len(images), np.nan)
    with working(model) as device, torch.no_grad():
        logits, maps = forward_with_relevance(model, images.to(device))
    maps = maps.double().cpu()
    flat = (maps.sum(dim=(1, 2)) <= 0).numpy()
    return logits.float().cpu(), np.where(flat, np.nan, foreground_share(maps, masks.double()).numpy())


def predictions(
    auditee_model: nn.Module, view: EvaluationView, pictures: AuditPictures, batch_size: int = 32
) -> np.ndarray:
    """The classes that a model names for the pictures as they are, (n,), in the order of the pictures."""
    found: list[np.ndarray] = []
    for first in range(0, len(pictures), batch_size):
        numbers: Sequence[int] = range(first, min(first + batch_size, len(pictures)))
        images = torch.stack([view(pictures.scene(number).picture) for number in numbers])
        found.append(first_class(answered(auditee_model, images))[0])
    return np.concatenate(found)
