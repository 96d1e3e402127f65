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

from relevit.auditing.conditions import CONDITIONS, ORIGINAL, Donors
from relevit.auditing.pictures import AuditPictures
from relevit.auditing.versions import IMPOSSIBLE, AuditSet, VersionFraming
from relevit.data.sets import Item
from relevit.errors import UserError
from relevit.evaluation.batches import Batch
from relevit.evaluation.engine import run
from relevit.evaluation.measurement import LoadedModel, Work, on_device
from relevit.evaluation.rows import Part, array
from relevit.explainers import forward_with_relevance
from relevit.explainers.foreground_share import foreground_share
from relevit.models.attention import unsupported_reason
from relevit.models.families import logits_of
from relevit.models.working import device_of, working
from relevit.processes import Processes


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
    """The answers to the versions of a picture. Rows: one for each picture and condition in which it can be made; where the picture
    is as it is, with the share of relevance on the background (null for a model without maps) and the background's area.

    conditions: which are shown. maps: whether relevance is measured.
    """

    conditions: Sequence[str] = tuple(CONDITIONS)
    maps: bool = True
    batch_size: ClassVar = 32
    needs: ClassVar = "masks"
    description: ClassVar = "answers with other backgrounds, and relevance on the background"

    def columns(self) -> pa.Schema:
        """Condition, answer, its probability, share and area."""
        numbers = [(name, pa.float64()) for name in ("confidence", "share", "area")]
        return pa.schema([("condition", pa.string()), ("predicted", pa.int32()), *numbers])

    def framings(self, model: LoadedModel) -> list[VersionFraming]:
        """One for each condition."""
        return [VersionFraming(model.view, condition) for condition in self.conditions]  # type: ignore[arg-type]

    def begin(self, model: LoadedModel, images: Any) -> Work:
        """Nothing can be wrong."""
        with_maps = self.maps and unsupported_reason(model.net) is None

        def rows(batches: Sequence[Batch]) -> Part:
            parts = [
                self._rows(model, batch, condition, with_maps)
                for condition, batch in zip(self.conditions, batches, strict=True)
            ]
            columns = {name: [value for _, found in parts for value in found[name]] for name in self.columns().names}
            return Part([item for items, _ in parts for item in items], columns, [])

        return Work(rows)

    def _rows(
        self, model: LoadedModel, batch: Batch, condition: str, with_maps: bool
    ) -> tuple[list[Item], dict[str, Any]]:
        lost = [f"{item.name}: {reason}" for item, reason in batch.faults if reason != IMPOSSIBLE]
        if lost:
            raise UserError(lost[0])
        none = [None] * len(batch.items)
        columns: dict[str, Any] = {name: none for name in self.columns().names}
        if batch.items:
            images = on_device(batch, model.net)[0]
            if condition == ORIGINAL:
                logits, on_object = looked(model.net, images, batch.tensors[1], with_maps)
                columns["area"] = 1.0 - batch.tensors[1].double().mean(dim=(1, 2)).numpy()
                columns["share"] = 1.0 - on_object if with_maps else none
            else:
                logits = logits_of(model.net, images).float().cpu()
            columns["predicted"], columns["confidence"] = first_class(logits)
        return batch.items, {**columns, "condition": [condition] * len(batch.items)}

    def figures(self, rows: pa.Table) -> Mapping[str, np.ndarray]:
        """The columns by name."""
        return {name: array(rows, name) for name in rows.column_names}


def observe(
    models: Sequence[LoadedModel],
    pictures: AuditPictures,
    donors: Donors,
    *,
    measurement: BackgroundReliance | None = None,
    name: str = "pictures",
    out: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    device: Any = None,
    batch_size: int = 32,
    workers: int = 0,
) -> dict[str, Observed]:
    """Every model on every version of every picture, each made once for all models; by batches of `batch_size` pictures.

    out: a folder for the rows, where the same call goes on after an interruption. settings: what they depend on beside models and
    pictures. workers: processes that make pictures. Models are left as they were.
    """
    measurement, images = measurement or BackgroundReliance(), AuditSet(pictures, donors)
    work: dict[str, Any] = {"team": Processes(device), "batch_size": batch_size, "workers": workers}
    with run(models, {name: images}, measurement, command="audit", out=out, settings=settings, **work) as done:
        rows = done.rows[name]
        return {model.name: observed(rows[model.name], len(pictures), measurement.conditions) for model in models}


def observed(rows: pa.Table, count: int, conditions: Sequence[str] = tuple(CONDITIONS)) -> Observed:
    """The rows of one model on `count` pictures, by condition."""
    condition, place = array(rows, "condition"), array(rows, "index")
    predicted, confidence, possible = {}, {}, {}
    for key in conditions:
        here = condition == key
        where = place[here]
        predicted[key], confidence[key] = np.full(count, -1), np.full(count, np.nan)
        possible[key] = np.isin(np.arange(count), where)
        predicted[key][where] = array(rows, "predicted")[here]
        confidence[key][where] = array(rows, "confidence")[here]
    first = condition == ORIGINAL
    area, share = np.full(count, np.nan), np.full(count, np.nan)
    area[place[first]] = array(rows, "area")[first]
    share[place[first]] = array(rows, "share")[first]
    known = rows["share"].null_count < len(rows)
    return Observed(predicted, confidence, possible, share if known else None, area)


def first_class(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The class of the highest logit and its probability, -1 and NaN where a logit is not finite; each (batch,)."""
    finite = logits.isfinite().all(dim=1).numpy()
    probability, chosen = logits.double().softmax(dim=1).max(dim=1)
    return np.where(finite, chosen.numpy(), -1), np.where(finite, probability.numpy(), np.nan)


def looked(model: nn.Module, images: Tensor, masks: Tensor, with_maps: bool) -> tuple[Tensor, np.ndarray]:
    """Logits, and the share of each map of the predicted class that lies on the object (batch,), NaN of a flat map."""
    with working(model), torch.no_grad():
        if not with_maps:
            return logits_of(model, images.to(device_of(model))).float().cpu(), np.full(len(images), np.nan)
        logits, maps = forward_with_relevance(model, images.to(device_of(model)))
    maps = maps.double().cpu()
    flat = (maps.sum(dim=(1, 2)) <= 0).numpy()
    return logits.float().cpu(), np.where(flat, np.nan, foreground_share(maps, masks.double()).numpy())
