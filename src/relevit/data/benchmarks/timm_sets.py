"""Data sets that timm reads: its strings (hfds/..., torch/..., wds/... and so on), a tar file, a folder of tar files.

A string is `PREFIX/NAME`, with options as in a web address: `hfds/imagenet-1k?split=test&root=/data`,
`wds/mine?root=/data/shards&split=validation`, `torch/cifar10?root=/data`. `split` is validation where it is not given; `root` and everything else goes
to `timm.data.create_dataset`. Nothing is downloaded unless the string says `download=true`; what `datasets` fetches by itself follows its own rules.

Labels are the model's class indices. Where the data set names its classes, they are matched instead (wnid, index, the model's
own names, a class map), and a data set of another number of classes than the model's is refused when its names say nothing.
"""

from __future__ import annotations

import io
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from relevit.data.benchmarks.image_set import LabelledImage
from relevit.data.classes import ClassMap, class_index, match_classes
from relevit.errors import UserError
from relevit.images import read_image, to_rgb

PREFIXES = {
    "hfds": "datasets",
    "hfids": "datasets",
    "tfds": "tensorflow-datasets",
    "wds": "webdataset",
    "torch": "torchvision",
}
STREAMS = ("hfids", "tfds", "wds")


class StreamItem(NamedTuple):
    """An image of a stream: its name, the picture (RGB), and the model's classes that are right."""

    key: str
    image: Image.Image
    answers: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class StreamSet:
    """A data set that can only be read from beginning to end; each iteration reads it anew, in the same order.

    Attributes:
        name: of the data set, as it was given.
        open: starts to read: pairs (picture, class index).
        length: the number of images, None where it is not known beforehand.

    Keys are running numbers. timm leaves out what it cannot read with a warning, so fewer images than `length` may come.
    """

    name: str
    open: Callable[[], Any]
    length: int | None = None

    def __iter__(self) -> Iterator[StreamItem]:
        for number, (image, label) in enumerate(self.open()):
            yield StreamItem(f"{number:09d}", to_rgb(image), (_whole(self.name, label),))

    def candidates(self, model: nn.Module) -> None:
        """All of the model's classes compete."""


@dataclass(frozen=True, eq=False)
class IndexedSet(Dataset[LabelledImage]):
    """A data set of timm or torchvision whose images can be read one by one; the methods are those of an ImageSet.

    Attributes:
        name: of the data set, as it was given.
        labels: the class number of each image.
        folders: the names of the classes by number.
        keys: the name of an image.
        read: the picture of an image (RGB); raises UserError where it cannot be read.
        named: whether the data set itself names its classes.
    """

    name: str
    labels: Sequence[int]
    folders: Sequence[str]
    keys: Callable[[int], str]
    read: Callable[[int], Image.Image]
    named: bool = True
    objects: Sequence[str] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> LabelledImage:
        return LabelledImage(self.read(index), int(self.labels[index]))

    def key(self, index: int) -> str:
        """The image's name."""
        return self.keys(index)

    def answers(self, model: nn.Module, class_map: ClassMap | None = None) -> list[tuple[int, ...]]:
        """The model's class of each image. Raises UserError for classes that the model does not have."""
        classes = self._classes(model, class_map)
        return [classes[label] for label in self.labels]

    def candidates(self, model: nn.Module) -> None:
        """All of the model's classes compete."""

    def _classes(self, model: nn.Module, class_map: ClassMap | None) -> list[tuple[int, ...]]:
        count = getattr(model, "num_classes", None)
        if self.named:
            matched = match_classes(self.folders, model, class_map)
            if class_map is not None or not matched.unknown:
                known = class_index(self.folders, model, class_map)
                return [(known[folder],) for folder in self.folders]
            if len(matched.unknown) < len(self.folders) or count != len(self.folders):
                raise UserError(
                    f"{self.name} has {len(self.folders)} classes, such as {self.folders[0]}, that are not the model's {count or 'unknown number of'} classes: "
                    "give a class map from their names to class indices"
                )
        elif count is not None and len(self.folders) > count:
            raise UserError(
                f"{self.name} has the label {len(self.folders) - 1}, but the model knows the classes 0 to {count - 1}"
            )
        return [(number,) for number in range(len(self.folders))]


def is_timm_string(text: str) -> bool:
    """Whether this names a data set by one of timm's prefixes, such as hfds/..."""
    prefix, slash, rest = text.partition("/")
    return bool(slash and rest) and prefix.lower() in PREFIXES


def has_tars(path: Path) -> bool:
    """Whether this is a tar file, or a folder with tar files directly in it and no folders."""
    if path.is_file():
        return path.suffix.lower() == ".tar"
    return path.is_dir() and any(path.glob("*.tar")) and not any(entry.is_dir() for entry in os.scandir(path))


def open_timm(text: str) -> IndexedSet | StreamSet:
    """The data set of a string of timm's. Raises UserError for one that does not exist, or a package that is missing."""
    address, _, query = text.partition("?")
    prefix, _, name = address.partition("/")
    prefix = prefix.lower()
    options: dict[str, Any] = {"split": "validation", **_options(text, query)}
    root = options.pop("root", None)
    if prefix in ("wds", "torch") and root is None:
        raise UserError(f"{text} needs the folder of its files: write {address}?root=FOLDER")
    if root is not None and prefix in ("wds", "torch") and not Path(root).is_dir():
        raise UserError(f"{text}: there is no folder {root}")
    make = partial(_create, text, prefix, f"{prefix}/{name}", root, options)
    if prefix in STREAMS:
        stream = make()
        length = getattr(stream.reader, "num_samples", None) or None
        return StreamSet(text, partial(_pairs, make), None if length is None else int(length))
    return _from_torch(text, make()) if prefix == "torch" else _from_hub(text, make())


