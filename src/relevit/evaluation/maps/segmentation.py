"""The segmentation test (Table 3): how well the relevance map of the predicted class segments the object.

Of each image the whole picture is squashed to the model's input size, its labels to the nearest pixel. Foreground is where the map
is above its own mean. Pixel accuracy and the IoU of background and object come from counts summed over the set, mIoU is their mean,
mAP the mean over images of the average precision of the flattened [1 - R, R] against the one-hot labels [background, object], with
R in [0, 1]. Ignored pixels count for nothing, neither in the sums nor in the mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from relevit.evaluation.items import Advance, LeftOut
from relevit.evaluation.maps.map_batches import map_batches
from relevit.evaluation.per_image import columns, summary
from relevit.models.view import EvaluationView
from relevit.statistics.weighted import plain, ratio, weighted_mean

FIGURES = ("pixel_accuracy", "miou", "map", "iou_background", "iou_object")


@dataclass(frozen=True)
class Segmentation:
    """The segmentation test of one model; figures are percent.

    Attributes:
        names, groups, objects: of each image its name, its class's name (may be empty), and what it shows.
        counts: pixels of each image by (truth, map): background as background, background as object, object as background,
            object as object.
        average_precision: of each image, in [0, 1].
        left_out: images that do not count, and why.
    """

    names: Sequence[str]
    groups: Sequence[str]
    objects: Sequence[str]
    counts: Int[np.ndarray, "images 4"]
    average_precision: Float[np.ndarray, " images"]
    left_out: Sequence[LeftOut] = ()

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Between which values each figure lies."""
        return dict.fromkeys(FIGURES, (0.0, 100.0))

    def figures(self, weights: Float[np.ndarray, "draws images"]) -> dict[str, Float[np.ndarray, " draws"]]:
        """pixel_accuracy, miou, map, and the IoU of each side, of the set in which images appear as often as `weights` says."""
        found = _from_counts(weights @ self.counts)
        mean = weighted_mean(weights, self.average_precision)
        return {name: 100 * (mean if name == "map" else found[name]) for name in FIGURES}

    def per_image(self) -> dict[str, Float[np.ndarray, " images"]]:
        """The same figures of each image alone, percent; an IoU of a side that neither truth nor map has is NaN."""
        found = {name: 100 * values for name, values in _from_counts(self.counts.astype(float)).items()}
        return {**found, "average_precision": 100 * self.average_precision}

    def only(self, chosen: Int[np.ndarray, " some"]) -> Segmentation:
        """The same for some of the images, by number."""
        names, groups, objects = columns(chosen, self.names, self.groups, self.objects)
        return Segmentation(names, groups, objects, self.counts[chosen], self.average_precision[chosen])

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield from plain(self).items()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the figures, by class, and those of every image with its counts of pixels."""
        kinds = ("background_as_background", "background_as_object", "object_as_background", "object_as_object")
        return summary(self, self.per_image() | {kind: self.counts[:, place] for place, kind in enumerate(kinds)})


def segmentation(
    model: nn.Module,
    view: EvaluationView,
    data: Any,
    *,
    batch_size: int = 16,
    seed: int = 0,
    progress: Advance | None = None,
    workers: int = 0,
    explainer: str = "gae",
    target: str = "predicted",
) -> Segmentation:
    """The segmentation test of a model on images with masks; see `map_batches` for the arguments and the errors.

    `seed` is not used: nothing here is random.
    """
    items, counts, precisions, left_out = [], [], [], []  # type: ignore[var-annotated]
    batches = map_batches(
        model,
        view,
        data,
        left_out,
        target=target,
        explainer=explainer,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )
    for batch in batches:
        items += batch.items
        counts.append(pixel_counts(batch.maps, batch.masks, batch.ignore).cpu())
        precisions.append(average_precision(batch.maps, batch.masks, batch.ignore).cpu())
    return Segmentation(
        [item.name for item in items],
        [item.group for item in items],
        [item.object for item in items],
        torch.cat(counts).numpy(),
        torch.cat(precisions).numpy(),
        left_out,
    )


def above_mean(
    maps: Float[Tensor, "batch height width"], ignore: Bool[Tensor, "batch height width"]
) -> Bool[Tensor, "batch height width"]:
    """Where each map is above its own mean over the pixels that count, summed in double precision. Of a flat map, nowhere."""
    values = torch.where(ignore, 0, maps.double())
    mean = values.sum(dim=(1, 2), keepdim=True) / (~ignore).sum(dim=(1, 2), keepdim=True).clamp(min=1)
    return (maps > mean) & (maps > torch.where(ignore, torch.inf, maps).amin(dim=(1, 2), keepdim=True))


def pixel_counts(
    maps: Float[Tensor, "batch height width"],
    masks: Bool[Tensor, "batch height width"],
    ignore: Bool[Tensor, "batch height width"],
) -> Int[Tensor, "batch 4"]:
    """Pixels of each image by (truth, map above its mean): (0, 0), (0, 1), (1, 0), (1, 1); ignored ones are none of them."""
    kind = 2 * masks.long() + above_mean(maps, ignore)
    counted = [((kind == number) & ~ignore).sum(dim=(1, 2)) for number in range(4)]
    return torch.stack(counted, dim=1)


def average_precision(
    maps: Float[Tensor, "batch height width"],
    masks: Bool[Tensor, "batch height width"],
    ignore: Bool[Tensor, "batch height width"],
) -> Float[Tensor, " batch"]:
    """The average precision of the scores [1 - R, R] of each image against the one-hot labels [background, object], in [0, 1].

    As scikit-learn's `average_precision_score`: the sum over thresholds of precision times the gain in recall, equal scores
    sharing a threshold; 1 - R is taken in the precision of R. NaN where no pixel counts.
    """
    scores = torch.cat([(1 - maps).flatten(1), maps.flatten(1)], dim=1)  # (batch, 2 * pixels)
    right = torch.cat([(~masks).flatten(1), masks.flatten(1)], dim=1)
    left_out = ignore.flatten(1).repeat(1, 2)
    return ranking_precision(scores, right & ~left_out, left_out)


def ranking_precision(
    scores: Float[Tensor, "batch scores"], right: Bool[Tensor, "batch scores"], left_out: Bool[Tensor, "batch scores"]
) -> Float[Tensor, " batch"]:
    """The average precision of finite scores against labels; scores of `left_out`, whose labels are false, do not count."""
    ranked, order = torch.where(left_out, -torch.inf, scores).sort(dim=1, descending=True)
    hits = right.gather(1, order).cumsum(dim=1)  # right ones among the first k
    end = torch.ones_like(right)
    end[:, :-1] = ranked[:, 1:] != ranked[:, :-1]  # the last of equal scores
    before = torch.where(end, hits, 0).cummax(dim=1).values.roll(1, dims=1)  # hits up to the threshold before
    before[:, 0] = 0
    rank = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    gain = torch.where(end, (hits - before) * (hits / rank.double()), 0)
    return gain.sum(dim=1) / hits[:, -1]


def _from_counts(counts: Float[np.ndarray, "rows 4"]) -> dict[str, Float[np.ndarray, " rows"]]:
    """Pixel accuracy and IoU, in [0, 1], of each row of counts (0, 0), (0, 1), (1, 0), (1, 1) by (truth, map)."""
    both, false, missed, hit = counts.T
    background, item = ratio(both, both + false + missed), ratio(hit, hit + false + missed)
    return {
        "pixel_accuracy": ratio(both + hit, counts.sum(axis=1)),
        "miou": (background + item) / 2,
        "iou_background": background,
        "iou_object": item,
    }
