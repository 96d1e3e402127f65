"""Arrays as small pictures: relevance maps in colour over the grey image, mask outlines, PNG data URIs."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from matplotlib import colormaps
from PIL import Image

COLOUR_MAP = "inferno"  # perceptually uniform, and its lightness alone tells the order
STRENGTH = 0.62  # of the colours over the grey image


def colour(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Values in [0, 1] (clipped; what is not a number counts as 0) to RGB in [0, 1]."""
    return colormaps[COLOUR_MAP](np.clip(np.nan_to_num(values), 0.0, 1.0))[..., :3]


def overlay(
    image: UInt8[np.ndarray, "height width 3"], relevance: Float[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """A relevance map in colour over the image in grey. The map is not rescaled: 0 and 1 are the ends of the bar."""
    _same_size(image, relevance)
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114] / 255.0  # (height, width)
    blend = STRENGTH * colour(relevance) + (1.0 - STRENGTH) * grey[..., None]
    return np.round(255.0 * blend).astype(np.uint8)


def outlined(
    picture: UInt8[np.ndarray, "height width 3"],
    mask: Float[np.ndarray, "height width"],
    *,
    size: int = 192,
    dim: float = 0.0,
) -> UInt8[np.ndarray, "tall wide 3"]:
    """The picture enlarged by whole pixels to about `size`, with the mask's outline: a white line inside a dark one.

    dim: how far what lies outside the mask fades to grey, 0 (not at all) to 1.
    What is larger than `size` keeps its size.
    """
    _same_size(picture, mask)
    factor = max(1, size // max(mask.shape))
    large = enlarged(picture, factor).astype(np.float64)
    inside = enlarged(mask >= 0.5, factor)
    if dim:
        flat = 0.25 * large.mean(axis=2, keepdims=True) + 0.75 * 128.0
        large = np.where(inside[..., None], large, (1.0 - dim) * large + dim * flat)
    thickness = max(1, max(inside.shape) // 128)
    edge, halo = (region & ~_shrunk(region, thickness) for region in (inside, ~inside))
    large[halo] = 0.35 * large[halo]
    large[edge] = 255.0
    return np.round(large).astype(np.uint8)


def enlarged(array: Shaped[np.ndarray, "height width *rest"], factor: int) -> Shaped[np.ndarray, "tall wide *rest"]:
    """Every pixel repeated `factor` times in both directions."""
    return array.repeat(factor, axis=0).repeat(factor, axis=1)


def colour_bar(width: int = 128, height: int = 1) -> UInt8[np.ndarray, "height width 3"]:
    """The colours from 0 (left) to 1 (right), as they look over a middle grey."""
    values = np.linspace(0.0, 1.0, width)[None].repeat(height, axis=0)
    return overlay(np.full((height, width, 3), 128, np.uint8), values)


def png(array: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """The array as a PNG file's bytes."""
    return _encoded(array, "PNG", optimize=True)


def data_uri(picture: UInt8[np.ndarray, "height width 3"] | bytes, kind: str = "png") -> str:
    """A picture inside a data URI, to stand in the page itself: an array as a PNG, or a file's bytes of this kind."""
    content = picture if isinstance(picture, bytes) else png(picture)
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")


def tile_uri(picture: UInt8[np.ndarray, "height width 3"]) -> str:
    """A picture inside a data URI: a PNG where pixels were enlarged to blocks or it is small, else a JPEG."""
    blocks = picture.shape[0] > 2 and bool((picture[0] == picture[1]).all())
    if blocks or picture.size < 64 * 64 * 3:
        return data_uri(picture)
    return data_uri(_encoded(picture, "JPEG", quality=85, optimize=True), "jpeg")


def _encoded(array: np.ndarray, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, form, **options)
    return buffer.getvalue()


def _shrunk(region: np.ndarray, steps: int) -> np.ndarray:
    """A region (height, width) less `steps` pixels at its border; the picture's own border does not count as one."""
    for _ in range(steps):
        p = np.pad(region, 1, mode="edge")
        region = p[1:-1, 1:-1] & p[:-2, 1:-1] & p[2:, 1:-1] & p[1:-1, :-2] & p[1:-1, 2:]
    return region


def _same_size(image: np.ndarray, other: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[:2] != other.shape:
        raise ValueError(
            f"an image (height, width, 3) and a map or mask of its size are needed, got {image.shape} and {other.shape}"
        )
