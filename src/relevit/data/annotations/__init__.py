"""Masks in everyone's own formats: one table, one function each, that finds every picture with its mask.

A reader takes (source, images, class_list) and returns a Listing: what is there, by names alone, and what is wrong with
it; each mask is read when its entry's `read` is called. A further format is one file with one such function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from relevit.data.annotations.arrays import list_arrays
from relevit.data.annotations.coco import list_coco
from relevit.data.annotations.imagenet_s import MERGED, list_imagenet_s
from relevit.data.annotations.listing import Entry, FaultyMaskError, Foreground, Listing
from relevit.data.annotations.png import list_alpha, list_png
from relevit.data.annotations.published import list_published
from relevit.data.annotations.voc import list_voc
from relevit.data.reading import read_lines
from relevit.errors import UserError
from relevit.extensions import Table

__all__ = ["FORMATS", "MERGED", "Entry", "FaultyMaskError", "Foreground", "Listing", "list_masks"]

Reader = Callable[[Path, Path | None, Sequence[str] | None], Listing]
FORMATS = Table[Reader](
    "annotations",
    {
        "imagenet-s": list_imagenet_s,
        "png": list_png,
        "alpha": list_alpha,
        "coco": list_coco,
        "voc": list_voc,
        "numpy": list_arrays,
        "tokencut": list_published,
    },
)


def list_masks(
    format: str,
    source: str | Path,
    images: str | Path | None = None,
    class_list: str | Path | Sequence[str] | None = None,
) -> Listing:
    """Every picture with its mask, found by the reader of `format`, a name of FORMATS.

    images: the folder of pictures, where the format does not say where they are. class_list: the classes that are
    wanted, or a text file with one a line; see the readers for what else it tells them. Raises UserError for an unknown
    format, for files and folders that are not there, and where nothing at all is found.
    """
    if format not in FORMATS:
        raise UserError(f"There is no format {format!r} of masks: choose one of {', '.join(FORMATS)}.")
    source = Path(source)
    if not source.exists():
        raise UserError(f"There is no file or folder {source}: give the masks' place.")
    if images is not None and not Path(images).is_dir():
        raise UserError(f"There is no folder {images}: give the folder of pictures.")
    names = read_class_list(class_list) if isinstance(class_list, str | Path) else class_list
    listing = FORMATS[format](source, None if images is None else Path(images), names)
    if not listing.entries and not listing.faults:
        raise UserError(
            f"{source} holds no masks of the format {format}"
            + (f" ({'; '.join(listing.notes)})." if listing.notes else ".")
        )
    return listing


def read_class_list(path: str | Path) -> list[str]:
    """The classes in a text file, one a line. Raises UserError for an unreadable, empty or repetitive file."""
    names = [line.strip() for line in read_lines(path, "a list of classes, one a line")]
    if not names or len(set(names)) < len(names):
        what = "names a class twice" if names else "is empty"
        raise UserError(f"The list of classes {path} {what}: give a text file with one class a line.")
    return names
