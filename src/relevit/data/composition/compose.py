"""Objects on other backgrounds: a picture without its object, an object cut out, and an object on another picture.

`fill_object` covers the object with the picture itself, shifted: real texture at the real scale. What the shift cannot
cover is painted in from its surroundings (OpenCV's inpainting). A `Cutout` carries its colours multiplied by alpha, so
that what lies in its transparent pixels never shows, however it is resized and turned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from relevit.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Num, UInt8

_STEPS = 8  # shifts by multiples of an eighth of the picture's height and width
_SEARCH_SIDE = 64  # the shift is searched on a mask of at most this many pixels a side
_VISIBLE = 0.02  # alpha below this is no part of an object's bounding box
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


def box_around(mask: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """The bounding box of the object (mask > 0) as a mask: filled instead of the object, it leaves no outline of it."""
    rows, columns = np.flatnonzero((mask > 0).any(1)), np.flatnonzero((mask > 0).any(0))
    box = np.zeros(mask.shape, np.float32)
    if len(rows):
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1
    return box


def blend(
    foreground: Num[np.ndarray, "#height #width 3"],
    alpha: Float[np.ndarray, "height width"],
    background: Num[np.ndarray, "#height #width 3"],
) -> Float[np.ndarray, "height width 3"]:
    """`foreground` where alpha is 1, `background` where it is 0, mixed in between; in their units, not rounded."""
    return alpha[..., None] * foreground + (1 - alpha[..., None]) * background


def paste(
    image: UInt8[np.ndarray, "height width 3"],
    mask: Float[np.ndarray, "height width"],
    background: UInt8[np.ndarray, "any_height any_width 3"],
) -> UInt8[np.ndarray, "height width 3"]:
    """The object of `image` on `background`, mixed by the soft mask; the background is resized to fit."""
    height, width = mask.shape
    if background.shape[:2] != (height, width):
        background = cv2.resize(background, (width, height), interpolation=cv2.INTER_AREA)
    return np.round(blend(image, mask.astype(np.float32), background)).astype(np.uint8)


class Cutout(NamedTuple):
    """An object: colour (height, width, 3) in 0 to 255, multiplied by alpha, and alpha (height, width) in [0, 1]; float32."""

    color: np.ndarray
    alpha: np.ndarray


def cut_out(image: UInt8[np.ndarray, "height width 3"], mask: Float[np.ndarray, "height width"]) -> Cutout:
    """The object of a picture, at its place. A mask of 0 and 1 alone is softened inwards by a pixel, so that nothing of
    the old background comes along: its edge keeps 3/4, a line of one pixel 1/2."""
    alpha = mask.astype(np.float32)
    if not ((alpha > 0) & (alpha < 1)).any():
        alpha = alpha * cv2.GaussianBlur(alpha, (3, 3), 0, borderType=cv2.BORDER_REPLICATE)
    return Cutout(image * alpha[..., None], alpha)


def cropped(cutout: Cutout) -> Cutout:
    """The object's bounding box and a transparent rim of one pixel, for soft edges when it is resized or turned."""
    seen = cutout.alpha >= _VISIBLE
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if not len(rows):
        raise ValueError("an object without any visible pixel")
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return Cutout(np.pad(cutout.color[box], ((1, 1), (1, 1), (0, 0))), np.pad(cutout.alpha[box], 1))


def resize(values: Num[np.ndarray, "height width *channels"], shape: tuple[int, int]) -> np.ndarray:
    """A picture, mask or colour plane at another size (height, width): by area where it shrinks, else bilinearly."""
    if values.shape[:2] == tuple(shape):
        return values
    shrinks = shape[0] <= values.shape[0] and shape[1] <= values.shape[1]
    return cv2.resize(values, shape[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def cover(
    picture: UInt8[np.ndarray, "any_height any_width 3"], shape: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture resized until it just covers `shape` (height, width), the aspect kept, and cropped at the centre."""
    factor = max(shape[0] / picture.shape[0], shape[1] / picture.shape[1])
    height, width = (max(want, round(side * factor)) for want, side in zip(shape, picture.shape[:2], strict=True))
    top, left = (height - shape[0]) // 2, (width - shape[1]) // 2
    return resize(picture, (height, width))[top : top + shape[0], left : left + shape[1]]


def turned(cutout: Cutout, angle: float) -> Cutout:
    """The object turned about its centre by `angle` degrees, counterclockwise as one looks at it, on a canvas that holds
    it whole; bilinear, quarter turns to the bit."""
    if angle % 90 == 0:
        turns = round(angle / 90) % 4
        return Cutout(*(np.ascontiguousarray(np.rot90(values, turns)) for values in cutout))
    height, width = cutout.alpha.shape
    c, s = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    new_width, new_height = math.ceil(width * c + height * s), math.ceil(width * s + height * c)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    matrix[:, 2] += (new_width - width) / 2, (new_height - height) / 2
    return Cutout(*(cv2.warpAffine(values, matrix, (new_width, new_height)) for values in cutout))


def scaled(cutout: Cutout, scale: float) -> Cutout:
    """The object with both sides times `scale`, to whole pixels and at least one."""
    height, width = (max(1, round(side * scale)) for side in cutout.alpha.shape)
    return Cutout(*(resize(values, (height, width)) for values in cutout))


def scale_for(cutout: Cutout, area: float, pixels: int) -> float:
    """The scale at which the object (the sum of its alpha) covers the share `area` of a picture of `pixels` pixels."""
    return math.sqrt(area * pixels / float(cutout.alpha.sum(dtype=np.float64)))


def put(
    cutout: Cutout, background: UInt8[np.ndarray, "height width 3"], x: float, y: float
) -> tuple[UInt8[np.ndarray, "height width 3"], Float[np.ndarray, "height width"]]:
    """The object over a picture, the centre of its canvas at (x, y), shares of width and height from the top left
    corner, to the nearest pixel; and its mask. What lies beyond the border is cut off."""
    (height, width), (h, w) = background.shape[:2], cutout.alpha.shape
    top, left = math.floor(y * height - h / 2 + 0.5), math.floor(x * width - w / 2 + 0.5)
    first, last = max(top, 0), max(min(top + h, height), 0)
    begin, end = max(left, 0), max(min(left + w, width), 0)
    mask, mixed = np.zeros((height, width), np.float32), background.astype(np.float32)
    if first < last and begin < end:
        here, there = (
            (slice(first, last), slice(begin, end)),
            (slice(first - top, last - top), slice(begin - left, end - left)),
        )
        mask[here] = cutout.alpha[there]
        mixed[here] = cutout.color[there] + (1 - mask[here][..., None]) * mixed[here]
    return np.round(mixed).astype(np.uint8), mask


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
