"""Images with masks from any folder, and data sets of samples by name: what tests of relevance maps are run on."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from relevit.data.benchmarks.gtsegs import GtSegs
from relevit.data.builtin.digits import CLASSES, TEST_SETS, test_set, training_samples
from relevit.data.classes import ClassMap, match_classes
from relevit.data.samples import Sample
from relevit.errors import UserError
from relevit.images import has_alpha, list_images, read_alpha, read_image, read_mask

BUILTIN = "builtin"
_TRAINING = 60  # pictures of each class


class MaskedImages(Dataset[Sample]):
    """The images of a folder, flat or in folders of any depth, and their masks, as samples sorted by relative name.

    Masks are PNG of the same relative name (as `relevit.images.read_mask` takes them) in the folder `masks`; None takes the alpha
    channel of each image. `ignore`, a folder of the same layout, has pictures whose non-zero pixels count for neither side; an
    image may lack one. The class of an image is that of its first folder, by `class_index`, where the model knows it; else -1. No
    pixels are read before they are asked for: indexing raises UserError for an image or a mask that is missing or cannot be read.

    Attributes:
        names: the images' relative names.
        groups: the first folder of each, "" for a flat folder.
        labels: the model's class of each; -1 where it has none, or no model is given.

    Raises:
        UserError: a folder is not there or has no images, no image has a mask (an alpha channel), two images would share one mask.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        masks: str | os.PathLike[str] | None = None,
        *,
        ignore: str | os.PathLike[str] | None = None,
        model: nn.Module | None = None,
        class_map: ClassMap | None = None,
    ) -> None:
        self.root = Path(images)
        self.mask_root = None if masks is None else Path(masks)
        self._masks = {} if masks is None else _by_stem(Path(masks))
        self._ignores = {} if ignore is None else _by_stem(Path(ignore))
        found = [PurePosixPath(path.relative_to(self.root).as_posix()) for path in list_images(self.root)]
        if masks is not None and Path(masks).resolve() == self.root.resolve():  # NAME.png beside NAME.jpg is its mask
            pictures = {_stem(name) for name in found if name.suffix.lower() != ".png"}
            found = [name for name in found if name.suffix.lower() != ".png" or _stem(name) not in pictures]
        if not found:
            raise UserError(f"There are no images in {self.root}.")
        if self.mask_root is not None:
            self._check_masks(found, self.mask_root)
        elif not any(has_alpha(self.root / name) for name in found):
            raise UserError(
                f"No image of {self.root} has an alpha channel to take the mask from: give a folder of masks (--masks)."
            )
        self.names = [str(name) for name in found]
        self.groups = [name.parts[0] if len(name.parts) > 1 else "" for name in found]
        folders = sorted({group for group in self.groups if group})
        classes = {} if model is None or not folders else match_classes(folders, model, class_map).classes
        self.labels = [classes.get(group, -1) for group in self.groups]

    def _check_masks(self, found: Sequence[PurePosixPath], masks: Path) -> None:
        owners: dict[str, PurePosixPath] = {}
        for name in found:
            other = owners.setdefault(_stem(name), name)
            if other is not name:
                raise UserError(
                    f"{self.root / name} and {other} would share one mask: give each image a name of its own."
                )
        if not any(stem in self._masks for stem in owners):
            expected = masks / found[0].with_suffix(".png")
            raise UserError(f"No image of {self.root} has a mask in {masks}: expected {expected} for {found[0]}.")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        path, stem = self.root / self.names[index], _stem(PurePosixPath(self.names[index]))
        if self.mask_root is None:
            mask = read_alpha(path)
        elif stem in self._masks:
            mask = read_mask(self._masks[stem])
        else:
            raise UserError(f"it has no mask {self.mask_root / PurePosixPath(self.names[index]).with_suffix('.png')}")
        region = read_mask(self._ignores[stem]) > 0 if stem in self._ignores else None
        return Sample(read_image(path), mask, self.labels[index], region, self.names[index])


class BuiltinPictures(Dataset[Sample]):
    """A set of the built-in benchmark (`relevit.data.builtin.digits`): one of TEST_SETS, or "train", 60 training pictures of each class.

    The labels suit the built-in model and those fine-tuned from it. Pictures of one object share it in `objects`. Raises UserError
    for another name.
    """

    def __init__(self, name: str = TEST_SETS[0]) -> None:
        if name not in (*TEST_SETS, "train"):
            raise UserError(f"the built-in benchmark has no set {name!r}: choose one of {', '.join(TEST_SETS)}, train")
        all_classes = tuple(range(len(CLASSES)))
        self.name = name
        self.pictures = training_samples(_TRAINING, 0, all_classes) if name == "train" else test_set(name)
        self.labels = [int(label) for label in self.pictures.labels]
        self.groups = [CLASSES[label] for label in self.labels]
        self.objects = [str(number) for number in self.pictures.objects]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return self.pictures[index]


def open_masked(
    source: str | os.PathLike[str],
    masks: str | os.PathLike[str] | None = None,
    *,
    ignore: str | os.PathLike[str] | None = None,
    model: nn.Module | None = None,
    class_map: ClassMap | None = None,
) -> Any:
    """The samples that `source` names: "builtin" or "builtin/SET", a file gtsegs_ijcv.mat, or a folder of images.

    A folder with the inner folders `images` and `masks`, such as a set that `relevit compose` made, needs no `masks`. `model` and
    `class_map` give the classes of folders. Raises UserError for anything else, and for masks where the source has its own.
    """
    text = os.fspath(source)
    path = Path(source)
    own = None
    if text == BUILTIN or text.startswith(f"{BUILTIN}/"):
        own = "the built-in benchmark has exact masks"
    elif path.suffix.lower() in (".mat", ".h5", ".hdf5"):
        own = f"{path} has masks of its own"
    if own is not None:
        if masks is not None or ignore is not None:
            raise UserError(f"{own}: leave out {'--masks' if masks is not None else '--ignore'}")
        return (
            GtSegs(path) if not text.startswith(BUILTIN) else BuiltinPictures(text[len(BUILTIN) + 1 :] or TEST_SETS[0])
        )
    if not path.is_dir():
        raise UserError(
            f"{path} is not there, or no data to measure on: give a folder of images, gtsegs_ijcv.mat, or builtin"
        )
    if masks is None and (path / "images").is_dir() and (path / "masks").is_dir():
        path, masks = path / "images", path / "masks"
    return MaskedImages(path, masks, ignore=ignore, model=model, class_map=class_map)


def _stem(name: PurePosixPath) -> str:
    """A relative name without its ending, the same however the file system composes accents."""
    return unicodedata.normalize("NFC", str(name.with_suffix("")))


def _by_stem(root: Path) -> dict[str, Path]:
    files = [path for path in list_images(root) if path.suffix.lower() == ".png"]
    return {_stem(PurePosixPath(path.relative_to(root).as_posix())): path for path in files}
