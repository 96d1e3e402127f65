"""Masks of any format as the folders that fine-tuning takes: images/CLASS/NAME, masks/CLASS/NAME.png, ignore/..."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Bool
from PIL import Image

from relevit.data.annotations import Entry, FaultyMaskError, Foreground, list_masks
from relevit.data.checks import Progress, fault_of_size, in_parallel
from relevit.errors import Fault, FaultsError, UserError, reason_of
from relevit.files import atomic_folder
from relevit.images import read_image


class Converted(NamedTuple):
    """What was written: the number of images, of their classes, of those with ignored pixels; how many were left out by
    reason; the faults of those that are not there; notes of the format's reader."""

    images: int
    classes: int
    ignored: int
    left_out: dict[str, int]
    faults: list[Fault]
    notes: list[str]


class Examined(NamedTuple):
    """One entry, read in full: its foreground, or the fault, or the reason why it is to be left out."""

    foreground: Foreground | None
    fault: Fault | None = None
    left_out: str = ""
    written: bool = False


def convert_masks(
    format: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    class_list: Any = None,
    protocol: str = "standard",
    min_pixels: int | None = None,
    copy: bool = False,
    skip_bad: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> Converted:
    """Read masks of `format` (one of masks.formats.FORMATS) and write out/images, out/masks and out/ignore.

    Masks are PNG of 0 and 255. out/ignore has a PNG for each image with pixels that count for neither side, none where
    `protocol` is "paper", in which they count as background (the published setup). Images are symbolic links, or copies
    with `copy`. Masks of fewer than `min_pixels` object pixels are left out; None: see `fewest_pixels`.

    Every picture and mask is read in full. Raises FaultsError with all faults, before anything is in `out`; with
    `skip_bad`, bad ones are left out. Raises UserError where `out` exists or lies in `images`, or nothing is left to write.
    """
    check_new(out)
    if images is not None and Path(out).resolve().is_relative_to(Path(images).resolve()):
        raise UserError(f"{out} lies in the folder of pictures {images}: choose an --out of its own, beside it.")
    least = fewest_pixels(format, min_pixels)
    listing = list_masks(format, Path(source), None if images is None else Path(images), class_list)
    faults = [Fault(*cast(Any, problem)) for problem in listing.problems]
    out = Path(os.path.abspath(out))
    with atomic_folder(out) as folder:

        def one(entry: Entry) -> Examined:
            found = examine(entry, least)
            if found.foreground is not None:
                ignore = found.foreground.ignore if protocol == "standard" else None
                _write(folder, entry, found.foreground.mask, ignore, copy)
            # the planes of a whole data set would fill the memory
            return found._replace(foreground=None, written=found.foreground is not None)

        outcome = in_parallel(one, listing.entries, workers, progress)
        faults += [found.fault for found in outcome if found.fault is not None]
        written = [entry for entry, found in zip(listing.entries, outcome, strict=True) if found.written]
        left_out = Counter(found.left_out for found in outcome if found.left_out)
        if faults and not (skip_bad and written):
            raise FaultsError(faults)
        if not written:
            raise UserError(f"Nothing is left of {source}: " + "; ".join(f"{n} {why}" for why, n in left_out.items()))
        ignored = sum(1 for _ in folder.glob("ignore/**/*.png"))
    classes = len({entry.class_name for entry in written})
    return Converted(len(written), classes, ignored, dict(left_out), faults, listing.notes)


def fewest_pixels(format: str, min_pixels: int | None) -> int:
    """The least object pixels of a mask that is taken: `min_pixels`, by default 520 for the published TokenCut masks and
    any number for annotated ones (protocol, "Automatic masks": the paper's rule is for automatic masks only)."""
    if min_pixels is not None:
        return min_pixels
    return 520 if format == "tokencut" else 0


def examine(entry: Entry, min_pixels: int = 0) -> Examined:
    """Read an entry's picture and mask in full and check them."""
    try:
        picture = read_image(entry.image)
    except UserError as error:
        return Examined(None, Fault("unreadable image", str(entry.image), reason_of(error)))
    try:
        found = entry.read()
    except FaultyMaskError as error:
        return Examined(None, Fault(*cast(Any, error.problem)))
    except UserError as error:
        return Examined(None, Fault("unreadable mask", str(entry.source), reason_of(error)))
    fault = fault_of_size(found.mask, entry.source, entry.image, picture)
    if fault is not None:
        return Examined(None, fault)
    if found.left_out:
        return Examined(None, None, found.left_out)
    pixels = int(found.mask.sum())
    if pixels < min_pixels:
        return Examined(None, None, f"of fewer than {min_pixels} pixels")
    if not pixels:
        return Examined(None, Fault("empty mask", str(entry.source), f"of {entry.name}"))
    return Examined(found)


def check_new(path: str | os.PathLike[str]) -> None:
    """Raises UserError for a place where something is already: nothing is overwritten."""
    place = Path(path)
    if place.is_symlink() or place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise UserError(f"{place} is there already: give another --out, or remove it.")


def _write(folder: Path, entry: Entry, mask: np.ndarray, ignore: np.ndarray | None, copy: bool) -> None:
    image = folder / "images" / entry.name
    image.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copyfile(entry.image, image)
    else:
        image.symlink_to(os.path.abspath(entry.image))
    for kind, plane in (("masks", mask), ("ignore", ignore)):
        if plane is not None:
            _write_png((folder / kind / entry.name).with_suffix(".png"), plane)


def _write_png(path: Path, plane: Bool[np.ndarray, "height width"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(plane.astype(np.uint8) * 255).save(path)
