"""Frozen features as a measurement: what a backbone sees in an image before its head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from relevit.data.sets import ImageSet, Item
from relevit.errors import UserError
from relevit.evaluation.measurement import LoadedModel, Work, by_batch, own_view
from relevit.evaluation.rows import array
from relevit.models import families


def features_columns(measurement: Any) -> pa.Schema:
    """One vector an image, in single precision."""
    return pa.schema([("features", pa.list_(pa.float32()))])


def features_work(measurement: Any, model: LoadedModel, images: ImageSet) -> Work:
    """The features of a model before its head (of timm's, `forward_head(..., pre_logits=True)`); scaled to length 1 (zeros stay zeros)
    where the measurement has `unit`. Raises UserError for a model that does not tell them."""
    families.check_features(model.net)

    def columns(items: Sequence[Item], pictures: Tensor) -> dict[str, Any]:
        found = before_head(model.net, pictures, [item.name for item in items])
        return {"features": (F.normalize(found, dim=1) if measurement.unit else found).float()}

    return by_batch(model, columns)


@dataclass(frozen=True)
class Features:
    """The features of a model, as they are. Rows: one vector an image."""

    unit: ClassVar = False
    batch_size: ClassVar = 64
    needs: ClassVar = "images"
    description: ClassVar = "features before the head"
    framings, columns, begin = own_view, features_columns, features_work

    def figures(self, rows: pa.Table) -> np.ndarray:
        """(images, features)."""
        return array(rows, "features")


def before_head(
    model: nn.Module, images: Float[Tensor, "batch 3 height width"], names: Sequence[str]
) -> Float[Tensor, "batch channels"]:
    """What the head is applied to, in at least single precision; of a distilled DeiT the mean of both tokens, which both heads
    then share.

    Raises UserError where they are no single vector an image, and naming an image of `names` whose features are not finite.
    """
    found = families.features(model, images)
    if found.ndim != 2:
        raise UserError(f"the model's features are of the shape {tuple(found.shape[1:])}, not one vector an image")
    bad = torch.nonzero(~found.isfinite().all(dim=1))[:, 0].tolist()
    if bad:
        raise UserError(f"the model's features of {names[bad[0]]} are not finite")
    return found.to(torch.promote_types(found.dtype, torch.float32))
