"""ImageNet's 1,000 classes, the 200 of ImageNet-A and -R, and where a model has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from timm.data import ImageNetInfo
from torch import nn

from relevit.data.classes import ClassMap, class_index, class_names
from relevit.errors import UserError
from relevit.models.families import class_count, imagenet_subset

COUNT = 1000
_SHOWN = 3


@cache
def wnids() -> tuple[str, ...]:
    """The wnids of ImageNet's 1,000 classes in the order of their indices."""
    return tuple(ImageNetInfo("imagenet-1k").label_names())


@cache
def index_of() -> dict[str, int]:
    """Class index by wnid."""
    return {wnid: index for index, wnid in enumerate(wnids())}


@cache
def classes_of(subset: str) -> tuple[int, ...]:
    """The class indices of a set with classes of its own, "a" (ImageNet-A) or "r" (ImageNet-R): 200 each, from timm, ascending."""
    path = resources.files("timm.data") / "_info" / f"imagenet_{subset}_synsets.txt"
    return tuple(sorted(index_of()[wnid] for wnid in path.read_text(encoding="utf-8").split()))


def positions(model: nn.Module) -> tuple[int | None, ...] | None:
    """The model's index of each of ImageNet's 1,000 classes, None for one that it lacks; None for a model of other classes.

    By the model's own class names where these are wnids; otherwise by its number of classes, as timm tells the ImageNets
    apart (1,000 classes, 11,221, 11,821, 21,841, 21,842, 21,843). All the larger ones but 21,842 lack 1 to 9 of the 1,000.
    """
    own = {wnid: index for index, wnid in class_names(model).items() if wnid in index_of()}
    if not own:
        subset = imagenet_subset(model)
        if subset is None:
            return None
        own = _by_wnid(subset)
    return tuple(own.get(wnid) for wnid in wnids())


@cache
def _by_wnid(subset: str) -> dict[str, int]:
    return {wnid: index for index, wnid in enumerate(ImageNetInfo(subset).label_names())}


@dataclass(frozen=True)
class ImageNetAnswers:
    """(model, class_map) -> for each kind of image the model's classes that are right: `right` of an ImageSet.

    A model of ImageNet's classes, or of a larger ImageNet's, is asked by wnid; an image whose class a larger one lacks has no
    right class there and counts as a miss. For any other model the names of the groups go through the class map.

    Attributes:
        name: of the benchmark, for messages.
        choices: of each kind the ImageNet classes (0 to 999) that are right together.
        class_names: of each kind the name of its group.
    """

    name: str
    choices: Sequence[tuple[int, ...]]
    class_names: Sequence[str]

    def __call__(self, model: nn.Module, class_map: ClassMap | None = None) -> list[tuple[int, ...]]:
        where = positions(model)
        if where is None:
            return self._by_map(model, class_map)
        right = [tuple(place for each in choice if (place := where[each]) is not None) for choice in self.choices]
        missing = [wnids()[choice[0]] for choice, found in zip(self.choices, right, strict=True) if not found]
        if len(missing) == len(right) or (missing and imagenet_subset(model) is None):
            raise UserError(
                f"{self.name}: the model has no class for {', '.join(missing[:_SHOWN])}"
                + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
                + "; measure it on a folder with classes of its own"
            )
        return right

    def _by_map(self, model: nn.Module, class_map: ClassMap | None) -> list[tuple[int, ...]]:
        if class_map is None:
            raise UserError(
                f"{self.name} has ImageNet's classes, but the model has {class_count(model) or 'no'} classes, which is no "
                "ImageNet that timm knows: give a model of 1,000 classes (or 11,221 to 21,843), or a class map from "
                f"{self.name}'s folders to the model's classes"
            )
        classes = class_index(self.class_names, model, class_map)
        return [(classes[name],) for name in self.class_names]


@dataclass(frozen=True)
class ImageNetCandidates:
    """(model) -> the model's classes among which a prediction is taken: `competing` of an ImageSet.

    `classes`: ImageNet classes, by default all 1,000. None is returned where that is all that the model has, and for a model of
    other classes; so a model of a larger ImageNet chooses among the 1,000, too.
    """

    classes: tuple[int, ...] = tuple(range(COUNT))

    def __call__(self, model: nn.Module) -> tuple[int, ...] | None:
        where = positions(model)
        if where is None:
            return None
        found = sorted(place for each in self.classes if (place := where[each]) is not None)
        return None if len(found) == _count(model) else tuple(found)


def _count(model: Any) -> int | None:
    return class_count(model)
