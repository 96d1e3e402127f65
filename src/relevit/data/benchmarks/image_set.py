"""What a benchmark is: images, and for each the classes of a model that count as a hit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from relevit.data.benchmarks.listing import Paths
from relevit.images import read_image


def all_classes(model: nn.Module) -> None:
    """All of a model's classes compete for the prediction: the usual `candidates_of`."""


class LabelledImage(NamedTuple):
    """One image of a benchmark: an RGB picture and the number of its group, such as its class folder."""

    image: Image.Image
    label: int


@dataclass(frozen=True, eq=False)
class ImageSet(Dataset[LabelledImage]):
    """The images of a benchmark; indexing reads one, and raises UserError where it cannot be read.

    Attributes:
        name: of the benchmark, such as "imagenet-a" or "imagenet-c/fog/3".
        root: the folder that names are relative to.
        paths: the image files, sorted.
        labels: the number of each image's group, an index into `folders`.
        folders: the names of the groups (classes), sorted.
        answers_of: (model, class_map) -> the classes of the model that are right, for each image a tuple; most often one class,
            several where any of them is a hit. None (an empty tuple) where this model lacks the image's class: a miss. An image
            without a label has been left out when the set was made.
        candidates_of: (model) -> the classes among which the prediction is taken; None for all.
        read: reads a file as an RGB picture.
        objects: what each image shows, where several show one object.
    """

    name: str
    root: Path
    paths: Sequence[Path]
    labels: Sequence[int]
    folders: Sequence[str]
    answers_of: Callable[[nn.Module, Any], Sequence[tuple[int, ...]]]
    candidates_of: Callable[[nn.Module], Sequence[int] | None] = all_classes
    read: Callable[[Path], Image.Image] = read_image
    objects: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> LabelledImage:
        return LabelledImage(self.read(self.paths[index]), int(self.labels[index]))

    def key(self, index: int) -> str:
        """The image's name relative to the root, with forward slashes."""
        if isinstance(self.paths, Paths) and self.paths.root == self.root:
            return self.paths.name(index)
        return self.paths[index].relative_to(self.root).as_posix()

    def answers(self, model: nn.Module, class_map: Any = None) -> Sequence[tuple[int, ...]]:
        """The model's classes that count as a hit, for each image. Raises UserError where the model does not know them."""
        return self.answers_of(model, class_map)

    def candidates(self, model: nn.Module) -> Sequence[int] | None:
        """The model's classes among which the prediction is taken; None for all."""
        return self.candidates_of(model)


Open = Callable[[], ImageSet]  # opens a set that was found: lists its images
