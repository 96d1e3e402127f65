"""A folder of images, and masks beside it, as a set of samples; and what is wrong with it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from torch import nn

from relevit.data.checks import Progress, in_parallel, read_pair
from relevit.data.classes import ClassMap, match_classes
from relevit.data.listing import image_names, is_visible
from relevit.data.pairing import pair_folder, plain, without_masks
from relevit.data.sample import Sample
from relevit.data.sets import Files, ImageSet
from relevit.errors import Fault, FaultsError, FileError, UserError
from relevit.images import has_alpha, read_alpha, read_image, read_mask

Place = str | os.PathLike[str]
_NO_CLASS = "it lies in no class folder"


class Found(NamedTuple):
    """The images of a folder, all of them, and the faults that names alone tell, by the image's number (-1: of none)."""

    images: ImageSet
    faults: list[tuple[int, Fault]]


def masked_folder(
    images: Place, masks: Place | None = None, *, ignore: Place | None = None, names: Collection[str] | None = None
) -> Found:
    """The images of a folder, flat or in folders of any depth, with their masks, sorted by relative name.

    Masks are PNG of the same relative name (as `relevit.images.read_mask` takes them) in the folder `masks`; None takes
    the alpha channel of each image; the same folder takes NAME.png beside NAME.jpg. `ignore`, a folder of the same
    layout, has pictures whose non-zero pixels count for neither side; an image may lack one. The group of an image is
    its first folder, "" for one beside the folders. names: only these images, by relative name; one that is not there is
    a fault. No pixels are read. Raises UserError for a folder that is not there.
    """
    root = Path(images)
    faults: list[tuple[int, Fault]] = []
    if names is None:
        if not root.is_dir():
            raise UserError(f"There is no folder {root}." if not root.exists() else f"{root} is not a folder.")
        listed = image_names(root)
        if masks is not None and Path(masks).resolve() == root.resolve():
            listed = without_masks(listed)
    else:
        listed, absent = _named(root, names)
        faults += [(-1, Fault("missing image", str(root / name), "the manifest names it")) for name in absent]
    pairs = None if masks is None else pair_folder(listed, Path(masks))
    regions = {} if ignore is None else pair_folder(listed, Path(ignore)).mask_of
    of_mask = {} if pairs is None else pairs.mask_of
    files = [Files(root / name, of_mask.get(name), regions.get(name)) for name in listed]
    for number, (image, mask, _) in enumerate(files if pairs is not None else ()):
        if mask is None:
            faults.append((number, Fault("missing mask", str(image), f"expected {_wanted(masks, listed[number])}")))
        elif names is None and pairs is not None and pairs.images_of[mask][0] != listed[number]:
            detail = f"{pairs.images_of[mask][0]} has it, too"
            faults.append((number, Fault("one mask for several images", str(image), detail)))
    found = ImageSet(
        str(root),
        partial(_read, files, listed, masks),
        listed,
        [name.partition("/")[0] if "/" in name else "" for name in listed],
        paths=[each.image for each in files],
        masked=True,
        files=files.__getitem__,
    )
    return Found(found, faults)


def images_with_masks(images: Place, masks: Place | None = None, *, ignore: Place | None = None) -> ImageSet:
    """As `masked_folder`, for measurements: an image without a mask stays, and reading it raises UserError.

    Raises UserError where a folder is not there or has no images, no image has a mask (an alpha channel), or two images
    would share one mask.
    """
    found, faults = masked_folder(images, masks, ignore=ignore)
    if not len(found):
        raise UserError(f"There are no images in {images}.")
    for _, fault in faults:
        if fault.kind == "one mask for several images":
            other = fault.detail.removesuffix(" has it, too")
            raise UserError(f"{fault.file} and {other} would share one mask: give each image a name of its own.")
    if masks is None and not any(has_alpha(path) for path in found.paths or ()):
        raise UserError(
            f"No image of {images} has an alpha channel to take the mask from: give a folder of masks (--masks)."
        )
    missing = [fault for _, fault in faults if fault.kind == "missing mask"]
    if len(missing) == len(found):
        detail = f"{missing[0].detail} for {found.names[0]}"
        raise UserError(f"No image of {images} has a mask in {masks}: {detail}.")
    return found


