"""Run experiments and write down what they yield: `relevit reproduce`."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from relevit.errors import UserError
from relevit.experiments.filled import Data, Filled
from relevit.experiments.jobs import Job, Outcome, ends, in_order, lacks, read_records, run_jobs
from relevit.experiments.real.places import PLACES, write_places
from relevit.experiments.records import locked
from relevit.experiments.table import EXPERIMENTS, chosen, plan_for
from relevit.files import atomic_write

COLUMNS = (
    "experiment row column group figure state ours low high seeds change change_low change_high published difference protocol"
).split()
JOB_COLUMNS = "job state seconds hardware versions reason".split()
RUN_COLUMNS = "experiment row seed rate set group figure value pictures_per_object command".split()


@dataclass(frozen=True)
class Planned:
    """A job of the chosen experiments: which of them wants it first, and whether it was done before, lacks data, or is of use only
    to jobs that do."""

    job: Job
    experiment: str
    state: str


def plan(names: Sequence[str], data: Data, out: str | Path) -> list[Planned]:
    """The jobs of some experiments, each once and in order, with what is known of them: "done", "failed before", "no
    data: NAME", "not needed: ..." (`lacks`), or "to do". Nothing is run or written."""
    first, wanted = _jobs_of(chosen(names, data.name), data)
    jobs = [job for _, job in first.values()]
    records = read_records(out, jobs)
    lacking = lacks(in_order(jobs), records, data.missing, wanted)
    planned: list[Planned] = []
    for name, job in first.values():
        record = records.get(job.key)
        if record is not None and record.state == "done":
            state = "done"
        elif job.key in lacking:
            state = lacking[job.key].state
        else:
            state = "to do" if record is None else "failed before"
        planned.append(Planned(job, name, state))
    return planned


def reproduce(
    names: Sequence[str],
    data: Data,
    out: str | Path,
    *,
    engine: str = "local",
    workers: int | None = None,
    options: Mapping[str, Any] | None = None,
    command: str = "",
    say: Callable[[str], object] = print,
) -> dict[str, Filled]:
    """Do what is not done yet of the experiments, then fill their tables and write them to OUT: report.html, results.csv
    (a row for each cell of a table), runs.csv (a row for each run and figure), jobs.csv (a row for each job; of those done, time, hardware, versions), results.json.

    The same call goes on where it was stopped. A failed job stops no other; the cells that it leaves empty say so.
    Raises UserError as `run_jobs`, for unknown experiments, and where experiments of earlier calls, which the page goes on
    showing, were done with other settings; all before anything runs.
    """
    experiments = chosen(names, data.name)
    before = _before(Path(out), data)
    first, wanted = _jobs_of(experiments, data)
    jobs = [job for _, job in first.values()]
    shown = chosen([*before, *experiments], data.name)
    _known(shown, data, out)  # what the page shows of earlier calls was done with these settings, too
    if data.name != "builtin":
        backbone = data.settings.get("self_supervised")
        with locked(Path(out)):  # the jobs of another program that is at work here read it
            write_places(out, data.found, [*data.models, *([backbone] if backbone else [])])
    outcomes = run_jobs(jobs, out, engine, workers, say, missing=data.missing, wanted=wanted, options=options)
    known = {**_known(shown, data, out), **outcomes}
    filled = {name: _plan(name, data).fill(known, data) for name in shown}
    write(filled, known, Path(out), data, command)
    return {name: filled[name] for name in experiments}


def _jobs_of(experiments: Sequence[str], data: Data) -> tuple[dict[str, tuple[str, Job]], set[str]]:
    """The jobs of some experiments by key, each with the experiment that wants it first and behind those that it is after, and the
    keys of those that tables are made of (`ends`). Raises ValueError for two different jobs of one key."""
    first: dict[str, tuple[str, Job]] = {}
    wanted: set[str] = set()
    for name in experiments:
        own = in_order(_plan(name, data).jobs(data))
        wanted |= ends(own)
        for job in own:
            if first.setdefault(job.key, (name, job))[1] != job:
                raise ValueError(f"two experiments have different jobs called {job.key}")
    return first, wanted


