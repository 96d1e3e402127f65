"""Run experiments and write down what they yield: `relevit reproduce`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relevit.errors import UserError
from relevit.experiments.experiment import Data
from relevit.experiments.jobs import Job, Outcome, ends, in_order, lacks, own_folder, read_records, run_jobs
from relevit.experiments.output import RESULTS, write
from relevit.experiments.results import Results
from relevit.experiments.sources.places import write_places
from relevit.experiments.table import EXPERIMENTS, chosen, plan_for


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
) -> dict[str, Results]:
    """Do what is not done yet of the experiments, then write their tables to OUT: report.html, results.csv (a row for each cell of a
    table), runs.csv (a row for each run and figure), jobs.csv (a row for each job; of those done, time, hardware, versions),
    results.json.

    The same call goes on where it was stopped. A failed job stops no other; the cells that it leaves empty say so.
    Raises UserError as `run_jobs`, for unknown experiments, and where experiments of earlier calls, which the page goes on
    showing, were done with other settings; all before anything runs.
    """
    wanted_names = chosen(names, data.name)
    folder = own_folder(out, data=data.name)
    before = _before(folder.path, data)
    first, wanted = _jobs_of(wanted_names, data)
    jobs = [job for _, job in first.values()]
    shown = chosen([*before, *wanted_names], data.name)
    _known(shown, data, folder.path)  # what the page shows of earlier calls was done with these settings, too
    with folder:
        if data.name != "builtin":
            backbone = data.settings.get("self_supervised")
            write_places(out, data.found, [*data.models, *([backbone] if backbone else [])])
        outcomes = run_jobs(jobs, folder, engine, workers, say, missing=data.missing, wanted=wanted, options=options)
        known = {**_known(shown, data, folder.path), **outcomes}
        results = {name: plan_for(name, data).results(known, folder.path) for name in shown}
        write(results, known, folder.path, data, command)
    return {name: results[name] for name in wanted_names}


def _jobs_of(names: Sequence[str], data: Data) -> tuple[dict[str, tuple[str, Job]], set[str]]:
    """The jobs of some experiments by key, each with the experiment that wants it first and behind those that it is after, and the
    keys of those that tables are made of (`ends`). Raises ValueError for two different jobs of one key."""
    first: dict[str, tuple[str, Job]] = {}
    wanted: set[str] = set()
    for name in names:
        jobs = in_order(plan_for(name, data).jobs())
        wanted |= ends(jobs)
        for job in jobs:
            if first.setdefault(job.key, (name, job))[1] != job:
                raise ValueError(f"two experiments have different jobs called {job.key}")
    return first, wanted


def _before(out: Path, data: Data) -> list[str]:
    """The experiments that the folder's page shows already: it goes on showing them."""
    try:
        content = json.loads((out / RESULTS).read_text())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise UserError(f"{out / RESULTS} cannot be read ({error}): remove it, it is made anew") from error
    return [
        name for name in content["experiments"] if name in EXPERIMENTS and EXPERIMENTS[name].on(data.name) is not None
    ]


def _known(names: Sequence[str], data: Data, out: Path) -> dict[str, Outcome]:
    """What is known of the jobs of some experiments without running any."""
    jobs = {job.key: job for name in names for job in plan_for(name, data).jobs()}
    records = read_records(out, jobs.values())
    known = {}
    for key in jobs:
        record = records.get(key)
        known[key] = Outcome("skipped", reason="not run") if record is None else Outcome.of(record)
    return known
