"""What models answer to every version of every picture, and where they look on the pictures as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from relevit.auditing.conditions import CONDITIONS, ORIGINAL, Versions
from relevit.data.sample import Sample
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.evaluation.batches import Batch, Framing
from relevit.evaluation.engine import run
from relevit.evaluation.measurement import LoadedModel, Work, on_device
from relevit.evaluation.rows import Part, array
from relevit.explainers import forward_with_relevance
from relevit.explainers.foreground_share import foreground_share
from relevit.models.attention import unsupported_reason
from relevit.models.families import logits_of
from relevit.models.working import working
from relevit.processes import Processes

SET = "pictures"  # the name of the set that is measured


@dataclass(frozen=True)
class Observed:
    """What one model did on n pictures.

    predicted: condition -> class indices (n,), -1 where a picture of that condition cannot be made, or where the logits are
    not finite. confidence: the same of its probability, NaN there. possible: condition -> bool (n,), where it can be made.
    share: of the relevance on the background (n,), NaN of a flat map; None for a model without maps. area: the background's
    share of the picture as the model sees it (n,).
    """

    predicted: Mapping[str, np.ndarray]
    confidence: Mapping[str, np.ndarray]
    possible: Mapping[str, np.ndarray]
    share: np.ndarray | None
    area: np.ndarray


@dataclass(frozen=True)
class BackgroundReliance:
    """The answers to versions of pictures, an image each. Rows: condition, answer and its probability, the share of relevance on the
    background (null for a model without maps, NaN where the picture is not as it is) and the background's area.

    versions: of the pictures. conditions: which are shown. maps: whether relevance is measured.
    """

    versions: Versions
    conditions: Sequence[str] = tuple(CONDITIONS)
    maps: bool = True
    batch_size: ClassVar = 32
    needs: ClassVar = "masks"
    description: ClassVar = "answers with other backgrounds, and relevance on the background"

    def images(self) -> ImageSet:
        """The versions that can be made as a set, those of one picture one after the other."""
        possible = {key: self.versions.possible(key) for key in self.conditions}
        pictures = self.versions.images
        shown = [(n, key) for n in range(len(pictures)) for key in self.conditions if possible[key][n]]

        def read(place: int) -> Sample:
            number, key = shown[place]
            picture = self.versions.picture(key, number)
            assert picture is not None
            return Sample(picture, self.versions.scene(number).mask, name=f"{pictures.names[number]}: {key}")

        each = pictures.subset([number for number, _ in shown])
        names = [f"{pictures.names[number]}: {key}" for number, key in shown]
        return ImageSet(SET, read, names, each.groups, objects=each.objects, masked=True)

    def columns(self) -> pa.Schema:
        """Condition, answer, its probability, share and area."""
        numbers = [(name, pa.float64()) for name in ("confidence", "share", "area")]
        return pa.schema([("condition", pa.string()), ("predicted", pa.int32()), *numbers])

    def framings(self, model: LoadedModel) -> list[Framing]:
        """The picture with the mask's fractions."""
        return [Framing(model.view, "soft")]

    def begin(self, model: LoadedModel, images: Any) -> Work:
        """Nothing can be wrong."""
        with_maps = self.maps and unsupported_reason(model.net) is None

        def rows(batches: Sequence[Batch]) -> Part:
            (batch,) = batches
            if batch.faults:
                item, reason = batch.faults[0]
                raise UserError(f"{item.name}: {reason}")
            return Part(batch.items, self._columns(model.net, batch, with_maps), [])

        return Work(rows)

    def _columns(self, net: nn.Module, batch: Batch, with_maps: bool) -> dict[str, Any]:
        """What is known of a batch; maps are made of the pictures that are as they are alone."""
        images, masks = on_device(batch, net)
        conditions = np.array([item.name.rpartition(": ")[2] for item in batch.items])
        predicted, (confidence, share) = np.full(len(conditions), -1), np.full((2, len(conditions)), np.nan)
        for as_is in (True, False):
            chosen = (conditions == ORIGINAL) == as_is
            if chosen.any():
                logits, on_object = looked(net, images[chosen], masks[chosen], with_maps and as_is)
                predicted[chosen], confidence[chosen] = first_class(logits)
                share[chosen] = 1.0 - on_object
        return {
            "condition": conditions.tolist(),
            "predicted": predicted,
            "confidence": confidence,
            "share": share if with_maps else [None] * len(share),
            "area": 1.0 - masks.double().mean(dim=(1, 2)).cpu().numpy(),
        }

    def figures(self, rows: pa.Table) -> Observed:
        """The rows of one model by condition."""
        count = len(self.versions.images)
        condition = array(rows, "condition")
        predicted, confidence, possible = {}, {}, {}
        for key in self.conditions:
            here, possible[key] = condition == key, self.versions.possible(key)
            predicted[key], confidence[key] = np.full(count, -1), np.full(count, np.nan)
            predicted[key][possible[key]] = array(rows, "predicted")[here]
            confidence[key][possible[key]] = array(rows, "confidence")[here]
        first = condition == ORIGINAL
        known = rows["share"].null_count < len(rows)
        share = array(rows, "share")[first] if known else None
        return Observed(predicted, confidence, possible, share, array(rows, "area")[first])


def observe(
    models: Sequence[LoadedModel],
    measurement: BackgroundReliance,
    *,
    out: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    device: Any = None,
    batch_size: int = 32,
    workers: int = 0,
) -> dict[str, Observed]:
    """Every model on every version of every picture, each made once for all models.

    out: a folder for the rows, where the same call goes on after an interruption. settings: what they depend on beside models and
    pictures. workers: processes that make pictures. Models are left as they were.
    """
    sets, team = {SET: measurement.images()}, Processes(device)
    work: dict[str, Any] = {"team": team, "batch_size": batch_size, "workers": workers}
    with run(models, sets, measurement, command="audit", out=out, settings=settings, **work) as done:
        return {name: measurement.figures(table) for name, table in done.rows[SET].items()}


def first_class(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The class of the highest logit and its probability, -1 and NaN where a logit is not finite; each (batch,)."""
    finite = logits.isfinite().all(dim=1).numpy()
    probability, chosen = logits.double().softmax(dim=1).max(dim=1)
    return np.where(finite, chosen.numpy(), -1), np.where(finite, probability.numpy(), np.nan)


def looked(model: nn.Module, images: Tensor, masks: Tensor, with_maps: bool) -> tuple[Tensor, np.ndarray]:
    """Logits, and the share of each map of the predicted class that lies on the object (batch,), NaN of a flat map."""
    with working(model), torch.no_grad():
        if not with_maps:
            return logits_of(model, images).float().cpu(), np.full(len(images), np.nan)
        logits, maps = forward_with_relevance(model, images)
    maps = maps.double().cpu()
    flat = (maps.sum(dim=(1, 2)) <= 0).numpy()
    return logits.float().cpu(), np.where(flat, np.nan, foreground_share(maps, masks.double().cpu()).numpy())
