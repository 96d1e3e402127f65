"""ImageNet's validation set: class folders named by wnid, or the flat files ILSVRC2012_val_########.JPEG with a list of labels.

Lists that are read, from the folder of the images up to four folders above it:
- LOC_val_solution.csv (Kaggle): name, then "wnid x y x y ...";
- val.txt, val.csv, val_labels.txt: a name and a wnid, or a name and a class index (0 to 999, in the order of the wnids), a line;
- imagenet_2012_validation_synset_labels.txt: a wnid a line, in the order of the images' numbers;
- ILSVRC2012_validation_ground_truth.txt of the development kit: an ILSVRC2012_ID a line, in the same order. These ids are not in the order
  of the wnids: the kit's meta.mat beside it tells which is which.

Both protocols are the same.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from relevit.data.benchmarks.class_folders import Open
from relevit.data.benchmarks.imagenet_classes import COUNT, index_of, wnids
from relevit.data.benchmarks.imagenet_folders import INNER, by_wnid, find_class_folders, imagenet_set
from relevit.data.listing import Paths, Tree, class_tree, first_image, image_names, subfolders
from relevit.data.reading import read_text
from relevit.data.sets import ImageSet
from relevit.errors import UserError

NAME = "imagenet"
IMAGES = 50_000
IDS, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
WNIDS_IN_ORDER = "imagenet_2012_validation_synset_labels.txt"
LISTS = ("LOC_val_solution.csv", "val.txt", "val.csv", "val_labels.txt", WNIDS_IN_ORDER, IDS)
_KIT = ("", "devkit/data", "ILSVRC2012_devkit_t12/data", "data")
_INNER = (
    "",
    "val",
    "validation",
    "ILSVRC2012_img_val",
    "ILSVRC2012/val",
    "ILSVRC2012/ILSVRC2012_img_val",
    "Data/CLS-LOC/val",
    "ILSVRC/Data/CLS-LOC/val",
)
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")
_TRAINING = re.compile(r"n\d{8}_\d+\.")


def sets(root: Path, protocol: str) -> dict[str, Open]:
    """The one set of a folder. Raises UserError that says why the folder is none."""
    folder, labels = find_validation(root)
    return {NAME: partial(_open, folder, labels)}


def find_validation(root: Path) -> tuple[Path, Path | None]:
    """The folder of the validation images, `root` or one inside, and the list of labels; None for class folders.

    Raises UserError that says why there is none.
    """
    for inner in _INNER:
        folder = root / inner
        if any(name in index_of() for name in subfolders(folder)):
            find_class_folders([folder / each for each in INNER], by_wnid())
            example = next(filter(None, (first_image(folder / name) for name in subfolders(folder))), "")
            if _TRAINING.match(example):
                raise UserError(f"{folder} holds training images, such as {example}")
            return folder, None
        if _NUMBER.match(first_image(folder) or ""):
            return folder, _find_list(folder)
    raise UserError(
        f"{root} holds neither folders named by wnid, such as {wnids()[0]}, nor files ILSVRC2012_val_00000001.JPEG"
    )


def confirm(root: Path) -> None:
    """Raises UserError where class folders hold images of other names than ImageNet's: a folder just called "val" may be any data set's."""
    folder, labels = find_validation(root)
    if labels is None:
        number_of(next(filter(None, (first_image(folder / name) for name in subfolders(folder))), "it"))


def validation_images(folder: Path, labels: Path | None) -> Tree:
    """The images with their classes; groups are named by wnid. Raises UserError for a list that is broken or lacks an image."""
    if labels is None:
        return class_tree(folder, [name for name in subfolders(folder) if name in index_of()])
    names = [name for name in image_names(folder) if _NUMBER.match(name)]
    numbers = [number_of(name) for name in names]
    class_of = read_labels(labels)
    absent = [name for name, number in zip(names, numbers, strict=True) if number not in class_of]
    if absent:
        raise UserError(
            f"{labels} has no label for {absent[0]} ({len(absent):,} of {len(names):,} images): give the whole list"
        )
    folders = sorted({wnids()[class_of[number]] for number in numbers})
    place = {index_of()[wnid]: group for group, wnid in enumerate(folders)}
    return Tree(folders, Paths(folder, names), array("i", (place[class_of[number]] for number in numbers)))


def number_of(name: str) -> int:
    """The number of a validation image, from 1, in its file's name. Raises UserError for another name."""
    found = _NUMBER.match(name.rpartition("/")[2])
    if not found:
        raise UserError(f"{name} is not named as ImageNet's validation images are, ILSVRC2012_val_00000001.JPEG")
    return int(found[1])


