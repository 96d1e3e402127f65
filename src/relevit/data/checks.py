"""Checking samples before any long work: every fault at once, with the files' names and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from relevit.errors import Fault, UserError
from relevit.images import read_alpha, read_image, read_mask

Progress = Callable[[int, int], object]
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
