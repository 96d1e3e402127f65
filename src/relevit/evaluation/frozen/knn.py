"""Nearest neighbours on frozen features: how well a backbone's features tell classes apart that it was not trained on.

The paper's appendix M; the rule is that of Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination"
(CVPR 2018), as for DINO: each of the k most similar training images (cosine) votes for its class with the weight
exp(similarity / temperature).
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from relevit.data.benchmarks import class_folders
from relevit.data.sets import of_dataset
from relevit.errors import UserError
from relevit.evaluation.accuracy.recall import Accuracy, hits_at
from relevit.evaluation.image_batches import ImageBatches
from relevit.evaluation.items import Advance, Item, LeftOut
from relevit.evaluation.per_image import PerImage, summary
from relevit.models.view import EvaluationView
from relevit.models.working import working

K, TEMPERATURE = 20, 0.07  # protocol of the paper: our choice
_CHUNK = 4096  # training images whose similarities are computed at once
_CELLS = 16_000_000  # similarities, or votes, held at a time


@dataclass(frozen=True)
class Neighbours:
    """The votes' outcome for each test image; the figures, r1 and r5, are percent.

    Attributes:
        names, groups, objects: of each test image its name, its class's name, and what it shows.
        hit1, hit5: whether its class has the most votes; is among the five with the most. A class without a vote is never a hit.
        predicted: the name of the class with the most votes.
        settings: k, temperature, numbers of training images and classes.
        left_out: test images that could not be read, and why; `train_left_out`: training images.
    """

    names: list[str]
    groups: list[str]
    objects: list[str]
    hit1: Bool[np.ndarray, " images"]
    hit5: Bool[np.ndarray, " images"]
    predicted: list[str]
    settings: dict[str, Any] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    train_left_out: list[LeftOut] = field(default_factory=list)

    @cached_property
    def per_image(self) -> PerImage:
        """r1 and r5 of each image, 0 or 100."""
        values = {"r1": 100.0 * self.hit1, "r5": 100.0 * self.hit5}
        bounds = {name: (0.0, 100.0) for name in values}
        return PerImage(self.names, self.groups, self.objects, values, self.left_out, bounds)

    def accuracy(self) -> Accuracy:
        """R@1 and R@5 with Wilson's intervals, by class."""
        shown = np.asarray(self.objects)
        single = len(set(self.objects)) == len(self.objects)
        return Accuracy(self.hit1, self.hit5, np.asarray(self.groups), None if single else shown)

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Between which values each figure lies."""
        return self.per_image.bounds

    def figures(self, weights: Float[np.ndarray, "draws images"]) -> dict[str, Float[np.ndarray, " draws"]]:
        """The figures of the set in which each image appears as often as `weights` says."""
        return self.per_image.figures(weights)

    def only(self, chosen: Int[np.ndarray, " some"]) -> PerImage:
        """The figures of some of the images, by number."""
        return self.per_image.only(chosen)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield from self.per_image

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the figures, and those of every class and image."""
        found = summary(self.per_image, self.per_image.values)
        found["per_image"]["predicted"] = self.predicted
        return {
            "settings": self.settings,
            **found,
            "train_left_out": [each._asdict() for each in self.train_left_out],
        }


