"""`relevit demo --full`: the whole grid, five seeds and two numbers of samples a class, and its report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from relevit.data.builtin.digits import SET_A, TEST_SETS, test_set
from relevit.demonstration.run import ALL_VIEWS, CASES_SET, GROUPS, OBJECTS, choose_cases, show, versions, write_metrics
from relevit.demonstration.text import DEFINITIONS, LEAD, NOTES, RULES, verdict
from relevit.errors import UserError
from relevit.evaluation import read_predictions
from relevit.experiments.arms import DEMO
from relevit.experiments.experiment import SHARE
from relevit.experiments.hits import rows_folder
from relevit.experiments.jobs import Outcome, run_jobs
from relevit.experiments.paper import PAPER
from relevit.experiments.plan import Data
from relevit.experiments.results import Cell, Value
from relevit.experiments.results import Results as ExperimentResults
from relevit.experiments.sources.builtin_work import EPOCHS, model_of
from relevit.experiments.tables import RUN_COLUMNS, run_rows, table
from relevit.files import atomic_write
from relevit.folders import OwnedFolder
from relevit.report.page import render_page
from relevit.report.readme import render_readme_picture
from relevit.report.results import Results, Values, markdown_table
from relevit.statistics.estimate import Estimate

PER_CLASS = tuple(DEMO)
ARMS = tuple(arm.name for arm in DEMO[PER_CLASS[0]])
ROWS = ("original", *ARMS)
SEEDS = range(5)


def as_results(cells: Sequence[Cell]) -> Results:
    """The cells of an experiment for the report. Differences are over seeds, on the same test pictures."""
    known = {(cell.row, cell.column, cell.group): cell for cell in cells if cell.ours is not None}

    def values(group: str) -> Values:
        return {row: {name: known[row, name, group].ours for name in TEST_SETS} for row in ROWS}  # type: ignore[misc]

    changes: Values = {arm: {name: known[arm, name, "all"].change for name in TEST_SETS} for arm in ARMS}  # type: ignore[misc]
    share: dict[str, Estimate] = {row: known[row, SHARE, "all"].ours for row in ROWS}  # type: ignore[misc]
    groups = {title: values(group) for group, title in GROUPS.items()}
    return Results(list(ROWS), list(TEST_SETS), values("all"), "original", groups, share, changes)


def masks_note(outcomes: Mapping[str, Outcome]) -> str:
    """How good the automatic masks were, in one sentence, from the figures of most samples."""
    (arm,) = (arm for arm in DEMO[max(PER_CLASS)] if arm.masks == "automatic")
    masks = [outcomes[f"{arm.label}-seed-{seed}"].result["masks"] for seed in SEEDS]
    iou, found = (float(np.mean([own[name]["mean"] for own in masks])) for name in ("iou", "found"))
    return (
        "Automatic masks are TokenCut's on the original model's own features (keys of the last block, refined by the "
        f"bilateral solver), without annotation: on the samples, their intersection over union with the exact masks is "
        f"{iou:.1f}% on average, and an object is found in {found:.1f}% of them."
    )


def run_grid(folder: OwnedFolder, console: Console) -> tuple[dict[int, ExperimentResults], dict[str, Outcome]]:
    """Run what is missing of both experiments; their results by the number of samples. Raises UserError where a run failed."""
    data = Data("builtin")
    plans = {n: plan for n in PER_CLASS if (plan := PAPER[f"demo{n}"].builtin)}
    jobs = {job.key: job for plan in plans.values() for job in plan.jobs(data)}
    outcomes = run_jobs(list(jobs.values()), folder, say=lambda line: console.print(line, markup=False))
    for key, outcome in outcomes.items():
        if outcome.state != "done":
            raise UserError(f"the cell {key} failed: {outcome.reason}\nThe same command tries it again, and goes on")
    results = {n: plan.results(outcomes, data, folder.path) for n, plan in plans.items()}
    rows = [row for n, own in results.items() for row in run_rows(f"demo{n}", own, data)]
    atomic_write(folder.path / "runs.csv", table(rows, RUN_COLUMNS))
    return results, outcomes


def run_full(folder: OwnedFolder, console: Console) -> Path:
    """Run what is missing of the grid and write the report: 20 samples a class first, 3 beside it."""
    began, place = time.monotonic(), folder.path
    console.print(f"The whole grid: {len(ARMS)} ways, {PER_CLASS} samples a class, {len(SEEDS)} seeds; resumable.")
    measured, outcomes = run_grid(folder, console)
    minutes = (time.monotonic() - began) / 60
    results = {n: as_results(own.cells) for n, own in measured.items()}
    main, fewer = results[max(PER_CLASS)], results[min(PER_CLASS)]
    cell = f"{LEAD}-{max(PER_CLASS)}-seed-{SEEDS[0]}"
    rows = {
        name: read_predictions(rows_folder(place, key, f"builtin/{CASES_SET}"))
        for name, key in (("original", "original"), (LEAD, cell))
    }
    models = {"original": model_of(None, place), LEAD: model_of(cell, place)}
    cases = choose_cases(rows, models, test_set(CASES_SET))
    setup = {
        "command": "relevit demo --full",
        "samples": f"{max(PER_CLASS)} of each of {len(SET_A)} classes; {EPOCHS} epochs, batches of 8, AdamW",
        "learning rates": ", ".join(f"{row}-{n}: {rate:g}" for n, own in measured.items() for row, rate in rates_of(own.values).items()),
        "test pictures": f"{ALL_VIEWS * OBJECTS} of each set",
        "seeds": ", ".join(map(str, SEEDS)),
        "versions": versions(),
        "minutes": f"{minutes:.0f} (this start)",
    }  # fmt: skip
    tables = []
    for n, own in sorted(results.items(), reverse=True):
        tables.append(f"### {n} samples a class\n\n" + markdown_table(own))
        tables += [f"{title}, {n} samples a class:\n\n" + markdown_table(own, v) for title, v in own.groups.items()]
    atomic_write(place / "tables.md", "\n".join(tables))
    write_metrics(place / "metrics.json", setup, main)
    render_readme_picture(place / "summary.png", main, cases, overwrite=True)
    report = render_page(
        place / "report.html",
        "Does the model look at the object?",
        verdict(main),
        setup,
        _with_groups(main, fewer),
        cases,
        [
            *NOTES,
            masks_note(outcomes),
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
    console.print(f"\nReport: {report}\nTables: {place / 'tables.md'}")
    return report


def rates_of(values: Sequence[Value]) -> dict[str, float]:
    """The learning rate of each arm that has one of its own."""
    return {value.row: value.rate for value in values if value.rate is not None}


def _with_groups(main: Results, fewer: Results) -> Results:
    """The main results with the table of fewer samples beside its groups."""
    groups = {f"{min(PER_CLASS)} samples a class": fewer.values, **main.groups}
    return Results(main.models, main.sets, main.values, main.original, groups, main.foreground_share, main.differences)
