"""Benchmarks of one's own: a folder of class folders, tar files, and the sets that `relevit compose` makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from relevit.data.benchmarks.tar_files import has_tars, open_tars
from relevit.data.composition.composed_sets import CONFIG, MANIFEST, missing, picture_paths, read_config, read_manifest
from relevit.data.listing import Column, Paths, Tree, class_tree
from relevit.data.sample import Sample
from relevit.data.sets import ByName, CompetingClasses, ImageSet, RightClasses
from relevit.errors import UserError
from relevit.images import read_image

Open = Callable[[], ImageSet]  # opens a set that was found: lists its images


def class_folders(root: str | Path, name: str | None = None, objects: Mapping[Path, str] | None = None) -> ImageSet:
    """A folder with one folder of images per class.

    Which class of a model each folder is depends on the model (`class_index`). Images may lie deeper inside a class
    folder; empty class folders are left out. objects: what each file shows, where several files show one object.
    Raises UserError where the folder does not exist, or holds no class folders with images.
    """
    tree = class_tree(Path(root))
    shown = None if objects is None else [objects.get(path, str(path)) for path in tree.paths]
    return tree_set(str(root) if name is None else name, tree, ByName(tree.class_names), objects=shown)


def tree_set(
    name: str,
    tree: Tree,
    right: RightClasses,
    *,
    kinds: Sequence[int] | None = None,
    competing: CompetingClasses | None = None,
    read: Callable[[Path], Image.Image] = read_image,
    objects: Sequence[str] | None = None,
) -> ImageSet:
    """The images of class folders as a set; see `ImageSet`. read: reads a file as an RGB picture."""
    return ImageSet(
        name,
        partial(_read, read, tree.paths),
        tree.paths.names,
        groups=Column(tree.class_names, tree.numbers),
        objects=objects,
        paths=tree.paths,
        right=right,
        kinds=tree.numbers if kinds is None else kinds,
        competing=competing,
    )


def _read(read: Callable[[Path], Image.Image], paths: Paths, index: int) -> Sample:
    return Sample(read(paths[index]), name=paths.names[index])


def composed_sets(root: str | Path) -> dict[str, Open] | None:
    """The sets of a folder made by `relevit compose`, by name, in their order; None where `root` is no such folder.

    Opening one raises UserError where pictures are missing, or there are others than the manifest's; so does a `root` that is
    one of the sets.
    """
    root = Path(root)
    if (root.parent / CONFIG).is_file() and (root / "images").is_dir() and (root / "masks").is_dir():
        raise UserError(
            f"{root} is one of several composed sets: give {root.parent} for all, or {root / 'images'} for this one"
        )
    if not (root / CONFIG).is_file():
        return None
    return {name: partial(_composed, root, name) for name in read_config(root).get("sets", [])}


def own_sets(name: str, folder: Path) -> dict[str, Open]:
    """The sets of a folder of class folders, of one made by `relevit compose`, or of tar files, by name."""
    if has_tars(folder):
        return {name: partial(open_tars, folder)}
    composed = composed_sets(folder)
    if composed is None:
        return {name: partial(class_folders, folder, name)}
    return {f"{name}/{each}": opener for each, opener in composed.items()}


def _composed(root: Path, name: str) -> ImageSet:
    if not (root / MANIFEST).is_file():
        raise UserError(f"{root} has no {MANIFEST}, its sets are not finished: run the same relevit compose again")
    rows = [row for row in read_manifest(root / MANIFEST) if row.set == name]
    absent = missing(root, rows)
    if absent:
        first = picture_paths(root, absent[0])[0]
        raise UserError(
            f"{len(absent)} pictures of {root / MANIFEST} are missing, such as {first}: run the same relevit compose again"
        )
    objects = {picture_paths(root, row)[0]: row.object for row in rows}
    images = class_folders(root / name / "images", objects=objects)
    foreign = [path for path in images.paths or () if path not in objects]
    if foreign:
        raise UserError(f"{foreign[0]} is not in {root / MANIFEST}: remove it, or compose into another folder")
    return images
