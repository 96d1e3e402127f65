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
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.evaluation.batches import Framing
from relevit.evaluation.maps.masked_maps import maps_of_masked
from relevit.evaluation.maps.segmentation import above_mean
from relevit.evaluation.measured import Measured
from relevit.evaluation.measurement import LoadedModel, Work
from relevit.evaluation.rows import array
from relevit.explainers.foreground_share import foreground_share

TOLERANCE = 15.0
SCALE = 224  # pixels of the shorter side at which the tolerance is given
GEOMETRIES = ("squash", "crop")
FIGURES = ("share_on_object", "pointing_game", "coverage", "object_area")
NO_OBJECT = "no object in the model's view of it"


@dataclass(frozen=True)
class Localization:
    """Localisation of maps on images with masks. Rows: FIGURES, in [0, 1]. Images without an object in the view do not count.

    Attributes:
        explainer: a name of `relevit.explainers.EXPLAINERS`.
        target: whose map, the "predicted" class's or the "label"'s.
        geometry: "crop" is the model's own evaluation view, "squash" the whole picture, as in the segmentation test.
        tolerance: of the pointing game, in pixels of an input of 224 x 224; in proportion at another size (its shorter side).
        class_map: for class folders that are named neither by wnid nor by class index.
    """

    explainer: str = "gae"
    target: str = "predicted"
    geometry: str = "crop"
    tolerance: float = TOLERANCE
    class_map: Any = None
    batch_size: ClassVar = 16
    needs: ClassVar = "masks"
    description: ClassVar = "share of relevance on the object, pointing game, coverage of the object, percent"
    nothing: ClassVar = {NO_OBJECT: "none of the {count} images has an object in the model's view: check the masks"}

    def columns(self) -> pa.Schema:
        """See FIGURES."""
        return pa.schema([(name, pa.float64()) for name in FIGURES])

    def framings(self, model: LoadedModel) -> list[Framing]:
        """As `geometry` says."""
        if self.geometry not in GEOMETRIES:
            raise UserError(f"geometry must be one of {', '.join(GEOMETRIES)}, not {self.geometry!r}")
        return [Framing(model.view, "squash" if self.geometry == "squash" else "crop")]

    def begin(self, model: LoadedModel, images: ImageSet) -> Work:
        """See `maps_of_masked`. Raises UserError for a tolerance that is no number of pixels as well."""
        tolerance = self.tolerance
        if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
            raise UserError(f"tolerance must be a number of pixels from 0, not {tolerance!r}")
        self.framings(model)

        def found(maps: Tensor, masks: Tensor, ignore: Tensor) -> tuple[dict[str, Any], Tensor]:
            values = measured(maps, masks, ignore, tolerance * min(maps.shape[1:]) / SCALE).T
            return dict(zip(FIGURES, map(torch.from_numpy, values), strict=True)), (masks & ~ignore).flatten(1).any(
                dim=1
            )

        return maps_of_masked(model, images, self.explainer, self.target, self.class_map, found, NO_OBJECT)

    def figures(self, rows: pa.Table) -> Measured:
        """FIGURES in percent."""
        values = {name: 100 * array(rows, name) for name in FIGURES}
        return Measured(
            rows, values, dict.fromkeys(FIGURES[:3], (0.0, 100.0))
        )  # the area is the data's, no model changes it


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
