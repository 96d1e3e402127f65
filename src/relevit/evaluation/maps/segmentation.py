"""The segmentation test (Table 3): how well the relevance map of the predicted class segments the object.

Of each image the whole picture is squashed to the model's input size, its labels to the nearest pixel. Foreground is where the map
is above its own mean. Pixel accuracy and the IoU of background and object come from counts summed over the set, mIoU is their mean,
mAP the mean over images of the average precision of the flattened [1 - R, R] against the one-hot labels [background, object], with
R in [0, 1]. Ignored pixels count for nothing, neither in the sums nor in the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relevit.data.sets import ImageSet
from relevit.evaluation.batches import Framing
from relevit.evaluation.maps.masked_maps import maps_of_masked
from relevit.evaluation.measured import Measured
from relevit.evaluation.measurement import LoadedModel, Work
from relevit.evaluation.rows import array
from relevit.statistics.weighted import ratio, weighted_mean

FIGURES = ("pixel_accuracy", "miou", "map", "iou_background", "iou_object")
COUNTS = ("background_as_background", "background_as_object", "object_as_background", "object_as_object")


@dataclass(frozen=True)
class Segmentation:
    """The segmentation test. Rows: pixels of each image by (truth, map), and its average precision in [0, 1].

    Attributes:
        explainer: a name of `relevit.explainers.EXPLAINERS`.
        target: whose map, the "predicted" class's or the "label"'s.
        class_map: for class folders that are named neither by wnid nor by class index.
    """

    explainer: str = "gae"
    target: str = "predicted"
    class_map: Any = None
    batch_size: ClassVar = 16
    needs: ClassVar = "masks"
    description: ClassVar = "pixel accuracy, mIoU and mAP of maps above their mean (the paper's Table 3), percent"

    def columns(self) -> pa.Schema:
        """See COUNTS."""
        return pa.schema([*((kind, pa.int64()) for kind in COUNTS), ("average_precision", pa.float64())])

    def framings(self, model: LoadedModel) -> list[Framing]:
        """The whole picture."""
        return [Framing(model.view, "squash")]

    def begin(self, model: LoadedModel, images: ImageSet) -> Work:
        """See `maps_of_masked`."""

        def found(maps: Tensor, masks: Tensor, ignore: Tensor) -> dict[str, Any]:
            counts = dict(zip(COUNTS, pixel_counts(maps, masks, ignore).T, strict=True))
            return {**counts, "average_precision": average_precision(maps, masks, ignore)}

        return maps_of_masked(model, images, self.explainer, self.target, self.class_map, found)

    def figures(self, rows: pa.Table) -> Measured:
        """Those of FIGURES; of each image alone, an IoU of a side that neither truth nor map has is NaN."""
        counts = counts_of(rows)
        alone = {name: 100 * values for name, values in _from_counts(counts.astype(float)).items()}
        alone["average_precision"] = 100 * array(rows, "average_precision")
        shown = alone | {kind: counts[:, place] for place, kind in enumerate(COUNTS)}
        return Measured(rows, alone, dict.fromkeys(FIGURES, (0.0, 100.0)), shown=shown, combine=_of_set)


def counts_of(rows: pa.Table) -> Int[np.ndarray, "images 4"]:
    """Pixels of each image by (truth, map), in the order of COUNTS."""
    return np.stack([array(rows, kind) for kind in COUNTS], axis=1)


def _of_set(rows: pa.Table, weights: Float[np.ndarray, "draws images"]) -> dict[str, Float[np.ndarray, " draws"]]:
    """The figures of the set in which images appear as often as `weights` says: counts are summed first."""
    found = _from_counts(weights @ counts_of(rows))
    mean = weighted_mean(weights, array(rows, "average_precision"))
    return {name: 100 * (mean if name == "map" else found[name]) for name in FIGURES}


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
