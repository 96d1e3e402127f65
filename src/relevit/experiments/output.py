"""What `relevit reproduce` writes: tables, JSON, and the page, each experiment with its claims and its table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relevit.experiments.claims import Family, Finding, corrected
from relevit.experiments.experiment import Data
from relevit.experiments.jobs import Outcome
from relevit.experiments.plan import reason
from relevit.experiments.results import MEASURED, Cell, Results
from relevit.experiments.table import EXPERIMENTS
from relevit.experiments.tables import RUN_COLUMNS, blocks, run_rows, table
from relevit.experiments.words import column, title
from relevit.files import atomic_write
from relevit.report.page import render

RESULTS = "results.json"
CELL_COLUMNS = (
    "experiment row column group figure state ours low high seeds change change_low change_high published difference protocol"
).split()
JOB_COLUMNS = "job state seconds hardware versions reason".split()
_VERDICTS = {
    "holds": "hold",
    "does not hold": "do not hold",
    "not settled": "are not settled",
    "needs two models": "need two models",
    "not run": "were not run",
}


def write(results: Mapping[str, Results], outcomes: Mapping[str, Outcome], out: Path, data: Data, command: str) -> None:
    """The page, the tables, and JSON of experiments, in `out`. They are made of the jobs' results, and replaced."""
    protocol = "built-in" if data.name == "builtin" else data.protocol
    findings, family = corrected({name: own.findings for name, own in results.items()})
    cells = [
        {"experiment": name, **cell.to_dict(), "protocol": protocol}
        for name, own in results.items()
        for cell in own.cells
    ]
    atomic_write(out / "results.csv", table(cells, CELL_COLUMNS))
    runs = [row for name, own in results.items() for row in run_rows(name, own, data)]
    atomic_write(out / "runs.csv", table(runs, RUN_COLUMNS))
    atomic_write(out / "jobs.csv", table([_job_row(key, outcome) for key, outcome in outcomes.items()], JOB_COLUMNS))
    content: dict[str, Any] = {
        "command": command,
        "data": data.name,
        "protocol": data.protocol,
        "experiments": {
            name: {
                "description": EXPERIMENTS[name].description,
                "where": EXPERIMENTS[name].where,
                "protocol": own.protocol,
                "rows": [cell.to_dict() for cell in own.cells],
                "findings": [finding.to_dict() for finding in findings[name]],
                "notes": list(own.notes),
            }
            for name, own in results.items()
        },
        "family": {key: getattr(family, key) for key in ("says", "stated", "different", "tested", "settled", "stay")},
        "about": about(outcomes),
    }
    atomic_write(out / RESULTS, json.dumps(content, indent=1) + "\n")
    _write_page(out / "report.html", results, findings, family, content, data)


def _job_row(key: str, outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {"job": key, "state": outcome.state}
    if outcome.record is not None:
        row |= {"seconds": outcome.record.seconds, "hardware": outcome.record.hardware}
        row["versions"] = outcome.record.versions_text
    return row | {"reason": reason(outcome) if outcome.reason.strip() else ""}


def about(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """How many jobs became what, how long those that are done took in all, on which hardware and versions."""
    records = [outcome.record for outcome in outcomes.values() if outcome.record is not None]
    states = [outcome.state for outcome in outcomes.values()]
    return {
        "jobs": {state: states.count(state) for state in ("done", "failed", "skipped")},
        "hours": sum(record.seconds for record in records) / 3600,
        "hardware": sorted({record.hardware for record in records}),
        "versions": sorted({record.versions_text for record in records}),
        "not_done": {key: reason(outcome) for key, outcome in outcomes.items() if outcome.state != "done"},
    }


# The page.


def _write_page(
    path: Path,
    results: Mapping[str, Results],
    findings: Mapping[str, Sequence[Finding]],
    family: Family,
    content: Mapping[str, Any],
    data: Data,
) -> None:
    builtin, known = data.name == "builtin", content["about"]
    cells = [cell for own in results.values() for cell in own.cells]
    over = "seeds" if builtin else "models"
    render(
        "experiments.html",
        path,
        overwrite=True,
        title="The paper's experiments" + (" on the built-in benchmark" if builtin else ""),
        summary=_summary(cells, [finding for own in findings.values() for finding in own], over, family),
        setup={
            "command": content["command"],
            "data": "the built-in benchmark" if builtin else data.name,
            "protocol": data.protocol,
            "runs": ", ".join(f"{count} {state}" for state, count in known["jobs"].items()),
            "time of the runs": f"{known['hours']:.1f} hours of one {'core' if builtin else 'process'} each",
            "hardware": "; ".join(known["hardware"]),
            "versions": "; ".join(known["versions"]),
        },
        parts=[(name, own, EXPERIMENTS[name], findings[name], blocks(own.cells)) for name, own in results.items()],
        tested=family.tested,
        over=over,
        published=any(cell.published is not None for cell in cells),
        not_done=known["not_done"],
        notes=(),
        kind=kind,
        column=column,
        title_of=title,
        p_text=p_text,
    )


def _summary(cells: Sequence[Cell], findings: Sequence[Finding], over: str, family: Family) -> list[str]:
    """How much is filled, and how the claims stand."""
    measured = sum(cell.state == MEASURED for cell in cells)
    verdicts = [finding.verdict for finding in findings]
    sentences = [f"{measured} of {len(cells)} cells are filled."]
    if verdicts:
        counts = ", ".join(f"{verdicts.count(word)} {text}" for word, text in _VERDICTS.items() if word in verdicts)
        sentences.append(f"Of {len(verdicts)} claims and questions, each as a paired difference over {over}: {counts}.")
    return [*sentences, family.says] if family.says else sentences


def kind(cell: Cell) -> str:
    """Whether a change is settled: better, worse, or open."""
    change = cell.change
    if change is None or (change.over == "seeds" and change.count < 2) or not change.settled:
        return "open"
    return "better" if change.low > 0 else "worse"


def p_text(p: float) -> str:
    """A p-value in three decimals."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"