def _before(out: Path, data: Data) -> list[str]:
    """The experiments that the folder's page shows already: it goes on showing them. Raises UserError for a folder of
    something else, or of other data."""
    if out.is_dir() and any(out.iterdir()) and not ((out / "jobs").is_dir() or (out / PLACES).is_file()):
        raise UserError(f"{out} holds other files: name another folder with --out")
    try:
        content = json.loads((out / "results.json").read_text())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise UserError(f"{out / 'results.json'} cannot be read ({error}): remove it, it is made anew") from error
    if content["data"] != data.name:
        raise UserError(f"{out} holds results on {content['data']}: name another folder for those on {data.name}")
    return [name for name in content["experiments"] if name in EXPERIMENTS and plan_for(name, data.name) is not None]


def _known(names: Sequence[str], data: Data, out: str | Path) -> dict[str, Outcome]:
    """What is known of the jobs of some experiments without running any."""
    jobs = {job.key: job for name in names for job in _plan(name, data).jobs(data)}
    records = read_records(out, jobs.values())
    known = {}
    for key in jobs:
        record = records.get(key)
        if record is None:
            known[key] = Outcome("skipped", reason="not run")
        elif record.state == "done":
            known[key] = Outcome("done", record.result, "", record)
        else:
            known[key] = Outcome("failed", None, record.error)
    return known


def _plan(name: str, data: Data) -> Any:
    found = plan_for(name, data.name)
    if found is None:
        raise UserError(f"{name} cannot be run on --data {data.name}")
    return found


def write(filled: Mapping[str, Filled], outcomes: Mapping[str, Outcome], out: Path, data: Data, command: str) -> None:
    """The page, the tables, and JSON of filled experiments, in `out`. They are made of the jobs' results, and replaced."""
    from relevit.experiments.multiple_testing import family
    from relevit.experiments.page import render

    protocol = "built-in" if data.name == "builtin" else data.protocol
    claims = family({name: own.findings for name, own in filled.items()})
    rows = [
        {"experiment": name, **asdict(row), "difference": row.difference, "protocol": protocol}
        for name, own in filled.items()
        for row in own.rows
    ]
    atomic_write(out / "results.csv", table(rows, COLUMNS))
    again = {name: command_for(name, data) for name in filled}
    runs = [{"experiment": n, **run, "command": again[n]} for n, own in filled.items() for run in own.runs]
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
                "rows": [asdict(row) for row in own.rows],
                "findings": [
                    {
                        **asdict(finding),
                        "p_holm": standing.p,
                        "stays": standing.stays,
                        "counted": None if standing.p is None else standing.counted or name,
                    }
                    for finding, standing in zip(own.findings, claims.standings[name], strict=True)
                ],
                "notes": list(own.notes),
            }
            for name, own in filled.items()
        },
        "family": {
            "says": claims.sentence,
            **{key: getattr(claims, key) for key in ("stated", "different", "tested", "settled", "stay")},
        },
        "about": about(outcomes),
    }
    atomic_write(out / "results.json", json.dumps(content, indent=1) + "\n")
    atomic_write(out / "report.html", render(filled, content["about"], data, command, claims))


def _job_row(key: str, outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {"job": key, "state": outcome.state}
    if outcome.record is not None:
        row |= {"seconds": outcome.record.seconds, "hardware": outcome.record.hardware}
        row["versions"] = ", ".join(f"{name} {number}" for name, number in outcome.record.versions.items())
    return row | {"reason": outcome.reason.strip().splitlines()[-1] if outcome.reason.strip() else ""}


def command_for(name: str, data: Data) -> str:
    """The call that yields an experiment's figures on these data."""
    words = ["relevit", "reproduce", name, "--data", data.name, "--out", "DIR"]
    if data.name != "builtin":
        words += ["--protocol", data.protocol]
        words += ["--models", *(model.given for model in data.models)] if data.models else []
        given = {key: getattr(value, "given", value) for key, value in data.settings.items() if value is not None}
        words += [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    return shlex.join(words)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """CSV, with four decimals at most."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = [row.get(name) for name in columns]
        writer.writerow(["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return text.getvalue()


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
        "not_done": {key: o.reason.strip().splitlines()[-1] for key, o in outcomes.items() if o.state != "done"},
    }