def knn(
    model: nn.Module,
    view: EvaluationView | Any,
    data: Any,
    *,
    train: Any,
    batch_size: int = 64,
    seed: int = 0,
    progress: Advance | None = None,
    k: int = K,
    temperature: float = TEMPERATURE,
    workers: int = 0,
) -> Neighbours:
    """k-NN accuracy of a model's frozen features, R@1 and R@5.

    Features are those before the head (timm's `forward_head(..., pre_logits=True)`), scaled to length 1. Classes are matched by their
    names alone, not by the model's. The training images pass by once and their features are not kept: besides those of the test
    images, memory holds the k nearest of each. Of equal similarities the earlier training image is nearer; of equal votes the class
    whose name sorts first is ahead.

    Args:
        model: any timm model, in whatever it was trained; its head is not used.
        view: the transform of a picture to its input, of `relevit.load`.
        data: the test set: a folder of class folders, an `ImageSet`, or any data set with `groups`.
        train: the training set, one of the same.
        batch_size: pictures in one forward pass.
        seed: not used, nothing here is random.
        progress: called with the number of test images' worth of work (both sets together) that is done since its last call.
        k: how many neighbours vote.
        temperature: of the votes' weights, above 0.
        workers: processes that read images; 0 reads in this one.

    Raises:
        UserError: k outside of 1 to the number of training images, a temperature that is not positive, a test class without
            training images, an image file in both sets, a set without class names, a model without features or with some that are not finite.
    """
    test, bank = _opened(data), _opened(train)
    classes, wanted, labels = _matched(test, bank)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= len(bank):
        raise UserError(f"k must be a whole number from 1 to {len(bank)}, the number of training images, not {k!r}")
    if isinstance(temperature, bool) or not 0 < temperature < np.inf:
        raise UserError(f"temperature must be a number above 0, not {temperature!r}")
    if not hasattr(model, "forward_features") or not hasattr(model, "forward_head"):
        raise UserError(
            f"{type(model).__name__} has no forward_features and forward_head, from which timm models give features"
        )
    _check_apart(test, bank)
    advance = _Shared(progress, len(test), len(test) + len(bank))
    tests = ImageBatches(model, view, test, batch_size, None, workers, advance, labels=False)
    bank_batches = ImageBatches(model, view, bank, batch_size, None, workers, advance, labels=False)
    items: list[Item] = []
    numbers: list[int] = []
    parts: list[Tensor] = []
    with working(model), torch.no_grad():
        for batch in tests:
            parts.append(features(model, batch.images, [item.name for item in batch.items]))
            items += batch.items
            numbers += batch.numbers
        queries = torch.cat(parts)  # (images, channels)
        parts.clear()
        nearest = Nearest(queries, k)
        for batch in bank_batches:
            found = features(model, batch.images, [item.name for item in batch.items])
            nearest.add(found, torch.tensor([labels[number] for number in batch.numbers]))
        similarity, neighbour_labels = nearest.finish()
    hit1, hit5, first = votes(similarity, neighbour_labels, torch.tensor(wanted)[numbers], len(classes), temperature)
    return Neighbours(
        [item.name for item in items],
        [item.group for item in items],
        [item.object for item in items],
        hit1.numpy(),
        hit5.numpy(),
        [classes[number] for number in first.tolist()],
        {"k": k, "temperature": temperature, "train_images": nearest.seen, "train_classes": len(classes)},
        tests.left_out,
        bank_batches.left_out,
    )


def features(
    model: nn.Module, images: Float[Tensor, "batch 3 height width"], names: Sequence[str]
) -> Float[Tensor, "batch channels"]:
    """A timm model's features before its head, in at least single precision, each scaled to length 1 (zeros stay zeros).

    Raises UserError where they are no single vector an image, and naming an image of `names` whose features are not finite.
    """
    found: Tensor = model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]
    if found.ndim != 2:
        raise UserError(f"the model's features are of the shape {tuple(found.shape[1:])}, not one vector an image")
    bad = torch.nonzero(~found.isfinite().all(dim=1))[:, 0].tolist()
    if bad:
        raise UserError(f"the model's features of {names[bad[0]]} are not finite")
    return F.normalize(found.to(torch.promote_types(found.dtype, torch.float32)), dim=1)


