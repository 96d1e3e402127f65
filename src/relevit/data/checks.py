"""Checking samples before any long work: every fault at once, with the files' names and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from relevit.errors import UserError
from relevit.images import read_alpha, read_image, read_mask

Kind = Literal[
    "unreadable image",
    "missing mask",
    "unreadable mask",
    "empty mask",
    "mask of another size",
    "unknown class",
    "no images",
    "one mask for several images",
    "several masks for one image",
    "missing image",
    "no masks",
    "several objects in one mask",
    "wrong class id",
    "bad annotation",
    "bad manifest",
    "bad sample",
]
Progress = Callable[[int, int], object]
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

REMEDIES: dict[str, str] = {
    "unreadable image": "replace or remove the files",
    "missing mask": "add a PNG of the same name to the folder of masks, or remove the image",
    "unreadable mask": "write masks as grey PNG, 0 for background and 255 for object",
    "empty mask": "mark the object (255), or remove the image",
    "mask of another size": "give masks the size of their images",
    "unknown class": "name class folders by wnid or class index, or give a class map",
    "no images": "put images into the folder, or remove it",
    "one mask for several images": "give each image of a folder a name of its own",
    "several masks for one image": "keep one of the masks",
    "missing image": "add the image, or remove what refers to it",
    "no masks": "put masks into the folder, or remove it",
    "several objects in one mask": "keep the id of the folder's class, set the other object to 0 or to 1000 (ignore)",
    "wrong class id": "move the file to the folder of its class, or mend its ids",
    "bad annotation": "mend or remove the annotation",
    "bad manifest": "mend its lines: each image once, for training or validation, of the label of its class or -1",
    "bad sample": "mend or leave out the samples",
}


class Fault(NamedTuple):
    """One thing wrong with the data: its kind, the file or folder, and the details (may be empty)."""

    kind: Kind
    file: str
    detail: str = ""


class FaultsError(UserError):
    """The data has faults; the message groups them by kind, `.faults` is the full list."""

    def __init__(self, faults: Sequence[Fault], shown: int = 20):
        super().__init__(describe(faults, shown))
        self.faults = list(faults)


def describe(faults: Sequence[Fault], shown: int = 20) -> str:
    """Faults grouped by kind: a heading with the count and the remedy, then at most `shown` files."""
    count = f"{len(faults)} fault{'s' if len(faults) != 1 else ''}"
    lines = [f"The samples have {count}; mend them, or leave the bad samples out with --skip-bad (skip_bad=True)."]
    for kind in dict.fromkeys(fault.kind for fault in faults):
        group = [fault for fault in faults if fault.kind == kind]
        lines.append(f"{kind} ({len(group)}): {REMEDIES[kind]}")
        lines += [f"  {fault.file}" + (f" ({fault.detail})" if fault.detail else "") for fault in group[:shown]]
        if len(group) > shown:
            lines.append(f"  ... and {len(group) - shown} more")
    return "\n".join(lines)


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
        return Pair(None, None, Fault("unreadable image", str(image), _reason(error, image)))
    try:
        values = read_alpha(image) if mask is None else read_mask(mask)
    except UserError as error:
        if mask is None:
            return Pair(picture, None, Fault("missing mask", str(image), _reason(error, image)))
        return Pair(picture, None, Fault("unreadable mask", str(mask), _reason(error, mask)))
    fault = None
    if values.shape != (picture.height, picture.width):
        fault = Fault("mask of another size", str(mask), _sizes(image, picture, values))
    elif not has_object(values):
        most = float(values.max(initial=0))
        detail = f"its highest value is {255 * most:.0f} of 255" if most > 0 else ""
        fault = Fault("empty mask", str(mask or image), detail)
    elif region is not None:
        fault = _check_region(image, picture, region)
    return Pair(picture, values, fault)


def _check_region(image: Path, picture: Image.Image, region: Path) -> Fault | None:
    try:
        ignored = read_mask(region)
    except UserError as error:
        return Fault("unreadable mask", str(region), _reason(error, region))
    if ignored.shape != (picture.height, picture.width):
        return Fault("mask of another size", str(region), _sizes(image, picture, ignored))
    return None


def check_pair(image: Path, mask: Path | None, region: Path | None = None) -> Fault | None:
    """What is wrong with one image and its mask (and its region to ignore), read in full, as `read_pair` does."""
    return read_pair(image, mask, region).fault


def has_object(mask: np.ndarray) -> bool:
    """Whether any pixel of a mask is at least half foreground."""
    return bool((mask >= 0.5).any())


def in_parallel(
    check: Callable[[Item], Outcome], items: Iterable[Item], workers: int = 0, progress: Progress | None = None
) -> list[Outcome]:
    """The outcome of `check` for every item, in their order; `workers` threads (decoding pictures frees the
    interpreter).

    `progress` is called with (done, total) after each.
    """
    listed = list(items)
    outcome: list[Outcome] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for found in pool.map(check, listed) if workers > 1 else map(check, listed):
            outcome.append(found)
            if progress is not None:
                progress(len(outcome), len(listed))
    return outcome


def _sizes(image: Path, picture: Image.Image, mask: np.ndarray) -> str:
    detail = f"{mask.shape[1]} x {mask.shape[0]}, its image {picture.width} x {picture.height}"
    with Image.open(image) as stored:
        turned = stored.size != picture.size
    return detail + (" upright, as its EXIF orientation says" if turned else "")


def _reason(error: UserError, path: Path) -> str:
    """The error's message without the file's name, which stands before it."""
    return str(error).removeprefix(f"{path} ").rstrip(".")
