"""ImageNet-v2: ImageNet's test set collected anew, in three variants (Recht et al., ICML 2019).

A folder's name is the class index, as a number: sorted as text, "10" comes before "2", so the place of a folder is not its class.
The paper's variant is matched-frequency, here plain "imagenet-v2". Both protocols are the same.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from relevit.data.benchmarks.class_folders import Open, tree_set
from relevit.data.benchmarks.imagenet_classes import COUNT, ImageNetAnswers, ImageNetCandidates
from relevit.data.listing import class_tree, has_image, subfolders
from relevit.data.sets import ImageSet
from relevit.errors import UserError


def sets(root: Path, protocol: str, name: str = "imagenet-v2") -> dict[str, Open]:
    """The one set of a folder `<class index>/<image>`. Raises UserError that says why the folder is none."""
    folders = subfolders(root)
    numbers = [folder for folder in folders if _class(folder) is not None]
    foreign = [folder for folder in folders if _class(folder) is None and (not numbers or has_image(root / folder))]
    if foreign or not numbers:
        example = f"there is {foreign[0]}" if foreign else "it holds no folders"
        raise UserError(f"{root} should hold folders named by class index, 0 to {COUNT - 1}, but {example}")
    return {name: partial(_open, name, root)}


def _open(name: str, root: Path) -> ImageSet:
    tree = class_tree(root, [folder for folder in subfolders(root) if _class(folder) is not None])
    right = ImageNetAnswers(name, [(int(folder),) for folder in tree.class_names], tree.class_names)
    return tree_set(name, tree, right, competing=ImageNetCandidates())


def _class(folder: str) -> int | None:
    return int(folder) if re.fullmatch(r"[0-9]{1,4}", folder) and int(folder) < COUNT else None
