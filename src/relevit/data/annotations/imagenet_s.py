"""ImageNet-S (Gao et al., 2022): PNG masks in wnid folders, whose pixels hold class ids, R + 256 G.

0 is other, 1000 is ignore; the published setup counts the ignored pixels as background. One object id per file, which is
the 1-based index of the folder's wnid in the sorted list of all 919 folders. Merged classes are left out: five of them
have folders, 914 classes remain (protocol, "Training data").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int

from relevit.data.annotations.listing import FaultyMaskError, Foreground, Listing, in_class_folders
from relevit.data.listing import list_images
from relevit.data.pairing import plain
from relevit.errors import Fault, UserError
from relevit.images import read_image

OTHER, IGNORE = 0, 1000
CLASSES = 919
MERGED = frozenset(
    "n04356056 n04355933 n04493381 n02808440 n03642806 n03832673 n04008634 n03773504 n03887697 n15075141".split()
)
_SUFFIX = "-segmentation"
_PARTS = ("train-semi-segmentation", "validation-segmentation")


def read_class_ids(path: Path) -> Int[np.ndarray, "height width"]:
    """The class id of every pixel. Raises UserError for an unreadable file."""
    channels = np.asarray(read_image(path)).astype(np.int64)  # (height, width, 3)
    return channels[..., 0] + 256 * channels[..., 1]


def read_imagenet_s(path: Path, expected: int | None = None) -> Foreground:
    """The object and the ignored pixels of one file.

    Raises FaultyMaskError where it has several object ids, or another one than `expected`; UserError if unreadable.
    """
    ids = read_class_ids(path)
    objects = [int(one) for one in np.unique(ids) if one not in (OTHER, IGNORE)]
    if len(objects) > 1:
        detail = f"it has the ids {', '.join(map(str, objects))}" + _should(expected, path)
        raise FaultyMaskError("several objects in one mask", path, detail)
    if objects and expected is not None and objects[0] != expected:
        raise FaultyMaskError("wrong class id", path, f"it has the id {objects[0]}" + _should(expected, path))
    ignored = ids == IGNORE
    return Foreground((ids != OTHER) & ~ignored, ignored if ignored.any() else None)


def list_imagenet_s(source: Path, images: Path | None, class_list: Sequence[str] | None) -> Listing:
    """SOURCE/WNID/NAME.png and IMAGES/WNID/NAME.JPEG; SOURCE may also be the folder ImageNetS919 itself.

    Without `images`, the pictures are looked for where the data set has them, beside the masks (train-semi beside
    train-semi-segmentation). `class_list` names the wnids that are wanted. Where these are all 919 of the data set, the
    ids follow from them; else from the tree's own folders, if there are 919; else each folder's id is that of its first
    mask, and ids must grow with the wnids.
    """
    masks = next((source / part for part in _PARTS if (source / part).is_dir()), source)
    if images is None:
        images = masks.parent / masks.name.removesuffix(_SUFFIX)
        if images == masks or not images.is_dir():
            raise UserError(f"The pictures of {masks} are not beside it: give their folder by --images (images=...).")
    folders = sorted(path.name for path in masks.iterdir() if path.is_dir() and not path.name.startswith("."))
    faults: list[Fault] = []
    notes: list[str] = []
    whole = [sorted(names) for names in (class_list or (), folders) if len(names) == CLASSES]
    if whole:
        ids = {wnid: place for place, wnid in enumerate(whole[0], start=1)}
    else:
        folders = [folder for folder in folders if class_list is None or folder in class_list]
        ids = _first_ids([masks / folder for folder in folders], faults)
        notes.append(
            f"ids were compared within the {len(folders)} folders only: they follow from the list of all {CLASSES} wnids "
            "(--class-list)"
        )
    merged = [folder for folder in folders if folder in MERGED]
    if merged:
        notes.append(f"{len(merged)} merged classes are left out: {' '.join(merged)}")
    wanted = {folder for folder in folders if folder not in MERGED and (class_list is None or folder in class_list)}
    found = in_class_folders(masks, images, {".png"}, partial(_checked, root=masks, ids=ids), wanted)
    return Listing(found.entries, [*found.faults, *faults], notes)


def _checked(path: Path, root: Path, ids: Mapping[str, int]) -> Foreground:
    return read_imagenet_s(path, ids.get(path.relative_to(root).parts[0]))


def _first_ids(folders: Sequence[Path], faults: list[Fault]) -> dict[str, int]:
    """The one id of the first mask of each folder that has just one, and a fault where ids do not grow with wnids."""
    ids: dict[str, int] = {}
    before: tuple[str, int] | None = None
    for folder in folders:
        for path in list_images(folder, {".png"}):
            try:
                objects = set(np.unique(read_class_ids(path)).tolist()) - {OTHER, IGNORE}
            except UserError:  # told when it is converted
                continue
            if len(objects) == 1:
                ids[folder.name] = objects.pop()
                break
        if folder.name in ids:
            if before is not None and ids[folder.name] <= before[1]:
                detail = f"its id is {ids[folder.name]}, that of {before[0]}, an earlier wnid, is {before[1]}"
                faults.append(Fault("wrong class id", str(folder), detail))
            before = folder.name, ids[folder.name]
    return {plain(name): number for name, number in ids.items()}


def _should(expected: int | None, path: Path) -> str:
    return f", {path.parent.name} is {expected}" if expected is not None else ""
