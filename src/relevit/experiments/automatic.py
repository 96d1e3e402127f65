"""Automatic masks on the built-in benchmark: TokenCut on the built-in model's own features, beside the exact masks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from torch import nn

from relevit.data.builtin.digits import Pictures
from relevit.masking.make import automatic_masks


@dataclass(frozen=True)
class AutomaticPictures:
    """Pictures with automatic masks, without those in which no object was found.

    iou: intersection over union of each given picture's automatic mask with its exact one (at least half object), 0 where
    no object was found; in the order of the pictures that were given, as `found`.
    """

    pictures: Pictures
    iou: np.ndarray
    found: np.ndarray


def with_automatic_masks(model: nn.Module, pictures: Pictures) -> AutomaticPictures:
    """The masks that TokenCut finds with a model's features (protocol: keys of the last block, refined by the bilateral
    solver), at the pictures' own size. Labels and exact masks play no part in them."""
    masks = automatic_masks(model, [Image.fromarray(image) for image in pictures.images])
    values = np.stack([mask.mask for mask in masks])  # (n, SIZE, SIZE) bool
    found: np.ndarray = np.asarray([mask.any() for mask in values])
    pictures_found = replace(pictures, masks=values.astype(np.float32)).subset(np.flatnonzero(found))
    return AutomaticPictures(pictures_found, overlap(values, pictures.masks >= 0.5), found)


def overlap(masks: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Intersection over union of bool masks (n, height, width), (n,) in [0, 1]; of two empty ones 1."""
    union = (masks | exact).sum(axis=(1, 2))
    return np.where(union > 0, (masks & exact).sum(axis=(1, 2)) / np.maximum(union, 1), 1.0)
