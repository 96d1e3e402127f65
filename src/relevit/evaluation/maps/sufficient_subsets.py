"""Sufficient input subsets: how few pixels keep a model confident of a class, of the predicted one and of any other.

The paper's appendix A takes up Carter, Jain, Mueller and Gifford, "Overinterpretation reveals image classification model
pathologies" (NeurIPS 2021), batched gradient SIS: pixels leave in steps, those first whose mask has the lowest derivative of the
class's confidence (they support it least, or speak against it), until none is left; the subset is then the smallest of the nested
sets along this path with a confidence of at least the threshold. Its point there is that such a subset tells little: sets of a few
pixels are found for classes that are not in the picture. That is what the other class measures: its confidence is not reached by the
whole picture, so the search is not for what keeps it, but for the smallest set on the path that has it; there may be none.

Where we deviate: the derivative is that of the log-probability, which has the same order and does not vanish; each step takes away a
share of the pixels that are left, so that the path is finest where sets are small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.evaluation.image_batches import ImageBatches
from relevit.evaluation.items import Advance, Item, LeftOut
from relevit.evaluation.maps.removal import Fill, check_fill, filled
from relevit.evaluation.per_image import PerImage, summary
from relevit.explainers.attention_maps import no_parameter_gradients
from relevit.models.view import EvaluationView
from relevit.models.working import working

KINDS = ("predicted", "other")


@dataclass(frozen=True)
class Subsets:
    """The subsets of one kind of class.

    Attributes:
        classes: the class of each image, (images,); -1 where there is none (an `other` class that is the predicted one).
        shares: of the pixels in its smallest sufficient subset, in [0, 1], (images,); NaN where none was found.
        confidence: of that subset, in [0, 1]; NaN where none was found.
        whole: the confidence of the whole picture, in [0, 1]; NaN where there is no class.
    """

    classes: Int[np.ndarray, " images"]
    shares: Float[np.ndarray, " images"]
    confidence: Float[np.ndarray, " images"]
    whole: Float[np.ndarray, " images"]

    @property
    def found(self) -> Float[np.ndarray, " images"]:
        """1 where a subset was found, 0 where not; NaN where there is no class."""
        return np.where(self.classes < 0, np.nan, ~np.isnan(self.shares))


@dataclass(frozen=True)
class SufficientSubsets:
    """Sufficient subsets of each image; all figures are percent.

    For each kind of class (predicted, other): `share_KIND`, the mean share of the pixels in the subsets that were found;
    `found_KIND`, the share of images with one; `whole_KIND`, the share of images whose whole picture has the confidence.

    Attributes:
        names, groups, objects: of each image its name, its class's name (may be empty), and what it shows.
        subsets: kind -> `Subsets`.
        settings: threshold, share removed in each step, fill, other class, seed.
        left_out: images that could not be read, and why.
    """

    names: list[str]
    groups: list[str]
    objects: list[str]
    subsets: dict[str, Subsets]
    settings: dict[str, Any] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    @cached_property
    def per_image(self) -> PerImage:
        """The figures of each image, percent."""
        values: dict[str, np.ndarray] = {}
        for kind, subsets in self.subsets.items():
            reached = np.where(np.isnan(subsets.whole), np.nan, subsets.whole >= self.settings["threshold"])
            values[f"share_{kind}"] = 100 * subsets.shares
            values[f"found_{kind}"] = 100 * subsets.found
            values[f"whole_{kind}"] = 100 * reached
        bounds = {name: (0.0, 100.0) for name in values}
        return PerImage(self.names, self.groups, self.objects, values, self.left_out, bounds)

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Between which values each figure lies."""
        return self.per_image.bounds

    def figures(self, weights: Float[np.ndarray, "draws images"]) -> dict[str, Float[np.ndarray, " draws"]]:
        """The figures of the set in which each image appears as often as `weights` says."""
        return self.per_image.figures(weights)

    def only(self, chosen: Int[np.ndarray, " some"]) -> PerImage:
        """The figures of some of the images, by number."""
        return self.per_image.only(chosen)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield from self.per_image

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the figures, and those of every class and image with its classes and confidences (in [0, 1])."""
        extra: dict[str, np.ndarray] = {}
        for kind, subsets in self.subsets.items():
            extra |= {
                f"class_{kind}": subsets.classes,
                f"confidence_{kind}": subsets.confidence,
                f"whole_confidence_{kind}": subsets.whole,
            }
        return {"settings": self.settings, **summary(self.per_image, {**self.per_image.values, **extra})}


def sufficient_subsets(
    model: nn.Module,
    view: EvaluationView | Any,
    data: Any,
    *,
    batch_size: int = 32,
    seed: int = 0,
    progress: Advance | None = None,
    threshold: float = 0.9,
    remove: float = 0.05,
    other: str | int = "random",
    fill: Fill = "black",
    workers: int = 0,
) -> SufficientSubsets:
    """The smallest sufficient subsets that batched gradient SIS finds in images, for two classes of each.

    A path takes one forward and one backward pass for each step: about 210 at 224 x 224 pixels with the default.

    Args:
        model: any classifier that has gradients by its input; nothing else is asked of it.
        view: the transform of a picture to its input, of `relevit.load`.
        data: an `ImageSet`, or `Sample`s; labels are not used.
        batch_size: images whose paths are followed together.
        seed: of the other classes, which depend on it and on the image's number alone.
        progress: called with the number of images that are done since its last call.
        threshold: the confidence (softmax probability, over the classes that compete in the data set) that a subset must reach, above 0, at most 1; 0.9 in Carter et al.
        remove: the share of the remaining pixels that leaves in each step (at least one pixel), above 0, below 1.
        other: the class of the second path: "random", drawn for each image from all but the predicted one; the index of a class
            (images that are predicted as it have no second path); or "none".
        fill: what pixels outside of the subset become: "black", "mean", "blur" or a grey (`relevit.evaluation.maps.removal.filled`).
        workers: processes that read images; 0 reads in this one.

    Raises:
        UserError: an option that is none of these, an empty data set, no readable image, logits that are not finite.
    """
    _check(threshold, remove, other)
    check_fill(fill, view)
    batches = ImageBatches(model, view, data, batch_size, None, workers, progress, labels=False)
    items: list[Item] = []
    parts: dict[str, list[Subsets]] = {}

    def among(images: Tensor) -> Tensor:
        return batches.among_candidates(model(images))

    with torch.inference_mode(False), working(model), no_parameter_gradients(model):
        for batch in batches:
            with torch.no_grad():
                logits = model(batch.images)
            if not bool(logits.isfinite().all()):
                raise UserError(f"the model's logits of {batch.items[0].name} or an image after it are not finite")
            classes = {"predicted": batches.among_candidates(logits).argmax(dim=1)}
            competing = list(range(logits.shape[1])) if batches.candidates is None else batches.candidates
            if other != "none":
                classes["other"] = _others(classes["predicted"], competing, other, seed, batch.numbers)
            blank = filled(batch.images, fill, view)
            for kind, target in classes.items():
                parts.setdefault(kind, []).append(_subsets(among, batch.images, blank, target, threshold, remove))
            items += batch.items
    return SufficientSubsets(
        [item.name for item in items],
        [item.group for item in items],
        [item.object for item in items],
        {kind: _joined(each) for kind, each in parts.items()},
        {"threshold": threshold, "remove": remove, "other": other, "fill": fill, "seed": seed},
        batches.left_out,
    )


def sizes(pixels: int, remove: float) -> list[int]:
    """How many pixels are left before each step, and at last none: each step takes floor(remove * left), at least one."""
    found = [pixels]
    while found[-1] > 0:
        found.append(found[-1] - max(1, int(remove * found[-1])))
    return found


def path(
    model: Callable[[Tensor], Tensor],
    images: Float[Tensor, "batch 3 height width"],
    blank: Float[Tensor, "batch 3 height width"],
    target: Int[Tensor, " batch"],
    remove: float,
) -> Iterator[tuple[Bool[Tensor, "batch height width"], Float[Tensor, " batch"]]]:
    """The nested sets of pixels, from all to none, and the target's confidence when the others are those of `blank`.

    In each step those leave whose mask has the lowest derivative of the target's log-probability, the mask as a weight between
    picture and blank; of equal ones the first. The model's parameters must not require gradients, or they cost memory.
    """
    height, width = images.shape[-2:]
    kept = torch.ones(len(images), height * width, dtype=torch.bool, device=images.device)
    stages = [*pairwise(sizes(height * width, remove)), (0, None)]
    for left, then in stages:
        mask = kept.unflatten(1, (1, height, width)).to(images.dtype).requires_grad_(then is not None)
        with torch.set_grad_enabled(then is not None):
            # exactly the picture or the blank at 1 and 0, which a weighted sum would round
            pixels = torch.where(mask > 0, images, blank) + (mask - mask.detach()) * (images - blank)
            logits = model(pixels)
            exact = torch.promote_types(logits.dtype, torch.float32)
            score = logits.log_softmax(dim=1, dtype=exact).gather(1, target[:, None])[:, 0]  # (batch,)
            total = score.sum()
        yield kept.unflatten(1, (height, width)).clone(), score.detach().exp()
        if then is None:
            return
        slope = torch.autograd.grad(total, mask)[0].flatten(1)  # (batch, pixels)
        order = slope.masked_fill(~kept, torch.inf).sort(dim=1, stable=True).indices
        kept.scatter_(1, order[:, : left - then], False)


def _subsets(
    model: Callable[[Tensor], Tensor], images: Tensor, blank: Tensor, target: Tensor, threshold: float, remove: float
) -> Subsets:
    """The smallest sufficient set along each image's path; images with a negative target have none."""
    pixels = images[0, 0].numel()
    shares = np.full(len(images), np.nan)
    confidence, whole = shares.copy(), shares.copy()
    rows = torch.nonzero(target >= 0)[:, 0]
    where = rows.cpu().numpy()
    if len(rows):
        steps = path(model, images[rows], blank[rows], target[rows], remove)
        for left, (_, reached) in zip(sizes(pixels, remove), steps, strict=True):
            now = reached.double().cpu().numpy()
            if left == pixels:
                whole[where] = now
            enough = where[now >= threshold]
            shares[enough], confidence[enough] = left / pixels, now[now >= threshold]
    return Subsets(target.cpu().numpy(), shares, confidence, whole)


