"""A folder of class folders with images, and masks beside it, as a data set of samples."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from torch import nn
from torch.utils.data import Dataset

from relevit.data.checks import Progress, check_pair, in_parallel
from relevit.data.classes import ClassMap, match_classes
from relevit.data.manifest import Row
from relevit.data.sample import Sample
from relevit.errors import Fault, FaultsError
from relevit.images import list_images, read_alpha, read_image, read_mask

_NO_CLASS = -1


class FolderSamples(Dataset[Sample]):
    """Images in class folders, `images/CLASS/.../NAME.jpg`, and masks of the same relative name,
    `masks/CLASS/.../NAME.png`.

    Masks are grey PNG, 0 for background and 255 for object, or have an alpha channel. `masks` None takes the alpha
    channel of each image; the same folder as `images` takes NAME.png beside NAME.jpg. `ignore`, a folder of the same
    layout, has pictures whose non-zero pixels count for neither side; an image may lack one. Samples are sorted by
    relative name. `names`: only these images, by relative name; one that is not there is a fault.

    The class of a folder comes from `classes` {folder: index}, or from `model` and `class_map` (`class_index`). With
    `check`, every file is read once, in `workers` threads, before anything else; without it only names are compared
    (see `check_samples`). Faults are raised at once as FaultsError (a UserError with the list `.faults`); with
    `skip_bad`, bad samples are left out and the faults are in `.faults`. Raises UserError when nothing is left.

    Attributes:
        manifest: a row (name, class_name, label, split) for each sample, in order.
        faults: what was wrong with those that were left out.
        labels: the class index of each sample.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        masks: str | os.PathLike[str] | None = None,
        *,
        model: nn.Module | None = None,
        classes: Mapping[str, int] | None = None,
        class_map: ClassMap | None = None,
        ignore: str | os.PathLike[str] | None = None,
        names: Collection[str] | None = None,
        skip_bad: bool = False,
        check: bool = True,
        workers: int = 0,
        progress: Progress | None = None,
    ):
        self.root = Path(images)
        self.mask_root = None if masks is None else Path(masks)
        self.faults: list[Fault] = []
        beside = _by_stem(self.mask_root) if self.mask_root is not None else {}
        regions = _by_stem(Path(ignore)) if ignore is not None else {}
        files = self._images(names)
        folders = {name.parts[0] for name in files if len(name.parts) > 1}
        if names is not None and class_map == "sorted":  # counts the folders, those of other images, too
            folders |= {path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".")}
        found = match_classes(folders, model, classes or class_map)

        self.manifest: list[Row] = []
        self._masks: list[Path | None] = []
        self._ignores: list[Path | None] = []
        for name in files:
            fault = self._name_fault(name, beside)
            if fault is not None:
                self.faults.append(fault)
                continue
            self.manifest.append(Row(str(name), name.parts[0], found.classes.get(name.parts[0], _NO_CLASS)))
            self._masks.append(beside[_stem(name)] if self.mask_root is not None else None)
            self._ignores.append(regions.get(_stem(name)))
        for folder, reason in found.unknown.items():
            self.faults.append(Fault("unknown class", str(self.root / folder), reason))
        outcome: list[Fault | None] = [None] * len(self)
        if check:  # images of unknown class, too: one list of all faults
            outcome = in_parallel(self.check_item, range(len(self)), workers, progress)
            self.faults += [fault for fault in outcome if fault is not None]
        rows = enumerate(self.manifest)
        self._keep([index for index, row in rows if outcome[index] is None and row.label != _NO_CLASS])
        if self.faults and (not skip_bad or not self.manifest):
            raise FaultsError(self.faults)

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> Sample:
        row, mask, ignore = self.manifest[index], self._masks[index], self._ignores[index]
        path = self.root / row.name
        values = read_alpha(path) if mask is None else read_mask(mask)
        region = None if ignore is None else read_mask(ignore) > 0
        return Sample(read_image(path), values, row.label, region, row.name)

    @property
    def labels(self) -> list[int]:
        return [row.label for row in self.manifest]

    def _images(self, wanted: Collection[str] | None) -> list[PurePosixPath]:
        """The images' relative names; of NAME.jpg and NAME.png in a folder of both, the PNG is the mask."""
        if wanted is not None:
            return self._named(wanted)
        names = [PurePosixPath(path.relative_to(self.root).as_posix()) for path in list_images(self.root)]
        if self.mask_root is not None and _same_folder(self.root, self.mask_root):
            pictures = {_stem(name) for name in names if name.suffix.lower() != ".png"}
            names = [name for name in names if name.suffix.lower() != ".png" or _stem(name) not in pictures]
        if not names:
            raise FaultsError([Fault("no images", str(self.root), "expected FOLDER/CLASS/IMAGE")])
        inner = {name.parts[0] for name in names if len(name.parts) > 1}
        folders = sorted(path for path in self.root.iterdir() if path.is_dir() or _leads_nowhere(path))
        for folder in folders:
            if folder.name not in inner and not folder.name.startswith("."):
                self.faults.append(Fault("no images", str(folder), _link(folder)))
        stems: dict[str, PurePosixPath] = {}
        kept = []
        for name in names:
            other = stems.setdefault(_stem(name), name)
            if other is name or self.mask_root is None:
                kept.append(name)
            else:
                self.faults.append(Fault("one mask for several images", str(self.root / name), f"{other} has it, too"))
        return kept

    def _named(self, wanted: Collection[str]) -> list[PurePosixPath]:
        """The images of these relative names, as the file system composes their accents; others are faults."""
        found = []
        for name in sorted(wanted):
            forms = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
            there = next((form for form in forms if (self.root / form).is_file()), None)
            if there is None or not _is_inside(there):
                self.faults.append(Fault("missing image", str(self.root / name), "the manifest names it"))
            else:
                found.append(PurePosixPath(there))
        return found

    def _name_fault(self, name: PurePosixPath, masks: Mapping[str, Path]) -> Fault | None:
        """What the names alone tell, classes aside."""
        path = self.root / name
        if len(name.parts) == 1:
            return Fault("unknown class", str(path), "it lies in no class folder")
        if self.mask_root is not None and _stem(name) not in masks:
            return Fault("missing mask", str(path), f"expected {self.mask_root / name.with_suffix('.png')}")
        return None

    def files(self, index: int) -> tuple[Path, Path | None, Path | None]:
        """The files of one sample: its image, its mask (None: the image's alpha channel), its region to ignore."""
        return self.root / self.manifest[index].name, self._masks[index], self._ignores[index]

    def check_item(self, index: int) -> Fault | None:
        """Read one sample's files in full; what is wrong with them, or None."""
        return check_pair(*self.files(index))

    def _keep(self, indices: Sequence[int]) -> None:
        self.manifest = [self.manifest[index] for index in indices]
        self._masks = [self._masks[index] for index in indices]
        self._ignores = [self._ignores[index] for index in indices]


def _stem(name: PurePosixPath) -> str:
    """A relative name without its ending, the same however the file system composes accents."""
    return unicodedata.normalize("NFC", str(name.with_suffix("")))


def _by_stem(root: Path) -> dict[str, Path]:
    """The PNG files below a folder, by relative name without ending."""
    files = [path for path in list_images(root) if path.suffix.lower() == ".png"]
    return {_stem(PurePosixPath(path.relative_to(root).as_posix())): path for path in files}


def _is_inside(name: str) -> bool:
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _leads_nowhere(path: Path) -> bool:
    """Whether a link, to a folder as its name has no ending, has lost what it leads to."""
    return path.is_symlink() and not path.exists() and not path.suffix


def _link(folder: Path) -> str:
    """What there is to say of an empty class folder that is a link."""
    if not folder.is_symlink():
        return ""
    return f"a link to {os.readlink(folder)}" + (": each folder is read once" if folder.exists() else ", not there")


def _same_folder(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
