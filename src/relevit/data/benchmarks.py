"""Benchmarks to measure a model on; one function (or class) per benchmark. So far: a folder of class folders."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch.utils.data import Dataset

from relevit.errors import UserError
from relevit.images import list_images, read_image


class LabelledImage(NamedTuple):
    """One image of a benchmark: an RGB picture and the number of its class folder."""

    image: Image.Image
    label: int


class ClassFolders(Dataset[LabelledImage]):
    """A folder with one folder of images per class; indexing reads an image.

    Labels are the folders' numbers in sorted order, 0 to `len(folders) - 1`; which class of a model each folder is depends on the
    model (`relevit.data.samples.class_index`). Images may lie deeper inside a class folder; empty class folders are left out.

    Attributes:
        root: the folder of class folders.
        folders: the class folders' names, sorted.
        paths: the image files, by folder, then by name.
        labels: the folder's number of each file.

    Raises:
        UserError: the folder does not exist, or holds no class folders with images. Indexing raises it for an unreadable image.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f"{self.root} is not a folder; give a folder that holds one folder of images per class")
        found = {folder.name: list_images(folder) for folder in sorted(self.root.iterdir()) if folder.is_dir()}
        self.folders = [name for name, files in found.items() if files]
        if not self.folders:
            raise UserError(f"{self.root} holds no class folders with images; expected {self.root}/<class>/<image>")
        self.paths = [path for name in self.folders for path in found[name]]
        self.labels = [number for number, name in enumerate(self.folders) for _ in found[name]]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> LabelledImage:
        return LabelledImage(read_image(self.paths[index]), self.labels[index])
