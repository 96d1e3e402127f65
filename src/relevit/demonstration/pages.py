"""What the demo writes and shows of its figures, of one seed or of the whole grid."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from relevit.class_effects.panels import EffectPanels
from relevit.data.builtin.digits import RELIABILITY, TEST_SETS
from relevit.data.sets import ImageSet
from relevit.demonstration.text import DEFINITIONS, LEAD, NOTES, RULES, verdict
from relevit.evaluation import Predictions
from relevit.experiments.experiment import SHARE
from relevit.experiments.results import Cell
from relevit.files import atomic_write
from relevit.models.loading import load
from relevit.report.page import render_page
from relevit.report.panels import Panel
from relevit.report.readme import render_readme_picture
from relevit.report.results import Results, Values, terminal_table

CASES_SET, CASES_EACH = "background_shuffled", 4
GROUPS = {"set_a": "Classes seen in fine-tuning", "rest": "Classes held out"}


def as_results(cells: Sequence[Cell]) -> Results:
    """The cells of an experiment for the report, with the differences that they have from the original."""
    known = {(cell.row, cell.column, cell.group): cell for cell in cells if cell.ours is not None}
    rows = list(dict.fromkeys(cell.row for cell in cells))

    def values(group: str) -> Values:
        return {row: {name: known[row, name, group].ours for name in TEST_SETS} for row in rows}  # type: ignore[misc]

    changes: Values = {row: {name: known[row, name, "all"].change for name in TEST_SETS} for row in rows[1:]}  # type: ignore[misc]
    shares = {row: known[row, SHARE, "all"].ours for row in rows}
    groups = {title: values(group) for group, title in GROUPS.items()}
    return Results(rows, list(TEST_SETS), values("all"), rows[0], groups, shares, changes)  # type: ignore[arg-type]


def cases_of(
    original: nn.Module, tuned: nn.Module, rows: Sequence[Predictions], pictures: ImageSet
) -> dict[str, list[Panel]]:
    """Corrected, unchanged and ruined pictures of two models, from their rows: the set in an order shuffled once, the first four of
    each kind, no class twice."""
    view = load("builtin")[1]
    models = {"before": (original, view), "after": (tuned, view)}
    predictions = dict(zip(models, rows, strict=True))
    return EffectPanels(models, pictures, predictions, masked=True).kinds(CASES_EACH)


def write_report(
    folder: Path,
    setup: dict[str, Any],
    results: Results,
    cases: Mapping[str, Sequence[Panel]],
    notes: Sequence[str],
    beside: Mapping[str, Values] | None = None,
) -> Path:
    """metrics.json, summary.png and report.html, which is written last and returned. beside: further tables of the report, by title."""
    _write_metrics(folder / "metrics.json", setup, results)
    render_readme_picture(folder / "summary.png", results, cases, overwrite=True)
    shown = replace(results, groups={**(beside or {}), **results.groups})
    return render_page(
        folder / "report.html",
        "Does the model look at the object?",
        verdict(results),
        setup,
        shown,
        cases,
        [*NOTES, *notes],
        rules=RULES,
        definitions=DEFINITIONS,
        behaviour=CASES_SET,
        compared=LEAD,
    )


def _write_metrics(path: Path, setup: dict[str, Any], results: Results) -> None:
    """`{"setup": ..., "models": {model: {set: percent}}, "intervals": ..., "foreground_share": ..., "groups": ...}`."""

    def numbers(values: Values) -> dict[str, dict[str, float]]:
        return {m: {s: round(v.value, 2) for s, v in row.items()} for m, row in values.items()}

    content = {
        "setup": {**setup, "reliability": RELIABILITY},
        "models": numbers(results.values),
        "foreground_share": {m: round(v.value, 2) for m, v in results.foreground_share.items()},
        "intervals": {
            m: {s: [round(x, 2) for x in v.ends] for s, v in row.items()} for m, row in results.values.items()
        },
        "groups": {title: numbers(values) for title, values in results.groups.items()},
    }
    atomic_write(path, json.dumps(content, indent=1) + "\n")


def show(console: Console, results: Results) -> None:
    """The table and the verdict on the terminal."""
    console.print(terminal_table(results), highlight=False)
    for line in verdict(results):
        console.print(line, highlight=False)


def versions() -> str:
    """Of what the figures depend on."""
    import timm

    return f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"
