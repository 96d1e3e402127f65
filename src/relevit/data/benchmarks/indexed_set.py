"""Data sets of other libraries in the form of a benchmark: one whose images can be read one by one, and a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from relevit.data.benchmarks.image_set import LabelledImage
from relevit.data.classes import ClassMap, class_index, match_classes
from relevit.errors import UserError
from relevit.images import to_rgb


@dataclass(frozen=True, eq=False)
class IndexedSet(Dataset[LabelledImage]):
    """A data set whose images can be read one by one; the methods are those of an ImageSet.

    Where the data set names its classes, these are matched with the model's (`class_index`: its own names, wnid, index, a class map); where
    the names tell nothing, or there are none, the labels are class indices of the model.

    Attributes:
        name: of the data set, as it was given.
        labels: the class number of each image.
        folders: the names of the classes by number.
        key_of: the name of an image.
        read: the picture of an image (RGB); raises UserError where it cannot be read.
        named: whether the data set itself names its classes.
    """

    name: str
    labels: Sequence[int]
    folders: Sequence[str]
    key_of: Callable[[int], str]
    read: Callable[[int], Image.Image]
    named: bool = True
    objects: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> LabelledImage:
        return LabelledImage(self.read(index), int(self.labels[index]))

    def key(self, index: int) -> str:
        """The image's name."""
        return self.key_of(index)

    def answers(self, model: nn.Module, class_map: ClassMap | None = None) -> list[tuple[int, ...]]:
        """The model's class of each image. Raises UserError for classes that the model does not have."""
        classes = self._classes(model, class_map)
        return [classes[label] for label in self.labels]

    def candidates(self, model: nn.Module) -> None:
        """All of the model's classes compete."""

    def _classes(self, model: nn.Module, class_map: ClassMap | None) -> list[tuple[int, ...]]:
        count = getattr(model, "num_classes", None)
        if class_map is not None:
            known = class_index(self.folders, model, class_map)
            return [(known[folder],) for folder in self.folders]
        if self.named:
            matched = match_classes(self.folders, model)
            if not matched.unknown:
                return [(matched.classes[folder],) for folder in self.folders]
            if matched.classes or count != len(self.folders):
                example, reason = next(iter(matched.unknown.items()))
                raise UserError(
                    f"{self.name} has {len(self.folders):,} classes that do not fit the model's {count or ''} classes "
                    f"({example}: {reason}): give a class map from its class names to the model's class indices"
                )
        elif count is not None and len(self.folders) > count:
            raise UserError(
                f"{self.name} has the label {len(self.folders) - 1}, but the model knows the classes 0 to {count - 1}"
            )
        return [(number,) for number in range(len(self.folders))]


class StreamItem(NamedTuple):
    """An image of a stream: its name, the picture (RGB), and the model's classes that are right."""

    key: str
    image: Image.Image
    answers: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class StreamSet:
    """A data set that can only be read from beginning to end; each iteration reads it anew, in the same order.

    Labels are class indices of the model. Keys are running numbers from 000000000. What the library behind it cannot read it leaves out with a
    warning, so fewer images than `length` may come.

    Attributes:
        name: of the data set, as it was given.
        pairs: starts to read: pairs (picture, class index).
        length: the number of images, None where it is not known beforehand.
    """

    name: str
    pairs: Callable[[], Iterator[tuple[Image.Image, Any]]]
    length: int | None = None

    def __iter__(self) -> Iterator[StreamItem]:
        for number, (image, label) in enumerate(self.pairs()):
            yield StreamItem(f"{number:09d}", to_rgb(image), (whole(label, f"image {number} of {self.name}"),))

    def candidates(self, model: nn.Module) -> None:
        """All of the model's classes compete."""


def whole(label: Any, name: str) -> int:
    """A label as a class index, 0 or above. Raises UserError for anything else (-1 stands for no label)."""
    try:
        number = int(label)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise UserError(f"{name} has the label {label!r}, no class index: give a split with one class an image")
    return number
