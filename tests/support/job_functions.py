"""What the jobs of the tests call; `python job_functions.py OUT ENGINE` runs a small grid of them."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add(a: float, b: float) -> float:
    return a + b


def collect(after: Mapping[str, Any], scale: int = 1) -> dict[str, Any]:
    return {key: value if scale == 1 else scale * value for key, value in after.items()}


def note(folder: Path, name: str) -> str:
    """Leaves a file for every time it is called."""
    notes = folder / "notes"
    notes.mkdir(parents=True, exist_ok=True)
    (notes / f"{name}-{time.time_ns()}").touch()
    return name


def threads() -> str:
    return os.environ["OMP_NUM_THREADS"]


def device() -> str | None:
    """The GPU that this process may use; long enough that another worker takes the next job."""
    time.sleep(0.5)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def refuse(folder: Path) -> int:
    """Fails until a file `mended` is in the folder."""
    if not (folder / "mended").exists():
        raise ValueError("this will not do")
    return 7


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def not_a_number() -> float:
    return float("nan")


def walk(name: str, seed: int, seconds: float, folder: Path, after: Mapping[str, Any]) -> dict[str, Any]:
    """A small run: a random walk by its seed, from where the runs before it ended; notes when it starts."""
    note(folder, name)
    draws, place = random.Random(seed), sum(result["place"] for result in after.values())
    end = time.monotonic() + seconds
    steps = [draws.gauss(0, 1) for _ in range(1000)]
    while time.monotonic() < end:
        time.sleep(0.01)
    return {"place": place + sum(steps), "first": steps[0]}


def grid(seconds: float = 0.4) -> list[Any]:
    from relevit.experiments.jobs import Job

    def job(name: str, seed: int, after: tuple[str, ...] = ()) -> Job:
        return Job(name, "job_functions:walk", {"name": name, "seed": seed, "seconds": seconds}, after=after)

    first = [job(f"first-{i}", i) for i in range(5)]
    second = [job(f"second-{i}", 10 + i, (f"first-{i % 5}", f"first-{(i + 2) % 5}")) for i in range(7)]
    return [*first, *second, job("last", 99, tuple(entry.key for entry in second))]


if __name__ == "__main__":
    from relevit.experiments.jobs import run_jobs

    address = {"address": sys.argv[3]} if len(sys.argv) > 3 else None
    run_jobs(grid(), sys.argv[1], sys.argv[2], workers=None if address else 2, options=address)
