"""Figures 1 to 3 and appendices G and K on real data: what a fine-tuning changed, class by class and image by image, on a page each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relevit.experiments.filled import MEASURED, Data, Filled, Row
from relevit.experiments.jobs import Job, Outcome
from relevit.experiments.real.models import PaperModel
from relevit.experiments.real.tables import MAIN, Which, once, protocol_of, select, settings_note, state
from relevit.experiments.real.variants import Variant, evaluation_job, evaluation_key, run_jobs_of, run_key

COUNTS = ("corrected", "unchanged", "ruined", "classes that gain", "classes that lose")


def effects(
    model: Mapping[str, Any],
    run: str,
    variant: str,
    benchmark: str,
    rows_before: str,
    rows_after: str,
    protocol: str,
    name: str,
    folder: Path,
) -> dict[str, Any]:
    """The page OUT/effects/NAME/effects.html from the rows of two evaluations; how many images and classes changed."""
    from relevit.class_effects.effects import PAGE, write_effects
    from relevit.evaluation import read_predictions
    from relevit.evaluation.folder import rows_place
    from relevit.experiments.real.places import open_set
    from relevit.experiments.real.work import _model
    from relevit.models.loading import data_config
    from relevit.models.view import evaluation_view

    before, after = f"{model['name']} original", f"{model['name']} {variant}"
    nets = {before: _model(model, None, protocol, folder), after: _model(model, run, protocol, folder)}
    loaded = {label: (net, evaluation_view(data_config(net, protocol))) for label, net in nets.items()}
    keys = {before: rows_before, after: rows_after}
    rows = {
        label: read_predictions(rows_place(folder / "evaluations" / key, benchmark, "model"))
        for label, key in keys.items()
    }
    opened = open_set(folder, benchmark, protocol)
    found, content = write_effects(folder / "effects" / name, loaded, benchmark, opened, rows, protocol=protocol)
    images = {key: count for key, count in content["images"].items() if key != "all"}
    moved = {"classes that gain": found.count(1), "classes that lose": found.count(-1)}
    return {"page": f"effects/{name}/{PAGE}", "counts": {**images, **moved}}


@dataclass(frozen=True)
class EffectsPlan:
    """A Plan (filled.py): pages of what `variant` changed of models on benchmarks."""

    variant: Variant
    benchmarks: tuple[str, ...] = MAIN
    models: Which = "base"

    def _job(self, model: PaperModel, benchmark: str, data: Data) -> Job:
        before, after = (evaluation_key(model, each, benchmark) for each in (None, self.variant))
        name = f"{run_key(model, self.variant)}-effects-on-{benchmark.replace('/', '+')}"
        arguments = {
            "model": model.spec(),
            "run": run_key(model, self.variant),
            "variant": self.variant.name,
            "benchmark": benchmark,
            "rows_before": before,
            "rows_after": after,
            "protocol": data.protocol,
            "name": name,
        }
        return Job(name, f"{__name__}:effects", arguments, (benchmark,), (before, after), seconds=120)

    def jobs(self, data: Data) -> list[Job]:
        found: list[Job] = []
        for model in select(data, self.models):
            found += run_jobs_of(model, self.variant, data)
            for benchmark in self.benchmarks:
                found += [evaluation_job(model, each, benchmark, data) for each in (None, self.variant)]
                found.append(self._job(model, benchmark, data))
        return once(found)

    def fill(self, outcomes: Mapping[str, Outcome], data: Data) -> Filled:
        rows, pages = [], []
        for model in select(data, self.models):
            for benchmark in self.benchmarks:
                outcome = outcomes[self._job(model, benchmark, data).key]
                name = f"{model.name} {self.variant.name}, {benchmark}"
                if outcome.state != "done":
                    rows += [Row(name, column, "count", state=state(outcome)) for column in COUNTS]
                    continue
                counts = outcome.result["counts"]
                rows += [Row(name, each, "count", ours=float(counts[each]), state=MEASURED) for each in COUNTS]
                pages.append((name, outcome.result["page"]))
        protocol = f"{protocol_of(data)} Each page is of one fine-tuning with one seed."
        return Filled(rows, (), settings_note(data), protocol, pages=pages)
