"""Data sets of other libraries whose images can be read one by one, in the form of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image
from torch import nn

from relevit.data.classes import ClassMap, class_index, match_classes, say_by_order
from relevit.data.listing import Column
from relevit.data.sample import Sample
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.models.families import class_count


def indexed_set(
    name: str,
    numbers: Sequence[int],
    class_names: Sequence[str],
    names: Sequence[str],
    read: Callable[[int], Image.Image],
    named: bool = True,
) -> ImageSet:
    """A set of what a library lists: the number of each image's class, the classes' names, the images' names.

    read: (number) -> the picture of an image (RGB); raises UserError where it cannot be read. named: whether the library
    itself names the classes, which are then matched with the model's; see `_LibraryClasses`.
    """
    right = _LibraryClasses(name, class_names, named)
    labelled = partial(_read, read, names)
    return ImageSet(name, labelled, names, Column(class_names, numbers), right=right, kinds=numbers)


def _read(read: Callable[[int], Image.Image], names: Sequence[str], index: int) -> Sample:
    return Sample(read(index), name=names[index])


@dataclass(frozen=True)
class _LibraryClasses:
    """(model, class_map) -> the model's class of each class.

    Where the library names its classes, these are matched with the model's (`class_index`: its own names, wnid, index, a class map); where
    the names tell nothing, or there are none, their numbers are class indices of the model. Raises UserError for classes that the model
    does not have.
    """

    name: str
    class_names: Sequence[str]
    named: bool

    def __call__(self, model: nn.Module, class_map: ClassMap | None) -> list[tuple[int, ...]]:
        count = class_count(model)
        if class_map is not None:
            known = class_index(self.class_names, model, class_map)
            return [(known[folder],) for folder in self.class_names]
        if self.named:
            matched = match_classes(self.class_names, model)
            if not matched.unknown:
                return [(matched.classes[folder],) for folder in self.class_names]
            if matched.classes or count != len(self.class_names):
                example, reason = next(iter(matched.unknown.items()))
                raise UserError(
                    f"{self.name} has {len(self.class_names):,} classes that do not fit the model's {count or ''} classes "
                    f"({example}: {reason}): give a class map from its class names to the model's class indices"
                )
            say_by_order(self.class_names, model)
        elif count is not None and len(self.class_names) > count:
            raise UserError(
                f"{self.name} has the label {len(self.class_names) - 1}, but the model knows the classes 0 to {count - 1}"
            )
        return [(number,) for number in range(len(self.class_names))]
