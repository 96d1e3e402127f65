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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relevit.data.sets import ImageSet, Item
from relevit.errors import UserError
from relevit.evaluation.maps.removal import Fill, check_fill, filled
from relevit.evaluation.measured import Measured
from relevit.evaluation.measurement import LoadedModel, RightAnswers, Work, by_batch, own_view
from relevit.evaluation.rows import array
from relevit.explainers.attention_maps import no_parameter_gradients
from relevit.models.families import logits_of

KINDS = ("predicted", "other")


@dataclass(frozen=True)
class SufficientSubsets:
    """The smallest sufficient subsets that batched gradient SIS finds in images, for two classes of each.

    Rows, for each kind of class (predicted, other): "class_KIND", -1 where there is none (an other class that is the predicted
    one); "share_KIND", of the pixels in its smallest sufficient subset, in [0, 1], NaN where none was found; "confidence_KIND" of
    that subset; "whole_KIND", the confidence of the whole picture, NaN where there is no class.

    A path takes one forward and one backward pass for each step: about 210 at 224 x 224 pixels with the default. The model is any
    classifier that has gradients by its input; labels are not used.

    Attributes:
        threshold: the confidence (softmax probability, over the classes that compete in the set) that a subset must reach, above
            0, at most 1; 0.9 in Carter et al.
        remove: the share of the remaining pixels that leaves in each step (at least one pixel), above 0, below 1.
        other: the class of the second path: "random", drawn for each image from all but the predicted one; the index of a class
            (images that are predicted as it have no second path); or "none".
        fill: what pixels outside of the subset become: "black", "mean", "blur" or a grey (`relevit.evaluation.maps.removal.filled`).
        seed: of the other classes, which depend on it and on the image's place alone.
    """

    threshold: float = 0.9
    remove: float = 0.05
    other: str | int = "random"
    fill: Fill = "black"
    seed: int = 0
    batch_size: ClassVar = 32
    needs: ClassVar = "images"
    description: ClassVar = (
        "least share of pixels that keeps a class's confidence, predicted or another (appendix A), percent"
    )
    framings = own_view

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of classes that are measured."""
        return KINDS[:1] if self.other == "none" else KINDS

    def columns(self) -> pa.Schema:
        """Four for each kind of class."""
        numbers = ("share", "confidence", "whole")
        types = [("class", pa.int32()), *((name, pa.float64()) for name in numbers)]
        return pa.schema([(f"{name}_{kind}", type) for kind in self.kinds for name, type in types])

    def begin(self, model: LoadedModel, images: ImageSet) -> Work:
        """Raises UserError for a bad option."""
        _check(self.threshold, self.remove, self.other)
        check_fill(self.fill, model.view)
        right = RightAnswers(model, images, wanted=False)

        def columns(items: Sequence[Item], pictures: Tensor) -> dict[str, Any]:
            with no_parameter_gradients(model.net):
                return self._columns(model, items, pictures, right)

        return by_batch(model, columns)

    def _columns(
        self, model: LoadedModel, items: Sequence[Item], images: Tensor, right: RightAnswers
    ) -> dict[str, Any]:
        logits = logits_of(model.net, images)
        if not bool(logits.isfinite().all()):
            raise UserError(f"the model's logits of {items[0].name} or an image after it are not finite")
        classes = {"predicted": right.among_candidates(logits).argmax(dim=1)}
        competing = list(range(logits.shape[1])) if right.candidates is None else right.candidates
        if self.other != "none":
            places = [item.place for item in items]
            classes["other"] = _others(classes["predicted"], competing, self.other, self.seed, places)
        blank = filled(images, self.fill, model.view)
        columns: dict[str, Any] = {}
        for kind, target in classes.items():
            columns[f"class_{kind}"] = target
            found = _smallest(
                lambda shown: right.among_candidates(logits_of(model.net, shown)),
                images,
                blank,
                target,
                self.threshold,
                self.remove,
            )
            columns |= {f"{name}_{kind}": values for name, values in found.items()}
        return columns

    def figures(self, rows: pa.Table) -> Measured:
        """For each kind of class, in percent: `share_KIND`, the mean share of the pixels in the subsets that were found;
        `found_KIND`, the share of images with one; `whole_KIND`, the share of images whose whole picture has the confidence."""
        values: dict[str, np.ndarray] = {}
        more: dict[str, np.ndarray] = {}
        for kind in self.kinds:
            share, whole = array(rows, f"share_{kind}"), array(rows, f"whole_{kind}")
            classes = array(rows, f"class_{kind}")
            values[f"share_{kind}"] = 100 * share
            values[f"found_{kind}"] = 100 * np.where(classes < 0, np.nan, ~np.isnan(share))
            values[f"whole_{kind}"] = 100 * np.where(np.isnan(whole), np.nan, whole >= self.threshold)
            more |= {
                f"class_{kind}": classes,
                f"confidence_{kind}": array(rows, f"confidence_{kind}"),
                f"whole_confidence_{kind}": whole,
            }
        settings = {name: getattr(self, name) for name in ("threshold", "remove", "other", "fill", "seed")}
        return Measured(rows, values, dict.fromkeys(values, (0.0, 100.0)), settings, shown={**values, **more})


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


def _smallest(
    model: Callable[[Tensor], Tensor], images: Tensor, blank: Tensor, target: Tensor, threshold: float, remove: float
) -> dict[str, Float[np.ndarray, " batch"]]:
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
    return {"share": shares, "confidence": confidence, "whole": whole}


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


def _check(threshold: float, remove: float, other: str | int) -> None:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise UserError(f"threshold must be a confidence above 0 and at most 1, not {threshold!r}")
    if isinstance(remove, bool) or not isinstance(remove, int | float) or not 0 < remove < 1:
        raise UserError(f"remove must be a share of the remaining pixels above 0 and below 1, not {remove!r}")
    if isinstance(other, bool) or (other not in ("random", "none") if isinstance(other, str) else other < 0):
        raise UserError(f"other must be random, none or the index of a class, not {other!r}")
