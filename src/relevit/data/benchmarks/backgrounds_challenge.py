"""The Backgrounds Challenge (ImageNet-9): nine kinds of objects with their backgrounds kept, removed or swapped (Xiao et al., ICLR 2021).

Layout: <set>/val/<class>/<image> or <set>/<class>/<image>, class folders such as 00_dog; each set is one of its own, backgrounds-challenge/mixed_rand.
As published, the prediction is taken among all 1,000 classes and is a hit where its class belongs to the image's kind (lists/in9_classes.json);
a class that belongs to none of the nine (-1) is a miss. Standard and paper are the same: restricting the prediction to the classes of the
nine kinds would make the sets easier than published. Top-5 is a hit where any of the five classes belongs to the kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

from relevit.data.benchmarks.class_folders import Open, tree_set
from relevit.data.benchmarks.imagenet_classes import ImageNetAnswers, ImageNetCandidates
from relevit.data.benchmarks.reading import packaged
from relevit.data.listing import Paths, class_tree, has_image, subfolders
from relevit.data.sets import ImageSet
from relevit.errors import UserError

NAME = "backgrounds-challenge"
SETS = ("original", "only_bg_b", "only_bg_t", "no_fg", "only_fg", "mixed_same", "mixed_rand", "mixed_next")
KINDS = ("dog", "bird", "wheeled vehicle", "reptile", "carnivore", "insect", "musical instrument", "primate", "fish")
_OBJECT = re.compile(r"fg_(.+)_bg_")


def sets(root: Path, protocol: str) -> dict[str, Open]:
    """The sets of a folder, those of the eight that are there. Raises UserError where there is none, or one has other folders."""
    root = next(
        (place for place in (root, root / "bg_challenge") if any((place / name).is_dir() for name in SETS)), root
    )
    found: dict[str, Open] = {}
    for name in SETS:
        folder = root / name / "val" if (root / name / "val").is_dir() else root / name
        if folder.is_dir():
            found[f"{NAME}/{name}"] = partial(_open, name, folder, _kinds(folder))
    if not found:
        raise UserError(f"{root} holds none of the folders {', '.join(SETS)}")
    return found


@cache
def classes_of_kind() -> tuple[tuple[int, ...], ...]:
    """ImageNet's classes of each of the nine kinds, ascending."""
    kinds = {int(index): int(kind) for index, kind in packaged("in9_classes.json").items()}
    return tuple(
        tuple(sorted(index for index, kind in kinds.items() if kind == number)) for number in range(len(KINDS))
    )


def _kinds(folder: Path) -> dict[str, int]:
    """The kind of each class folder, 0 to 8. Raises UserError for a folder that is none."""
    found: dict[str, int] = {}
    for name in subfolders(folder):
        match = re.fullmatch(r"0?(\d)(?:_(.*))?", name)
        number = int(match[1]) if match else -1
        said = (match[2] or "").replace("_", " ").strip().lower() if match else ""
        if not 0 <= number < len(KINDS) or (said in KINDS and KINDS.index(said) != number):
            if not has_image(folder / name):
                continue
            raise UserError(f"{folder / name} is none of the nine classes, 00_dog to 08_fish")
        found[name] = number
    if not found:
        raise UserError(f"{folder} holds no class folders, such as 00_dog")
    return found


def _open(name: str, folder: Path, kinds: Mapping[str, int]) -> ImageSet:
    tree = class_tree(folder, kinds)
    choices = [classes_of_kind()[kinds[name]] for name in tree.class_names]
    right = ImageNetAnswers(f"{NAME}/{name}", choices, tree.class_names)
    return tree_set(f"{NAME}/{name}", tree, right, competing=ImageNetCandidates(), objects=_objects(tree.paths))


def _objects(paths: Paths) -> list[str] | None:
    """What each image shows, from names fg_<image>_bg_<image>; None where they tell nothing."""
    found = [_OBJECT.match(name.rpartition("/")[2]) for name in paths.names]
    return [match[1] for match in found if match] if all(found) else None
