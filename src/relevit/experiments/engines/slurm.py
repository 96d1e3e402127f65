"""SLURM, by submitit: every job is one of the queue's. Nodes must share the output folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from relevit.errors import UserError
from relevit.experiments.engines import Reply, Request, perform


class Slurm:
    """options: submitit's own parameters (`slurm_partition`, `timeout_min`, ...); cluster: "slurm", or "local" for
    processes of this machine. Logs are in OUT/jobs/slurm."""

    def __init__(self, workers: int | None, folder: Path, cluster: str = "slurm", **options: Any) -> None:
        try:
            import submitit
        except ImportError as error:
            raise UserError("--slurm needs submitit: pip install 'relevit[slurm]'") from error
        try:
            self.executor = submitit.AutoExecutor(folder=folder / "jobs" / "slurm", cluster=cluster)
            self.executor.update_parameters(**{"name": "relevit", "cpus_per_task": 1, "timeout_min": 240, **options})
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise UserError(f"SLURM cannot be used here: {error}") from error
        self.most, self.running = workers, dict[str, Any]()

    def __enter__(self) -> Slurm:
        return self

    def __exit__(self, *_: object) -> None:
        for job in self.running.values():
            job.cancel(check=False)
        self.running = {}

    @property
    def free(self) -> int:
        return 1 if self.most is None else self.most - len(self.running)

    def submit(self, key: str, request: Request) -> None:
        self.running[key] = self.executor.submit(perform, dict(request))

    def wait(self) -> list[tuple[str, Reply]]:
        ended = [key for key, job in self.running.items() if job.done()]
        if not ended:
            time.sleep(1.0)
        replies: list[tuple[str, Reply]] = []
        for key in ended:
            job = self.running.pop(key)
            try:
                replies.append((key, job.result()))
            except Exception as error:  # submitit tells of a lost job by many kinds of exceptions
                replies.append((key, {"error": f"SLURM lost it: {' '.join(str(error).split())[-2000:]}"}))
        return replies