def above(folder: Path, levels: int = 4) -> Iterator[Path]:
    """A folder and those above it, where lists are looked for."""
    folder = folder.absolute()
    yield from (folder, *list(folder.parents)[:levels])


def read_labels(path: Path) -> dict[int, int]:
    """Class index (0 to 999) by the image's number (from 1), from a list of any of the forms. Raises UserError for a broken one."""
    rows = [
        line.replace(",", " ").split() for line in read_text(path, "the classes of the validation images").splitlines()
    ]
    if path.name == IDS:
        return _by_id(path, rows)
    if path.name == WNIDS_IN_ORDER:
        return {number: _class(path, number, row[0]) for number, row in enumerate(filter(None, rows), start=1)}
    named: list[tuple[int, int, str]] = []  # line, the image's number, its class as written
    for line, row in enumerate(rows, start=1):
        name = _NUMBER.match(row[0].rpartition("/")[2]) if row else None
        if name is None and row and line > 1:  # the first may be a header
            raise UserError(
                f"{path}, line {line}: {row[0]!r} is no validation image: expected ILSVRC2012_val_00000001.JPEG and its class"
            )
        if name is not None:
            if len(row) < 2:
                raise UserError(f"{path}, line {line}: there is no class after {row[0]}")
            named.append((line, int(name[1]), row[1]))
    if not named or (len(named) > 1 and all(text == str(number) for _, number, text in named)):
        raise UserError(f"{path} tells no classes, at most the images' numbers: give one of {', '.join(LISTS)}")
    return {number: _class(path, line, text) for line, number, text in named}


def _class(path: Path, line: int, text: str) -> int:
    if text in index_of():
        return index_of()[text]
    if re.fullmatch(r"\d+", text) and int(text) < COUNT:
        return int(text)
    raise UserError(f"{path}, line {line}: {text!r} is neither a wnid of ImageNet nor a class index, 0 to {COUNT - 1}")


def _by_id(path: Path, rows: list[list[str]]) -> dict[int, int]:
    """The development kit's list: ILSVRC2012_IDs, 1 to 1000, whose wnids stand in meta.mat."""
    class_of_id = _read_meta(path.parent / META)
    found = {}
    for number, row in enumerate(filter(None, rows), start=1):
        index = class_of_id.get(int(row[0])) if row[0].isdigit() else None
        if index is None:
            raise UserError(f"{path}, line {number}: {row[0]!r} is no ILSVRC2012_ID, 1 to {COUNT}")
        found[number] = index
    return found


def _read_meta(path: Path) -> dict[int, int]:
    """Class index by ILSVRC2012_ID, from the field of that name and WNID of each synset. The inner nodes (above 1000) are left out."""
    from scipy.io import loadmat

    if not path.is_file():
        raise UserError(
            f"{path} is missing: the ids in {IDS} are not in the order of the wnids, and only the kit's meta.mat tells them"
        )
    try:
        synsets: Any = loadmat(path, squeeze_me=True, variable_names=["synsets"])["synsets"]
        pairs = {int(number): str(wnid) for number, wnid in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
        found = {number: index_of()[wnid] for number, wnid in pairs.items() if number <= COUNT}
    except Exception as error:  # scipy raises what it likes for a broken file
        raise UserError(f"{path} cannot be read as the development kit's meta.mat ({error}): fetch it again") from error
    if sorted(found) != list(range(1, COUNT + 1)) or len(set(found.values())) != COUNT:
        raise UserError(f"{path} does not give the {COUNT:,} ids their wnids, each once: fetch it again")
    return found


def _find_list(folder: Path) -> Path:
    for place in above(folder):
        for inner in _KIT:
            for name in LISTS:
                path = place / inner / name
                if path.is_file():
                    if name == IDS and not (path.parent / META).is_file():
                        _read_meta(path.parent / META)
                    return path
    raise UserError(
        f"{folder} holds flat files without a list of their classes: put one of {', '.join(LISTS)} beside them"
    )


def _open(folder: Path, labels: Path | None) -> ImageSet:
    tree = validation_images(folder, labels)
    return imagenet_set(NAME, tree, [(index_of()[wnid],) for wnid in tree.class_names])