def _others(predicted: Tensor, competing: Sequence[int], other: str | int, seed: int, numbers: Sequence[int]) -> Tensor:
    """The second class of each image, one of those that compete, (batch,); -1 where it would be the predicted one."""
    if isinstance(other, int):
        if other not in competing:
            raise UserError(
                f"other is the class {other}, but the model knows the classes 0 to {competing[-1]}"
                if len(competing) > competing[-1]
                else f"other is the class {other}, which is none of the {len(competing)} that compete in this benchmark"
            )
        return torch.where(predicted == other, -1, other)
    if len(competing) < 2:
        return torch.full_like(predicted, -1)
    classes = torch.tensor(competing, device=predicted.device)
    drawn = [int(np.random.default_rng((seed, number)).integers(len(competing) - 1)) for number in numbers]
    chosen = torch.tensor(drawn, device=predicted.device)
    return classes[
        chosen + (chosen >= torch.searchsorted(classes, predicted)).long()
    ]  # the predicted one is passed over


def _joined(parts: list[Subsets]) -> Subsets:
    columns = ("classes", "shares", "confidence", "whole")
    return Subsets(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def _check(threshold: float, remove: float, other: str | int) -> None:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise UserError(f"threshold must be a confidence above 0 and at most 1, not {threshold!r}")
    if isinstance(remove, bool) or not isinstance(remove, int | float) or not 0 < remove < 1:
        raise UserError(f"remove must be a share of the remaining pixels above 0 and below 1, not {remove!r}")
    if isinstance(other, bool) or (other not in ("random", "none") if isinstance(other, str) else other < 0):
        raise UserError(f"other must be random, none or the index of a class, not {other!r}")
