"""Batches of a model's views of labelled images, with the classes that count as right: what the measurements run over that need no
masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from relevit.data.sets import ImageSet, of_dataset
from relevit.errors import UserError
from relevit.evaluation.items import Advance, Item, LeftOut
from relevit.models.view import EvaluationView
from relevit.models.working import device_of


@dataclass(frozen=True)
class Batch:
    """Images (batch, 3, height, width) on the model's device; for each what is known of it, its right classes (none where the
    model lacks the image's class; None where no label is known), and its number in the data set."""

    images: Tensor
    items: list[Item]
    answers: list[tuple[int, ...] | None]
    numbers: list[int]


@dataclass
class ImageBatches:
    """Iterating yields the `Batch`es of a data set in its order; afterwards `left_out` lists what could not be read.

    Attributes:
        model: where the images go; its device, and its classes, of a data set that knows the right ones by model.
        view: the transform of a picture, as `relevit.load` gives it.
        data: an `ImageSet`, or any data set of pairs or `Sample`s (label, -1 if unknown).
        batch_size: images in a batch.
        class_map: for class folders that are named neither by wnid nor by class index.
        workers: processes that read images; 0 reads in this one.
        progress: called with the number of images that are done since its last call.
        labels: False where the right classes are not needed, so that folders need not be classes of the model.
        candidates: the classes that compete in this data set; None for all.

    Raises:
        UserError: an empty data set, a class folder or label that is no class of the model; on iterating, when no image at all
            can be read.
    """

    model: nn.Module
    view: EvaluationView | Any
    data: Any
    batch_size: int
    class_map: Any = None
    workers: int = 0
    progress: Advance | None = None
    labels: bool = True
    left_out: list[LeftOut] = field(default_factory=list)
    candidates: list[int] | None = None

    def __post_init__(self) -> None:
        if not len(self.data):
            raise UserError("the data set holds no images: give one with at least one")
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise UserError(f"batch_size must be a whole number from 1, not {self.batch_size!r}")
        self._answers: Sequence[tuple[int, ...]] | None = None
        self._set = of_dataset(self.data)
        if self.labels:
            self._answers = self._set.right_classes(self.model, self.class_map)
        self.candidates = self._set.competing_classes(self.model)

    def __iter__(self) -> Iterator[Batch]:
        device = device_of(self.model)
        loader = DataLoader(_Views(self._set, self.view), self.batch_size, num_workers=self.workers, collate_fn=list)
        self.left_out.clear()
        for rows in loader:
            self.left_out += [row for row in rows if isinstance(row, LeftOut)]
            read = [row for row in rows if not isinstance(row, LeftOut)]
            if read:
                images = torch.stack([row[0] for row in read]).to(device)  # (batch, 3, height, width)
                answers = [self._right(label, number, item) for _, item, label, number in read]
                yield Batch(images, [row[1] for row in read], answers, [row[3] for row in read])
            if self.progress is not None:
                self.progress(len(rows))
        if len(self.left_out) == len(self.data):
            first = self.left_out[0]
            raise UserError(f"none of the {len(self.data)} images could be read: {first.name}, {first.reason}")

    def among_candidates(self, logits: Tensor) -> Tensor:
        """Logits (batch, classes) with minus infinity at the classes that do not compete in this data set."""
        if self.candidates is None:
            return logits
        shut = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        shut[self.candidates] = False
        return logits.masked_fill(shut, -torch.inf)

    def _right(self, label: int, number: int, item: Item) -> tuple[int, ...] | None:
        if not self.labels or (self._answers is None and label < 0):
            return None
        right = self._answers[number] if self._answers is not None else (label,)
        known = getattr(self.model, "num_classes", None)
        if right and known and not all(0 <= each < known for each in right):
            raise UserError(f"{item.name} has the label {max(right)}, but the model knows the classes 0 to {known - 1}")
        return tuple(int(each) for each in right)


class _Views(Dataset):
    """Each image of a data set in the model's view: (view, item, label, number), or what is left out."""

    def __init__(self, data: ImageSet, view: Any) -> None:
        self.data, self.view = data, view

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: int) -> tuple[Tensor, Item, int, int] | LeftOut:
        try:
            sample = self.data[number]
        except UserError as error:
            return LeftOut(self.data.names[number], str(error))
        image = sample.image
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        seen = image if isinstance(image, Tensor) else self.view(image)
        group = str(sample.label) if sample.label >= 0 else ""
        if self.data.groups is not None:
            group = self.data.groups[number]
        shown = sample.name if self.data.objects is None else str(self.data.objects[number])
        return seen, Item(sample.name, group, shown), sample.label, number
