"""Plain mask pictures in class folders, and pictures whose alpha channel is the mask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from relevit.data.annotations.listing import Entry, Foreground, Listing, folder_of, in_class_folders, once
from relevit.data.listing import list_images
from relevit.errors import Fault
from relevit.images import EXTENSIONS, label_mask, read_alpha, read_label_map, read_mask


def read_png(path: Path) -> Foreground:
    """A mask picture: grey of 0/255, 0/1 or 16 bits (at least half is object), alpha, or a palette's label map, whose
    indices other than 0 are object and 255 (void) is ignored. Raises UserError as `images.read_mask`."""
    labels = read_label_map(path)
    if labels is None:
        return Foreground(read_mask(path) >= 0.5)
    mask, void = label_mask(labels)
    return Foreground(mask, void if void.any() else None)


def list_png(source: Path, images: Path | None, class_list: Sequence[str] | None) -> Listing:
    """Masks SOURCE/CLASS/NAME.png of the pictures IMAGES/CLASS/NAME.*; without `images`, NAME.png lies beside NAME.jpg."""
    return in_class_folders(source, images, {".png"}, read_png, class_list)


def list_alpha(source: Path, images: Path | None, class_list: Sequence[str] | None) -> Listing:
    """Pictures SOURCE/CLASS/NAME.* that have an alpha channel; `images` is not needed."""
    root = folder_of(source)
    entries: list[Entry] = []
    faults: list[Fault] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if class_list is not None and folder.name not in class_list:
            continue
        files = list_images(folder)
        if not files:
            faults.append(Fault("no images", str(folder)))
        entries += [
            Entry(folder.name, file.relative_to(root).as_posix(), file, file, partial(_read_alpha, file))
            for file in files
        ]
    stray = [path for path in sorted(root.iterdir()) if path.is_file() and path.suffix.lower() in EXTENSIONS]
    faults += [Fault("unknown class", str(path), "it lies in no class folder") for path in stray]
    return once(entries, faults, [])


def _read_alpha(path: Path) -> Foreground:
    return Foreground(read_alpha(path) >= 0.5)
