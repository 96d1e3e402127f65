"""Objects on other backgrounds: a picture without its object, and an object pasted onto another picture.

`fill_object` covers the object with the picture itself, shifted: real texture at the real scale. What the shift cannot
cover is painted in from its surroundings (OpenCV's inpainting).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from relevit.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

_STEPS = 8  # shifts by multiples of an eighth of the picture's height and width
_SEARCH_SIDE = 64  # the shift is searched on a mask of at most this many pixels a side
_CACHED = 2000  # filled backgrounds are kept in memory for data sets of at most this many samples


def as_picture(image: Any) -> UInt8[np.ndarray, "height width 3"]:
    """A PIL image or a uint8 array (height, width, 3) as an array. Raises UserError for anything else."""
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return image
    kind = f"{type(image).__name__} of {getattr(image, 'dtype', 'unknown type')}, {getattr(image, 'shape', '?')}"
    raise UserError(
        f"objects can be put on other backgrounds only in pictures (PIL images or uint8 arrays of height x width x 3), "
        f"not in a {kind}: give pictures, or use a method without background swap"
    )


def _shifted(values: np.ndarray, down: int, right: int, outside: Any) -> np.ndarray:
    """`values` moved by whole pixels; what comes in from beyond the border is `outside`."""
    height, width = values.shape[:2]
    moved = np.full_like(values, outside)
    if abs(down) < height and abs(right) < width:
        target = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
        source = slice(max(-down, 0), height + min(-down, 0)), slice(max(-right, 0), width + min(-right, 0))
        moved[target] = values[source]
    return moved


def best_shift(covered: np.ndarray) -> tuple[float, float]:
    """The shift, as shares of height and width, that leaves least of the object uncovered; the shorter on a tie.

    covered: bool (height, width), True where the object is.
    """
    height, width = covered.shape
    scale = min(1.0, _SEARCH_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(covered.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    grid = sorted(
        (down * down + right * right, down, right)
        for down in range(-_STEPS + 1, _STEPS)
        for right in range(-_STEPS + 1, _STEPS)
        if (down, right) != (0, 0)
    )
    best, fewest = (0.0, 0.0), int(small.sum()) + 1
    for _, down, right in grid:
        share = down / _STEPS, right / _STEPS
        moved = _shifted(small, round(share[0] * small.shape[0]), round(share[1] * small.shape[1]), True)
        left = int((small & moved).sum())
        if left < fewest:
            best, fewest = share, left
            if left == 0:
                break
    return best


def fill_object(
    image: UInt8[np.ndarray, "height width 3"], mask: Float[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The background of a picture: the object (mask > 0, and a rim of about 1% of the picture) replaced.

    The replacement is the picture itself moved by `best_shift`; pixels that stay uncovered are painted in from their
    surroundings. A picture that is all object becomes a plane of its mean colour.
    """
    if mask.shape != image.shape[:2]:
        raise UserError(f"the mask is {mask.shape} but the picture is {image.shape[:2]}: both must be (height, width)")
    rim = 2 * max(1, round(max(mask.shape) / 100)) + 1
    covered = cv2.dilate((mask > 0).astype(np.uint8), np.ones((rim, rim), np.uint8)).astype(bool)
    if not covered.any():
        return image.copy()
    if covered.all():
        return np.broadcast_to(np.round(image.mean((0, 1))).astype(np.uint8), image.shape).copy()
    share = best_shift(covered)
    down, right = round(share[0] * mask.shape[0]), round(share[1] * mask.shape[1])
    from_shift = covered & ~_shifted(covered, down, right, True)
    filled = np.where(from_shift[..., None], _shifted(image, down, right, 0), image)
    left = covered & ~from_shift
    if left.any():
        filled = cv2.inpaint(np.ascontiguousarray(filled), left.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    return filled


def paste(
    image: UInt8[np.ndarray, "height width 3"],
    mask: Float[np.ndarray, "height width"],
    background: UInt8[np.ndarray, "any_height any_width 3"],
) -> UInt8[np.ndarray, "height width 3"]:
    """The object of `image` on `background`, mixed by the soft mask; the background is resized to fit."""
    height, width = mask.shape
    if background.shape[:2] != (height, width):
        background = cv2.resize(background, (width, height), interpolation=cv2.INTER_AREA)
    alpha = mask[..., None].astype(np.float32)
    return np.round(alpha * image + (1 - alpha) * background).astype(np.uint8)


class Backgrounds:
    """The filled backgrounds of a data set's samples, by index; kept once made where the data set is small."""

    def __init__(self, samples: Sequence[Any] | Any) -> None:
        self._samples = samples
        self._kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        if index in self._kept:
            return self._kept[index]
        image, mask, *_ = self._samples[index]
        filled = fill_object(as_picture(image), np.asarray(mask, np.float32))
        if len(self) <= _CACHED:
            self._kept[index] = filled
        return filled
