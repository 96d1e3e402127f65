"""`relevit demo --full`: the whole grid, five seeds and two numbers of samples a class, and its report."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from relevit.data.builtin.digits import SET_A, TEST_SETS, test_set
from relevit.demonstration.run import CASES_SET, ROW, choose_cases, show, versions, write_metrics
from relevit.demonstration.text import DEFINITIONS, LEAD, NOTES, RULES, verdict
from relevit.experiments.builtin import AUTOMATIC, EPOCHS, METHODS, PER_CLASS, SEEDS, fine_tune
from relevit.experiments.grid import run_grid
from relevit.files import atomic_write
from relevit.models.loading import load
from relevit.report.page import render_page
from relevit.report.readme import render_readme_picture
from relevit.report.results import Results, Values, markdown_table
from relevit.statistics.estimate import Estimate

ARMS = (*METHODS, *AUTOMATIC)
FULL_ROW = (*ROW, *AUTOMATIC)
GROUPS = {"set_a": "Classes seen in fine-tuning", "rest": "Classes held out"}


def as_estimate(figure: dict[str, float]) -> Estimate:
    """A figure of a cell, `{"mean": ..., "low": ..., "high": ...}`."""
    return Estimate(figure["mean"], figure["low"], figure["high"], len(SEEDS), "seeds")


def as_results(figures: dict[str, Any]) -> Results:
    """The figures of all models at one number of samples a class. Differences are over seeds, on the same test
    pictures."""
    values: Values = {m: {s: as_estimate(figures[m][s]["all"]) for s in TEST_SETS} for m in FULL_ROW}
    start = figures["original"]
    differences: Values = {
        m: {s: as_estimate(figures[m][s]["all"]).less(start[s]["all"]["mean"]) for s in TEST_SETS} for m in ARMS
    }
    groups = {
        title: {m: {s: as_estimate(figures[m][s][key]) for s in TEST_SETS} for m in FULL_ROW}
        for key, title in GROUPS.items()
    }
    share = {m: as_estimate(figures[m]["foreground_share"]) for m in FULL_ROW}
    return Results(list(FULL_ROW), list(TEST_SETS), values, "original", groups, share, differences)


def masks_note(figures: dict[str, Any]) -> str:
    """How good the automatic masks were, in one sentence, from the figures of most samples."""
    own = figures[str(max(PER_CLASS))][next(iter(AUTOMATIC))]["masks"]
    return (
        "Automatic masks are TokenCut's on the original model's own features (keys of the last block, refined by the "
        f"bilateral solver), without annotation: on the samples, their intersection over union with the exact masks is "
        f"{own['iou']['mean']:.1f}% on average, and an object is found in {own['found']['mean']:.1f}% of them."
    )


def run_full(folder: Path, console: Console) -> Path:
    """Run what is missing of the grid and write the report: 20 samples a class first, 3 beside it."""
    began = time.monotonic()
    console.print(f"The whole grid: {len(ARMS)} ways, {PER_CLASS} samples a class, {len(SEEDS)} seeds; resumable.")
    grid = run_grid(folder, say=lambda line: console.print(line, highlight=False, markup=False))
    minutes = (time.monotonic() - began) / 60
    results = {n: as_results(grid["figures"][str(n)]) for n in PER_CLASS}
    main = results[max(PER_CLASS)]
    original = load("builtin")[0]
    after = fine_tune(original, LEAD, max(PER_CLASS), SEEDS[0], grid["rates"][f"{LEAD}-{max(PER_CLASS)}"]).model
    cases = choose_cases(original, after, test_set(CASES_SET))
    setup = {
        "command": "relevit demo --full",
        "samples": f"{max(PER_CLASS)} of each of {len(SET_A)} classes; {EPOCHS} epochs, batches of 8, AdamW",
        "learning rates": ", ".join(f"{key}: {rate:g}" for key, rate in grid["rates"].items()),
        "test pictures": f"{len(test_set(TEST_SETS[0]))} of each set",
        "seeds": ", ".join(map(str, SEEDS)),
        "versions": versions(),
        "minutes": f"{minutes:.0f} (this start)",
    }
    tables = []
    for n, own in sorted(results.items(), reverse=True):
        tables.append(f"### {n} samples a class\n\n" + markdown_table(own))
        tables += [f"{title}, {n} samples a class:\n\n" + markdown_table(own, v) for title, v in own.groups.items()]
    atomic_write(folder / "tables.md", "\n".join(tables))
    atomic_write(folder / "grid.json", json.dumps(grid, indent=1) + "\n")
    write_metrics(folder / "metrics.json", setup, main)
    render_readme_picture(folder / "summary.png", main, cases, overwrite=True)
    fewer = results[min(PER_CLASS)]
    report = render_page(
        folder / "report.html",
        "Does the model look at the object?",
        verdict(main),
        setup,
        _with_groups(main, fewer),
        cases,
        [
            *NOTES,
            masks_note(grid["figures"]),
            "Intervals (95%): of fine-tuned models over seeds (Student's t), of the original over pictures, by object.",
        ],
        rules=RULES,
        definitions=DEFINITIONS,
        behaviour="background_shuffled",
        compared=LEAD,
    )
    for n, own in sorted(results.items()):
        console.print(f"\n[bold]{n} samples a class[/bold]")
        show(console, own, verdict(own))
    console.print(f"\nReport: {report}\nTables: {folder / 'tables.md'}", highlight=False)
    return report


def _with_groups(main: Results, fewer: Results) -> Results:
    """The main results with the table of fewer samples beside its groups."""
    groups = {f"{min(PER_CLASS)} samples a class": fewer.values, **main.groups}
    return Results(main.models, main.sets, main.values, main.original, groups, main.foreground_share, main.differences)
