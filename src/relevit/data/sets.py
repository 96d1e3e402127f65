"""A set of images in one form: what every command and measurement reads, wherever the images come from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from relevit.data.classes import ClassMap, class_index, match_classes
from relevit.data.listing import Column
from relevit.data.sample import Sample, as_labelled, as_sample
from relevit.errors import UserError
from relevit.images import to_rgb

Value = TypeVar("Value")
RightClasses = Callable[[nn.Module, ClassMap | None], Sequence[tuple[int, ...]]]
CompetingClasses = Callable[[nn.Module], Sequence[int] | None]


class Files(NamedTuple):
    """The files of one image: itself, its mask (None: its alpha channel), the pixels to ignore (None: there are none)."""

    image: Path
    mask: Path | None = None
    ignore: Path | None = None


class Item(NamedTuple):
    """What is known of an image beside its pixels: its place in the set, its name, its class by name ("" if unknown), what it
    shows (None if unknown), its label (-1 if unknown)."""

    place: int
    name: str
    group: str = ""
    object: str | None = None
    label: int = -1


@dataclass(frozen=True, eq=False)
class ImageSet(Dataset[Sample]):
    """Images with what is known of each; indexing reads one.

    Attributes:
        name: of the set, such as "imagenet-a", "imagenet-c/fog/3" or a folder.
        read: (number) -> the image as a `Sample`; raises UserError that names the file where it cannot be read.
        names: of each image, relative to the set, with forward slashes.
        groups: the name of each image's class, "" where it has none; None where only reading an image tells.
        labels: the model's class index of each image, -1 where it is not known; None where only `right_classes`, or
            reading an image, tells.
        objects: what each image shows, where several show one object; None where nothing is known.
        paths: the image files; None where images are no files.
        masked: whether samples have masks.
        right: (model, class_map) -> the model's classes that are right together, for each kind of image: most often
            one class, several where any of them is a hit, none where the model lacks the class (a miss).
        kinds: for each image its number in what `right` gives.
        competing: (model) -> the classes among which a prediction is taken; None for all.
        files: (number) -> the files that a sample is read from, where there are such.
    """

    name: str
    read: Callable[[int], Sample]
    names: Sequence[str]
    groups: Sequence[str] | None = None
    labels: Sequence[int] | None = None
    objects: Sequence[str] | None = None
    paths: Sequence[Path] | None = None
    masked: bool = False
    right: RightClasses | None = None
    kinds: Sequence[int] | None = None
    competing: CompetingClasses | None = None
    files: Callable[[int], Files] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        place = int(index) + len(self) if index < 0 else int(index)
        if not 0 <= place < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self.read(place)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, sorted; of a set without any, empty."""
        if isinstance(self.groups, Column):
            return list(self.groups.values)
        return sorted(set(self.groups or ()))

    def right_classes(
        self, model: nn.Module, class_map: ClassMap | None = None
    ) -> Sequence[tuple[int, ...] | None] | None:
        """The model's classes that count as a hit, for each image; None where a sample's own label is its class.

        Of a folder with masks they are told by its class folders, None for an image whose folder is no class of the model.
        Raises UserError where the model does not know the classes.
        """
        if self.right is not None and self.kinds is not None:
            of_kind = self.right(model, class_map)
            return [of_kind[kind] for kind in self.kinds]
        if not self.masked or self.labels is not None:
            return None
        labels = self.labelled_for(model, class_map).labels
        return None if labels is None else [(label,) if label >= 0 else None for label in labels]

    def competing_classes(self, model: nn.Module) -> list[int] | None:
        """The model's classes among which the prediction is taken, sorted; None for all."""
        found = None if self.competing is None else self.competing(model)
        return None if found is None else sorted(int(each) for each in found)

    def item(self, place: int, sample: Sample | None = None) -> Item:
        """What is known of an image; `sample`: itself, None where it could not be read."""
        label = sample.label if sample else -1 if self.labels is None else int(self.labels[place])
        group = str(self.groups[place]) if self.groups is not None else str(label) if label >= 0 else ""
        shown = None if self.objects is None else str(self.objects[place])
        return Item(place, (sample.name if sample else "") or self.names[place], group, shown, label)

    def identity(self) -> dict[str, Any]:
        """What tells this set from another: how many images, and a hash of their names and sizes in bytes.

        Items of a data set without names are told by the first, the middle and the last picture and label, so that one in
        which only others differ is taken for the same.
        """
        digest, keyed = hashlib.blake2b(digest_size=16), self.right is not None
        for place, name in enumerate(self.names):
            if keyed or self.masked:
                digest.update(f"{name}\0{self.item(place).group}\0".encode("utf-8", "surrogateescape"))
            elif self.labels is not None:
                digest.update(f"{int(self.labels[place])}\0".encode())
            if self.paths is not None:
                digest.update(f"{_bytes(self.paths[place])}\0".encode())
        found = {"images": len(self), "names and sizes": digest.hexdigest()}
        if not keyed:
            some = sorted({0, len(self) // 2, len(self) - 1}) if len(self) else []
            contents = "".join(_content(self, place) for place in some)
            found["contents"] = hashlib.blake2b(contents.encode(), digest_size=16).hexdigest()
        return found

    def subset(self, indices: Sequence[int]) -> ImageSet:
        """The images at `indices`, in that order."""
        numbers = [int(index) for index in indices]

        def chosen(column: Sequence[Value] | None) -> Sequence[Value] | None:
            if isinstance(column, Column):
                return Column(column.values, [column.numbers[number] for number in numbers])
            return None if column is None else [column[number] for number in numbers]

        return replace(
            self,
            read=partial(_of_whole, self.read, numbers),
            names=chosen(self.names) or [],
            groups=chosen(self.groups),
            labels=chosen(self.labels),
            objects=chosen(self.objects),
            paths=chosen(self.paths),
            kinds=chosen(self.kinds),
            files=None if self.files is None else partial(_of_whole, self.files, numbers),
        )

    def limited(self, limit: int | None, seed: int = 0) -> ImageSet:
        """At most `limit` images, drawn by `seed`, in the set's order; the set itself where it has no more."""
        if limit is None or limit >= len(self):
            return self
        return self.subset(sorted(np.random.default_rng(seed).choice(len(self), limit, replace=False)))

    def labelled_for(self, model: nn.Module | None, class_map: ClassMap | None = None) -> ImageSet:
        """The same images, labelled by the model's class of each group, -1 where the model has none of its name.

        A set whose labels are known is returned as it is.
        """
        if self.groups is None or self.labels is not None:
            return self
        known = {name for name in self.groups if name}
        classes = match_classes(known, model, class_map).classes if known and model is not None else {}
        return self.relabelled([classes.get(name, -1) for name in self.groups])

    def relabelled(self, labels: Sequence[int]) -> ImageSet:
        """The same images with other labels."""
        return replace(self, labels=labels, read=partial(_with_label, self.read, labels))


def _of_whole(read: Callable[[int], Value], numbers: Sequence[int], index: int) -> Value:
    return read(numbers[index])


def _with_label(read: Callable[[int], Sample], labels: Sequence[int], index: int) -> Sample:
    return read(index)._replace(label=int(labels[index]))


def _content(images: ImageSet, place: int) -> str:
    """A hash of an item's picture and label."""
    try:
        sample = images.read(place)
    except UserError:
        return "unreadable"
    image = sample.image
    pixels = np.ascontiguousarray(image.detach().cpu().float().numpy() if isinstance(image, Tensor) else image)
    told = f"{pixels.shape} {pixels.dtype} {sample.label} ".encode()
    mask = b"" if sample.mask is None else np.ascontiguousarray(sample.mask).tobytes()
    return hashlib.blake2b(told + pixels.tobytes() + mask, digest_size=16).hexdigest()


def _bytes(path: str | os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


@dataclass(frozen=True)
class ByName:
    """(model, class_map) -> the model's class of each class name (`class_index`); UserError for those without one."""

    class_names: Sequence[str]

    def __call__(self, model: nn.Module, class_map: ClassMap | None = None) -> list[tuple[int, ...]]:
        classes = class_index(self.class_names, model, class_map)
        return [(classes[name],) for name in self.class_names]


@dataclass(frozen=True, eq=False)
class StreamSet:
    """Images that can only be read from beginning to end; each iteration reads them anew, in the same order.

    A sample's label is the model's class, its name a running number from 000000000. What the library behind it cannot
    read it leaves out with a warning, so fewer images than `length` may come.

    Attributes:
        name: of the data set, as it was given.
        pairs: starts to read: pairs (picture, class index).
        length: the number of images, None where it is not known beforehand.
    """

    name: str
    pairs: Callable[[], Iterator[tuple[Image.Image, Any]]]
    length: int | None = None

    def __iter__(self) -> Iterator[Sample]:
        for number, (image, label) in enumerate(self.pairs()):
            yield Sample(to_rgb(image), None, whole(label, f"image {number} of {self.name}"), None, f"{number:09d}")

    def right_classes(self, model: nn.Module, class_map: ClassMap | None = None) -> None:
        """A sample's own label is its class."""

    def competing_classes(self, model: nn.Module) -> None:
        """All of the model's classes compete."""

    def item(self, place: int, sample: Sample) -> Item:
        """What is known of an image."""
        return Item(place, sample.name, str(sample.label), None, sample.label)

    def identity(self) -> dict[str, Any]:
        """What tells this set from another."""
        return {"stream": self.name, "images": self.length or 0}


def whole(label: Any, name: str) -> int:
    """A label as a class index, 0 or above. Raises UserError for anything else (-1 stands for no label)."""
    try:
        number = int(label)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise UserError(f"{name} has the label {label!r}, no class index: give a split with one class an image")
    return number


def of_dataset(data: Any, name: str = "data set", masked: bool = False) -> ImageSet | StreamSet:
    """Any data set in the one form: an ImageSet or StreamSet as it is, else one with a length and items by number.

    Its items are pairs (image, class index) or samples, see `as_labelled`; `masked`: samples with masks, see `as_sample`.
    It may have `names`, `groups` (class names), `labels` and `objects`, one for each image. Raises UserError for anything else.
    """
    if isinstance(data, ImageSet | StreamSet):
        return data
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise UserError(f"{name} is no benchmark: give a folder, or a data set with a length and items by number")

    def column(attribute: str) -> Any:
        values = getattr(data, attribute, None)
        return values if values is not None and len(values) == len(data) else None

    names = column("names")
    if names is None:
        names = [f"number {number}" for number in range(len(data))]
    return ImageSet(
        str(getattr(data, "name", "") or name),
        partial(_masked_item, data) if masked else partial(_item, data, names),
        names,
        column("groups"),
        column("labels"),
        column("objects"),
        column("paths"),
        masked,
    )


def _item(data: Any, names: Sequence[str], index: int) -> Sample:
    return as_labelled(data[index], str(names[index]))


def _masked_item(data: Any, index: int) -> Sample:
    return as_sample(data[index], index)
