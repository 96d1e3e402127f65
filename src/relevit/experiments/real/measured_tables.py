"""Tests beside accuracy on real data: maps as segmentation (Table 3), sufficient subsets (A), nearest neighbours (M), perturbation (N)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relevit.experiments.filled import MEASURED, Data, Filled, Row
from relevit.experiments.jobs import Job, Outcome
from relevit.experiments.published import published
from relevit.experiments.real.tables import Which, before_original, once, protocol_of, select, settings_note, state
from relevit.experiments.real.variants import Variant, measurement_job, measurement_key, run_jobs_of, settings_of

ONE_SEED = "Each fine-tuned row is of one fine-tuning with one seed; there are no intervals."


@dataclass(frozen=True)
class MeasurementPlan:
    """A Plan (filled.py). test: of relevit.evaluation.measurements. source: the data's name. figures: of its result, the columns.
    limit: images at most, None for all. cost: of an image, in forward passes. published: whether Table 3 has the figures."""

    test: str
    source: str
    figures: tuple[str, ...]
    variants: tuple[Variant, ...]
    models: Which = "all"
    limit: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 3.0
    table: int | None = None

    def _job(self, model: Any, variant: Variant | None, data: Data) -> Job:
        return measurement_job(model, variant, self.test, self.source, data, self.limit, self.options, self.cost)

    def jobs(self, data: Data) -> list[Job]:
        found: list[Job] = []
        for model in select(data, self.models):
            found += [*before_original(model, data), self._job(model, None, data)]
            for variant in self.variants:
                found += [*run_jobs_of(model, variant, data), self._job(model, variant, data)]
        return once(found)

    def fill(self, outcomes: Mapping[str, Outcome], data: Data) -> Filled:
        rows = []
        for model in select(data, self.models):
            start = outcomes[measurement_key(model, None, self.test, self.source)]
            for variant in (None, *self.variants):
                outcome = outcomes[measurement_key(model, variant, self.test, self.source)]
                name = f"{model.name} {'original' if variant is None else variant.name}"
                for figure in self.figures:
                    paper = self._published(model.name, variant, figure)
                    value = outcome.result.get(figure) if outcome.state == "done" else None
                    if value is None:
                        why = (
                            state(outcome)
                            if outcome.state != "done"
                            else f"{self.test.replace('_', ' ')} gave no number here"
                        )
                        rows.append(Row(name, figure, "share", published=paper, state=why))
                        continue
                    before = start.result.get(figure) if variant is not None and start.state == "done" else None
                    change = None if before is None else value - before
                    rows.append(Row(name, figure, "share", ours=value, published=paper, change=change, state=MEASURED))
        most = settings_of(data)["limit"] or self.limit
        words = self.test.replace("_", " ").replace("knn", "nearest neighbours")
        images = "all images" if most is None else f"{most} images, drawn once,"
        note = f"{words[0].upper()}{words[1:]} on {images} of {self.source}. {protocol_of(data)} {ONE_SEED}"
        return Filled(rows, (), settings_note(data), note)

    def _published(self, model: str, variant: Variant | None, figure: str) -> float | None:
        if self.table != 3 or (variant is not None and variant.published != ("ours", "annotated")):
            return None
        method = "original" if variant is None else "ours"
        found = (c for c in published(3) if (c.model, c.method, c.figure) == (model, method, figure))
        return next((c.value for c in found), None)
