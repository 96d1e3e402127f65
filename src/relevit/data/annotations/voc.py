"""Pascal VOC segmentation by class: palette PNG whose index is the class, 255 void, beside flat JPEG pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from relevit.data.annotations.listing import Entry, Foreground, Listing, class_folder, folder_of, matched, once
from relevit.data.listing import image_names, list_images
from relevit.data.pairing import pair
from relevit.errors import Fault, UserError, reason_of
from relevit.images import VOID, read_labels

CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor"
).split()


def list_voc(source: Path, images: Path | None, class_list: Sequence[str] | None) -> Listing:
    """SOURCE/SegmentationClass/NAME.png and SOURCE/JPEGImages/NAME.jpg, or the folder of PNG files and `images`.

    One entry for each picture and class in it: pixels of the class are object, void is ignored, all others are
    background. `class_list` names the classes 1, 2, ... where they are not the 20 of Pascal VOC.
    """
    root = folder_of(source)
    masks = root / "SegmentationClass" if (root / "SegmentationClass").is_dir() else root
    if images is None:
        images = masks.parent / "JPEGImages"
        if not images.is_dir():
            raise UserError(f"There is no folder {images}: give the folder of pictures by --images (images=...).")
    pairing = pair(image_names(images), list_images(masks, {".png"}), masks)
    names = list(class_list) if class_list is not None else CLASSES
    entries: list[Entry] = []
    faults: list[Fault] = []
    blank = 0
    for path, picture in matched(pairing, images, faults):
        try:
            present = np.unique(read_labels(path))
        except UserError as error:
            faults.append(Fault("unreadable mask", str(path), reason_of(error)))
            continue
        indices = [int(index) for index in present if index not in (0, VOID)]
        blank += not indices
        for index in indices:
            if index > len(names):
                faults.append(Fault("wrong class id", str(path), f"index {index} of {len(names)} classes"))
                continue
            folder = class_folder(names[index - 1], index)
            entry = Entry(folder, f"{folder}/{picture}", images / picture, path, _reader(path, index))
            entries.append(entry)
    return once(entries, faults, [f"{blank} pictures show none of the classes"] if blank else [])


def _reader(path: Path, index: int) -> Callable[[], Foreground]:
    def read() -> Foreground:
        labels = read_labels(path)
        void = labels == VOID
        return Foreground(labels == index, void if void.any() else None)

    return read
