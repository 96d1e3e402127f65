"""One sample in one form: an image, the mask of its object, its label, pixels to ignore, a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from relevit.errors import UserError
from relevit.images import mask_values
from relevit.models.view import as_picture


class Sample(NamedTuple):
    """An image, the mask of its object where there is one, and its class.

    image: PIL picture, uint8 array (height, width, 3), or float tensor (3, height, width) that is normalised already
    and goes to the model as it is. mask: (height, width) in [0, 1], 1 on the object; None in a set without masks.
    label: the model's class index, -1 if unknown. ignore: pixels that count neither as object nor as background.
    name: for messages and manifests.
    """

    image: Image.Image | np.ndarray | Tensor
    mask: Float[np.ndarray, "height width"] | None = None
    label: int = -1
    ignore: Bool[np.ndarray, "height width"] | None = None
    name: str = ""

    @property
    def foreground(self) -> Float[np.ndarray, "height width"]:
        """The mask, which must be there. Raises UserError for a sample without one."""
        if self.mask is None:
            raise UserError(f"{self.name} has no mask: give a folder of masks.")
        return self.mask


def as_sample(item: Any, index: int | str = 0) -> Sample:
    """An item of any data set, (image, mask, label[, ignore[, name]]), as a Sample in one form.

    The image may be a PIL picture, a uint8 array (height, width, 3) or (height, width), or a float tensor (3, height,
    width), normalised; the mask an array, tensor or PIL picture of the same size, boolean, in [0, 1], or in 0 to 255;
    the label a whole number or None (-1: unknown). One without a name is called "sample INDEX", or `index` itself where
    that is a name. Raises UserError for anything else.
    """
    index = index if isinstance(index, str) else f"sample {index}"
    if not isinstance(item, Sequence) or isinstance(item, str | bytes) or not 3 <= len(item) <= 5:
        raise UserError(f"{index} must be (image, mask, label[, ignore[, name]]), not {_kind(item)}.")
    image, mask, label, ignore, name = (*item, None, None)[:5]
    name = str(name) if name else index
    try:
        picture = _image(image)
        size = (picture.height, picture.width) if isinstance(picture, Image.Image) else _height_width(picture)
        values = mask_values(_array(mask))
        region = None if ignore is None else mask_values(_array(ignore)) > 0
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    for plane, what in ((values, "mask"), (region, "ignored region")):
        if plane is not None and plane.shape != size:
            raise UserError(f"{name}: the {what} is {_by(plane.shape)} pixels, the image {_by(size)} (width x height).")
    return Sample(picture, values, _label(label, name), region, name)


def as_labelled(item: Any, name: str) -> Sample:
    """An item of any data set of images with labels as a Sample, with or without a mask.

    That is a pair (image, label), a sample as `as_sample` takes it, or anything with `.image` and `.label`. The image
    goes to the model's transform as it is, but for an array, which becomes a PIL picture. One without a name of its own
    is called `name`. Raises UserError for anything else.
    """
    if hasattr(item, "image") and hasattr(item, "label"):
        image, label, mask, ignore = item.image, item.label, getattr(item, "mask", None), getattr(item, "ignore", None)
        name = str(getattr(item, "name", "") or name)
    elif isinstance(item, Sequence) and not isinstance(item, str | bytes) and len(item) == 2:
        (image, label), mask, ignore = item, None, None
    else:
        return as_sample(item, name)
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    return Sample(image, mask, -1 if label is None else int(label), ignore, name)


def _image(image: Any) -> Image.Image | np.ndarray | Tensor:
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise UserError(
                f"an image tensor must be float, (3, height, width), not {image.dtype} {tuple(image.shape)}."
            )
        return image.to(torch.float32)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        grey = image[..., None] if image.ndim == 2 else image
        if grey.ndim == 3 and grey.shape[-1] == 1:
            return np.repeat(grey, 3, axis=-1)
        if grey.ndim == 3 and grey.shape[-1] == 3:
            return image
    return as_picture(image)


def _array(plane: Any) -> np.ndarray:
    if isinstance(plane, Tensor):
        plane = plane.detach().cpu().numpy()
    if isinstance(plane, Image.Image):
        return np.asarray(plane)
    if not isinstance(plane, np.ndarray):
        raise UserError(f"a mask must be an array, a tensor or a PIL picture, not {_kind(plane)}.")
    return plane


def _label(label: Any, name: str) -> int:
    if label is None:
        return -1
    if isinstance(label, Tensor | np.ndarray) and label.ndim == 0:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int | np.integer) or label < -1:
        raise UserError(f"{name}: the label must be a class index, a whole number from 0, not {label!r}.")
    return int(label)


def _height_width(image: np.ndarray | Tensor) -> tuple[int, ...]:
    return tuple(image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2])


def _by(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]}"


def _kind(value: Any) -> str:
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, Sequence) else type(value).__name__
