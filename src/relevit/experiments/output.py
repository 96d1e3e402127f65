"""What `relevit reproduce` writes: the page, the tables, and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relevit.experiments.jobs import Outcome
from relevit.experiments.multiple_testing import Family, family
from relevit.experiments.page import render
from relevit.experiments.plan import Data, reason
from relevit.experiments.results import Results
from relevit.experiments.table import EXPERIMENTS
from relevit.experiments.tables import RUN_COLUMNS, run_rows, table
from relevit.files import atomic_write

RESULTS = "results.json"
CELL_COLUMNS = (
    "experiment row column group figure state ours low high seeds change change_low change_high published difference protocol"
).split()
JOB_COLUMNS = "job state seconds hardware versions reason".split()


def write(results: Mapping[str, Results], outcomes: Mapping[str, Outcome], out: Path, data: Data, command: str) -> None:
    """The page, the tables, and JSON of experiments, in `out`. They are made of the jobs' results, and replaced."""
    protocol = "built-in" if data.name == "builtin" else data.protocol
    claims = family({name: own.findings for name, own in results.items()})
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
        "experiments": {name: _content(name, own, claims) for name, own in results.items()},
        "family": {
            "says": claims.sentence,
            **{key: getattr(claims, key) for key in ("stated", "different", "tested", "settled", "stay")},
        },
        "about": about(outcomes),
    }
    atomic_write(out / RESULTS, json.dumps(content, indent=1) + "\n")
    atomic_write(out / "report.html", render(results, content["about"], data, command, claims))


def _content(name: str, results: Results, claims: Family) -> dict[str, Any]:
    """Of one experiment, ready for JSON."""
    findings = [
        {**finding.to_dict(), "p_holm": holm.p, "stays": holm.stays, "counted": None if holm.p is None else holm.counted or name}
        for finding, holm in zip(results.findings, claims.standings[name], strict=True)
    ]  # fmt: skip
    return {
        "description": EXPERIMENTS[name].description,
        "where": EXPERIMENTS[name].where,
        "protocol": results.protocol,
        "rows": [cell.to_dict() for cell in results.cells],
        "findings": findings,
        "notes": list(results.notes),
    }


def _job_row(key: str, outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {"job": key, "state": outcome.state}
    if outcome.record is not None:
        row |= {"seconds": outcome.record.seconds, "hardware": outcome.record.hardware}
        row["versions"] = ", ".join(f"{name} {number}" for name, number in outcome.record.versions.items())
    return row | {"reason": reason(outcome) if outcome.reason.strip() else ""}


def about(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """How many jobs became what, how long those that are done took in all, on which hardware and versions."""
    records = [outcome.record for outcome in outcomes.values() if outcome.record is not None]
    versions = sorted({", ".join(f"{name} {number}" for name, number in r.versions.items()) for r in records})
    states = [outcome.state for outcome in outcomes.values()]
    return {
        "jobs": {state: states.count(state) for state in ("done", "failed", "skipped")},
        "hours": sum(record.seconds for record in records) / 3600,
        "hardware": sorted({record.hardware for record in records}),
        "versions": versions,
        "not_done": {key: reason(outcome) for key, outcome in outcomes.items() if outcome.state != "done"},
    }
