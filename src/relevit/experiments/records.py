"""What is kept of a job: OUT/jobs/KEY.json with its arguments, its result or its error, the time that it took, and what
it ran on. Written atomically, by one program at a time."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from relevit.errors import UserError
from relevit.files import atomic_write

if TYPE_CHECKING:
    from relevit.experiments.jobs import Job

PACKAGES = ("relevit", "torch", "timm", "numpy", "scipy", "scikit-learn", "opencv-python-headless")


@dataclass(frozen=True)
class Record:
    """One file. after: a digest of each result that the job was given; began: seconds since the epoch."""

    key: str
    function: str
    arguments: dict[str, Any]
    after: dict[str, str]
    state: Literal["done", "failed"]
    result: Any
    error: str
    seconds: float
    began: float
    versions: dict[str, str]
    hardware: str

    @property
    def versions_text(self) -> str:
        """In words."""
        return ", ".join(f"{name} {number}" for name, number in self.versions.items())

    def made_of_others(self, results: Mapping[str, Any]) -> list[str]:
        """The jobs whose results are not those that this one was made of."""
        return [key for key in {**self.after, **results} if self.after.get(key) != _digest(results.get(key))]


def record_file(folder: Path, key: str) -> Path:
    """Where a job's record is, below the output folder."""
    return folder / "jobs" / f"{key}.json"


def read_record(folder: Path, key: str) -> Record | None:
    """The record of a job, None if it never ended. Raises UserError for a file that is none."""
    file = record_file(folder, key)
    try:
        return Record(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} is no record of a job ({error}): remove it, and the job is done again") from error


def write_record(folder: Path, job: Job, after: Mapping[str, Any], began: float, reply: Mapping[str, Any]) -> Record:
    """Write down how a job ended. `reply` is the engine's: "result" or "error", and what else of seconds, versions and
    hardware the worker could tell."""
    record = Record(
        key=job.key,
        function=job.function,
        arguments=json.loads(json.dumps(dict(job.arguments))),
        after={key: _digest(result) for key, result in after.items()},
        state="failed" if reply.get("error") else "done",
        result=reply.get("result"),
        error=reply.get("error", ""),
        seconds=reply.get("seconds", time.time() - began),
        began=began,
        versions=reply.get("versions") or versions(),
        hardware=reply.get("hardware") or hardware(),
    )
    atomic_write(record_file(folder, job.key), json.dumps(asdict(record), indent=1) + "\n")
    return record


def differences(record: Record, job: Job) -> list[str]:
    """How a job differs from the one that was done under its key; a line for each thing."""
    old, new = record.arguments, json.loads(json.dumps(dict(job.arguments)))
    pairs = {"function": (record.function, job.function)}
    pairs |= {name: (old.get(name), new.get(name)) for name in {**old, **new}}
    return [f"{name} was {there!r}, now {here!r}" for name, (there, here) in pairs.items() if there != here]


def _digest(result: Any) -> str:
    return hashlib.blake2b(json.dumps(result, sort_keys=True).encode(), digest_size=8).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of what results depend on; nothing is imported for it."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def hardware() -> str:
    """The processor and the number of cores of this machine."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:  # no Linux
        pass
    return f"{name}, {os.cpu_count()} cores"
