"""Class folders whose names tell classes of ImageNet: what most published benchmarks consist of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from relevit.data.benchmarks.class_folders import Open, tree_set
from relevit.data.benchmarks.imagenet_classes import COUNT, ImageNetAnswers, ImageNetCandidates, index_of, wnids
from relevit.data.listing import Paths, Tree, class_tree, has_image, image_names, subfolders
from relevit.data.sets import ImageSet
from relevit.errors import UserError

Choice = tuple[int, ...]
ALL = tuple(range(COUNT))
INNER = ("", "val", "validation", "test", "images", "data")  # where class folders may lie below a benchmark's folder


class Naming(NamedTuple):
    """What class folders are called.

    how: for messages, such as "by wnid, such as n01440764". total: the number of classes, for messages. class_of: the ImageNet
    classes (0 to 999) that are right in a folder of this name; none where the name is ImageNet's, but not the benchmark's;
    None for a name that is no class's.
    """

    how: str
    total: str
    class_of: Callable[[str], Choice | None]


def by_wnid(classes: Choice = ALL) -> Naming:
    """Folders named by the wnids of these classes."""

    def class_of(name: str) -> Choice | None:
        index = index_of().get(name)
        return None if index is None else (index,) if index in known else ()

    known = frozenset(classes)
    return Naming(f"by wnid, such as {wnids()[classes[0]]}", f"{len(classes):,}", class_of)


@dataclass(frozen=True)
class ImageNetFolders:
    """`sets` of a Benchmark of class folders.

    Attributes:
        name: of the benchmark, and of its set where it has one.
        naming: gives what class folders are called; asked when it is needed.
        parts: of several sets, NAME/PART, where the class folders of each may lie; one that is not there is left out.
        layout: for messages, what folders a benchmark of several sets holds.
        competing: gives the classes among which a prediction is taken in the standard protocol; in the paper's all compete.
        objects: what each file shows, by the files' names; None where they tell nothing.
    """

    name: str
    naming: Callable[[], Naming] = by_wnid
    places: Sequence[str] = INNER
    parts: Mapping[str, Sequence[str]] | None = None
    layout: str = ""
    competing: Callable[[], Choice] = lambda: ALL
    objects: Callable[[Paths], list[str] | None] = lambda paths: None

    def __call__(self, root: Path, protocol: str) -> dict[str, Open]:
        """The sets of a folder. Raises UserError that says why the folder is none."""
        if self.parts is None:
            return {self.name: self._opener(self.name, [root / place for place in self.places], protocol)}
        found: dict[str, Open] = {}
        for part, places in self.parts.items():
            there = [place for place in (root / each for each in places) if subfolders(place)]
            if there:
                found[f"{self.name}/{part}"] = self._opener(f"{self.name}/{part}", there, protocol)
        if not found:
            raise UserError(f"{root} holds none of the folders {self.layout}")
        return found

    @property
    def complete(self) -> tuple[str, ...]:
        """The names of all sets."""
        return tuple(f"{self.name}/{part}" for part in self.parts or ())

    def _opener(self, name: str, places: Sequence[Path], protocol: str) -> Open:
        naming = self.naming()
        folder = find_class_folders(places, naming)
        competing = self.competing() if protocol == "standard" else ALL
        return partial(_open, name, folder, naming, competing, self.objects)


def find_class_folders(places: Sequence[Path], naming: Naming) -> Path:
    """The first of `places` that holds class folders, some of the benchmark's and no others with images in them.

    Raises UserError that says why there is none.
    """
    reasons = []
    for place in places:
        names = subfolders(place)
        own = {name: None for name in names if naming.class_of(name)}
        foreign = [name for name in names if name not in own and (not own or has_image(place / name))]
        if own and not foreign:
            if any(has_image(place / name) for name in own) or any(image_names(place / name) for name in own):
                return place
            reasons.append(f"the class folders of {place} are empty")
        elif own or place == places[0]:
            example = f"{foreign[0]} is none of its {naming.total} classes" if foreign else "it holds no folders"
            reasons.append(f"{place} should hold folders named {naming.how}, but {example}")
    raise UserError(reasons[-1])


def _open(
    name: str, root: Path, naming: Naming, competing: Choice, objects: Callable[[Paths], list[str] | None]
) -> ImageSet:
    tree = class_tree(root, [folder for folder in subfolders(root) if naming.class_of(folder) is not None])
    choices = [naming.class_of(folder) or () for folder in tree.class_names]
    for folder, choice in zip(tree.class_names, choices, strict=True):
        if not choice:
            raise UserError(f"{root}/{folder} is none of the {naming.total} classes of {name}")
    return imagenet_set(name, tree, choices, competing, objects=objects(tree.paths))


def imagenet_set(
    name: str,
    tree: Tree,
    choices: Sequence[Choice],
    competing: Choice = ALL,
    class_names: Sequence[str] | None = None,
    **more: Any,
) -> ImageSet:
    """The images of a tree, of ImageNet's classes.

    choices: of each folder, or of each of `kinds`, the classes that are right, and the name of its group (`class_names`,
    by default the folders'). more: as `tree_set`.
    """
    right = ImageNetAnswers(name, choices, tree.class_names if class_names is None else class_names)
    return tree_set(name, tree, right, competing=ImageNetCandidates(competing), **more)