def open_tars(path: Path) -> IndexedSet:
    """The images of a tar file (class folders inside) or of a folder of tars, one a class; read in place, by their offsets.

    timm lists them; where it keeps open files, here each image is read anew, so that any number of processes may do so.
    Raises UserError for a broken archive or one without images.
    """
    import tarfile

    try:
        with _quiet():
            reader = _timm_dataset(name="", root=str(path), search_split=False, cache_tarinfo=False).reader
    except (tarfile.TarError, AssertionError, ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as tar files of images ({error or type(error).__name__})") from error
    names = [reader.class_idx_to_name[number] for number in range(len(reader.class_idx_to_name))]
    index = _TarIndex(path, path.is_file())
    for entry, file, parent in reader.samples:
        index.add(entry, file, parent)
    return IndexedSet(
        str(path), array("i", map(int, reader.targets)), names, index.key, index.read, named=names != [""]
    )


class _TarIndex:
    """Where each image lies: file, offset and size."""

    def __init__(self, root: Path, single: bool) -> None:
        self.root, self.single = root, single
        self.files: list[str] = []
        self.file, self.offset, self.size = array("i"), array("q"), array("q")
        self.names: list[str] = []

    def add(self, entry: Any, file: str | None, parent: Any) -> None:
        file = file or ""
        if file not in self.files[-1:]:
            if file not in self.files:
                self.files.append(file)
        self.file.append(self.files.index(file))
        self.offset.append(entry.offset_data + (parent.offset_data if parent is not None else 0))
        self.size.append(entry.size)
        inner = f"{parent.name}/" if parent is not None else ""
        self.names.append((f"{file}/" if file else "") + inner + entry.name.removeprefix("./"))

    def key(self, index: int) -> str:
        return self.names[index]

    def read(self, index: int) -> Image.Image:
        path = self.root if self.single else self.root / self.files[self.file[index]]
        try:
            with open(path, "rb") as file:
                file.seek(self.offset[index])
                content = file.read(self.size[index])
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror})") from error
        return _decoded(content, f"{path}/{self.names[index]}")


def _from_hub(text: str, dataset: Any) -> IndexedSet:
    reader = dataset.reader
    labels = array("i", (_whole(text, label) for label in reader.iter_targets()))
    by_number = {number: name for name, number in (reader.class_to_idx or {}).items()}
    folders = [str(by_number.get(number, number)) for number in range(max([*labels, *by_number], default=-1) + 1)]

    def read(index: int) -> Image.Image:
        opened = reader[index][0]
        with opened:
            return _decoded(opened.read(), f"image {index} of {text}")

    return _checked(IndexedSet(text, labels, folders, "{:09d}".format, read, bool(by_number)))


def _from_torch(text: str, dataset: Any) -> IndexedSet:
    given = next((getattr(dataset, each) for each in ("targets", "_labels", "labels") if hasattr(dataset, each)), None)
    if given is None:
        raise UserError(
            f"{text}: torchvision does not tell its labels without reading the images; give its images as class folders"
        )
    labels = array("i", (_whole(text, label) for label in np.asarray(given).tolist()))
    names = [str(name) for name in getattr(dataset, "wnids", None) or getattr(dataset, "classes", None) or []]
    folders = names or [str(number) for number in range(max(labels, default=-1) + 1)]

    def read(index: int) -> Image.Image:
        try:
            return to_rgb(dataset[index][0])
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"image {index} of {text} cannot be read ({error})") from error

    return _checked(IndexedSet(text, labels, folders, "{:09d}".format, read, bool(names)))


def _checked(found: IndexedSet) -> IndexedSet:
    if not len(found):
        raise UserError(f"{found.name} holds no images")
    if min(found.labels) < 0:
        raise UserError(f"{found.name} has images without a label (-1): give a split that has labels")
    return found


def _pairs(make: Callable[[], Any]) -> Iterator[tuple[Image.Image, Any]]:
    dataset = make()
    reader = dataset.reader
    if hasattr(reader, "dist_num_replicas"):  # every process reads all: what it measures is another's concern
        reader.dist_rank, reader.dist_num_replicas = 0, 1
    yield from dataset


def _create(text: str, prefix: str, name: str, root: str | None, options: dict[str, Any]) -> Any:
    package = PREFIXES[prefix]
    try:
        with _quiet():
            return _timm_dataset(name=name, root=root, is_training=False, batch_size=1, **options)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{text} needs a package that is not installed: pip install {package}") from error
    except RuntimeError as error:
        if "install" in str(error).lower() and package in str(error).lower():
            raise UserError(f"{text} needs a package that is not installed: pip install {package}") from error
        raise UserError(f"{text} cannot be opened ({error})") from error
    except Exception as error:  # of many libraries
        raise UserError(f"{text} cannot be opened ({error or type(error).__name__})") from error


def _timm_dataset(**options: Any) -> Any:
    from timm.data import create_dataset

    return create_dataset(**options)


def _quiet() -> Any:
    """Some libraries print how to install them to the standard output, where results belong."""
    from contextlib import redirect_stdout

    return redirect_stdout(io.StringIO())


def _options(text: str, query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        found[key] = value.lower() == "true" if value.lower() in ("true", "false") else value
    if query and not found:
        raise UserError(f"{text}: options after the question mark are written key=value&key=value")
    return found


def _decoded(content: bytes, name: str) -> Image.Image:
    try:
        return read_image(io.BytesIO(content))
    except UserError as error:
        raise UserError(f"{name} is no picture that can be read") from error


def _whole(text: str, label: Any) -> int:
    try:
        return int(label)
    except (TypeError, ValueError) as error:
        raise UserError(f"{text} has the label {label!r}, which is no class index") from error