def class_folder_samples(
    images: Place,
    masks: Place | None = None,
    *,
    model: nn.Module | None = None,
    classes: Mapping[str, int] | None = None,
    class_map: ClassMap | None = None,
    ignore: Place | None = None,
    names: Collection[str] | None = None,
    skip_bad: bool = False,
    check: bool = True,
    workers: int = 0,
    progress: Progress | None = None,
) -> tuple[ImageSet, list[Fault]]:
    """Samples for training: images in class folders, `images/CLASS/.../NAME.jpg`, with masks; and the faults left out.

    Files are found as `masked_folder` says. The class of a folder comes from `classes` {folder: index}, or from `model`
    and `class_map` (`class_index`). With `check`, every file is read once, in `workers` threads, before anything else;
    without it only names are compared. Faults are raised at once as FaultsError (a UserError with the list `.faults`);
    with `skip_bad`, bad samples are left out and their faults returned. Raises UserError when nothing is left.
    """
    root = Path(images)
    found, told = masked_folder(root, masks, ignore=ignore, names=names)
    faults = [fault for number, fault in told if number < 0]
    if names is None:
        if not len(found):
            raise FaultsError([Fault("no images", str(root), "expected FOLDER/CLASS/IMAGE")])
        faults += _empty_folders(root, set(found.groups or ()))
    faults += [fault for number, fault in told if number >= 0 and fault.kind == "one mask for several images"]
    loose = {number for number, name in enumerate(found.names) if "/" not in name}
    faults += [Fault("unknown class", str(root / found.names[number]), _NO_CLASS) for number in sorted(loose)]
    faults += [fault for number, fault in told if fault.kind == "missing mask" and number not in loose]
    matched = match_classes(_class_folders(root, found, class_map, names), model, classes or class_map)
    faults += [Fault("unknown class", str(root / folder), reason) for folder, reason in matched.unknown.items()]

    bad = loose | {number for number, _ in told}
    whole = found.subset([number for number in range(len(found)) if number not in bad])
    outcome: list[Fault | None] = [None] * len(whole)
    if check:  # images of unknown class, too: one list of all faults
        outcome = in_parallel(partial(check_files, whole), range(len(whole)), workers, progress)
        faults += [fault for fault in outcome if fault is not None]
    labels = [matched.classes.get(group, -1) for group in whole.groups or ()]
    kept = [number for number, label in enumerate(labels) if label >= 0 and outcome[number] is None]
    if faults and (not skip_bad or not kept):
        raise FaultsError(faults)
    return whole.relabelled(labels).subset(kept), faults


def check_files(images: ImageSet, index: int) -> Fault | None:
    """Read one sample's files in full; what is wrong with them, or None; None, too, of a set that has no files."""
    return None if images.files is None else read_pair(*images.files(index)).fault


def _read(files: Sequence[Files], names: Sequence[str], masks: Place | None, index: int) -> Sample:
    image, mask, region = files[index]
    if masks is None:
        values = read_alpha(image)
    elif mask is not None:
        values = read_mask(mask)
    else:
        wanted = _wanted(masks, names[index])
        raise FileError(image, f"has no mask {wanted}", f"it has no mask {wanted}")
    ignored = None if region is None else read_mask(region) > 0
    return Sample(read_image(image), values, -1, ignored, names[index])


def _wanted(masks: Any, name: str) -> Path:
    """Where the mask of an image should be."""
    return Path(masks) / PurePosixPath(name).with_suffix(".png")


def _named(root: Path, wanted: Collection[str]) -> tuple[list[str], list[str]]:
    """The images of these relative names, as the file system composes their accents, and the names of none."""
    found, absent = [], []
    for name in sorted(wanted):
        parts = PurePosixPath(name).parts
        inside = not PurePosixPath(name).is_absolute() and ".." not in parts
        there = next((form for form in _forms(name) if inside and (root / form).is_file()), None)
        if there is None:
            absent.append(name)
        else:
            found.append(PurePosixPath(there).as_posix())
    return found, absent


def _forms(name: str) -> tuple[str, str, str]:
    return name, plain(name), unicodedata.normalize("NFD", name)


def _class_folders(root: Path, found: ImageSet, class_map: ClassMap | None, names: Collection[str] | None) -> set[str]:
    """The class folders of the images; all that are there where the class map "sorted" counts them."""
    folders = set(found.groups or ()) - {""}
    if names is not None and class_map == "sorted":
        folders |= {path.name for path in root.iterdir() if path.is_dir() and is_visible(path.name)}
    return folders


def _empty_folders(root: Path, used: Collection[str]) -> list[Fault]:
    """Class folders without images, and links that lead nowhere."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() or _leads_nowhere(path))
    empty = [path for path in folders if path.name not in used and is_visible(path.name)]
    return [Fault("no images", str(path), _link(path)) for path in empty]


def _leads_nowhere(path: Path) -> bool:
    """Whether a link, to a folder as its name has no ending, has lost what it leads to."""
    return path.is_symlink() and not path.exists() and not path.suffix


def _link(folder: Path) -> str:
    """What there is to say of an empty class folder that is a link."""
    if not folder.is_symlink():
        return ""
    return f"a link to {os.readlink(folder)}" + (": each folder is read once" if folder.exists() else ", not there")
