"""Benchmarks of one's own: a folder of class folders, and the sets that `relevit compose` makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn
from torch.utils.data import Dataset

from relevit.data.benchmarks.image_set import LabelledImage
from relevit.data.benchmarks.listing import class_tree
from relevit.data.classes import ClassMap, class_index
from relevit.data.composition.composed_sets import CONFIG, MANIFEST, missing, picture_paths, read_config, read_manifest
from relevit.errors import UserError
from relevit.images import read_image


class ClassFolders(Dataset[LabelledImage]):
    """A folder with one folder of images per class; indexing reads an image.

    Labels are the folders' numbers in sorted order, 0 to `len(folders) - 1`; which class of a model each folder is depends on the
    model (`relevit.data.samples.class_index`). Images may lie deeper inside a class folder; empty class folders are left out.

    Attributes:
        root: the folder of class folders.
        folders: the class folders' names, sorted.
        paths: the image files, by folder, then by name.
        labels: the folder's number of each file.
        objects: what each file shows, where several files show one object (`objects` by file); None where nothing is known.

    Raises:
        UserError: the folder does not exist, or holds no class folders with images. Indexing raises it for an unreadable image.
    """

    def __init__(self, root: str | Path, objects: Mapping[Path, str] | None = None) -> None:
        self.root = Path(root)
        self.folders, self.paths, self.labels = class_tree(self.root)
        self.objects = None if objects is None else [objects.get(path, str(path)) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def key(self, index: int) -> str:
        """The image's name relative to the root, with forward slashes."""
        return self.paths.name(index)

    def answers(self, model: nn.Module, class_map: ClassMap | None = None) -> list[tuple[int, ...]]:
        """The model's class of each image's folder (`class_index`); raises UserError for folders without one."""
        classes = class_index(self.folders, model, class_map)
        of_folder = [(classes[folder],) for folder in self.folders]
        return [of_folder[label] for label in self.labels]

    def candidates(self, model: nn.Module) -> None:
        """All of the model's classes compete."""

    def __getitem__(self, index: int) -> LabelledImage:
        return LabelledImage(read_image(self.paths[index]), int(self.labels[index]))


def composed_sets(root: str | Path) -> dict[str, ClassFolders] | None:
    """The sets of a folder made by `relevit compose`, by name, in their order; None where `root` is no such folder.

    Raises UserError where pictures are missing, or there are others than the manifest's.
    """
    root = Path(root)
    if (root.parent / CONFIG).is_file() and (root / "images").is_dir() and (root / "masks").is_dir():
        raise UserError(
            f"{root} is one of several composed sets: give {root.parent} for all, or {root / 'images'} for this one"
        )
    if not (root / CONFIG).is_file():
        return None
    if not (root / MANIFEST).is_file():
        raise UserError(f"{root} has no {MANIFEST}, its sets are not finished: run the same relevit compose again")
    rows = read_manifest(root / MANIFEST)
    absent = missing(root, rows)
    if absent:
        first = picture_paths(root, absent[0])[0]
        raise UserError(
            f"{len(absent)} pictures of {root / MANIFEST} are missing, such as {first}: run the same relevit compose again"
        )
    sets = {}
    for name in read_config(root).get("sets", []):
        objects = {picture_paths(root, row)[0]: row.object for row in rows if row.set == name}
        sets[name] = ClassFolders(root / name / "images", objects)
        foreign = [path for path in sets[name].paths if path not in objects]
        if foreign:
            raise UserError(f"{foreign[0]} is not in {root / MANIFEST}: remove it, or compose into another folder")
    return sets
