"""Reading pictures and masks from files, with errors that name the file."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer
from PIL import Image, ImageOps, UnidentifiedImageError

from relevit.errors import FileError, UserError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jfif"})
VOID = 255  # the index of pixels that belong to no side in label maps (Pascal VOC)
_VOC_COLOURS = (0, 0, 0, 128, 0, 0, 0, 128, 0)  # how the palette of Pascal VOC begins, and those made after it


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """The picture as 8-bit RGB, upright (EXIF orientation applied).

    Grey pictures get three equal channels, CMYK and palettes are converted, 16 bits become 8. Alpha is dropped without
    blending, as torchvision and timm do: what lies under it is part of the picture. Of an animation, the first frame.
    Raises UserError when there is no such file, it is no picture, or it is cut short.
    """
    return to_rgb(_open(path))


def read_mask(path: str | os.PathLike[str]) -> Float[np.ndarray, "height width"]:
    """A mask as float32 in [0, 1], 1 on the foreground, upright.

    A grey PNG counts 0 to 255 (one without values above 1: 0 and 1; 16 bits: 0 to 65535); of a picture with an alpha
    channel that is anywhere transparent, the alpha; of a palette PNG with colours, a label map, every index but 0 and
    255 (void, see `label_mask`). Raises UserError for an unreadable file or a coloured picture.
    """
    picture = _open(path)
    if _has_alpha(picture):
        alpha = _alpha(picture)
        if alpha.min() < 1:
            return alpha
    if _is_label_map(picture):
        return label_mask(np.asarray(picture))[0].astype(np.float32)
    values = np.asarray(_plain_grey(picture, path))
    return mask_values(values)


def read_alpha(path: str | os.PathLike[str]) -> Float[np.ndarray, "height width"]:
    """The alpha channel of a picture as a mask, float32 in [0, 1].

    Raises UserError when the picture has none, or is opaque everywhere and so tells nothing about the object.
    """
    picture = _open(path)
    if not _has_alpha(picture):
        raise FileError(path, "has no alpha channel to take the mask from: give a folder of masks")
    alpha = _alpha(picture)
    if alpha.min() == 1:
        raise FileError(path, "is opaque everywhere, its alpha channel shows no object: give a folder of masks")
    return alpha


def has_alpha(path: str | os.PathLike[str]) -> bool:
    """Whether a picture's header tells of an alpha channel; False where it cannot be read."""
    try:
        with Image.open(path) as picture:
            return _has_alpha(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def read_labels(path: str | os.PathLike[str]) -> Integer[np.ndarray, "height width"]:
    """The whole numbers of a label map: the indices of a palette PNG, the values of a grey one; upright.

    Raises UserError for an unreadable file or one with colours instead of numbers.
    """
    picture = _open(path)
    if picture.mode not in ("P", "L", "1", "I") and not picture.mode.startswith("I;16"):
        raise FileError(path, f"has colours ({picture.mode}), no labels: give the PNG whose palette index is the class")
    labels = np.asarray(picture)
    return labels.astype(np.uint8) if labels.dtype == bool else labels


def read_label_map(path: str | os.PathLike[str]) -> Integer[np.ndarray, "height width"] | None:
    """The indices of a palette PNG with colours, None of any other picture. Raises UserError for an unreadable file."""
    picture = _open(path)
    return np.asarray(picture) if _is_label_map(picture) else None


def label_mask(
    labels: Integer[np.ndarray, "height width"],
) -> tuple[Bool[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
    """Object and void of a label map: index 0 is background, 255 void, unless it is the only index beside 0."""
    void = labels == VOID
    objects = (labels != 0) & ~void
    return (objects, void) if objects.any() else (void, np.zeros_like(void))


def to_rgb(picture: Image.Image) -> Image.Image:
    """A PIL picture of any mode as 8-bit RGB; alpha is dropped without blending. Floats count 0 to 1, or 0 to 255."""
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I;16") or picture.mode == "I":
        picture = Image.fromarray((np.clip(np.asarray(picture), 0, 65535) / 257).round().astype(np.uint8))
    elif picture.mode == "F" and np.asarray(picture).max(initial=0) <= 1:  # floating-point numbers in [0, 1]
        picture = Image.fromarray((np.clip(np.asarray(picture), 0, 1) * 255).round().astype(np.uint8))
    elif picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def mask_values(values: np.ndarray) -> Float[np.ndarray, "height width"]:
    """An array of mask values (height, width) as float32 in [0, 1].

    Booleans and floats in [0, 1] keep their values; of integers, 0 and 1 keep theirs, 8 bits are divided by 255, 16 by
    65535. Raises UserError for any other shape or value.
    """
    values = np.asarray(values)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2:
        raise UserError(f"A mask must have the shape (height, width), not {tuple(values.shape)}.")
    if values.dtype == bool or values.size == 0:
        return values.astype(np.float32)
    least, most = values.min(), values.max()
    if np.issubdtype(values.dtype, np.integer):
        scale = 1 if most <= 1 else 255 if most <= 255 else 65535
        if least < 0 or most > scale:
            raise UserError(f"A mask's values must lie in 0 to 255, these lie in {least} to {most}.")
        return (values / np.float32(scale)).astype(np.float32)
    if not np.issubdtype(values.dtype, np.floating) or not (least >= 0 and most <= 1):  # NaN is refused, too
        raise UserError(f"A mask of floating-point numbers must lie in [0, 1], this one lies in {least} to {most}.")
    return values.astype(np.float32)


def _open(path: str | os.PathLike[str]) -> Image.Image:
    """The whole picture, decoded and upright."""
    if Path(path).is_symlink() and not Path(path).exists():
        raise FileError(path, "is a link to a file that is not there: mend or remove it")
    if not Path(path).is_file():
        if Path(path).is_dir():
            raise FileError(path, "is not a picture but a folder")
        raise FileError(path, "is not there", f"There is no file {path}.")
    return _decoded(path, path)


def decode(content: bytes, name: str) -> Image.Image:
    """The picture of a file's content, as `read_image` reads a file; `name`: of the file, for errors."""
    return to_rgb(_decoded(io.BytesIO(content), name))


def _decoded(source: Any, path: str | os.PathLike[str]) -> Image.Image:
    """The whole picture of a file or a stream of bytes, upright; `path`: its name, for errors."""
    try:
        with Image.open(source) as picture:
            picture.load()
            return _upright(picture)
    except UnidentifiedImageError as error:
        raise FileError(path, "is not a picture that can be read: replace or remove it") from error
    except Image.DecompressionBombError as error:
        raise FileError(path, "has too many pixels to be read safely: make it smaller") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        struct.error,
    ) as error:  # what PIL's decoders raise
        raise FileError(path, f"cannot be read ({error}): replace or remove it") from error


def _upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says; as it is stored where that cannot be read.

    The EXIF data do not come along: PIL fails to write some damaged ones again.
    """
    try:
        picture.getexif()
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error):
        return picture.copy()
    picture.info.pop("exif", None)
    return ImageOps.exif_transpose(picture)


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info


def _alpha(picture: Image.Image) -> Float[np.ndarray, "height width"]:
    return np.asarray(picture.convert("RGBA").getchannel("A"), dtype=np.float32) / 255


def _is_label_map(picture: Image.Image) -> bool:
    """Whether a picture's colours are but names of its palette's indices: any that is used is no grey."""
    if picture.mode != "P":
        return False
    if tuple((picture.getpalette() or [])[: len(_VOC_COLOURS)]) == _VOC_COLOURS:
        return True
    channels = np.asarray(to_rgb(picture))
    return bool((channels != channels[..., :1]).any())


def _plain_grey(picture: Image.Image, path: str | os.PathLike[str]) -> Image.Image:
    if picture.mode in ("1", "L", "I", "F") or picture.mode.startswith("I;16"):
        return picture
    if picture.mode == "LA":
        return picture.getchannel("L")
    channels = np.asarray(to_rgb(picture))
    if (channels != channels[..., :1]).any():
        raise FileError(
            path, "is a coloured picture, not a mask: a mask is a grey PNG with 0 for background, 255 for object"
        )
    return Image.fromarray(channels[..., 0])
