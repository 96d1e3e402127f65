"""SI-Score: objects pasted on other backgrounds at several locations, rotations and sizes (Djolonga et al., CVPR 2021).

Layout: object_location/<class name>/*.jpg, object_rotation/..., object_size/..., each a set of its own; stray CSV files beside the folders are
ignored. The names of the classes are in lists/si_score_classes.json. Both protocols are the same, among all of ImageNet's classes.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

from relevit.data.benchmarks.class_folders import Open, tree_set
from relevit.data.benchmarks.imagenet_classes import ImageNetAnswers, ImageNetCandidates
from relevit.data.benchmarks.reading import packaged
from relevit.data.listing import class_tree, has_image, subfolders
from relevit.data.sets import ImageSet
from relevit.errors import UserError


def sets(root: Path, protocol: str, name: str) -> dict[str, Open]:
    """The one set of a folder of class folders. Raises UserError that says why the folder is none."""
    folders = subfolders(root)
    own = [folder for folder in folders if _class(folder) is not None]
    foreign = [folder for folder in folders if _class(folder) is None and (not own or has_image(root / folder))]
    if foreign or not own:
        example = f"{foreign[0]} is none" if foreign else "it holds no folders"
        raise UserError(
            f"{root} should hold folders named by the {len(_classes())} classes of SI-Score, such as ambulance, but {example}"
        )
    return {name: partial(_open, name, root)}


@cache
def _classes() -> dict[str, int]:
    return {_plain(name): int(index) for name, index in packaged("si_score_classes.json").items()}


def _class(folder: str) -> int | None:
    return _classes().get(_plain(folder))


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").strip()


def _open(name: str, root: Path) -> ImageSet:
    tree = class_tree(root, [folder for folder in subfolders(root) if _class(folder) is not None])
    choices = [(_classes()[_plain(folder)],) for folder in tree.class_names]
    right = ImageNetAnswers(name, choices, tree.class_names)
    return tree_set(name, tree, right, competing=ImageNetCandidates())
