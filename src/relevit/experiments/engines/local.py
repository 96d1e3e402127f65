"""Worker processes of this machine. One that dies takes only its own job with it, and is replaced."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from relevit.experiments.engines import Reply, Request, perform


@dataclass
class _Worker:
    process: Any
    connection: Connection
    device: str | None = None
    key: str | None = None


class Local:
    """As many processes as `workers`, by default as this process may use cores; started when they are needed.

    They are started afresh (spawn), not forked: what this process has imported and set plays no part. They end with it,
    even when it is killed.

    devices: GPUs as in CUDA_VISIBLE_DEVICES. Each process sees one of them alone; by default there are as many processes as
    devices, and of more processes several share one.
    """

    def __init__(self, workers: int | None, folder: Path, devices: Sequence[str] = ()) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.devices = tuple(devices)
        self.size = workers or len(self.devices) or cores
        self.workers: list[_Worker] = []

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.connection.close()  # an idle one ends by that
            if worker.key is not None:
                worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.process.close()
        self.workers = []

    @property
    def free(self) -> int:
        return self.size - sum(worker.key is not None for worker in self.workers)

    def submit(self, key: str, request: Request) -> None:
        idle = [worker for worker in self.workers if worker.key is None and worker.process.is_alive()]
        worker = idle[0] if idle else self._start()
        worker.key = key
        try:
            worker.connection.send_bytes(json.dumps(dict(request)).encode())
        except OSError:  # it died in this moment: `wait` sees that
            pass

    def wait(self) -> list[tuple[str, Reply]]:
        busy = [worker for worker in self.workers if worker.key is not None]
        wait([thing for worker in busy for thing in (worker.connection, worker.process.sentinel)], timeout=1.0)
        replies: list[tuple[str, Reply]] = []
        for worker in busy:
            key = worker.key
            assert key is not None
            if worker.connection.poll():
                try:
                    replies.append((key, json.loads(worker.connection.recv_bytes())))
                    worker.key = None
                    continue
                except (EOFError, OSError):  # it died
                    worker.process.join()
            if not worker.process.is_alive():
                worker.process.join()
                replies.append((key, {"error": _why(worker.process.exitcode)}))
                worker.connection.close()
                self.workers.remove(worker)
        return replies

    def _start(self) -> _Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        self.workers = [worker for worker in self.workers if worker.key is not None or worker.process.is_alive()]
        taken = [worker.device for worker in self.workers]
        device = min(self.devices, key=taken.count) if self.devices else None
        process = context.Process(target=_serve, args=(theirs, device), name="relevit-job")
        process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours, device))
        return self.workers[-1]


def gpus() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them; none without CUDA."""
    import torch

    if not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    named = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
    return named[:count] or [str(i) for i in range(count)]


def _why(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else str(-code)
        hint = "; the system does that where memory runs out" if -code == signal.SIGKILL else ""
        return f"its process was killed ({name}{hint})"
    return f"its process ended without a result (exit code {code})"


def _serve(connection: Connection, device: str | None = None) -> None:
    """The worker's life: jobs, one after the other, until the other end closes."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # CUDA reads it when it is first used
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program; it ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        reply = json.dumps(perform(request)).encode()
        try:
            connection.send_bytes(reply)
        except OSError:
            return


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
