"""`relevit demo --full`: two experiments of the table, five seeds and two numbers of samples a class, and their report."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from rich.console import Console

from relevit.data.builtin.digits import SET_A
from relevit.data.builtin.sets import builtin_set
from relevit.demonstration.pages import CASES_SET, as_results, cases_of, show, versions, write_report
from relevit.demonstration.run import ALL_VIEWS
from relevit.demonstration.text import LEAD
from relevit.errors import UserError
from relevit.experiments.arms import DEMO
from relevit.experiments.experiment import Data
from relevit.experiments.hits import read_hits
from relevit.experiments.jobs import run_jobs
from relevit.experiments.sources.builtin_work import EPOCHS, OBJECTS, model_of
from relevit.experiments.table import plan_for
from relevit.experiments.tables import RUN_COLUMNS, run_rows, table
from relevit.files import atomic_write
from relevit.folders import OwnedFolder
from relevit.report.results import markdown_table

MOST, FEWER = max(DEMO), min(DEMO)  # samples a class
SEEDS = range(5)


def run_full(folder: OwnedFolder, console: Console) -> Path:
    """Run what is missing of the grid and write the report: 20 samples a class first, 3 beside it. Raises UserError where a run
    failed."""
    began, place, data = time.monotonic(), folder.path, Data("builtin")
    console.print(
        f"The whole grid: {len(DEMO[MOST])} ways, {tuple(DEMO)} samples a class, {len(SEEDS)} seeds; resumable."
    )
    plans = {n: plan_for(f"demo{n}", data) for n in DEMO}
    jobs = {job.key: job for plan in plans.values() for job in plan.jobs()}
    outcomes = run_jobs(list(jobs.values()), folder, say=lambda line: console.print(line, markup=False))
    for key, outcome in outcomes.items():
        if outcome.state != "done":
            raise UserError(f"the cell {key} failed: {outcome.reason}\nThe same command tries it again, and goes on")
    measured = {n: plan.results(outcomes, place) for n, plan in plans.items()}
    rows = [row for n, own in measured.items() for row in run_rows(f"demo{n}", own, data)]
    atomic_write(place / "runs.csv", table(rows, RUN_COLUMNS))
    minutes = (time.monotonic() - began) / 60
    results = {n: as_results(own.cells) for n, own in measured.items()}
    lead = f"{LEAD}-{MOST}-seed-{SEEDS[0]}"
    compared = [read_hits(place, key, f"builtin/{CASES_SET}") for key in ("original", lead)]
    pictures = builtin_set(CASES_SET, ALL_VIEWS)
    cases = cases_of(model_of(None, place), model_of(lead, place), compared, pictures)
    rates = {f"{v.row}-{n}": v.rate for n, own in measured.items() for v in own.values if v.rate is not None}
    setup = {
        "command": "relevit demo --full",
        "samples": f"{MOST} of each of {len(SET_A)} classes; {EPOCHS} epochs, batches of 8, AdamW",
        "learning rates": ", ".join(f"{name}: {rate:g}" for name, rate in rates.items()),
        "test pictures": f"{ALL_VIEWS * OBJECTS} of each set",
        "seeds": ", ".join(map(str, SEEDS)),
        "versions": versions(),
        "minutes": f"{minutes:.0f} (this start)",
    }
    tables = []
    for n, own in sorted(results.items(), reverse=True):
        tables.append(f"### {n} samples a class\n\n" + markdown_table(own))
        tables += [f"{title}, {n} samples a class:\n\n" + markdown_table(own, v) for title, v in own.groups.items()]
    atomic_write(place / "tables.md", "\n".join(tables))
    masks = [
        outcomes[f"{arm.label}-seed-{seed}"].result["masks"]
        for arm in DEMO[MOST]
        if arm.masks == "automatic"
        for seed in SEEDS
    ]
    iou, found = (float(np.mean([own[name]["mean"] for own in masks])) for name in ("iou", "found"))
    notes = [
        "Automatic masks are TokenCut's on the original model's own features (keys of the last block, refined by the bilateral solver), "
        f"without annotation: on the samples, their intersection over union with the exact masks is {iou:.1f}% on average, and an "
        f"object is found in {found:.1f}% of them.",
        "Intervals (95%): of fine-tuned models over seeds (Student's t), of the original over pictures, by object.",
    ]
    beside = {f"{FEWER} samples a class": results[FEWER].values}
    report = write_report(place, setup, results[MOST], cases, notes, beside)
    for n, own in sorted(results.items()):
        console.print(f"\n[bold]{n} samples a class[/bold]")
        show(console, own)
    console.print(f"\nReport: {report}\nTables: {place / 'tables.md'}")
    return report
