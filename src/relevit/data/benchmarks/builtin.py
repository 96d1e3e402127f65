"""The built-in benchmark's test sets under the names that the commands take: "builtin" for all of them, "builtin/SET" for one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from relevit.data.builtin.digits import CLASSES, TEST_SETS, test_set
from relevit.errors import UserError

BUILTIN = "builtin"


def builtin_sets(spec: str) -> dict[str, Callable[[], BuiltinSet]] | None:
    """The sets that `spec` stands for, by name, each with a function that draws it; None where `spec` is something else, such as
    a folder that is there. Raises UserError for a set that there is not."""
    head, _, wanted = spec.partition("/")
    if head != BUILTIN or Path(spec).exists():
        return None
    if wanted and wanted not in TEST_SETS:
        raise UserError(
            f"{spec} is no set of the built-in benchmark: builtin/NAME, with NAME one of {', '.join(TEST_SETS)}"
        )
    return {f"{BUILTIN}/{name}": partial(BuiltinSet, name) for name in ([wanted] if wanted else TEST_SETS)}


class BuiltinSet:
    """A test set of the built-in benchmark with the names of its classes: one picture of each test object (800)."""

    def __init__(self, name: str) -> None:
        self.pictures = test_set(name, "test", 1)
        self.folders, self.labels = list(CLASSES), [int(label) for label in self.pictures.labels]
        self.objects = [str(number) for number in self.pictures.objects]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        return self.pictures[index]

    def key(self, index: int) -> str:
        return self.pictures[index].name

    def answers(self, model: nn.Module, class_map: Any = None) -> list[tuple[int, ...]]:
        """Raises UserError for a model of another number of classes."""
        if getattr(model, "num_classes", 0) != len(self.folders):
            raise UserError(
                f"the built-in benchmark has {len(self.folders)} classes, the model {getattr(model, 'num_classes', 0)}: "
                "give --data of its own"
            )
        return [(label,) for label in self.labels]

    def candidates(self, model: nn.Module) -> None:
        """All classes compete."""
        return None
