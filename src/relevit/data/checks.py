"""Checking samples before any long work: every fault at once, with the files' names and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from relevit.errors import Fault, Kind, UserError, reason_of
from relevit.images import read_alpha, read_image, read_mask

Progress = Callable[[int, int], object]  # told of how many more items are done, and how many there are in all
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Pair(NamedTuple):
    """An image, its mask (height, width) in [0, 1], and what is wrong with them; None where there is no such thing."""

    picture: Image.Image | None
    mask: np.ndarray | None
    fault: Fault | None


def read_pair(image: Path, mask: Path | None, region: Path | None = None) -> Pair:
    """One image and its mask, read in full and checked; `mask` None means the alpha channel of the image.

    region: a picture of the pixels to ignore, checked, too; it may be empty.
    """
    try:
        picture = read_image(image)
    except UserError as error:
        return Pair(None, None, Fault("unreadable image", str(image), reason_of(error)))
    try:
        values = read_alpha(image) if mask is None else read_mask(mask)
    except UserError as error:
        kind: Kind = "missing mask" if mask is None else "unreadable mask"
        return Pair(picture, None, Fault(kind, str(mask or image), reason_of(error)))
    fault = fault_of_mask(values, mask or image, image, picture)
    if fault is None and region is not None:
        try:
            fault = fault_of_size(read_mask(region), region, image, picture)
        except UserError as error:
            fault = Fault("unreadable mask", str(region), reason_of(error))
    return Pair(picture, values, fault)


def fault_of_mask(mask: np.ndarray, source: Path, image: Path, picture: Image.Image) -> Fault | None:
    """What is wrong with a mask (height, width) that was read from `source` for a picture of the file `image`."""
    fault = fault_of_size(mask, source, image, picture)
    if fault is not None or has_object(mask):
        return fault
    most = float(mask.max(initial=0))
    return Fault("empty mask", str(source), f"its highest value is {255 * most:.0f} of 255" if most > 0 else "")


def fault_of_size(mask: np.ndarray, source: Path, image: Path, picture: Image.Image) -> Fault | None:
    """A mask or a region to ignore that has another size than its picture."""
    if mask.shape == (picture.height, picture.width):
        return None
    detail = f"{mask.shape[1]} x {mask.shape[0]}, its image {picture.width} x {picture.height}"
    with Image.open(image) as stored:
        turned = stored.size != picture.size
    detail += " upright, as its EXIF orientation says" if turned else ""
    return Fault("mask of another size", str(source), detail)


def has_object(mask: np.ndarray) -> bool:
    """Whether any pixel of a mask is at least half foreground."""
    return bool((mask >= 0.5).any())


def in_parallel(
    check: Callable[[Item], Outcome], items: Iterable[Item], workers: int = 0, progress: Progress | None = None
) -> list[Outcome]:
    """The outcome of `check` for every item, in their order; `workers` threads (decoding pictures frees the
    interpreter).

    `progress` is called with (1, total) after each.
    """
    listed = list(items)
    outcome: list[Outcome] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for found in pool.map(check, listed) if workers > 1 else map(check, listed):
            outcome.append(found)
            if progress is not None:
                progress(1, len(listed))
    return outcome
