"""Jobs: calls of functions whose results are kept, one file each, so that a grid of runs can be killed at any moment and
started again.

A job names a function and its arguments; `run_jobs` calls what is not done yet, in worker processes or on a cluster
(engines/), and writes each result to OUT/jobs/KEY.json (records.py). A failed job is recorded and stops no other; it is
tried again by the next call.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from relevit.errors import UserError
from relevit.experiments.engines import make_engine
from relevit.experiments.records import Record, differences, locked, read_record, write_record

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9+=._-]{0,150}")


@dataclass(frozen=True)
class Job:
    """A call of a function, whose result is kept under `key`.

    key: its name, of letters, digits and +=._- (it is a file's name). function: "package.module:name". arguments: by
    keyword, anything that JSON holds. after: keys of the jobs whose results it wants; needs: names of the data that it
    reads; seconds: about how long it takes on one core. A function that has a parameter `after` is also given
    {key: result} of those jobs, one that has a parameter `folder` the output folder (a Path), for files of its own.
    What it returns must be JSON: dictionaries with text as keys, lists, text, finite numbers, True, False, None.
    """

    key: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What became of a job. result: what its function returned, None unless done. reason: of a failure, or why it was
    skipped. record: the whole record of one that is done (seconds, versions, hardware)."""

    state: Literal["done", "failed", "skipped"]
    result: Any = None
    reason: str = ""
    record: Record | None = None


@dataclass(frozen=True)
class Lack:
    """Why a job is not run for want of data. names: of the data that it, or a job before it, reads and that are not there. idle: it
    could be run, but nothing that would read its result can; the names are of the data that those lack."""

    names: tuple[str, ...]
    idle: bool = False

    @property
    def state(self) -> str:
        """In short."""
        listed = ", ".join(self.names)
        return f"not needed: nothing that reads it has its data ({listed})" if self.idle else f"no data: {listed}"

    def reason(self, missing: Mapping[str, str]) -> str:
        """With the reason for each of the names."""
        listed = "; ".join(f"no data: {name} ({missing[name]})" for name in self.names)
        return f"not needed, nothing that reads it has its data: {listed}" if self.idle else listed


def run_jobs(
    jobs: Sequence[Job],
    out: str | Path,
    engine: str = "local",
    workers: int | None = None,
    say: Callable[[str], object] = print,
    *,
    missing: Mapping[str, str] | None = None,
    wanted: Collection[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Outcome]:
    """Do all jobs that are not done yet, earlier ones first, and return what became of each.

    out: the folder; results are OUT/jobs/KEY.json. engine: "local" (worker processes of this machine, one thread each),
    "ray" or "slurm"; options: the engine's own, see engines/. workers: how many run at a time; None lets the engine
    decide. say: is told of every job that ends. missing: names of data that are not there, with the reason; jobs that
    need them are skipped, and so are those whose results would only be read by such (`lacks`). wanted: as for `lacks`.

    Raises UserError, before anything runs, if a job was done there with other arguments (the differences are listed),
    if another program is running jobs in the same folder, or if the engine cannot be had.
    """
    folder, outcomes = Path(out), dict[str, Outcome]()
    ordered = in_order(jobs)
    with locked(folder):
        records = read_records(folder, ordered)
        lacking = lacks(ordered, records, missing or {}, wanted)
        waiting, running = list(ordered), dict[str, tuple[Job, float]]()
        todo = sum(1 for job in ordered if _done(records.get(job.key)) is None)
        ended, said = 0, len(str(todo))

        def settle(job: Job, outcome: Outcome) -> None:
            nonlocal ended
            outcomes[job.key] = outcome
            if outcome.record is None or outcome.record is not records.get(job.key):
                ended += 1
                took = f"{outcome.record.seconds:.0f} s" if outcome.record else ""
                text = outcome.reason.splitlines()[-1] if outcome.reason else took
                state = "" if outcome.state == "done" else f"{outcome.state}: "
                say(f"[{ended:{said}}/{todo}] {job.key}: {state}{text}")

        with make_engine(engine, workers, folder, options or {}) as pool:
            while waiting or running:
                later = []
                for job in waiting:
                    if job.key in lacking:
                        settle(job, Outcome("skipped", None, lacking[job.key].reason(missing or {})))
                        continue
                    decided = _without_running(job, records.get(job.key), outcomes, folder)
                    if decided is not None:
                        settle(job, decided)
                    elif pool.free > 0 and all(key in outcomes for key in job.after):
                        after = {key: outcomes[key].result for key in job.after}
                        request = {"function": job.function, "arguments": dict(job.arguments), "after": after}
                        pool.submit(job.key, {**request, "folder": str(folder.absolute())})
                        running[job.key] = job, time.time()
                    else:
                        later.append(job)
                waiting = later
                if running:
                    for key, reply in pool.wait():
                        job, began = running.pop(key)
                        after = {key: outcomes[key].result for key in job.after}
                        record = write_record(folder, job, after, began, reply)
                        if record.state == "done":
                            settle(job, Outcome("done", record.result, "", record))
                        else:
                            settle(job, Outcome("failed", None, record.error, None))
    return {job.key: outcomes[job.key] for job in jobs}


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, each once, every one behind those it is `after`. Raises ValueError for a faulty declaration: a key that
    is no file's name, two different jobs of one key, an unknown or circular `after`."""
    known: dict[str, Job] = {}
    for job in jobs:
        if not _KEY.fullmatch(job.key):
            raise ValueError(f"{job.key!r} is no key: letters, digits and +=._- only")
        if known.setdefault(job.key, job) != job:
            raise ValueError(f"two different jobs are called {job.key}: {known[job.key]} and {job}")
    placed: dict[str, Job] = {}

    def place(job: Job, path: tuple[str, ...]) -> None:
        if job.key in path:
            raise ValueError(f"jobs wait for each other: {' after '.join((*path, job.key))}")
        if job.key in placed:
            return
        for key in job.after:
            if key not in known:
                raise ValueError(f"job {job.key} is after {key}, which is not among the jobs")
            place(known[key], (*path, job.key))
        placed[job.key] = job

    for job in known.values():
        place(job, ())
    return list(placed.values())


def ends(jobs: Iterable[Job]) -> set[str]:
    """Keys of the jobs that no other of them is after: what an experiment's figures are read from."""
    known = list(jobs)
    return {job.key for job in known} - {key for job in known for key in job.after}


def lacks(
    jobs: Sequence[Job],
    records: Mapping[str, Record],
    missing: Mapping[str, str],
    wanted: Collection[str] | None = None,
) -> dict[str, Lack]:
    """The jobs that are not to be run for want of data, by key: those that read data that are not there, those after them, and
    those that are idle since every job that would read their result is one of these.

    jobs: in order, each behind those it is `after`. records: one that is done lacks nothing, and goes on wanting the jobs before
    it. wanted: keys of jobs that are wanted for their own sake, whatever comes after them; None for those that no other is after.
    """
    found: dict[str, Lack] = {}
    done = {job.key for job in jobs if _done(records.get(job.key)) is not None}
    for job in jobs:
        needs = [*job.needs, *(name for key in job.after if key in found for name in found[key].names)]
        absent = tuple(dict.fromkeys(name for name in needs if name in missing))
        if absent and job.key not in done:
            found[job.key] = Lack(absent)
    kept = ends(jobs) if wanted is None else wanted
    readers: dict[str, list[str]] = {}
    for job in reversed(jobs):  # those that read a job's result come before it
        own = readers.get(job.key, [])[::-1]
        settled = job.key in found or job.key in done or job.key in kept
        if own and not settled and all(key in found for key in own):
            found[job.key] = Lack(tuple(dict.fromkeys(name for key in own for name in found[key].names)), idle=True)
        for key in job.after:
            readers.setdefault(key, []).append(job.key)
    return found


def read_records(folder: str | Path, jobs: Iterable[Job]) -> dict[str, Record]:
    """The records of those jobs that ended before, done or failed. Raises UserError where one was done with another
    function or other arguments."""
    records, differing = {}, []
    for job in jobs:
        record = read_record(Path(folder), job.key)
        if record is None:
            continue
        records[job.key] = record
        if record.state == "done":
            differing += [f"{job.key}: {line}" for line in differences(record, job)]
    if differing:
        raise UserError(
            f"{folder} holds results of jobs with other arguments: {'; '.join(differing)}. Choose another folder for the "
            "output, or remove these jobs' files from its folder jobs to do them again"
        )
    return records


def _done(record: Record | None) -> Record | None:
    return record if record is not None and record.state == "done" else None


def _without_running(job: Job, record: Record | None, outcomes: Mapping[str, Outcome], folder: Path) -> Outcome | None:
    """What is known of a job that has its data without running it: done before, or to be skipped; None where it is to run, or to
    wait."""
    done = _done(record)
    before = {key: outcomes[key] for key in job.after if key in outcomes}
    for key, outcome in before.items():
        if outcome.state != "done":
            return Outcome("skipped", None, f"{key} {outcome.state}: {outcome.reason.strip().splitlines()[-1]}")
    if done is not None and len(before) == len(job.after):
        changed = done.made_of_others({key: outcome.result for key, outcome in before.items()})
        if changed:
            file = folder / "jobs" / f"{job.key}.json"
            reason = f"it was done with other results of {', '.join(changed)}: remove {file} to do it again"
            return Outcome("failed", None, reason)
        return Outcome("done", done.result, "", done)
    return None
