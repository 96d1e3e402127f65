"""What one image and its mask look like, beyond right or wrong: how they are stored, where the foreground lies.

Nothing here is a fault; `relevit doctor` makes warnings of these figures.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from relevit.data.checks import read_pair
from relevit.errors import Fault

_ORIENTATION = 0x0112  # of EXIF
_PLAIN = (0.05, 0.95)  # outside these a mask's value is background or foreground, between them it is soft
_IDS = 25.5 / 255  # numbers of classes or objects seldom reach it, and foreground never lies below it


class ImageFigures(NamedTuple):
    """size: (width, height) upright. traits: how the file is stored, where that is not 8-bit RGB. digest: of the pixels
    as a model sees them."""

    size: tuple[int, int]
    traits: tuple[str, ...]
    digest: bytes


class MaskFigures(NamedTuple):
    """What a mask covers; foreground is what is at least one half.

    pixels: of foreground. share: of the picture, so are all others. border: foreground's share of the outermost pixels.
    centre: its share of the middle ninth. soft: share of the soft pixels (0.05 to 0.95) among those that are not
    background. ids: share of the pixels above 0 that are as small as class ids (0 to 25 of 255). digest: of values and
    size.
    """

    pixels: int
    share: float
    border: float
    centre: float
    soft: float
    ids: float
    digest: bytes


class Inspected(NamedTuple):
    """One pair; figures are None where the file cannot be read."""

    fault: Fault | None
    image: ImageFigures | None
    mask: MaskFigures | None


def inspect_pair(image: Path, mask: Path | None, region: Path | None = None) -> Inspected:
    """Read an image and its mask once (`mask` None: the image's alpha channel) and measure them.

    region: a picture of the pixels to ignore; it is checked only.
    """
    picture, values, fault = read_pair(image, mask, region)
    seen = None
    if picture is not None:
        digest = hashlib.blake2b(f"{picture.size}".encode() + picture.tobytes(), digest_size=16).digest()
        seen = ImageFigures(picture.size, stored_traits(image), digest)
    return Inspected(fault, seen, None if values is None or values.size == 0 else mask_figures(values))


def mask_figures(mask: Float[np.ndarray, "height width"]) -> MaskFigures:
    """The figures of a mask with values in [0, 1]."""
    height, width = mask.shape
    foreground = mask >= 0.5
    rows, columns = slice(height // 3, max(1, height - height // 3)), slice(width // 3, max(1, width - width // 3))
    marked, above_zero = mask > _PLAIN[0], mask > 0
    return MaskFigures(
        pixels=int(foreground.sum()),
        share=float(foreground.mean()),
        border=border_share(foreground),
        centre=float(foreground[rows, columns].mean()),
        soft=_share(marked & (mask < _PLAIN[1]), marked),
        ids=_share(above_zero & (mask < _IDS), above_zero),
        digest=hashlib.blake2b(f"{mask.shape}".encode() + mask.tobytes(), digest_size=16).digest(),
    )


def border_share(mask: Bool[np.ndarray, "height width"]) -> float:
    """The share of the outermost pixels, each counted once, that a mask covers; 0 of a mask without pixels."""
    outermost = np.ones(mask.shape, dtype=bool)
    outermost[1:-1, 1:-1] = False
    return float(mask[outermost].mean()) if mask.size else 0.0


def stored_traits(path: Path) -> tuple[str, ...]:
    """How a readable picture is stored, by its header: all of this is handled when it is read."""
    traits = []
    with Image.open(path) as picture:
        mode = picture.mode
        if mode in ("1", "L", "LA") or mode.startswith("I"):
            traits.append("grey")
        if mode.startswith("I"):
            traits.append("16 bits")
        if mode == "CMYK":
            traits.append("CMYK")
        if mode in ("P", "PA"):
            traits.append("palette")
        if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
            traits.append("alpha channel")
        if picture.format != "MPO" and getattr(picture, "is_animated", False):
            traits.append("animated")
        try:
            turned = picture.getexif().get(_ORIENTATION, 1) in range(2, 9)
        except Exception:  # damaged EXIF data: the picture is read as it is stored
            turned = False
        if turned:
            traits.append("turned by EXIF")
    return tuple(traits)


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / max(1, whole.sum()))
