"""Listing the images of class folders, cheaply: names alone are read, and held compactly, for millions of files."""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from relevit.errors import UserError
from relevit.images import EXTENSIONS

Value = TypeVar("Value")
_LEFT_BEHIND = ("__MACOSX", "Thumbs.db")
_FEW = 100  # so many entries without a folder, images among them: there will be no folders
_PEEK = 20  # so many class folders are looked into for a first image


class _ByNumber(Sequence[Value]):
    """A sequence whose items are made when they are asked for, by `at`."""

    def at(self, place: int) -> Value:
        """The item at a place from 0."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Value: ...
    @overload
    def __getitem__(self, index: slice) -> list[Value]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.at(place) for place in range(*index.indices(len(self)))]
        place = int(index) + len(self) if index < 0 else int(index)
        if not 0 <= place < len(self):
            raise IndexError(f"number {index} of {len(self)}")
        return self.at(place)


class Names(_ByNumber[str]):
    """Relative names with forward slashes, in the order given: a few bytes each beside their length."""

    def __init__(self, names: Iterable[str]) -> None:
        self._ends = array("q", [0])
        joined = bytearray()
        for name in names:
            joined += os.fsencode(name)
            self._ends.append(len(joined))
        self._joined = bytes(joined)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def at(self, place: int) -> str:
        return os.fsdecode(self._joined[self._ends[place] : self._ends[place + 1]])


class Paths(_ByNumber[Path]):
    """Files below a folder.

    Attributes:
        root: the folder.
        names: the files' names relative to it.
    """

    def __init__(self, root: str | Path, names: Iterable[str]) -> None:
        self.root = Path(root)
        self.names = names if isinstance(names, Names) else Names(names)

    def __len__(self) -> int:
        return len(self.names)

    def at(self, place: int) -> Path:
        return self.root / self.names.at(place)


class Column(_ByNumber[Value]):
    """A value for each image where only a few differ, such as its class: `values[numbers[i]]`, four bytes an image."""

    def __init__(self, values: Sequence[Value], numbers: Sequence[int]) -> None:
        self.values, self.numbers = values, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, place: int) -> Value:
        return self.values[self.numbers[place]]


class Tree(NamedTuple):
    """The images of class folders: the folders' names, sorted; the files, by folder, then by name; each file's folder number."""

    class_names: list[str]
    paths: Paths
    numbers: array


def subfolders(root: str | Path) -> list[str]:
    """The names of the folders in `root`, sorted; hidden ones and what archives of a Mac leave behind are left out.

    Empty where `root` cannot be read. A folder that begins with many images and no folder is taken to have none.
    """
    found, images = [], 0
    try:
        with os.scandir(root) as entries:
            for number, entry in enumerate(entries):
                if is_visible(entry.name) and entry.is_dir():
                    found.append(entry.name)
                elif _is_image(entry.name):
                    images += 1
                if number >= _FEW and images and not found:
                    break
    except OSError:
        return []
    return sorted(found)


def list_images(root: str | os.PathLike[str], extensions: Collection[str] = EXTENSIONS) -> list[Path]:
    """Every picture below the folder `root`, by its extension, sorted by the relative name; see `image_names`.

    Raises UserError when there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"There is no folder {root}." if not root.exists() else f"{root} is not a folder.")
    return [root / name for name in image_names(root, extensions)]


def image_names(folder: str | Path, extensions: Collection[str] = EXTENSIONS) -> list[str]:
    """The names of all images below a folder, relative to it, with forward slashes, sorted.

    `extensions`, in small letters, finds other files than images. Hidden files and what systems leave behind are left
    out; linked folders are followed, each once. Raises UserError where a folder cannot be read.
    """
    found: list[str] = []
    seen: set[str] = set()
    waiting = [("", os.fspath(folder))]
    while waiting:
        prefix, path = waiting.pop()
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        inner = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if not is_visible(entry.name):
                        continue
                    if entry.is_dir():
                        inner.append((f"{prefix}{entry.name}/", entry.path))
                    elif os.path.splitext(entry.name)[1].lower() in extensions:
                        found.append(prefix + entry.name)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): it should be a folder of images") from error
        waiting += sorted(inner, reverse=True)  # of a folder with several names, the first is taken
    return sorted(found)


def class_tree(root: str | Path, folders: Iterable[str] | None = None) -> Tree:
    """The images in the class folders of `root`, or in those named; images may lie deeper inside, empty folders are left out.

    Raises UserError where `root` is no folder or none of its folders holds an image.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; give a folder that holds one folder of images per class")
    kept: list[str] = []
    labels = array("i")

    def names() -> Iterable[str]:
        for folder in subfolders(root) if folders is None else sorted(folders):
            inside = image_names(root / folder)
            if inside:
                labels.extend(array("i", [len(kept)]) * len(inside))
                kept.append(folder)
                yield from (f"{folder}/{name}" for name in inside)

    paths = Paths(root, names())
    if not kept:
        raise UserError(f"{root} holds no class folders with images; expected {root}/<class>/<image>")
    return Tree(kept, paths, labels)


def has_image(folder: str | Path) -> bool:
    """Whether an image lies directly in a folder. Stops at the first."""
    return first_image(folder) is not None


def first_image(folder: str | Path) -> str | None:
    """The name of some image directly in a folder; None where there is none."""
    try:
        with os.scandir(folder) as entries:
            return next((entry.name for entry in entries if _is_image(entry.name) and not entry.is_dir()), None)
    except OSError:
        return None


def holds_classes(root: str | Path) -> bool:
    """Whether some folder of `root` holds images: the layout <class>/<image>. Looks into the first few only."""
    return any(has_image(Path(root, name)) for name in subfolders(root)[:_PEEK])


def is_visible(name: str) -> bool:
    """Whether a file or folder is the user's: neither hidden nor left behind by a system or an archive."""
    return not name.startswith(".") and name not in _LEFT_BEHIND


def _is_image(name: str) -> bool:
    return is_visible(name) and os.path.splitext(name)[1].lower() in EXTENSIONS
