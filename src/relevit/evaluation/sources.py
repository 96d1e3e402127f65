"""The benchmarks that `evaluate` was given, as one form: an image's name, class, object and right answers by its place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from relevit.data.benchmarks import (
    BENCHMARKS,
    Discovery,
    builtin_sets,
    class_folders,
    composed_sets,
    find_benchmarks,
    open_benchmark,
)
from relevit.data.benchmarks.tar_files import has_tars
from relevit.data.listing import holds_classes
from relevit.data.sets import ImageSet, StreamSet, of_dataset
from relevit.errors import UserError


class Source:
    """One benchmark: an `ImageSet`, a `StreamSet`, or any data set of pairs (image, class index) or samples.

    Of a data set without names an image is called by its own `name`, or "number 7"; its class is its label.
    """

    def __init__(self, name: str, data: Any) -> None:
        self.name, self.data = name, of_dataset(data, name)
        self.is_stream = isinstance(self.data, StreamSet)
        # of a stream 0 where it is not known
        self.length: int = (self.data.length or 0) if isinstance(self.data, StreamSet) else len(self.data)
        self._set: ImageSet | None = None if isinstance(self.data, StreamSet) else self.data

    def key(self, index: int, seen: str | None = None) -> str:
        """The image's name; `seen`: as the item calls itself."""
        return seen or (f"{index:09d}" if self._set is None else self._set.names[index])

    def group(self, index: int, label: int | None = None) -> str:
        """The name of the image's class; `label`: of the item, None where it could not be read."""
        if self._set is not None and self._set.groups is not None:
            return self._set.groups[index]
        return "" if label is None else str(label)

    def object(self, index: int) -> str | None:
        return None if self._set is None or self._set.objects is None else str(self._set.objects[index])

    @property
    def has_objects(self) -> bool:
        return self._set is not None and self._set.objects is not None

    def answers(self, model: nn.Module, class_map: Any) -> Sequence[tuple[int, ...]] | None:
        """The classes of the model that are right, for each image; None where an item's label is its class.

        Raises UserError for what is no class of the model.
        """
        return None if self._set is None else self._set.right_classes(model, class_map)

    def candidates(self, model: nn.Module) -> list[int] | None:
        """The classes of the model that compete, sorted; None for all."""
        return self.data.competing_classes(model)

    def identity(self) -> dict[str, Any]:
        """What tells this set from another: how many images, and a hash of their names and sizes in bytes.

        Items of a data set without names are told by the first, the middle and the last picture and label, so that one in
        which only others differ is taken for the same.
        """
        if self._set is None:
            return {"stream": self.data.name, "images": self.length}
        digest = hashlib.blake2b(digest_size=16)
        keyed, labels, paths = self._set.right is not None, self._set.labels, self._set.paths
        for index in range(self.length):
            if keyed:
                digest.update(f"{self._set.names[index]}\0{self.group(index)}\0".encode("utf-8", "surrogateescape"))
            elif labels is not None:
                digest.update(f"{int(labels[index])}\0".encode())
            if paths is not None:
                digest.update(f"{_bytes(paths[index])}\0".encode())
        found = {"images": self.length, "names and sizes": digest.hexdigest()}
        if not keyed:
            some = sorted({0, self.length // 2, self.length - 1}) if self.length else []
            contents = "".join(_content(self._set, index) for index in some)
            found["contents"] = hashlib.blake2b(contents.encode(), digest_size=16).hexdigest()
        return found


class Resolved(NamedTuple):
    """The sets of a folder or a file, each by name with a function that opens it; and the search that found them, where
    there was one."""

    openers: dict[str, Callable[[], Any]]
    discovery: Discovery | None = None


def resolve(spec: str | Path, protocol: str) -> Resolved:
    """What `evaluate` takes for a benchmark as a text or a path.

    A folder made by `relevit compose` gives its sets, SPEC/SET. In another folder, benchmarks are looked for
    (`find_benchmarks`); where none of the known ones is there and it has images in class folders, it is taken as that, and
    called SPEC. "builtin" gives the test sets of the built-in benchmark, "builtin/SET" one. For the rest see `open_benchmark`. Raises UserError for what is none of these.
    """
    text, folder = str(spec), Path(spec)
    own = builtin_sets(text)
    if own is not None:
        return Resolved(dict(own))
    if not folder.is_dir() or has_tars(folder):
        return Resolved({name: partial(_same, data) for name, data in open_benchmark(text, protocol).items()})
    composed = composed_sets(folder)
    if composed is not None:
        return Resolved({f"{text.rstrip('/')}/{name}": partial(_same, data) for name, data in composed.items()})
    discovery = find_benchmarks(folder, protocol)
    known = any(found.name.split("/")[0] in BENCHMARKS for found in discovery.found)
    if not known and (holds_classes(folder) or not discovery.found):
        return Resolved({text: partial(class_folders, folder)})
    return Resolved({found.name: found.open for found in discovery.found}, discovery)


def open_sources(given: Any, protocol: str) -> dict[str, Source]:
    """Benchmarks by name; of a dictionary by the names given, NAME/SET where there are several of a name."""
    sources = {}
    for name, data in _opened(given, protocol).items():
        sources[name] = Source(name, data)
    if not sources:
        raise UserError("there is no benchmark to evaluate on")
    empty = [name for name, source in sources.items() if not source.length and not source.is_stream]
    if empty:
        raise UserError(f"{empty[0]} holds no images")
    return sources


def _opened(given: Any, protocol: str) -> dict[str, Any]:
    if isinstance(given, str | Path):
        return {name: opener() for name, opener in resolve(given, protocol).openers.items()}
    if not isinstance(given, Mapping):
        return {"benchmark": given}
    opened = {}
    for name, each in given.items():
        if not isinstance(each, str | Path):
            opened[str(name)] = each
            continue
        openers = resolve(each, protocol).openers
        start = f"{str(each).rstrip('/')}/"  # of composed sets' names
        for found, opener in openers.items():
            opened[str(name) if len(openers) == 1 else f"{str(name).rstrip('/')}/{found.removeprefix(start)}"] = (
                opener()
            )
    return opened


def _same(data: Any) -> Any:
    return data


def _content(data: ImageSet, index: int) -> str:
    """A hash of an item's picture and label."""
    try:
        item = data[index]
    except UserError:
        return "unreadable"
    image = item.image
    pixels = np.ascontiguousarray(image.detach().cpu().float().numpy() if isinstance(image, Tensor) else image)
    told = f"{pixels.shape} {pixels.dtype} {item.label} ".encode()
    return hashlib.blake2b(told + pixels.tobytes(), digest_size=16).hexdigest()


def _bytes(path: str | os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def as_text(values: Sequence[str]) -> np.ndarray:
    """Names as an array; of none at all, one of texts too."""
    return np.array(list(values), dtype=str)
