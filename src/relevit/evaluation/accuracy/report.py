"""From rows to figures: the `Report` that `evaluate` returns, its JSON and its table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool

from relevit.data.benchmarks.table import IMAGENET_C
from relevit.errors import UserError
from relevit.evaluation.accuracy.background_gap import background_gaps
from relevit.evaluation.accuracy.calibration import Calibration, calibration
from relevit.evaluation.accuracy.comparison import Comparison, compare
from relevit.evaluation.accuracy.corruption_error import CorruptionErrors, mean_corruption_error
from relevit.evaluation.accuracy.predictions import Predictions
from relevit.evaluation.accuracy.recall import Accuracy
from relevit.files import atomic_write
from relevit.report.table import Table
from relevit.statistics.estimate import Estimate
from relevit.versions import libraries

if TYPE_CHECKING:
    import numpy as np

ByModel = Mapping[str, Predictions]


@dataclass(frozen=True)
class Report:
    """The figures of every model on every benchmark.

    Attributes:
        accuracies: benchmark -> model -> Accuracy; the keys in the order in which they were given.
        unreadable: benchmark -> what was left out: (image, reason). It counts as neither hit nor miss.
        gaps: folder of composed sets -> model -> background gap, where mixed_same and mixed_rand are among the sets.
        protocol: "standard" or "paper".
        predictions: benchmark -> model -> Predictions, the rows that all figures are computed from.
        comparisons: benchmark -> model -> Comparison with the first model; of all models but the first.
        calibrations: benchmark -> model -> Calibration.
        set_a, rest: benchmark -> model -> Accuracy of the images of set A, and of the others, where a set A was given.
        corruption: model -> CorruptionErrors, where all sets of ImageNet-C were measured.
        notes: what else is known, such as where the rows lie; ready for JSON.
    """

    accuracies: dict[str, dict[str, Accuracy]]
    unreadable: dict[str, list[tuple[str, str]]]
    gaps: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    protocol: str = "standard"
    predictions: dict[str, ByModel] = field(default_factory=dict)
    comparisons: dict[str, dict[str, Comparison]] = field(default_factory=dict)
    calibrations: dict[str, dict[str, Calibration]] = field(default_factory=dict)
    set_a: dict[str, dict[str, Accuracy]] = field(default_factory=dict)
    rest: dict[str, dict[str, Accuracy]] = field(default_factory=dict)
    corruption: dict[str, CorruptionErrors] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def accuracy(self, model: str | None = None, benchmark: str | None = None) -> Accuracy:
        """One model's figures on one benchmark; the first of each if not named."""
        models = self.accuracies[benchmark if benchmark is not None else next(iter(self.accuracies))]
        return models[model if model is not None else next(iter(models))]

    def to_dict(self) -> dict:
        """Everything but the single rows, ready for JSON."""
        return {
            name: {
                "models": {model: self._figures(name, model) for model in models},
                "unreadable": [{"file": file, "reason": reason} for file, reason in self.unreadable[name]],
            }
            for name, models in self.accuracies.items()
        }

    def save(self, path: str | Path) -> None:
        """Writes protocol, `to_dict()` and the versions that it was computed with as JSON, atomically."""

        gaps = {
            name: {model: gap.to_dict("background_gap") for model, gap in models.items()}
            for name, models in self.gaps.items()
        }
        corruption = {model: errors.to_dict() for model, errors in self.corruption.items()}
        content = {
            "protocol": self.protocol,
            **self.notes,
            "benchmarks": self.to_dict(),
            **({"background_gap": gaps} if gaps else {}),
            **({"imagenet-c": corruption} if corruption else {}),
            "versions": libraries(),
        }
        atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def table(self) -> Table:
        """A row per benchmark and model for a terminal: R@1 and R@5 in percent with their 95% intervals, expected calibration
        error, and R@1 against the first model with a paired interval and McNemar's p."""
        columns = ["images", "R@1", "R@5"]
        columns += ["set A R@1", "rest R@1"] if self.set_a else []
        columns += ["ECE"] if self.calibrations else []
        columns += ["R@1 against the first", "p", "corrected, ruined"] if any(self.comparisons.values()) else []
        rows: list[tuple[str, ...] | None] = []
        for name, models in self.accuracies.items():
            for model in models:
                cells = self._cells(name, model)
                rows.append((name, model, *(cells.get(column, "") for column in columns)))
            rows.append(None)
        blank = ("",) * len(columns)
        for name, gaps in self.gaps.items():
            for model, gap in gaps.items():
                cells_of_gap = (f"{gap.count:,} objects", _cell(gap), *blank[2:])
                rows.append((f"{name}: background gap", model, *cells_of_gap))
            rows.append(None)
        for model, errors in self.corruption.items():
            rows.append((f"{IMAGENET_C}: mean corruption error", model, "", f"{errors.mean:.1f}", *blank[2:]))
        title = f"Accuracy in percent (95% interval), protocol: {self.protocol}"
        return Table(title, ("benchmark", "model", *columns), rows, left=(0, 1))

    def _figures(self, benchmark: str, model: str) -> dict[str, Any]:
        figures = self.accuracies[benchmark][model].to_dict()
        classes = figures.pop("classes")
        if model in self.calibrations.get(benchmark, {}):
            figures |= self.calibrations[benchmark][model].to_dict()
        if model in self.set_a.get(benchmark, {}):
            figures["set_a"] = self.set_a[benchmark][model].to_dict(classes=False)
            figures["rest"] = self.rest[benchmark][model].to_dict(classes=False)
        if model in self.comparisons.get(benchmark, {}):
            first = next(iter(self.accuracies[benchmark]))
            figures["against"] = {"model": first, **self.comparisons[benchmark][model].to_dict()}
        return {**figures, "classes": classes}

    def _cells(self, benchmark: str, model: str) -> dict[str, str]:
        accuracy = self.accuracies[benchmark][model]
        cells = {
            "images": f"{len(accuracy):,}",
            "R@1": _cell(accuracy.r1_interval),
            "R@5": _cell(accuracy.r5_interval),
        }
        for column, parts in (("set A R@1", self.set_a), ("rest R@1", self.rest)):
            part = parts.get(benchmark, {}).get(model)
            if benchmark in parts:
                cells[column] = _cell(part.r1_interval) if part is not None and len(part) else "no images"
        if model in self.calibrations.get(benchmark, {}):
            cells["ECE"] = f"{self.calibrations[benchmark][model].ece:.1f}"
        change = self.comparisons.get(benchmark, {}).get(model)
        if change is not None:
            low, high = change.change.ends
            cells["R@1 against the first"] = f"{change.change.value:+.1f} ({low:+.1f} to {high:+.1f})"
            cells["p"] = f"{change.p_value:.2g}"
            cells["corrected, ruined"] = f"{len(change.corrected):,}, {len(change.ruined):,}"
        return cells


