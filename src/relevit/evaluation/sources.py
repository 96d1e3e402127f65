"""The sets that are measured, as one form: an image's name, class, object and right answers by its place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from relevit.data.open import sets
from relevit.data.sample import Sample, as_sample
from relevit.data.sets import ImageSet, StreamSet, of_dataset
from relevit.errors import UserError


class Item(NamedTuple):
    """What is known of an image beside its pixels: its place in the set, its name, its class by name ("" if unknown), what it
    shows (None if unknown), its label (-1 if unknown), and of a stream's image the right classes, which it brings along."""

    place: int
    name: str
    group: str = ""
    object: str | None = None
    label: int = -1
    answers: tuple[int, ...] | None = None


@runtime_checkable
class Measurable(Protocol):
    """What the engine asks of a set of images."""

    name: str
    length: int
    is_stream: bool

    def read(self, place: int) -> Any:
        """The image at a place; raises UserError for one that cannot be read."""
        ...

    def item(self, place: int, sample: Any = None) -> Item:
        """What is known of an image; `sample`: itself, None where it could not be read."""
        ...

    def identity(self) -> dict[str, Any]:
        """What tells this set from another."""
        ...


class LabelledSet:
    """A set as it is measured: an `ImageSet`, a `StreamSet`, or any data set that `of_dataset` takes for one.

    masked: its items are samples with masks, read as such.
    """

    def __init__(self, name: str, data: Any, masked: bool = False) -> None:
        self.name, self.masked, self._given = name, masked, data
        self.data = of_dataset(data, name)
        self.is_stream = isinstance(self.data, StreamSet)
        # of a stream 0 where it is not known
        self.length: int = (self.data.length or 0) if isinstance(self.data, StreamSet) else len(self.data)

    @property
    def images(self) -> ImageSet:
        """The set; not of a stream."""
        assert isinstance(self.data, ImageSet)
        return self.data

    @property
    def labelled(self) -> bool:
        """Whether classes are known without reading an image."""
        return not self.is_stream and (self.images.labels is not None or self.images.right is not None)

    def read(self, place: int) -> Sample:
        """The image at a place; raises UserError for one that cannot be read."""
        return as_sample(self._given[place], place) if self.masked else self.images[place]

    def item(self, place: int, sample: Sample | None = None) -> Item:
        """What is known of an image; `sample`: itself, None where it could not be read."""
        if self.is_stream:
            assert sample is not None
            return Item(place, sample.name, str(sample.label), answers=(sample.label,))
        images = self.images
        label = -1 if images.labels is None else int(images.labels[place])
        label = label if sample is None else sample.label
        group = str(images.groups[place]) if images.groups is not None else str(label) if label >= 0 else ""
        shown = None if images.objects is None else str(images.objects[place])
        return Item(place, (sample.name if sample else "") or images.names[place], group, shown, label)

    def answers(self, model: nn.Module, class_map: Any = None) -> Sequence[tuple[int, ...] | None] | None:
        """The classes of the model that are right, for each image (None: not known); None where an item's label is its class.

        Raises UserError for what is no class of the model.
        """
        images = self.images
        if not self.masked or images.right is not None or images.labels is not None:
            return images.right_classes(model, class_map)
        labels = images.labelled_for(model, class_map).labels  # of a folder with masks, by its class folders
        return None if labels is None else [(label,) if label >= 0 else None for label in labels]

    def candidates(self, model: nn.Module) -> list[int] | None:
        """The classes of the model that compete, sorted; None for all."""
        return self.data.competing_classes(model)

    def identity(self) -> dict[str, Any]:
        """What tells this set from another: how many images, and a hash of their names and sizes in bytes.

        Items of a data set without names are told by the first, the middle and the last picture and label, so that one in
        which only others differ is taken for the same.
        """
        if self.is_stream:
            return {"stream": self.data.name, "images": self.length}
        digest, images = hashlib.blake2b(digest_size=16), self.images
        keyed = images.right is not None
        for place in range(self.length):
            if keyed or self.masked:
                told = f"{images.names[place]}\0{self.item(place).group}\0"
                digest.update(told.encode("utf-8", "surrogateescape"))
            elif images.labels is not None:
                digest.update(f"{int(images.labels[place])}\0".encode())
            if images.paths is not None:
                digest.update(f"{_bytes(images.paths[place])}\0".encode())
        found = {"images": self.length, "names and sizes": digest.hexdigest()}
        if not keyed:
            some = sorted({0, self.length // 2, self.length - 1}) if self.length else []
            contents = "".join(_content(images, place) for place in some)
            found["contents"] = hashlib.blake2b(contents.encode(), digest_size=16).hexdigest()
        return found


def open_sources(given: Any, protocol: str) -> dict[str, LabelledSet]:
    """Benchmarks by name; of a dictionary by the names given, NAME/SET where there are several of a name."""
    sources = {}
    for name, opener in sets(given, protocol=protocol).items():
        sources[name] = LabelledSet(name, opener())
    if not sources:
        raise UserError("there is no benchmark to evaluate on")
    empty = [name for name, source in sources.items() if not source.length and not source.is_stream]
    if empty:
        raise UserError(f"{empty[0]} holds no images")
    return sources


def _content(data: ImageSet, index: int) -> str:
    """A hash of an item's picture and label."""
    try:
        item = data[index]
    except UserError:
        return "unreadable"
    image = item.image
    pixels = np.ascontiguousarray(image.detach().cpu().float().numpy() if isinstance(image, Tensor) else image)
    told = f"{pixels.shape} {pixels.dtype} {item.label} ".encode()
    mask = b"" if item.mask is None else np.ascontiguousarray(item.mask).tobytes()
    return hashlib.blake2b(told + pixels.tobytes() + mask, digest_size=16).hexdigest()


def _bytes(path: str | os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
