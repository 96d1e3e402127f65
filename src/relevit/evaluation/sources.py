"""The benchmarks that `evaluate` was given, as one form: an image's name, class, object and right answers by its place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from relevit.data.benchmarks import ClassFolders, composed_sets
from relevit.errors import UserError


class Source:
    """One benchmark: `ClassFolders`, an `ImageSet`, a `StreamSet`, or any data set of pairs (image, class index) or samples.

    Of a data set without names an image is called by its own `name`, or "number 7"; its class is its label.
    """

    def __init__(self, name: str, data: Any) -> None:
        self.name, self.data = name, data
        self.is_stream = _is_stream(data)
        self.length: int = (data.length or 0) if self.is_stream else len(data)  # of a stream 0 where it is not known
        self._keyed = hasattr(data, "key") and hasattr(data, "answers")
        objects = getattr(data, "objects", None)
        self._objects = None if objects is None or len(objects) != self.length else objects

    def key(self, index: int, seen: str | None = None) -> str:
        """The image's name; `seen`: as the item calls itself."""
        if self._keyed:
            return self.data.key(index)
        return seen if seen is not None else f"number {index}"

    def group(self, index: int, label: int | None = None) -> str:
        """The name of the image's class; `label`: of the item, None where it could not be read."""
        if self._keyed:
            return str(self.data.folders[self.data.labels[index]])
        return "" if label is None else str(label)

    def object(self, index: int) -> str | None:
        return None if self._objects is None else str(self._objects[index])

    @property
    def has_objects(self) -> bool:
        return self._objects is not None

    def answers(self, model: nn.Module, class_map: Any) -> Sequence[tuple[int, ...]] | None:
        """The classes of the model that are right, for each image; None where an item's label is its class.

        Raises UserError for what is no class of the model.
        """
        if not self._keyed:
            return None
        return self.data.answers(model, class_map)

    def candidates(self, model: nn.Module) -> list[int] | None:
        """The classes of the model that compete, sorted; None for all."""
        found = self.data.candidates(model) if hasattr(self.data, "candidates") else None
        return None if found is None else sorted(int(each) for each in found)

    def identity(self) -> dict[str, Any]:
        """What tells this set from another: how many images, and a hash of their names and sizes in bytes."""
        if self.is_stream:
            return {"stream": str(getattr(self.data, "name", self.name)), "images": self.length}
        digest = hashlib.blake2b(digest_size=16)
        paths = getattr(self.data, "paths", None)
        labels = getattr(self.data, "labels", None)
        for index in range(self.length):
            if self._keyed:
                digest.update(f"{self.data.key(index)}\0{self.group(index)}\0".encode("utf-8", "surrogateescape"))
            elif labels is not None:
                digest.update(f"{int(labels[index])}\0".encode())
            if paths is not None:
                digest.update(f"{_bytes(paths[index])}\0".encode())
        return {"images": self.length, "names and sizes": digest.hexdigest()}


def open_sources(given: Any, protocol: str) -> dict[str, Source]:
    """Benchmarks by name. A folder made by `relevit compose` gives one for each of its sets, NAME/SET."""
    named = (
        given if isinstance(given, Mapping) else {str(given) if isinstance(given, str | Path) else "benchmark": given}
    )
    sources = {}
    for name, each in named.items():
        for key, data in _opened(str(name), each, protocol):
            if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
                raise UserError(
                    f"{key} is no benchmark: give a folder, or a data set with a length and items by number"
                )
            sources[key] = Source(key, data)
    if not sources:
        raise UserError("there is no benchmark to evaluate on")
    empty = [name for name, source in sources.items() if not source.length and not source.is_stream]
    if empty:
        raise UserError(f"{empty[0]} holds no images")
    return sources


def _opened(name: str, benchmark: Any, protocol: str) -> list[tuple[str, Any]]:
    if not isinstance(benchmark, str | Path):
        return [(name, benchmark)]
    sets = composed_sets(benchmark)
    if sets is None:
        return [(name, ClassFolders(benchmark))]
    return [(f"{name.rstrip('/')}/{each}", dataset) for each, dataset in sets.items()]


def _is_stream(data: Any) -> bool:
    return hasattr(data, "__iter__") and hasattr(data, "length") and not hasattr(data, "__getitem__")


def _bytes(path: str | os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def as_text(values: Sequence[str]) -> np.ndarray:
    """Names as an array; of none at all, one of texts too."""
    return np.array(list(values), dtype=str)
