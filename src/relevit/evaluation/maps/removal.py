"""Pixels taken out of pictures in the order of a map: what stands in their place, which go first, and what a model then
says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from relevit.errors import UserError
from relevit.explainers import EXPLAINERS, relevance
from relevit.models.attention import token_layout
from relevit.models.families import logits_of

Fill = str | float | int
RANDOM = ("patches", "pixels", "none")
BLUR = 1 / 20  # of the shorter side: the standard deviation of the blur


def check_fill(fill: Fill, view: Any, name: str = "fill") -> None:
    """Raises UserError unless `fill` is "black", "mean", "blur" or a grey value in [0, 1] that `view` can normalise."""
    if isinstance(fill, str):
        known = fill in ("black", "mean", "blur")
    else:
        known = not isinstance(fill, bool) and 0 <= fill <= 1
    if not known:
        raise UserError(f"{name} must be black, mean, blur or a number from 0 (black) to 1 (white), not {fill!r}")
    if fill not in ("mean", "blur") and not (hasattr(view, "mean") and hasattr(view, "std")):
        raise UserError(
            f"{name} {fill!r} needs the view's mean and std, which this one has not: use that of relevit.load, or mean or blur"
        )


def check_removal(explainer: str, random: str, view: Any, **fills: Fill) -> None:
    """Raises UserError for a fill that is none (see `check_fill`), an unknown explainer, or a random order of another name."""
    for name, fill in fills.items():
        check_fill(fill, view, name)
    if random not in RANDOM:
        raise UserError(f"random must be one of {', '.join(RANDOM)}, not {random!r}")
    if explainer not in EXPLAINERS:
        raise UserError(f"unknown explainer {explainer!r}: known are {', '.join(sorted(EXPLAINERS))}")


def filled(
    images: Float[Tensor, "batch 3 height width"], fill: Fill, view: Any
) -> Float[Tensor, "batch 3 height width"]:
    """What stands where pixels are taken out, in the normalised range of `images`.

    "black": 0 before normalisation, that is -mean / std of the view (the paper's choice; protocol of the paper); a number: that
    grey before normalisation, 0 to 1; "mean": the mean colour of the normalisation, which is 0 after it; "blur": the picture
    itself, blurred (Gaussian, standard deviation 1/20 of the shorter side, the border mirrored).
    """
    if fill == "blur":
        sigma = BLUR * min(images.shape[-2:])
        side = 2 * max(1, math.floor(3 * sigma)) + 1
        return gaussian_blur(images, [side, side], [sigma, sigma])
    if fill == "mean":
        return torch.zeros_like(images)
    grey = 0.0 if fill == "black" else float(fill)
    colour = (grey - view.mean.double()) / view.std.double()  # (3, 1, 1)
    return colour.to(images).expand_as(images)


def maps_of(
    model: nn.Module, images: Float[Tensor, "batch 3 height width"], target: Int[Tensor, " batch"], explainer: str
) -> Float[Tensor, "batch pixels"]:
    """The relevance of every pixel for the target class, one row an image, row after row of the picture.

    Raises UserError where a map holds values that are not finite.
    """
    maps = relevance(model, images, target, explainer).flatten(1)  # (batch, height, width) -> (batch, pixels)
    if not bool(maps.isfinite().all()):
        raise UserError(f"the maps of {explainer} are not finite: the model or an image holds values that are not")
    return maps


def removal_ranks(maps: Float[Tensor, "batch pixels"], *, most_first: bool) -> Int[Tensor, "batch pixels"]:
    """The place of each pixel in the order of removal, from 0; of pixels with equal relevance the first goes first."""
    order = torch.sort(maps, dim=1, descending=most_first, stable=True).indices
    return order.argsort(dim=1)


def random_ranks(
    model: nn.Module, images: Float[Tensor, "batch 3 height width"], numbers: Sequence[int], random: str, seed: int
) -> Int[Tensor, "batch pixels"]:
    """A random order of removal, drawn by the seed and the image's number alone, whatever else is in its batch.

    "patches": of a map that is drawn on the model's patch grid and upscaled as relevance maps are, so that whole regions go at
    once as with them. "pixels": of single pixels; holes all over the picture do more harm than most maps.
    """
    height, width = images.shape[-2:]
    rows, columns = token_layout(model, height, width).grid if random == "patches" else (height, width)
    drawn = [np.random.default_rng((seed, number)).permutation(rows * columns) for number in numbers]
    maps = torch.from_numpy(np.stack(drawn)).double().unflatten(1, (1, rows, columns))  # (batch, 1, rows, columns)
    if random == "patches":
        maps = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
    return removal_ranks(maps.flatten(1).to(images), most_first=True)


def pixel_count(share: float, pixels: int) -> int:
    """floor(share * pixels), with the share as it is written in decimal: 0.29 of 100 pixels are 29, not 28."""
    return math.floor(Fraction(str(share)) * pixels)


def with_pixels_removed(
    model: nn.Module,
    images: Float[Tensor, "batch 3 height width"],
    other: Float[Tensor, "batch 3 height width"],
    ranks: Int[Tensor, "batch pixels"],
    counts: Sequence[int],
    read: Callable[[Tensor, Tensor], Tensor],
    batch_size: int,
) -> Tensor:
    """What `read` takes from the logits when the first pixels of each order are replaced by those of `other`.

    Args:
        ranks: the place of each pixel in the order of removal.
        counts: how many pixels are replaced, in each step.
        read: (logits (pairs, classes), image of each pair (pairs,)) -> one value a pair.
        batch_size: pictures in one forward pass; images and steps are run through together.

    Returns:
        (batch, steps), one value an image and a step.
    """
    height, width = images.shape[-2:]
    steps = torch.tensor(counts, device=images.device)
    rows = torch.arange(len(images), device=images.device).repeat_interleave(len(steps))  # (pairs,)
    gone = steps.repeat(len(images))  # (pairs,)
    values = []
    for row, count in zip(rows.split(batch_size), gone.split(batch_size), strict=True):
        removed = (ranks[row] < count[:, None]).unflatten(1, (1, height, width))  # (pairs, 1, height, width)
        values.append(read(logits_of(model, torch.where(removed, other[row], images[row])), row))
    return torch.cat(values).unflatten(0, (len(images), len(steps)))
