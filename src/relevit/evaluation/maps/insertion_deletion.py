"""Insertion and deletion: the probability of a class while the pixels that its map calls relevant come in, or go.

Petsiuk, Das and Saenko, "RISE" (BMVC 2018): pixels go in steps, the most relevant first, from the whole picture to the fill
(deletion: a small area under the probability's curve is good), or come into a blurred picture (insertion: a large area is). A
random order is the yardstick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relevit.data.sets import ImageSet, Item
from relevit.errors import UserError
from relevit.evaluation.maps.removal import (
    Fill,
    check_removal,
    filled,
    maps_of,
    random_ranks,
    removal_ranks,
    with_pixels_removed,
)
from relevit.evaluation.measured import Measured
from relevit.evaluation.measurement import LoadedModel, RightAnswers, Work, by_batch, own_view
from relevit.evaluation.rows import array

UNKNOWN = "its class is not known"


@dataclass(frozen=True)
class InsertionDeletion:
    """Insertion and deletion of a model's maps. Rows: the class whose probability was followed, the pixels of the picture, and by
    name ("insertion", "deletion", the same with "_random") that probability at each step: 0 to all pixels in, or out.

    After step s of S, floor(s * height * width / S) pixels have come in or gone; pixels of equal relevance in the order of their
    index. The probability is the softmax over the classes that compete; the area is the trapezoid rule's over the share of pixels,
    from 0 to 1.

    Attributes:
        explainer: a name in `relevit.explainers.EXPLAINERS`.
        target: the class whose map and probability are taken: "predicted" (as in RISE), or "label" (the first of several right
            ones; images without a label are left out).
        steps: from nothing to all pixels; RISE takes one for each row of the picture.
        fill: what deleted pixels become: "black", "mean", "blur" or a grey (`relevit.evaluation.maps.removal.filled`).
        canvas: what insertion starts from, one of the same; "blur" in RISE.
        random: the random order that is measured for comparison: of "patches" (whole regions, as in a map), of "pixels", or "none".
        class_map: for class folders that are named neither by wnid nor by class index; for "label" alone.
        seed: of the random order, which depends on it and on the image's place alone.
        batch_size: pictures in one forward pass; images and steps are run through together.
    """

    explainer: str = "gae"
    target: str = "predicted"
    steps: int = 56
    fill: Fill = "black"
    canvas: Fill = "blur"
    random: str = "patches"
    class_map: Any = None
    seed: int = 0
    batch_size: int = 32
    needs: ClassVar = "images"
    description: ClassVar = "probability of the class as pixels come in or go by relevance (RISE), percent"
    nothing: ClassVar = {UNKNOWN: "no image has a class that is known: take the predicted class as target"}
    framings = own_view

    @property
    def curves(self) -> list[str]:
        """The curves that are measured."""
        ends = [""] + ["_random"] * (self.random != "none")
        return [name + end for end in ends for name in ("insertion", "deletion")]

    def columns(self) -> pa.Schema:
        """By curve a probability for each step."""
        curves = [(name, pa.list_(pa.float64())) for name in self.curves]
        return pa.schema([("followed", pa.int32()), ("pixels", pa.int32()), *curves])

    def begin(self, model: LoadedModel, images: ImageSet) -> Work:
        """Raises UserError for a bad option, or a set whose classes the model does not have and that are needed."""
        if self.target not in ("predicted", "label"):
            raise UserError(f"target must be predicted or label, not {self.target!r}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise UserError(f"steps must be a whole number from 1, not {self.steps!r}")
        check_removal(self.explainer, self.random, model.view, fill=self.fill, canvas=self.canvas)
        by_label = self.target == "label"
        right = RightAnswers(model, images, self.class_map, wanted=by_label)

        def columns(items: Sequence[Item], pictures: Tensor) -> dict[str, Any]:
            if by_label:
                classes = torch.tensor([(right.of(item) or (-1,))[0] for item in items], device=pictures.device)
            else:
                classes = right.among_candidates(model.net(pictures)).argmax(dim=1)
            pixels = [pictures[0, 0].numel()] * len(items)
            return {
                "followed": classes,
                "pixels": pixels,
                **self._probabilities(model, pictures, classes, items, right),
            }

        known = (lambda item: bool(right.of(item))) if by_label else None
        return by_batch(model, columns, counts=known, reason=UNKNOWN)

    def _probabilities(
        self,
        model: LoadedModel,
        images: Float[Tensor, "batch 3 height width"],
        classes: Int[Tensor, " batch"],
        items: Sequence[Item],
        right: RightAnswers,
    ) -> dict[str, Float[Tensor, "batch steps"]]:
        """By curve the probability of each image's class at each step."""
        counts = self._counts(images[0, 0].numel())
        orders = {"": removal_ranks(maps_of(model.net, images, classes, self.explainer), most_first=True)}
        if self.random != "none":
            places = [item.place for item in items]
            orders["_random"] = random_ranks(model.net, images, places, self.random, self.seed)
        deleted, start = filled(images, self.fill, model.view), filled(images, self.canvas, model.view)

        def probability(logits: Tensor, rows: Tensor) -> Tensor:
            exact = torch.promote_types(logits.dtype, torch.float32)
            return right.among_candidates(logits).softmax(1, dtype=exact).gather(1, classes[rows, None])[:, 0]

        found = {}
        for end, ranks in orders.items():
            # what is inserted takes the canvas's place as what is deleted leaves the picture's
            for name, before, after in (("insertion", start, images), ("deletion", images, deleted)):
                curve = with_pixels_removed(model.net, before, after, ranks, counts, probability, self.batch_size)
                found[name + end] = curve.cpu().double()
        return found

    def _counts(self, pixels: int) -> list[int]:
        return [step * pixels // self.steps for step in range(self.steps + 1)]

    def areas(self, rows: pa.Table, curve: str) -> Float[np.ndarray, " images"]:
        """The area under each image's curve, in [0, 1]."""
        probabilities = torch.from_numpy(array(rows, curve).copy())
        return torch.trapezoid(probabilities, torch.from_numpy(self.shares(rows)), dim=1).numpy()

    def shares(self, rows: pa.Table) -> Float[np.ndarray, " steps"]:
        """Of the pixels that have come in or gone at each step, 0 to 1."""
        pixels = int(rows["pixels"][0].as_py())
        return np.array(self._counts(pixels)) / pixels

    def figures(self, rows: pa.Table) -> Measured:
        """The areas in percent; "contrast" is insertion minus deletion. The JSON has the mean curves of the whole set, too."""
        values = {name: 100 * self.areas(rows, name) for name in self.curves}
        values["contrast"] = values["insertion"] - values["deletion"]
        bounds = {name: (-100.0 if name == "contrast" else 0.0, 100.0) for name in values}
        names = ("explainer", "target", "fill", "canvas", "steps", "random", "seed")
        means = {name: array(rows, name).sum(axis=0) / len(rows) for name in self.curves}
        details = {
            "shares": [round(float(share), 6) for share in self.shares(rows)],
            "curves": {name: [round(100 * float(point), 4) for point in curve] for name, curve in means.items()},
        }
        shown = {"followed": array(rows, "followed"), **values}
        settings = {name: getattr(self, name) for name in names}
        return Measured(rows, values, bounds, settings, shown=shown, details=details)
