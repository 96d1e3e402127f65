"""One picture's part of an automatic mask, without torch: its sizes, and the way from cut patches to the final mask."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from relevit.masking.bilateral_solver import refine_mask
from relevit.masking.quality import Quality, mask_quality

OBJECT, NO_OBJECT = "object", "no object found"
MAX_SIDE = 512  # pixels of the long side that the backbone sees at most: the graph grows with the fourth power
Seen = tuple[np.ndarray, tuple[float, float]]  # the object's patches, and eigenvalues: the backbone's share of a mask
_MOST_PIXELS = 2_000_000  # larger pictures are refined at about this many, and the mask is enlarged
_LEAST_PATCHES = 2  # along each side: nothing can be cut in a single row


class AutomaticMask(NamedTuple):
    """A mask without annotation. mask, coarse: refined and as cut, at the picture's own size, True on the object.

    outcome: "object", or "no object found" where nothing was cut or nothing is left of it; `mask` is then empty.
    """

    mask: Bool[np.ndarray, "height width"]
    coarse: Bool[np.ndarray, "height width"]
    quality: Quality
    outcome: str


def working_size(width: int, height: int, size: int | None) -> tuple[int, int]:
    """The size (width, height) at which a picture is refined: its own, or with the short side `size`, as published.

    Pictures of more than two million pixels are made smaller to about that many.
    """
    factor = 1.0 if size is None else size / min(width, height)
    factor = min(factor, (_MOST_PIXELS / (width * height)) ** 0.5)
    if factor == 1.0:
        return width, height
    return max(1, round(width * factor)), max(1, round(height * factor))


def backbone_size(
    width: int, height: int, patch: tuple[int, int], *, size: int | None = None, max_side: int = MAX_SIDE
) -> tuple[int, int]:
    """The size (width, height) at which the backbone sees a picture: the working size, each side rounded to the nearest
    multiple of the patch (height, width), as published; where the long side would be above `max_side`, it is made
    smaller first."""
    width, height = working_size(width, height, size)
    factor = min(1.0, max_side / max(width, height))
    down, right = patch
    columns = max(_LEAST_PATCHES, int(width * factor / right + 0.5))
    rows = max(_LEAST_PATCHES, int(height * factor / down + 0.5))
    return columns * right, rows * down


def backbone_view(
    picture: Image.Image, patch: tuple[int, int], *, size: int | None = None, max_side: int = MAX_SIDE
) -> UInt8[np.ndarray, "height width 3"]:
    """The picture (RGB) as the backbone sees it, before normalisation; resized by Lanczos's filter."""
    picture = _resized(picture, working_size(*picture.size, size))
    goal = backbone_size(*picture.size, patch, max_side=max_side)
    return np.array(_resized(picture, goal))


def finished_mask(
    picture: Image.Image,
    patches: Bool[np.ndarray, "rows cols"],
    eigenvalues: tuple[float, float],
    *,
    refine: bool = True,
    size: int | None = None,
) -> AutomaticMask:
    """The mask of a picture (RGB) whose graph was cut into `patches`, True on the object.

    The patches are enlarged to the working size by the nearest one, refined there by the bilateral solver (not without
    `refine`), and enlarged to the picture's own size where that is another. A refined mask whose IoU with the coarse
    one is below 0.5 is dropped by the published rule; here it is kept with a confidence of 0 (see `quality`).
    """
    small = _resized(picture, working_size(*picture.size, size))
    coarse = _enlarged(patches, small.size)
    refined = refine_mask(np.asarray(small), coarse).mask if refine and patches.any() else coarse
    quality = mask_quality(eigenvalues, coarse, refined)
    outcome = OBJECT if refined.any() else NO_OBJECT
    return AutomaticMask(_enlarged(refined, picture.size), _enlarged(coarse, picture.size), quality, outcome)


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def _enlarged(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (rows, columns) at `size` (width, height), every pixel as the nearest one."""
    if (mask.shape[1], mask.shape[0]) == size:
        return mask
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)).astype(bool)
