"""Some of the images of a data set, in its order, with all that the set knows of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

COLUMNS = ("names", "groups", "labels", "objects", "paths")


class Part(Dataset[Any]):
    """The items at `indices` of a data set. Columns (names, groups, labels, objects, paths) and the methods of a benchmark (`key`,
    `answers`) are there where the whole set has them; all other attributes are the set's own."""

    def __init__(self, data: Any, indices: Sequence[int]) -> None:
        self.data, self.indices = data, [int(index) for index in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.data[self.indices[index]]

    def __getattr__(self, name: str) -> Any:
        if name in ("data", "indices"):  # not made yet, as when a worker process gets a copy
            raise AttributeError(name)
        found = getattr(self.data, name)
        if name in COLUMNS and found is not None:
            return [found[index] for index in self.indices]
        if name == "key":
            return lambda index: found(self.indices[index])
        if name == "answers":
            return lambda *arguments, **options: _at(found(*arguments, **options), self.indices)
        return found


def limited(data: Any, limit: int | None, seed: int = 0) -> Any:
    """At most `limit` items of a data set, drawn by `seed`, in the set's order; the set itself where it has no more."""
    if limit is None or limit >= len(data):
        return data
    chosen = np.random.default_rng(seed).choice(len(data), limit, replace=False)
    return Part(data, sorted(int(index) for index in chosen))


def _at(values: Sequence[Any], indices: Sequence[int]) -> list[Any]:
    return [values[index] for index in indices]