def summarise(
    predictions: Mapping[str, ByModel],
    protocol: str,
    in_set_a: Callable[[str, str, Predictions], Bool[np.ndarray, " images"] | None] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Report:
    """The figures of rows: benchmark -> model -> Predictions. The rows of one benchmark at a time are in memory.

    in_set_a: (benchmark, model, rows) -> whether an image is of set A; None where that cannot be told: a note says so. A benchmark of which no image could be read has no
    figures: it is in `unreadable` and in the notes alone, so that the others' are not lost. Raises UserError where there is no other.
    """
    report = Report({}, {}, {}, protocol, dict(predictions), notes=dict(notes or {}))
    failed: dict[str, str] = {}
    unsplit: list[str] = []
    for name, models in predictions.items():
        report.accuracies[name], report.calibrations[name], report.comparisons[name] = {}, {}, {}
        if in_set_a is not None:
            report.set_a[name], report.rest[name] = {}, {}
        faults: dict[int, tuple[str, str]] = {}
        first: Predictions | None = None
        for model in models:
            rows = models[model]
            faults |= {fault.place: (fault.name, fault.reason) for fault in rows.unreadable}
            if not len(rows):
                reason = f": {rows.unreadable[0].reason}" if rows.unreadable else ""
                failed[name] = f"no image of {name} could be read{reason}"
                break
            accuracy = report.accuracies[name][model] = rows.accuracy()
            report.calibrations[name][model] = calibration(rows.confidence, rows.hit1)
            if in_set_a is not None:
                chosen = in_set_a(name, model, rows)
                if chosen is None:
                    unsplit.append(name)
                else:
                    report.set_a[name][model], report.rest[name][model] = accuracy.only(chosen), accuracy.only(~chosen)
            if first is None:
                first = rows
            else:
                report.comparisons[name][model] = compare(first, rows)
        report.unreadable[name] = [faults[index] for index in sorted(faults)]
        if name in failed:
            for figures in (report.accuracies, report.calibrations, report.comparisons, report.set_a, report.rest):
                figures.pop(name, None)
    if failed and not report.accuracies:
        raise UserError("; ".join(failed.values()))
    if failed:
        report.notes["unreadable"] = failed
    for name in dict.fromkeys(unsplit):
        report.set_a.pop(name, None)
        report.rest.pop(name, None)
    if unsplit:
        report.notes["without_set_a"] = sorted(set(unsplit))
    report.gaps.update(background_gaps(report.accuracies))
    _add_corruption(report)
    return report


def _add_corruption(report: Report) -> None:
    """The mean corruption error of each model; what it lacks is noted, where some of the sets were measured."""
    measured = [name for name in report.accuracies if name.startswith(f"{IMAGENET_C}/")]
    for model in report.accuracies[measured[0]] if measured else ():
        try:
            errors = {name: 100.0 - report.accuracies[name][model].r1 for name in measured}
            report.corruption[model] = mean_corruption_error(errors)
        except UserError as error:
            report.notes["imagenet-c"] = str(error)


def _cell(figure: Estimate) -> str:
    return f"{figure.value:.1f} ({figure.low:.1f} to {figure.high:.1f})"
