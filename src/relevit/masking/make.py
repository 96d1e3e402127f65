"""Masks of a batch of pictures without annotation: TokenCut on the features of a vision transformer, refined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import nn

from relevit.data.image_map import in_batches
from relevit.errors import UserError
from relevit.images import to_rgb
from relevit.masking.features import Kind, accept_size, patch_features
from relevit.masking.refinement import MAX_SIDE, AutomaticMask, Seen, backbone_view, finished_mask
from relevit.masking.tokencut import Cut, tokencut
from relevit.models.attention import patch_size
from relevit.models.loading import data_config
from relevit.models.working import device_of

__all__ = ["AutomaticMask", "automatic_masks", "cut_views"]


def automatic_masks(
    model: nn.Module,
    images: Sequence[Image.Image],
    *,
    kind: Kind = "key",
    block: int = -1,
    refine: bool = True,
    size: int | None = None,
    max_side: int = MAX_SIDE,
    batch_size: int = 16,
) -> list[AutomaticMask]:
    """The mask of the most salient object of each picture (PIL, upright), without annotation.

    Protocol, "Automatic masks": the picture is resized by Lanczos's filter to the nearest multiple of the patch,
    normalised as the model was trained, its patch features (`kind` of block `block`) are cut, and the mask is refined on
    the picture. By default the picture keeps its own size, as far as its long side is at most `max_side` for the
    backbone; `size` resizes it to that short side first (published setup: 224). Pictures of one size for the backbone go
    through it together, at most `batch_size` at once. `refine=False` keeps the mask as cut.

    Raises UserError for a model without patch features, or a number out of its range.
    """
    check_numbers(size=size, max_side=max_side, batch_size=batch_size)
    patch = patch_size(model)
    pictures = [to_rgb(image) for image in images]
    views = [backbone_view(picture, patch, size=size, max_side=max_side) for picture in pictures]
    seen = cut_each(model, views, kind=kind, block=block, most=batch_size)
    return [
        finished_mask(picture, *each, refine=refine, size=size) for picture, each in zip(pictures, seen, strict=True)
    ]


def cut_each(
    model: nn.Module, views: Sequence[np.ndarray], *, kind: Kind = "key", block: int = -1, most: int | None = None
) -> list[Seen]:
    """What is seen in pictures as `backbone_view` gives them: those of one size together, at most `most` at once."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, view in enumerate(views):
        groups.setdefault(view.shape, []).append(number)
    seen: dict[int, Seen] = {}
    for numbers in groups.values():
        for batch in in_batches(numbers, most or len(numbers)):
            cut = cut_views(model, np.stack([views[number] for number in batch]), kind=kind, block=block)
            seen |= zip(batch, object_patches(cut), strict=True)
    return [seen[number] for number in range(len(views))]


def cut_views(
    model: nn.Module, views: UInt8[np.ndarray, "batch height width 3"], *, kind: Kind = "key", block: int = -1
) -> Cut:
    """The cuts of pictures as `backbone_view` gives them, of one size; on the model's device."""
    config = data_config(model)
    device = device_of(model)
    mean, std = (torch.tensor(config[name], device=device).view(-1, 1, 1) for name in ("mean", "std"))
    values = torch.from_numpy(views).to(device).permute(0, 3, 1, 2)  # (batch, h, w, 3) -> (batch, 3, h, w)
    with accept_size(model, *views.shape[1:3]):
        features, grid = patch_features(model, (values.float() / 255 - mean) / std, kind=kind, block=block)
    return tokencut(features, grid)


def object_patches(cut: Cut) -> list[Seen]:
    """Of each picture of a cut, the object's patches (rows, cols), none where no object was found, and the second and
    third smallest eigenvalue."""
    masks = (cut.masks & cut.found[:, None, None]).cpu().numpy()
    values = cut.eigenvalues.double().cpu().numpy()
    return [(masks[i], (float(values[i, 0]), float(values[i, 1]))) for i in range(len(masks))]


def check_features(model: nn.Module, kind: Kind, block: int) -> None:
    """Raise UserError if the model does not give these features, or does not take images of another size."""
    height, width = patch_size(model)
    cut_views(model, np.zeros((1, 3 * height, 2 * width, 3), np.uint8), kind=kind, block=block)


def check_numbers(*, size: int | None, max_side: int, batch_size: int) -> None:
    """Raise UserError for a number out of its range."""
    for name, value in (("size", size), ("max_side", max_side), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}.")
