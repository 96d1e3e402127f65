"""Nearest neighbours on frozen features: how well a backbone's features tell classes apart that it was not trained on.

The paper's appendix M; the rule is that of Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination"
(CVPR 2018), as for DINO: each of the k most similar training images (cosine) votes for its class with the weight
exp(similarity / temperature).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relevit.data.pairing import plain
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.evaluation.accuracy.recall import hits_at
from relevit.evaluation.frozen.features import features_columns, features_work
from relevit.evaluation.measured import Measured
from relevit.evaluation.measurement import LoadedModel, own_view
from relevit.evaluation.rows import array, counted, faults_of
from relevit.models.working import device_of

K, TEMPERATURE = 20, 0.07  # protocol of the paper: our choice
_CELLS = 16_000_000  # similarities, or votes, held at a time


@dataclass(frozen=True)
class NearestNeighbours:
    """k-NN accuracy of a model's frozen features, R@1 and R@5. Rows: the features of both sets, scaled to length 1.

    Classes are matched by their names alone, not by the model's, whose head is not used. Of equal similarities the earlier
    training image is nearer; of equal votes the class whose name sorts first is ahead.

    Attributes:
        k: how many neighbours vote.
        temperature: of the votes' weights, above 0.
    """

    k: int = K
    temperature: float = TEMPERATURE
    batch_size: ClassVar = 64
    needs: ClassVar = "train_and_test"
    description: ClassVar = "R@1 and R@5 of nearest neighbours on frozen features (appendix M), percent; needs --train"
    unit: ClassVar = True
    framings, columns, begin = own_view, features_columns, features_work

    def check_sets(self, test: ImageSet, train: ImageSet) -> None:
        """Raises UserError for k outside of 1 to the number of training images, a temperature that is not positive, a test class
        without training images, an image file in both sets, a set without class names."""
        check_classes(test, train)
        if isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= len(train):
            raise UserError(
                f"k must be a whole number from 1 to {len(train)}, the number of training images, not {self.k!r}"
            )
        if isinstance(self.temperature, bool) or not 0 < self.temperature < np.inf:
            raise UserError(f"temperature must be a number above 0, not {self.temperature!r}")
        _check_apart(test, train)

    def figures(self, rows: pa.Table, train: pa.Table, model: LoadedModel) -> Measured:
        """r1 and r5, percent: whether an image's class has the most votes; is among the five with the most. A class without a vote
        is never a hit."""
        bank = counted(train)
        if not len(bank):
            raise UserError(f"none of the {len(train)} images to train on could be read: {faults_of(train)[0].reason}")
        names, groups = ([plain(name) for name in each["class"].to_pylist()] for each in (bank, rows))
        classes = sorted(set(names))
        place = {name: number for number, name in enumerate(classes)}
        tested, trained = (torch.from_numpy(array(each, "features").copy()) for each in (rows, bank))
        home = device_of(model.net)
        similarity, places = nearest(tested.to(home), trained.to(home), self.k)
        labels = torch.tensor([place[name] for name in names])
        wanted = torch.tensor([place.get(name, -1) for name in groups])
        hit1, hit5, first = votes(similarity, labels[places], wanted, len(classes), self.temperature)
        predicted = [classes[number] for number in first.tolist()]
        values = {"r1": 100.0 * hit1.numpy(), "r5": 100.0 * hit5.numpy()}
        return Measured(
            rows.drop_columns(["features"]).append_column("predicted", pa.array(predicted, pa.string())),
            values,
            dict.fromkeys(values, (0.0, 100.0)),
            {"k": self.k, "temperature": self.temperature, "train_images": len(bank), "train_classes": len(classes)},
            {**values, "predicted": predicted},
            train_left_out=faults_of(train),
        )


def nearest(
    queries: Float[Tensor, "images channels"], bank: Float[Tensor, "trained channels"], k: int
) -> tuple[Float[Tensor, "images found"], Int[Tensor, "images found"]]:
    """The similarities, falling, of the k most similar images of `bank` to each query (of all, if there are fewer), and their
    numbers; of equal ones the earlier. Both on the processor."""
    found = [first_of(some @ bank.T, k) for some in queries.split(max(1, _CELLS // len(bank)))]
    similarity, places = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return similarity, places


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


def check_classes(test: ImageSet, train: ImageSet) -> None:
    """Raises UserError where the test set has classes that the training set lacks, or one of them names none."""
    names = []
    for images, role in ((test, "test"), (train, "training")):
        groups = images.groups
        if groups is None or not all(groups):
            raise UserError(f"the {role} set names no classes: give a folder with one folder of images per class")
        names.append([plain(group) for group in groups])
        if not names[-1]:
            raise UserError(f"the {role} set holds no images")
    missing = sorted(set(names[0]) - set(names[1]))
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise UserError(
            f"the training set has no images of {len(missing)} of the test set's classes ({shown}): name class folders alike in both, "
            "or leave them out of the test set"
        )


def _check_apart(test: ImageSet, bank: ImageSet) -> None:
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
