"""The built-in benchmark's test sets under the names that the commands take: "builtin" for all of them, "builtin/SET" for one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from relevit.data.builtin.digits import CLASSES, TEST_SETS, Pictures, test_set
from relevit.data.listing import Column
from relevit.data.sets import ImageSet
from relevit.errors import UserError

BUILTIN = "builtin"


def builtin_sets(spec: str) -> dict[str, Callable[[], ImageSet]] | None:
    """The sets that `spec` stands for, by name, each with a function that draws it; None where `spec` is something else, such as
    a folder that is there. Raises UserError for a set that there is not."""
    head, _, wanted = spec.partition("/")
    if head != BUILTIN or Path(spec).exists():
        return None
    if wanted and wanted not in TEST_SETS:
        raise UserError(
            f"{spec} is no set of the built-in benchmark: builtin/NAME, with NAME one of {', '.join(TEST_SETS)}"
        )
    return {f"{BUILTIN}/{name}": partial(builtin_set, name) for name in ([wanted] if wanted else TEST_SETS)}


def builtin_set(name: str, views: int = 1) -> ImageSet:
    """A test set of the built-in benchmark, masks included: `views` (1 to 3) pictures of each test object (800)."""
    return of_pictures(test_set(name, "test", views))


def of_pictures(pictures: Pictures) -> ImageSet:
    """Drawn pictures with the names of their classes."""
    labels = [int(label) for label in pictures.labels]
    return ImageSet(
        f"{BUILTIN}/{pictures.name}",
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
    if getattr(model, "num_classes", 0) != len(CLASSES):
        raise UserError(
            f"the built-in benchmark has {len(CLASSES)} classes, the model {getattr(model, 'num_classes', 0)}: "
            "give --data of its own"
        )
    return [(label,) for label in range(len(CLASSES))]
