"""Insertion and deletion: the probability of a class while the pixels that its map calls relevant come in, or go.

Petsiuk, Das and Saenko, "RISE" (BMVC 2018): pixels go in steps, the most relevant first, from the whole picture to the fill
(deletion: a small area under the probability's curve is good), or come into a blurred picture (insertion: a large area is). A
random order is the yardstick.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.evaluation.image_batches import ImageBatches
from relevit.evaluation.items import Advance, Item, LeftOut
from relevit.evaluation.maps.removal import (
    Fill,
    check_explainer,
    check_fill,
    check_random,
    filled,
    maps_of,
    random_ranks,
    removal_ranks,
    with_pixels_removed,
)
from relevit.evaluation.per_image import PerImage, summary
from relevit.models.view import EvaluationView
from relevit.models.working import working


@dataclass(frozen=True)
class InsertionDeletion:
    """The areas of each image, and the mean curves; all figures are percent.

    Attributes:
        names, groups, objects: of each image its name, its class's name (may be empty), and what it shows.
        classes: the class whose probability was followed, (images,).
        areas: "insertion", "deletion", "insertion_random", "deletion_random" -> the area under each image's curve, in [0, 1].
        curves: the same -> the mean probability at each step, (steps + 1,), of the whole set: 0 to all pixels in (or out).
        shares: of the pixels that have come in or gone at each step, (steps + 1,), 0 to 1.
        settings: explainer, target, fill, canvas, steps, kind of random order, seed.
        left_out: images that could not be read, and why.
    """

    names: list[str]
    groups: list[str]
    objects: list[str]
    classes: Int[np.ndarray, " images"]
    areas: dict[str, Float[np.ndarray, " images"]]
    curves: dict[str, Float[np.ndarray, " points"]]
    shares: Float[np.ndarray, " points"]
    settings: dict[str, Any] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    @cached_property
    def per_image(self) -> PerImage:
        """The areas of each image, percent; "contrast" is insertion minus deletion."""
        values = {name: 100 * area for name, area in self.areas.items()}
        values["contrast"] = values["insertion"] - values["deletion"]
        bounds = {name: (-100.0 if name == "contrast" else 0.0, 100.0) for name in values}
        return PerImage(self.names, self.groups, self.objects, values, self.left_out, bounds)

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Between which values each figure lies."""
        return self.per_image.bounds

    def figures(self, weights: Float[np.ndarray, "draws images"]) -> dict[str, Float[np.ndarray, " draws"]]:
        """The figures of the set in which each image appears as often as `weights` says."""
        return self.per_image.figures(weights)

    def only(self, chosen: Int[np.ndarray, " some"]) -> PerImage:
        """The areas of some of the images, by number."""
        return self.per_image.only(chosen)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield from self.per_image

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the figures, the mean curves, and the areas of every class and image."""
        curves = {name: [round(100 * float(point), 4) for point in curve] for name, curve in self.curves.items()}
        return {
            "settings": self.settings,
            **summary(self.per_image, {"followed": self.classes, **self.per_image.values}),
            "shares": [round(float(share), 6) for share in self.shares],
            "curves": curves,
        }


def insertion_deletion(
    model: nn.Module,
    view: EvaluationView | Any,
    data: Any,
    *,
    batch_size: int = 32,
    seed: int = 0,
    progress: Advance | None = None,
    explainer: str = "gae",
    target: str = "predicted",
    steps: int = 56,
    fill: Fill = "black",
    canvas: Fill = "blur",
    random: str = "patches",
    class_map: Any = None,
    workers: int = 0,
) -> InsertionDeletion:
    """Insertion and deletion of a model's maps on images.

    After step s of S, floor(s * height * width / S) pixels have come in or gone; pixels of equal relevance in the order of their
    index. The probability is the softmax over the classes that compete; the area is the trapezoid rule's over the share of pixels, from 0 to 1.

    Args:
        model: any model that the explainer takes.
        view: the transform of a picture to its input, of `relevit.load`.
        data: an `ImageSet`, or `Sample`s.
        batch_size: pictures in one forward pass; images and steps are run through together.
        seed: of the random order, which depends on it and on the image's number alone.
        progress: called with the number of images that are done since its last call.
        explainer: a name in `relevit.explainers.EXPLAINERS`.
        target: the class whose map and probability are taken: "predicted" (as in RISE), or "label" (the first of several right
            ones; images without a label are left out).
        steps: from nothing to all pixels; RISE takes one for each row of the picture.
        fill: what deleted pixels become: "black", "mean", "blur" or a grey (`relevit.evaluation.maps.removal.filled`).
        canvas: what insertion starts from, one of the same; "blur" in RISE.
        random: the random order that is measured for comparison: of "patches" (whole regions, as in a map), of "pixels", or "none".
        class_map: for class folders that are named neither by wnid nor by class index; for "label" alone.
        workers: processes that read images; 0 reads in this one.

    Raises:
        UserError: an option that is none of these, an empty data set, a label that the model does not know, no image that counts;
            an unsupported model.
    """
    if target not in ("predicted", "label"):
        raise UserError(f"target must be predicted or label, not {target!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UserError(f"steps must be a whole number from 1, not {steps!r}")
    check_fill(fill, view)
    check_fill(canvas, view, "canvas")
    check_random(random)
    check_explainer(explainer)
    batches = ImageBatches(model, view, data, batch_size, class_map, workers, progress, labels=target == "label")
    unlabelled: list[LeftOut] = []
    items: list[Item] = []
    followed: list[Tensor] = []
    areas: dict[str, list[Tensor]] = {}
    curves: dict[str, Tensor] = {}
    shares = np.zeros(0)
    with working(model), torch.no_grad():
        for batch in batches:
            known = [number for number, right in enumerate(batch.answers) if right or target == "predicted"]
            gone = set(range(len(batch.items))) - set(known)
            unlabelled += [LeftOut(batch.items[i].name, "its class is not known") for i in sorted(gone)]
            if not known:
                continue
            images, pixels = batch.images[known], batch.images[0, 0].numel()
            if target == "label":
                first = [right[0] for i in known if (right := batch.answers[i])]
                classes = torch.tensor(first, device=images.device)
            else:
                classes = batches.among_candidates(model(images)).argmax(dim=1)
            counts = [step * pixels // steps for step in range(steps + 1)]
            shares = np.array(counts) / pixels
            orders = {"": removal_ranks(maps_of(model, images, classes, explainer), most_first=True)}
            if random != "none":
                numbers = [batch.numbers[i] for i in known]
                orders["_random"] = random_ranks(model, images, numbers, random, seed)
            deleted, start = filled(images, fill, view), filled(images, canvas, view)

            def probability(logits: Tensor, rows: Tensor, classes: Tensor = classes) -> Tensor:
                shown = batches.among_candidates(logits).softmax(
                    1, dtype=torch.promote_types(logits.dtype, torch.float32)
                )
                return shown.gather(1, classes[rows, None])[:, 0]

            for end, ranks in orders.items():
                # what is inserted takes the canvas's place as what is deleted leaves the picture's
                for name, before, after in (("insertion", start, images), ("deletion", images, deleted)):
                    curve = (
                        with_pixels_removed(model, before, after, ranks, counts, probability, batch_size).cpu().double()
                    )
                    areas.setdefault(name + end, []).append(torch.trapezoid(curve, torch.from_numpy(shares), dim=1))
                    curves[name + end] = curves.get(name + end, torch.zeros(())) + curve.sum(dim=0)
            followed.append(classes.cpu())
            items += [batch.items[i] for i in known]
    if not items:
        raise UserError("no image has a class that is known: take the predicted class as target")
    return InsertionDeletion(
        [item.name for item in items],
        [item.group for item in items],
        [item.object for item in items],
        torch.cat(followed).numpy(),
        {name: torch.cat(parts).numpy() for name, parts in areas.items()},
        {name: (curve / len(items)).numpy() for name, curve in curves.items()},
        shares,
        {
            "explainer": explainer,
            "target": target,
            "fill": fill,
            "canvas": canvas,
            "steps": steps,
            "random": random,
            "seed": seed,
        },
        [*batches.left_out, *unlabelled],
    )
