"""The perturbation test: how fast a model loses the class when pixels are taken away in the order of its relevance map.

The paper's appendix N, after Chefer, Gur and Wolf 2021: 10 to 90 % of the pixels are taken away, the most relevant first
(positive: a faithful map makes the accuracy fall fast) or the least relevant first (negative: it should last), by the map of
the predicted class and by that of the right class. A random order is the yardstick of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.evaluation.accuracy.recall import Accuracy
from relevit.evaluation.image_batches import ImageBatches
from relevit.evaluation.items import Advance, Item, LeftOut
from relevit.evaluation.maps.removal import (
    Fill,
    check_explainer,
    check_fill,
    check_random,
    filled,
    maps_of,
    pixel_count,
    random_ranks,
    removal_ranks,
    with_pixels_removed,
)
from relevit.evaluation.per_image import PerImage, columns, summary
from relevit.models.view import EvaluationView
from relevit.models.working import working

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TARGETS = ("predicted", "label")
SIGNS = ("positive", "negative")


@dataclass(frozen=True)
class Perturbation:
    """The model's answers at every share of removed pixels; all figures are percent.

    An order is "positive_predicted", "negative_predicted", "positive_label", "negative_label" or "random": which pixels go first,
    by the map of which class. The accuracy is against the label; the agreement is with the model's own answer to the whole image.

    Attributes:
        shares: of the pixels that are removed, ascending.
        names, groups, objects: of each image its name, its class's name (may be empty), and what it shows.
        answers: the right classes of each image, none where the model lacks its class: a miss; None where no label is known.
        original: the class that the model names on the whole image, (images,).
        predictions: order -> the class that it names at each share, (images, shares).
        settings: explainer, fill, kind of random order, seed.
        left_out: images that could not be read, and why.
    """

    shares: tuple[float, ...]
    names: list[str]
    groups: list[str]
    objects: list[str]
    answers: list[tuple[int, ...] | None]
    original: np.ndarray
    predictions: dict[str, np.ndarray]
    settings: dict[str, Any] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    @cached_property
    def labelled(self) -> Bool[np.ndarray, " images"]:
        """The images whose class is known, also where the model lacks it."""
        return np.array([right is not None for right in self.answers], dtype=bool)

    def hits(self, order: str, reference: str = "label") -> Float[np.ndarray, "images shares"]:
        """1 where the answer is right ("label") or the one to the whole image ("prediction"), else 0; NaN without a label."""
        return self._compared(self.predictions[order], reference)

    def areas(self, order: str, reference: str = "label") -> Float[np.ndarray, " images"]:
        """Each image's area under its curve of hits: the trapezoid rule over the shares, divided by their span; in [0, 1].

        A curve that is 1 everywhere has the area 1; of the nine shares 0.1 to 0.9, times 0.8 is the area without the division.
        """
        return np.trapezoid(self.hits(order, reference), self.shares, axis=1) / (self.shares[-1] - self.shares[0])

    @cached_property
    def per_image(self) -> PerImage:
        """The figures of each image, percent: accuracy on the whole image, areas under the curves, and the negative area minus the
        positive one ("contrast"), which is above 0 where the map knows the pixels that matter."""
        values: dict[str, np.ndarray] = {}
        if self.labelled.any():
            values["accuracy"] = 100 * self._compared(self.original[:, None], "label")[:, 0]
        for kind, reference in self._references():
            areas = {order: 100 * self.areas(order, reference) for order in self.predictions}
            values |= {f"{kind}_{order}": area for order, area in areas.items()}
            for target in (target for target in TARGETS if f"positive_{target}" in areas):
                values[f"{kind}_contrast_{target}"] = areas[f"negative_{target}"] - areas[f"positive_{target}"]
        bounds = {name: (-100.0 if "contrast" in name else 0.0, 100.0) for name in values}
        return PerImage(self.names, self.groups, self.objects, values, self.left_out, bounds)

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Between which values each figure lies."""
        return self.per_image.bounds

    def figures(self, weights: Float[np.ndarray, "draws images"]) -> dict[str, Float[np.ndarray, " draws"]]:
        """The figures of the set in which each image appears as often as `weights` says."""
        return self.per_image.figures(weights)

    def only(self, chosen: Int[np.ndarray, " some"]) -> Perturbation:
        """The same for some of the images, by number."""
        names, groups, objects = columns(chosen, self.names, self.groups, self.objects)
        return replace(
            self,
            names=names,
            groups=groups,
            objects=objects,
            answers=[self.answers[i] for i in chosen],
            original=self.original[chosen],
            predictions={order: named[chosen] for order, named in self.predictions.items()},
        )

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield from self.per_image

    def curves(self) -> dict[str, dict[str, Any]]:
        """(auc or agreement)_order -> the percentage of hits at each share, "value", and its 95% interval, "low" and "high"."""
        found: dict[str, dict[str, Any]] = {}
        for kind, reference in self._references():
            for order in self.predictions:
                hits = self.hits(order, reference)
                known = ~np.isnan(hits[:, 0])
                groups, objects = np.asarray(self.groups)[known], np.asarray(self.objects)[known]
                shown = None if len(set(objects)) == len(objects) else objects
                points = [Accuracy(hit, hit, groups, shown) for hit in hits[known].T.astype(bool)]
                found[f"{kind}_{order}"] = {
                    "value": [round(point.r1, 4) for point in points],
                    "low": [round(point.r1_interval.low, 4) for point in points],
                    "high": [round(point.r1_interval.high, 4) for point in points],
                }
        return found

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the figures, the curves with their intervals, and the figures of every class and image."""
        return {
            "settings": self.settings,
            **summary(self.per_image, self.per_image.values),
            "shares": list(self.shares),
            "curves": self.curves(),
        }

    def _compared(self, named: np.ndarray, reference: str) -> Float[np.ndarray, "images points"]:
        if reference == "prediction":
            return (named == self.original[:, None]).astype(np.float64)
        rows = zip(named, self.answers, strict=True)
        right = np.array([np.isin(row, own or ()) for row, own in rows], dtype=np.float64)
        right[~self.labelled] = np.nan
        return right

    def _references(self) -> list[tuple[str, str]]:
        return [("auc", "label")] * bool(self.labelled.any()) + [("agreement", "prediction")]


def perturbation(
    model: nn.Module,
    view: EvaluationView | Any,
    data: Any,
    *,
    batch_size: int = 32,
    seed: int = 0,
    progress: Advance | None = None,
    explainer: str = "gae",
    fill: Fill = "black",
    targets: Sequence[str] = TARGETS,
    shares: Sequence[float] = SHARES,
    random: str = "patches",
    class_map: Any = None,
    workers: int = 0,
) -> Perturbation:
    """The perturbation test of a model on images.

    Of share s, floor(s * height * width) pixels of the model's input are replaced; pixels of equal relevance go in the order of
    their index. Where several classes are right, the map of the right class is that of the first of them; an image without a
    label counts only for the agreement, and its "label" orders are those of the predicted class.

    Args:
        model: any model that the explainer takes.
        view: the transform of a picture to its input, of `relevit.load`.
        data: an `ImageSet`, or `Sample`s.
        batch_size: pictures in one forward pass.
        seed: of the random order, which depends on it and on the image's number alone.
        progress: called with the number of images that are done since its last call.
        explainer: a name in `relevit.explainers.EXPLAINERS`.
        fill: what removed pixels become: "black" (0 before normalisation, the paper's), "mean" (the normalisation's), "blur"
            (the blurred picture), or a grey before normalisation, 0 to 1.
        targets: of which classes the maps are: "predicted", "label", or both.
        shares: of the pixels that are removed, ascending, at least two; 0.1 to 0.9 in the paper.
        random: the random order that is measured for comparison: of "patches" (whole regions, as in a map), of "pixels", or "none".
        class_map: for class folders that are named neither by wnid nor by class index.
        workers: processes that read images; 0 reads in this one.

    Raises:
        UserError: an option that is none of these, an empty data set, a label that the model does not know, no readable image; an
            unsupported model.
    """
    targets, shares = tuple(targets), tuple(float(share) for share in shares)
    _check(targets, shares)
    check_fill(fill, view)
    check_random(random)
    check_explainer(explainer)
    batches = ImageBatches(model, view, data, batch_size, class_map, workers, progress)
    items: list[Item] = []
    answers: list[tuple[int, ...] | None] = []
    original: list[Tensor] = []
    found: dict[str, list[Tensor]] = {}

    def named(logits: Tensor, rows: Tensor) -> Tensor:
        return batches.among_candidates(logits).argmax(dim=1)

    with working(model), torch.no_grad():
        for batch in batches:
            images, pixels = batch.images, batch.images[0, 0].numel()
            other = filled(images, fill, view)
            counts = [pixel_count(share, pixels) for share in shares]
            predicted = named(model(images), images)  # (batch,)
            own = predicted.tolist()
            first = [right[0] if right else mine for right, mine in zip(batch.answers, own, strict=True)]
            classes = {"predicted": predicted, "label": torch.tensor(first, device=predicted.device)}
            then: dict[str, Tensor] = {}  # order -> (batch, shares)
            for target in targets:
                known = target == "label" and "positive_predicted" in then  # where both classes are the same
                rows = torch.nonzero(classes[target] != predicted)[:, 0] if known else torch.arange(len(images))
                for sign in SIGNS if known else ():
                    then[f"{sign}_{target}"] = then[f"{sign}_predicted"].clone()
                if not len(rows):
                    continue
                maps = maps_of(model, images[rows], classes[target][rows], explainer)
                for sign in SIGNS:
                    ranks = removal_ranks(maps, most_first=sign == "positive")
                    found_here = with_pixels_removed(model, images[rows], other[rows], ranks, counts, named, batch_size)
                    if known:
                        then[f"{sign}_{target}"][rows] = found_here
                    else:
                        then[f"{sign}_{target}"] = found_here
            if random != "none":
                ranks = random_ranks(model, images, batch.numbers, random, seed)
                then["random"] = with_pixels_removed(model, images, other, ranks, counts, named, batch_size)
            for order, answer in then.items():
                found.setdefault(order, []).append(answer.cpu())
            original.append(predicted.cpu())
            items += batch.items
            answers += batch.answers
    return Perturbation(
        shares,
        [item.name for item in items],
        [item.group for item in items],
        [item.object for item in items],
        answers,
        torch.cat(original).numpy().astype(np.int32),
        {order: torch.cat(parts).numpy().astype(np.int32) for order, parts in found.items()},
        {"explainer": explainer, "fill": fill, "random": random, "seed": seed},
        batches.left_out,
    )


def _check(targets: Sequence[str], shares: Sequence[float]) -> None:
    if not targets or len(set(targets)) < len(targets) or not set(targets) <= set(TARGETS):
        raise UserError(f"targets must be one or both of {' and '.join(TARGETS)}, not {list(targets)}")
    rising = all(low < high for low, high in pairwise(shares))
    if len(shares) < 2 or not rising or not (0 <= shares[0] and shares[-1] <= 1):
        raise UserError(
            f"shares must be two or more numbers from 0 to 1, each above the one before, not {list(shares)}"
        )
