"""The built-in benchmark's sets under the names that commands take.

"builtin" stands for all test sets, "builtin/SET" for one: three pictures of each of 800 test objects, 2,400.
"builtin/train" has 60 training pictures of each class, "builtin/validation" and "builtin/validation/SET" the same sets
of other objects, 1,200 pictures, for choices that must not be made on test pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from relevit.data.builtin.digits import CLASSES, TEST_SETS, Pictures, test_set, training_samples
from relevit.data.listing import Column
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.models.families import class_count

BUILTIN, TRAIN, VALIDATION = "builtin", "train", "validation"
_EACH = 60  # training pictures of each class


def builtin_sets(spec: str) -> dict[str, Callable[[], ImageSet]] | None:
    """The sets that `spec` stands for, by name, each with a function that draws it; None where `spec` is something else, such as
    a folder that is there. Raises UserError for a set that there is not."""
    head, _, wanted = spec.partition("/")
    if head != BUILTIN or Path(spec).exists():
        return None
    if wanted == TRAIN:
        return {spec: builtin_training}
    start, split = f"{BUILTIN}/", "test"
    if wanted.split("/")[0] == VALIDATION:
        start, split, wanted = f"{BUILTIN}/{VALIDATION}/", VALIDATION, wanted[len(VALIDATION) + 1 :]
    if wanted and wanted not in TEST_SETS:
        raise UserError(
            f"{spec} is no set of the built-in benchmark: builtin/NAME, with NAME one of "
            f"{', '.join((*TEST_SETS, TRAIN, VALIDATION))}"
        )
    return {f"{start}{name}": partial(builtin_set, name, split=split) for name in ([wanted] if wanted else TEST_SETS)}


def builtin_set(name: str, views: int = 3, split: str = "test") -> ImageSet:
    """A test set of the built-in benchmark, masks included: `views` pictures of each object, all first ones first."""
    return of_pictures(test_set(name, split, views), BUILTIN if split == "test" else f"{BUILTIN}/{split}")


def builtin_training() -> ImageSet:
    """60 training pictures of each class."""
    pictures = training_samples(_EACH, 0, tuple(range(len(CLASSES))))
    return replace(of_pictures(pictures), name=f"{BUILTIN}/{TRAIN}")


def of_pictures(pictures: Pictures, start: str = BUILTIN) -> ImageSet:
    """Drawn pictures as a set, called START/NAME; they suit the built-in model and those fine-tuned from it."""
    labels = [int(label) for label in pictures.labels]
    return ImageSet(
        f"{start}/{pictures.name}",
        pictures.__getitem__,
        [f"{pictures.name}/{number:05d}" for number in range(len(pictures))],
        groups=Column(CLASSES, labels),
        labels=labels,
        objects=[str(number) for number in pictures.objects],
        masked=True,
        right=_own_classes,
        kinds=labels,
    )


def _own_classes(model: nn.Module, class_map: Any = None) -> list[tuple[int, ...]]:
    """Raises UserError for a model of another number of classes."""
    if class_count(model) != len(CLASSES):
        raise UserError(
            f"the built-in benchmark has {len(CLASSES)} classes, the model {class_count(model)}: give --data of its own"
        )
    return [(label,) for label in range(len(CLASSES))]
