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
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from relevit.errors import UserError
from relevit.experiments.engines import Engine, make_engine
from relevit.experiments.records import Record, differences, read_record, record_file, write_record
from relevit.folders import OwnedFolder

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

    @classmethod
    def of(cls, record: Record) -> Outcome:
        """Of a job that ended."""
        if record.state == "done":
            return cls("done", record.result, "", record)
        return cls("failed", None, record.error)


@dataclass(frozen=True)
class Lack:
    """Why a job is not run for want of data. names: of the data that it, or a job before it, reads and that are not there. not_needed:
    it could be run, but nothing that would read its result can; the names are of the data that those lack."""

    names: tuple[str, ...]
    not_needed: bool = False

    @property
    def state(self) -> str:
        """In short."""
        listed = ", ".join(self.names)
        return f"not needed: nothing that reads it has its data ({listed})" if self.not_needed else f"no data: {listed}"

    def reason(self, missing: Mapping[str, str]) -> str:
        """With the reason for each of the names."""
        listed = "; ".join(f"no data: {name} ({missing[name]})" for name in self.names)
        return f"not needed, nothing that reads it has its data: {listed}" if self.not_needed else listed


def run_jobs(
    jobs: Sequence[Job],
    out: str | Path | OwnedFolder,
    engine: str = "local",
    workers: int | None = None,
    say: Callable[[str], object] = print,
    *,
    missing: Mapping[str, str] | None = None,
    wanted: Collection[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Outcome]:
    """Do all jobs that are not done yet, earlier ones first, and return what became of each.

    Args:
        jobs: in any order; each is done when those that it is `after` are done.
        out: the folder, or one that the caller holds; results are OUT/jobs/KEY.json.
        engine: "local" (worker processes of this machine, one thread each), "ray" or "slurm"; options: its own, see engines/.
        workers: how many run at a time; None lets the engine decide.
        say: is told of every job that ends.
        missing: names of data that are not there, with the reason; jobs that need them are skipped, and so are those whose
            results would only be read by such (`lacks`). wanted: as for `lacks`.

    Raises:
        UserError: before anything runs, if a job was done there with other arguments (the differences are listed), if another
            program is at work in the folder, or if the engine cannot be had.
    """
    ordered = in_order(jobs)
    folder = out if isinstance(out, OwnedFolder) else own_folder(out)
    with nullcontext() if folder is out else folder:
        work = _Work(folder.path, ordered, missing or {}, wanted, say)
        with make_engine(engine, workers, folder.path, options or {}) as pool:
            work.all_jobs(pool)
    return {job.key: work.outcomes[job.key] for job in jobs}


def own_folder(out: str | Path, **settings: Any) -> OwnedFolder:
    """The folder for the results of jobs."""
    return OwnedFolder(out, "relevit reproduce", settings)


class _Work:
    """What is done of some jobs, and what is to be done."""

    def __init__(
        self,
        folder: Path,
        jobs: Sequence[Job],
        missing: Mapping[str, str],
        wanted: Collection[str] | None,
        say: Callable[[str], object],
    ) -> None:
        self.folder, self.missing, self.say = folder, missing, say
        self.records = read_records(folder, jobs)
        self.lacking = lacks(jobs, self.records, missing, wanted)
        self.waiting, self.running = list(jobs), dict[str, tuple[Job, float]]()
        self.outcomes: dict[str, Outcome] = {}
        self.todo = sum(1 for job in jobs if _done(self.records.get(job.key)) is None)
        self.ended = 0

    def all_jobs(self, pool: Engine) -> None:
        """Start what can be started and take what has ended, until nothing is left."""
        while self.waiting or self.running:
            self.waiting = [job for job in self.waiting if not self._settled(job) and not self._started(job, pool)]
            if self.running:
                for key, reply in pool.wait():
                    job, began = self.running.pop(key)
                    record = write_record(self.folder, job, self._results_before(job), began, reply)
                    self._settle(job, Outcome.of(record))

    def _settled(self, job: Job) -> bool:
        """Whether it is known what becomes of a job without running it: done before, or to be skipped."""
        if job.key in self.lacking:
            outcome: Outcome | None = Outcome("skipped", None, self.lacking[job.key].reason(self.missing))
        else:
            outcome = self._without_running(job)
        if outcome is not None:
            self._settle(job, outcome)
        return outcome is not None

    def _without_running(self, job: Job) -> Outcome | None:
        done = _done(self.records.get(job.key))
        before = {key: self.outcomes[key] for key in job.after if key in self.outcomes}
        for key, outcome in before.items():
            if outcome.state != "done":
                return Outcome("skipped", None, f"{key} {outcome.state}: {outcome.reason.strip().splitlines()[-1]}")
        if done is None or len(before) < len(job.after):
            return None
        changed = done.made_of_others(self._results_before(job))
        if changed:
            file = record_file(self.folder, job.key)
            why = f"it was done with other results of {', '.join(changed)}: remove {file} to do it again"
            return Outcome("failed", None, why)
        return Outcome.of(done)

    def _started(self, job: Job, pool: Engine) -> bool:
        if pool.free <= 0 or not all(key in self.outcomes for key in job.after):
            return False
        request = {"function": job.function, "arguments": dict(job.arguments), "after": self._results_before(job)}
        pool.submit(job.key, {**request, "folder": str(self.folder.absolute())})
        self.running[job.key] = job, time.time()
        return True

    def _results_before(self, job: Job) -> dict[str, Any]:
        return {key: self.outcomes[key].result for key in job.after}

    def _settle(self, job: Job, outcome: Outcome) -> None:
        """Note what became of a job, and tell of it unless it was done before."""
        self.outcomes[job.key] = outcome
        if outcome.record is None or outcome.record is not self.records.get(job.key):
            self.ended += 1
            took = f"{outcome.record.seconds:.0f} s" if outcome.record else ""
            text = outcome.reason.splitlines()[-1] if outcome.reason else took
            state = "" if outcome.state == "done" else f"{outcome.state}: "
            self.say(f"[{self.ended:{len(str(self.todo))}}/{self.todo}] {job.key}: {state}{text}")


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
    those that are not needed since every job that would read their result is one of these.

    jobs: in order, each behind those it is `after`. records: one that is done lacks nothing, and goes on wanting the jobs before
    it. wanted: keys of jobs that are wanted for their own sake, whatever comes after them; None for those that no other is after.
    """
    lacking: dict[str, Lack] = {}
    done = {job.key for job in jobs if _done(records.get(job.key)) is not None}
    for job in jobs:
        needs = [*job.needs, *(name for key in job.after if key in lacking for name in lacking[key].names)]
        absent = tuple(dict.fromkeys(name for name in needs if name in missing))
        if absent and job.key not in done:
            lacking[job.key] = Lack(absent)
    kept = ends(jobs) if wanted is None else wanted
    readers: dict[str, list[str]] = {}
    for job in reversed(jobs):  # those that read a job's result come before it
        its_readers = readers.get(job.key, [])[::-1]
        settled = job.key in lacking or job.key in done or job.key in kept
        if its_readers and not settled and all(key in lacking for key in its_readers):
            names = (name for key in its_readers for name in lacking[key].names)
            lacking[job.key] = Lack(tuple(dict.fromkeys(names)), not_needed=True)
        for key in job.after:
            readers.setdefault(key, []).append(job.key)
    return lacking


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
