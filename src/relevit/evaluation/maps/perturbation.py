"""The perturbation test: how fast a model loses the class when pixels are taken away in the order of its relevance map.

The paper's appendix N, after Chefer, Gur and Wolf 2021: 10 to 90 % of the pixels are taken away, the most relevant first
(positive: a faithful map makes the accuracy fall fast) or the least relevant first (negative: it should last), by the map of
the predicted class and by that of the right class. A random order is the yardstick of both.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from relevit.evaluation.maps.removal import (
    Fill,
    check_removal,
    filled,
    maps_of,
    pixel_count,
    random_ranks,
    removal_ranks,
    with_pixels_removed,
)
from relevit.evaluation.measured import Measured
from relevit.evaluation.measurement import LoadedModel, RightAnswers, Work, by_batch, own_view
from relevit.evaluation.rows import NUMBERS, array
from relevit.models.families import logits_of
from relevit.statistics import interval

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TARGETS = ("predicted", "label")
SIGNS = ("positive", "negative")


@dataclass(frozen=True)
class Perturbation:
    """The perturbation test. Rows: the model's answers to the whole image ("original") and at every share of removed pixels, by
    order; and the right classes ("answers"): none where the model lacks the image's class, null where no label is known.

    An order is "positive_predicted", "negative_predicted", "positive_label", "negative_label" or "random": which pixels go first,
    by the map of which class. Of share s, floor(s * height * width) pixels of the model's input are replaced; pixels of equal
    relevance go in the order of their index. Where several classes are right, the map of the right class is that of the first of
    them; an image without a label counts only for the agreement, and its "label" orders are those of the predicted class.

    Attributes:
        explainer: a name in `relevit.explainers.EXPLAINERS`.
        fill: what removed pixels become: "black" (0 before normalisation, the paper's), "mean" (the normalisation's), "blur"
            (the blurred picture), or a grey before normalisation, 0 to 1.
        targets: of which classes the maps are: "predicted", "label", or both.
        shares: of the pixels that are removed, ascending, at least two; 0.1 to 0.9 in the paper.
        random: the random order that is measured for comparison: of "patches" (whole regions, as in a map), of "pixels", or "none".
        class_map: for class folders that are named neither by wnid nor by class index.
        seed: of the random order, which depends on it and on the image's place alone.
        batch_size: pictures in one forward pass.
    """

    explainer: str = "gae"
    fill: Fill = "black"
    targets: Sequence[str] = TARGETS
    shares: Sequence[float] = SHARES
    random: str = "patches"
    class_map: Any = None
    seed: int = 0
    batch_size: int = 32
    needs: ClassVar = "images"
    description: ClassVar = (
        "accuracy as pixels are removed by relevance, most or least relevant first (appendix N), percent"
    )
    framings = own_view

    @property
    def orders(self) -> list[str]:
        """The orders that are measured."""
        by_map = [f"{sign}_{target}" for target in self.targets for sign in SIGNS]
        return by_map + ["random"] * (self.random != "none")

    def columns(self) -> pa.Schema:
        """The answers, by order one for each share."""
        orders = [(order, NUMBERS) for order in self.orders]
        return pa.schema([("answers", NUMBERS), ("original", pa.int32()), *orders])

    def begin(self, model: LoadedModel, images: ImageSet) -> Work:
        """Raises UserError for a bad option, or a set whose classes the model does not have."""
        _check(tuple(self.targets), tuple(float(share) for share in self.shares))
        check_removal(self.explainer, self.random, model.view, fill=self.fill)
        right = RightAnswers(model, images, self.class_map)

        def columns(items: Sequence[Item], pictures: Tensor) -> dict[str, Any]:
            answers = [right.of(item) for item in items]
            original, found = self._answers(model, pictures, items, answers, right)
            return {"answers": answers, "original": original, **found}

        return by_batch(model, columns)

    def _answers(
        self,
        model: LoadedModel,
        images: Float[Tensor, "batch 3 height width"],
        items: Sequence[Item],
        answers: Sequence[tuple[int, ...] | None],
        right: RightAnswers,
    ) -> tuple[Int[Tensor, " batch"], dict[str, Int[Tensor, "batch shares"]]]:
        """The answer to each whole image, and by order those at each share."""
        other = filled(images, self.fill, model.view)
        counts = [pixel_count(float(share), images[0, 0].numel()) for share in self.shares]

        def named(logits: Tensor, rows: Tensor) -> Tensor:
            return right.among_candidates(logits).argmax(dim=1)

        def removed(rows: Tensor, ranks: Tensor) -> Tensor:
            return with_pixels_removed(model.net, images[rows], other[rows], ranks, counts, named, self.batch_size)

        everything = torch.arange(len(images), device=images.device)
        predicted = named(logits_of(model.net, images), everything)  # (batch,)
        first = [known[0] if known else mine for known, mine in zip(answers, predicted.tolist(), strict=True)]
        classes = {"predicted": predicted, "label": torch.tensor(first, device=predicted.device)}
        found: dict[str, Tensor] = {}
        for target in self.targets:
            known = target == "label" and "positive_predicted" in found  # where both classes are the same
            rows = torch.nonzero(classes[target] != predicted)[:, 0] if known else everything
            for sign in SIGNS if known else ():
                found[f"{sign}_{target}"] = found[f"{sign}_predicted"].clone()
            if not len(rows):
                continue
            maps = maps_of(model.net, images[rows], classes[target][rows], self.explainer)
            for sign in SIGNS:
                now = removed(rows, removal_ranks(maps, most_first=sign == "positive"))
                if known:
                    found[f"{sign}_{target}"][rows] = now
                else:
                    found[f"{sign}_{target}"] = now
        if self.random != "none":
            places = [item.place for item in items]
            found["random"] = removed(everything, random_ranks(model.net, images, places, self.random, self.seed))
        return predicted, found

    def figures(self, rows: pa.Table) -> Measured:
        """Accuracy on the whole image, areas under the curves, and the negative area minus the positive one ("contrast"), which is
        above 0 where the map knows the pixels that matter; percent. The accuracy is against the label; the agreement is with the
        model's own answer to the whole image."""
        values: dict[str, np.ndarray] = {}
        if self._references(rows)[0][0] == "auc":
            values["accuracy"] = 100 * _compared(rows, array(rows, "original")[:, None], "label")[:, 0]
        for kind, reference in self._references(rows):
            areas = {order: 100 * self.areas(rows, order, reference) for order in self.orders}
            values |= {f"{kind}_{order}": area for order, area in areas.items()}
            for target in (target for target in TARGETS if f"positive_{target}" in areas):
                values[f"{kind}_contrast_{target}"] = areas[f"negative_{target}"] - areas[f"positive_{target}"]
        bounds = {name: (-100.0 if "contrast" in name else 0.0, 100.0) for name in values}
        settings = {"explainer": self.explainer, "fill": self.fill, "random": self.random, "seed": self.seed}
        details = {"shares": [float(share) for share in self.shares], "curves": self._curves(rows)}
        return Measured(rows, values, bounds, settings, details=details)

    def hits(self, rows: pa.Table, order: str, reference: str = "label") -> Float[np.ndarray, "images shares"]:
        """1 where the answer is right ("label") or the one to the whole image ("prediction"), else 0; NaN without a label."""
        return _compared(rows, array(rows, order), reference)

    def areas(self, rows: pa.Table, order: str, reference: str = "label") -> Float[np.ndarray, " images"]:
        """Each image's area under its curve of hits: the trapezoid rule over the shares, divided by their span; in [0, 1].

        A curve that is 1 everywhere has the area 1; of the nine shares 0.1 to 0.9, times 0.8 is the area without the division.
        """
        shares = [float(share) for share in self.shares]
        return np.trapezoid(self.hits(rows, order, reference), shares, axis=1) / (shares[-1] - shares[0])

    def _curves(self, rows: pa.Table) -> dict[str, dict[str, Any]]:
        """(auc or agreement)_order -> the percentage of hits at each share, "value", and its 95% interval, "low" and "high"."""
        curves: dict[str, dict[str, Any]] = {}
        objects = np.asarray(Measured(rows, {}).objects)
        for kind, reference in self._references(rows):
            for order in self.orders:
                hits = self.hits(rows, order, reference)
                known = ~np.isnan(hits[:, 0])
                shown = None if len(set(objects[known])) == known.sum() else objects[known]
                points = [interval.share(hit, shown).percent for hit in hits[known].T.astype(bool)]
                curves[f"{kind}_{order}"] = {
                    name: [round(getattr(point, name), 4) for point in points] for name in ("value", "low", "high")
                }
        return curves

    def _references(self, rows: pa.Table) -> list[tuple[str, str]]:
        return [("auc", "label")] * bool(_labelled(rows).any()) + [("agreement", "prediction")]


def _labelled(rows: pa.Table) -> Bool[np.ndarray, " images"]:
    """The images whose class is known, also where the model lacks it."""
    return rows["answers"].is_valid().to_numpy()


def _compared(rows: pa.Table, named: np.ndarray, reference: str) -> Float[np.ndarray, "images points"]:
    if reference == "prediction":
        return (named == array(rows, "original")[:, None]).astype(np.float64)
    pairs = zip(named, rows["answers"].to_pylist(), strict=True)
    right = np.array([np.isin(row, own or ()) for row, own in pairs], dtype=np.float64)
    right[~_labelled(rows)] = np.nan
    return right


def _check(targets: Sequence[str], shares: Sequence[float]) -> None:
    if not targets or len(set(targets)) < len(targets) or not set(targets) <= set(TARGETS):
        raise UserError(f"targets must be one or both of {' and '.join(TARGETS)}, not {list(targets)}")
    rising = all(low < high for low, high in pairwise(shares))
    if len(shares) < 2 or not rising or not (0 <= shares[0] and shares[-1] <= 1):
        raise UserError(
            f"shares must be two or more numbers from 0 to 1, each above the one before, not {list(shares)}"
        )
