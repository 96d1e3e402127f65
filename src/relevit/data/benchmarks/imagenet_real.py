"""ImageNet's validation images with reassessed labels, "ReaL" (Beyer et al., "Are we done with ImageNet?", 2020).

Each image has all labels that fit, any of which is a hit; images without one are left out. real.json is a list of lists of class indices
in the order of the images' numbers, so entry 0 belongs to ILSVRC2012_val_00000001.JPEG. Where there is none near the images, the copy in
timm is taken. Groups are the classes of the validation set. Both protocols are the same.
"""

from __future__ import annotations

import json
from array import array
from functools import partial
from importlib import resources
from pathlib import Path

from relevit.data.benchmarks.class_folders import Open
from relevit.data.benchmarks.imagenet import IMAGES, above, confirm, find_validation, number_of, validation_images
from relevit.data.benchmarks.imagenet_classes import COUNT
from relevit.data.benchmarks.imagenet_folders import imagenet_set
from relevit.data.listing import Paths, Tree
from relevit.data.reading import read_json
from relevit.data.sets import ImageSet
from relevit.errors import UserError

NAME, FILE = "imagenet-real", "real.json"
_PLACES = ("", "imagenet-real", "real", "reassessed-imagenet", "reassessed-imagenet-master")


def sets(root: Path, protocol: str) -> dict[str, Open]:
    """The one set of a folder with ImageNet's validation images. Raises UserError that says why the folder is none."""
    folder, labels = find_validation(root)
    confirm(folder)
    return {NAME: partial(_open, folder, labels, _find_file(folder))}


def read_real(path: Path | None) -> list[tuple[int, ...]]:
    """The labels of all 50,000 images, in order. None: timm's copy. Raises UserError for a broken file or one of another length."""
    if path is None:
        copy = resources.files("timm.data") / "_info" / "imagenet_real_labels.json"
        return [tuple(labels) for labels in json.loads(copy.read_text(encoding="utf-8"))]
    content = read_json(path, "lists of class indices, one an image", list)
    if len(content) != IMAGES:
        raise UserError(
            f"{path} has {len(content):,} entries: expected one for each of the {IMAGES:,} validation images"
        )
    for number, labels in enumerate(content, start=1):
        if not isinstance(labels, list) or not all(type(each) is int and 0 <= each < COUNT for each in labels):
            raise UserError(f"{path}, entry {number}: {labels!r} is no list of class indices, 0 to {COUNT - 1}")
    return [tuple(labels) for labels in content]


def _find_file(folder: Path) -> Path | None:
    places = (place / inner / FILE for place in above(folder) for inner in _PLACES)
    return next((path for path in places if path.is_file()), None)


def _open(folder: Path, labels: Path | None, file: Path | None) -> ImageSet:
    real = read_real(file)
    tree = validation_images(folder, labels)
    kinds: dict[tuple[tuple[int, ...], int], int] = {}  # right classes and group
    names, groups, kind_of = [], array("i"), array("i")
    for name, group in zip(tree.paths.names, tree.numbers, strict=True):
        number = number_of(name)
        if not 1 <= number <= IMAGES:
            raise UserError(f"{folder / name}: there is no validation image of the number {number}")
        if real[number - 1]:
            names.append(name)
            groups.append(group)
            kind_of.append(kinds.setdefault((real[number - 1], group), len(kinds)))
    if not names:
        raise UserError(f"none of the images in {folder} has a reassessed label")
    class_names = [tree.class_names[group] for _, group in kinds]
    kept = Tree(tree.class_names, Paths(folder, names), groups)
    return imagenet_set(NAME, kept, [labels for labels, _ in kinds], class_names=class_names, kinds=kind_of)
