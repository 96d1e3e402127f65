"""ObjectNet: household objects from unusual sides in unusual places (Barbu et al., NeurIPS 2019); the classes that ImageNet has, too.

Layout: images/<folder>/*.png beside mappings/ with four files, which lead from a folder to class indices:
folder_to_objectnet_label.json {folder: ObjectNet label}, objectnet_to_imagenet_1k.json {ObjectNet label: "ImageNet label; ImageNet label"},
imagenet_to_label_2012_v2 (an ImageNet label a line, counted from 0) and pytorch_to_imagenet_2012_id.json {class index: line number}.
Folders whose label ImageNet lacks are left out.

`standard`: any of the ImageNet labels is a hit, and the red border of one pixel is cropped. `paper`: the first of the labels is the hit, and the
border stays. In both the prediction is taken among all of ImageNet's classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from PIL import Image

from relevit.data.benchmarks.class_folders import Open
from relevit.data.benchmarks.imagenet_classes import COUNT
from relevit.data.benchmarks.imagenet_folders import imagenet_set
from relevit.data.listing import class_tree, subfolders
from relevit.data.reading import read_json, read_text
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.images import read_image

NAME = "objectnet"
FOLDERS, LABELS = "folder_to_objectnet_label.json", "objectnet_to_imagenet_1k.json"
CLASSES, LINES = "pytorch_to_imagenet_2012_id.json", "imagenet_to_label_2012_v2"
_ORIGIN = "it comes with the data set"


def sets(root: Path, protocol: str) -> dict[str, Open]:
    """The one set of a folder. Raises UserError where images, a mapping or an entry of it is missing."""
    root = next((place for place in (root, root / "objectnet-1.0") if (place / "images").is_dir()), root)
    if not subfolders(root / "images"):
        raise UserError(
            f"{root} should hold images/<folder>/*.png and mappings/, but there are no folders in {root / 'images'}"
        )
    return {NAME: partial(_open, root, protocol, imagenet_classes(root))}


def imagenet_classes(root: Path) -> dict[str, tuple[int, ...]]:
    """ImageNet's classes (0 to 999) of each folder in images/ that overlaps, in the order of its labels.

    Raises UserError that names the file: one is missing or broken, or an entry leads nowhere.
    """
    mappings = root / "mappings"
    label_of = read_json(mappings / FOLDERS, f"folder to ObjectNet label ({_ORIGIN})")
    imagenet_labels = read_json(mappings / LABELS, f"ObjectNet label to ImageNet labels ({_ORIGIN})")
    indices = _class_by_line(mappings)
    lines: dict[str, list[int]] = {}
    for number, line in enumerate(read_text(mappings / LINES, f"an ImageNet label a line ({_ORIGIN})").splitlines()):
        lines.setdefault(line.strip(), []).append(number)
    classes: dict[str, tuple[int, ...]] = {}
    for folder in subfolders(root / "images"):
        if folder not in label_of:
            raise UserError(
                f"{mappings / FOLDERS} has no entry for the folder {folder} in {root / 'images'}: fetch it again"
            )
        joined = imagenet_labels.get(label_of[folder])
        if joined is None:
            continue  # ImageNet has no such class
        found: list[int] = []
        for label in (part.strip() for part in str(joined).split(";")):
            if not label or label not in lines:
                raise UserError(
                    f"{mappings / LABELS}: {label_of[folder]!r} leads to {label!r}, which is no line of {mappings / LINES}"
                )
            absent = [line for line in lines[label] if line not in indices]
            if absent:
                raise UserError(
                    f"{mappings / CLASSES} has no class for line {absent[0]} ({label!r}, counted from 0) of {LINES}"
                )
            found += [indices[line] for line in lines[label]]
        classes[folder] = tuple(dict.fromkeys(found))
    if not classes:
        raise UserError(f"{mappings / LABELS} has none of the labels of the folders in {root / 'images'}")
    return classes


def read_without_border(path: Path) -> Image.Image:
    """An image without its border of one pixel. Raises UserError where nothing is left, or the file cannot be read."""
    image = read_image(path)
    if min(image.size) < 3:
        raise UserError(
            f"{path} has {image.size[0]} x {image.size[1]} pixels: without the border of ObjectNet nothing is left"
        )
    return image.crop((1, 1, image.size[0] - 1, image.size[1] - 1))


def _class_by_line(mappings: Path) -> dict[int, int]:
    """ImageNet class index by line number, from the file that has it the other way round."""
    content = read_json(mappings / CLASSES, f"class index to line number ({_ORIGIN})")
    found: dict[int, int] = {}
    for index, line in content.items():
        if not str(index).isdigit() or int(index) >= COUNT or not str(line).isdigit():
            raise UserError(
                f"{mappings / CLASSES}: {index!r}: {line!r} should be a class index, 0 to {COUNT - 1}, and a line number"
            )
        if int(line) in found:
            raise UserError(f"{mappings / CLASSES} leads two classes, {found[int(line)]} and {index}, to line {line}")
        found[int(line)] = int(index)
    return found


def _open(root: Path, protocol: str, classes: Mapping[str, tuple[int, ...]]) -> ImageSet:
    tree = class_tree(root / "images", classes)
    choices = [classes[folder] if protocol == "standard" else classes[folder][:1] for folder in tree.class_names]
    return imagenet_set(NAME, tree, choices, read=read_without_border if protocol == "standard" else read_image)