class Nearest:
    """The k most similar of all training images that were added, for each query; of equal ones the earlier."""

    def __init__(self, queries: Float[Tensor, "images channels"], k: int) -> None:
        self.queries, self.k, self.seen = queries, k, 0
        self._similarity = queries.new_full((len(queries), k), -torch.inf)
        self._labels = torch.full((len(queries), k), -1, device=queries.device)
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, found: Float[Tensor, "some channels"], labels: Int[Tensor, " some"]) -> None:
        """More training images, of length 1, with their classes."""
        self._waiting.append((found, labels.to(found.device)))
        self.seen += len(found)
        if sum(len(each) for each, _ in self._waiting) >= _CHUNK:
            self._merge()

    def finish(self) -> tuple[Float[Tensor, "images k"], Int[Tensor, "images k"]]:
        """Similarities, falling, and classes of the nearest, on the processor; minus infinity and -1 where there were fewer."""
        self._merge()
        return self._similarity.cpu(), self._labels.cpu()

    def _merge(self) -> None:
        if not self._waiting:
            return
        bank, labels = (torch.cat(each) for each in zip(*self._waiting, strict=True))
        self._waiting.clear()
        rows = max(1, _CELLS // len(bank))
        for first in range(0, len(self.queries), rows):
            block = slice(first, first + rows)
            similarity, places = first_of(self.queries[block] @ bank.T, self.k)
            both = torch.cat([self._similarity[block], similarity], dim=1)
            named = torch.cat([self._labels[block], labels[places]], dim=1)
            best, order = torch.sort(both, dim=1, descending=True, stable=True)
            self._similarity[block] = best[:, : self.k]
            self._labels[block] = named.gather(1, order[:, : self.k])


def first_of(
    values: Float[Tensor, "rows columns"], k: int
) -> tuple[Float[Tensor, "rows found"], Int[Tensor, "rows found"]]:
    """The k highest values of each row (all, if there are fewer), falling, and their columns; of equal ones the first columns."""
    k = min(k, values.shape[1])
    best, places = values.topk(k, dim=1)
    places, order = places.sort(dim=1)
    best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
    places = places.gather(1, order)
    # where more than k reach the k-th value, topk took any of them
    unclear = torch.nonzero((values >= best[:, -1:]).sum(dim=1) > k)[:, 0]
    if len(unclear):
        ranked = values[unclear].sort(dim=1, descending=True, stable=True)
        best[unclear], places[unclear] = ranked.values[:, :k], ranked.indices[:, :k]
    return best, places


def votes(
    similarity: Float[Tensor, "images k"],
    neighbours: Int[Tensor, "images k"],
    wanted: Int[Tensor, " images"],
    classes: int,
    temperature: float,
) -> tuple[Bool[Tensor, " images"], Bool[Tensor, " images"], Int[Tensor, " images"]]:
    """Whether the wanted class has the most votes, is among the five with the most, and which class has the most.

    neighbours: the class of each neighbour, -1 for none. The weights are relative to the nearest neighbour's, which changes no
    order and keeps small temperatures from overflowing.
    """
    hit1, hit5, first = [], [], []
    rows = max(1, _CELLS // classes)
    for near, named, right in zip(similarity.split(rows), neighbours.split(rows), wanted.split(rows), strict=True):
        weights = ((near.double() - near[:, :1].double()) / temperature).exp()  # 0 for none
        sums = torch.zeros(len(near), classes, dtype=torch.float64).scatter_add(1, named.clamp(min=0), weights)
        voted = torch.zeros(len(near), classes + 1, dtype=torch.bool).scatter(1, named + 1, True)[:, 1:]
        sums = torch.where(voted, sums, -1.0)  # behind the smallest vote
        own = voted.gather(1, right[:, None])[:, 0]
        hit1.append(hits_at(sums, right, 1) & own)
        hit5.append(hits_at(sums, right, 5) & own)
        first.append(sums.argmax(dim=1))
    return torch.cat(hit1), torch.cat(hit5), torch.cat(first)


class _Shared:
    """Passes on the progress of several passes in units of the first one's images."""

    def __init__(self, progress: Advance | None, units: int, total: int) -> None:
        self.progress, self.units, self.total, self.done = progress, units, total, 0

    def __call__(self, count: int) -> None:
        before = self.done * self.units // self.total
        self.done += count
        if self.progress is not None:
            self.progress(self.done * self.units // self.total - before)


def _opened(data: Any) -> Any:
    return class_folders(data) if isinstance(data, str | Path) else of_dataset(data)


def _matched(test: Any, bank: Any) -> tuple[list[str], list[int], list[int]]:
    """The training set's classes, sorted, and the number of each test and training image's class among them."""
    names = []
    for data, role in ((test, "test"), (bank, "training")):
        groups = data.groups
        if groups is None or not all(groups):
            raise UserError(f"the {role} set names no classes: give a folder with one folder of images per class")
        names.append([unicodedata.normalize("NFC", str(group)) for group in groups])
        if not names[-1]:
            raise UserError(f"the {role} set holds no images")
    classes = sorted(set(names[1]))
    number = {name: place for place, name in enumerate(classes)}
    missing = sorted(set(names[0]) - set(classes))
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise UserError(
            f"the training set has no images of {len(missing)} of the test set's classes ({shown}): name class folders alike in both, "
            "or leave them out of the test set"
        )
    return classes, [number[name] for name in names[0]], [number[name] for name in names[1]]


def _check_apart(test: Any, bank: Any) -> None:
    """Refuse a file that is in both sets: its nearest neighbour would be itself."""
    if test is bank:
        raise UserError("the test set is the training set: give two")
    if test.paths is None or bank.paths is None:
        return
    folders: dict[str, str] = {}

    def real(path: Path) -> str:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        return os.path.join(folders[folder], name)

    tested = {real(path) for path in test.paths}
    both = next((path for path in bank.paths if real(path) in tested), None)
    if both is not None:
        raise UserError(f"{both} is in the test set and in the training set: keep them apart")
