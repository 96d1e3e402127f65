"""Benchmarks whose class folders are named by wnid, n01440764: what ImageNet-A, -R, -Sketch and others have in common."""

from __future__ import annotations

from pathlib import Path

from relevit.data.benchmarks.class_folders import tree_set
from relevit.data.benchmarks.imagenet_classes import COUNT, ImageNetAnswers, ImageNetCandidates, index_of, wnids
from relevit.data.listing import class_tree, has_image, image_names, subfolders
from relevit.data.sets import ImageSet
from relevit.errors import UserError

ALL = tuple(range(COUNT))
_INNER = ("", "val", "validation", "test", "images", "data")


def find_wnid_folders(root: Path, classes: tuple[int, ...] = ALL) -> Path:
    """The folder of class folders: `root`, or its val, validation, test, images or data.

    Every folder with images in it must be named by the wnid of one of `classes`; a part of them is enough. Raises UserError
    that says why it is none.
    """
    reasons = []
    for inner in _INNER:
        folder = root / inner
        names = subfolders(folder)
        known = {wnids()[index] for index in classes}
        own = [name for name in names if name in known]
        foreign = [name for name in names if name not in known and (not own or has_image(folder / name))]
        if own and not foreign:
            if any(has_image(folder / name) for name in own) or any(image_names(folder / name) for name in own):
                return folder
            reasons.append(f"the class folders of {folder} are empty")
        elif own:
            reasons.append(f"{foreign[0]} in {folder} is none of its {len(classes):,} classes")
        elif inner == "":
            example = f"{foreign[0]} is none of its {len(classes):,} classes" if foreign else "it holds no folders"
            reasons.append(f"{folder} should hold folders named by wnid, such as {wnids()[classes[0]]}, but {example}")
    raise UserError(reasons[-1] if len(reasons) > 1 else reasons[0])


def wnid_set(
    name: str, root: Path, classes: tuple[int, ...] = ALL, candidates: tuple[int, ...] | None = None
) -> ImageSet:
    """The images of class folders named by wnid; `candidates`: ImageNet classes among which a prediction is taken (None: all)."""
    tree = class_tree(root, [folder for folder in subfolders(root) if folder in index_of()])
    choices = [(index_of()[folder],) for folder in tree.class_names]
    foreign = [folder for folder, (index,) in zip(tree.class_names, choices, strict=True) if index not in set(classes)]
    if foreign:
        raise UserError(f"{root}/{foreign[0]} is none of the {len(classes):,} classes of {name}")
    right = ImageNetAnswers(name, choices, tree.class_names)
    return tree_set(name, tree, right, competing=ImageNetCandidates(ALL if candidates is None else candidates))
