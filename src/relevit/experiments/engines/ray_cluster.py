"""A Ray cluster. A job whose node dies is done again on another one; relevit must be installed on every node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relevit.errors import UserError
from relevit.experiments.engines import Reply, Request, perform

RETRIES = 3  # of a job whose worker or node died


class RayCluster:
    """One job a core of the cluster at `address` ("auto": the one that this machine belongs to; None: one is started
    here). The output folder is this program's; jobs that use `folder` want one that all nodes share. gpu: each job gets a
    GPU of its own, if the cluster has any; otherwise it sees none."""

    def __init__(self, workers: int | None, folder: Path, address: str | None = None, gpu: bool = False) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError("--ray needs Ray: pip install 'relevit[ray]'") from error
        self.ray, self.address, self.most, self.gpu = ray, address, workers, gpu
        self.running: dict[Any, str] = {}

    def __enter__(self) -> RayCluster:
        self.started = not self.ray.is_initialized()
        if self.started:
            try:
                self.ray.init(address=self.address, log_to_driver=False, include_dashboard=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"no Ray cluster answers at {self.address} ({error}): start one with `ray start --head`"
                ) from error
        devices = int(self.gpu and self.ray.cluster_resources().get("GPU", 0) > 0)
        # The number of cores sets the threads of a worker too.
        self.perform = self.ray.remote(num_cpus=1, num_gpus=devices, max_retries=RETRIES)(perform)
        return self

    def __exit__(self, *_: object) -> None:
        for reference in self.running:
            self.ray.cancel(reference, force=True)
        self.running = {}
        if self.started:
            self.ray.shutdown()

    @property
    def free(self) -> int:
        return 1 if self.most is None else self.most - len(self.running)

    def submit(self, key: str, request: Request) -> None:
        self.running[self.perform.remote(dict(request))] = key

    def wait(self) -> list[tuple[str, Reply]]:
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=1.0)
        replies: list[tuple[str, Reply]] = []
        for reference in ready:
            try:
                reply: Reply = self.ray.get(reference)
            except self.ray.exceptions.RayError as error:
                reply = {"error": f"Ray gave it up: {' '.join(str(error).split())}"}
            replies.append((self.running.pop(reference), reply))
        return replies
