"""Localisation: how much of a relevance map lies on the object, whether its highest point does, how much of the object it covers.

share_on_object: sum(R * S) / sum(R), with the map R in [0, 1] and the object S, 0 or 1; the energy-based pointing game of Wang et
al., "Score-CAM" (CVPR workshops 2020).
pointing_game: whether the map's highest point is at most `tolerance` pixels away from the object, Zhang et al., "Top-down Neural
Attention by Excitation Backprop" (IJCV 2018), whose tolerance is 15. Where several points are the highest, at least half of
them must be.
coverage: the share of the object's pixels that are above the map's mean, the object's recall in the segmentation test (ours).
object_area: the share of the picture that the object takes up: what a map that knows nothing would have as share_on_object.

A flat map has nothing on the object, points nowhere and covers nothing: 0. Ignored pixels count for nothing.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.evaluation.items import Advance, LeftOut
from relevit.evaluation.maps.map_batches import map_batches
from relevit.evaluation.maps.segmentation import above_mean
from relevit.evaluation.per_image import PerImage
from relevit.explainers.foreground_share import foreground_share
from relevit.models.view import EvaluationView

TOLERANCE = 15.0
SCALE = 224  # pixels of the shorter side at which the tolerance is given


def localization(
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
    geometry: str = "crop",
    tolerance: float = TOLERANCE,
) -> PerImage:
    """Localisation of a model's maps on images with masks, in percent, by image; see `map_batches` for the other arguments.

    geometry: "crop" is the model's own evaluation view, "squash" the whole picture, as in the segmentation test.
    tolerance: of the pointing game, in pixels of an input of 224 x 224; in proportion at another size (its shorter side).
    Images without an object in the view are left out. `seed` is not used: nothing here is random.
    Raises UserError as `map_batches`, and where no image has an object in the view.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
        raise UserError(f"tolerance must be a number of pixels from 0, not {tolerance!r}")
    left_out: list[LeftOut] = []
    items, rows = [], []
    batches = map_batches(
        model,
        view,
        data,
        left_out,
        geometry=geometry,
        target=target,
        explainer=explainer,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )
    for batch in batches:
        radius = tolerance * min(batch.maps.shape[1:]) / SCALE
        values = measured(batch.maps, batch.masks, batch.ignore, radius)
        seen = (batch.masks & ~batch.ignore).flatten(1).any(dim=1).tolist()
        for item, row, there in zip(batch.items, values, seen, strict=True):
            if there:
                items.append(item)
                rows.append(row)
            else:
                left_out.append(LeftOut(item.name, "no object in the model's view of it"))
    if not items:
        raise UserError(f"none of the {len(left_out)} images has an object in the model's view: check the masks")
    table = 100 * np.stack(rows)  # (images, figures)
    return PerImage(
        [item.name for item in items],
        [item.group for item in items],
        [item.object for item in items],
        {name: table[:, place] for place, name in enumerate(FIGURES)},
        left_out,
        dict.fromkeys(FIGURES[:3], (0.0, 100.0)),  # the area is the data's, no model changes it
    )


FIGURES = ("share_on_object", "pointing_game", "coverage", "object_area")


def measured(
    maps: Float[Tensor, "batch height width"],
    masks: Bool[Tensor, "batch height width"],
    ignore: Bool[Tensor, "batch height width"],
    radius: float,
) -> Float[np.ndarray, "batch 4"]:
    """The four figures of each image in [0, 1], in the order of FIGURES; NaN where they have no pixels. `radius` in pixels."""
    counted = ~ignore
    objects = masks & counted
    maps = torch.where(ignore, 0, maps.double())  # they hold no relevance, nor the highest point
    size = objects.sum(dim=(1, 2))
    share = foreground_share(maps, objects.double())
    covered = (above_mean(maps, ignore) & objects).sum(dim=(1, 2)) / size
    area = size / counted.sum(dim=(1, 2))
    points = [_pointing(*planes, radius) for planes in zip(maps.cpu().numpy(), objects.cpu().numpy(), strict=True)]
    return np.stack([share.cpu().numpy(), points, covered.cpu().numpy(), area.cpu().numpy()], axis=1)


def _pointing(
    relevance: Float[np.ndarray, "height width"],
    item: Bool[np.ndarray, "height width"],
    radius: float,
) -> float:
    """1 where the distance to the object of (at least half of) the map's highest points is at most `radius`, else 0."""
    if not item.any() or not (relevance > 0).any():
        return 0.0
    distance = cv2.distanceTransform((~item).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # 0 on the object
    highest = relevance == relevance.max()
    return float((distance[highest] <= radius + 1e-4).mean() >= 0.5)
