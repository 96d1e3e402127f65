"""Where jobs run: worker processes of this machine, a Ray cluster, or SLURM. One file and one line in ENGINES each.

An engine is a context with `free` (how many jobs it would take now), `submit(key, request)` and `wait()`, which returns
the replies that have come, at least one if it can within a second. Requests and replies are JSON.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from relevit.errors import UserError

ENGINES = {
    "local": "relevit.experiments.engines.local:Local",
    "ray": "relevit.experiments.engines.ray_cluster:RayCluster",
    "slurm": "relevit.experiments.engines.slurm:Slurm",
}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

Request = Mapping[str, Any]
Reply = dict[str, Any]


@runtime_checkable
class Engine(Protocol):
    """What `run_jobs` wants of an engine."""

    @property
    def free(self) -> int: ...

    def submit(self, key: str, request: Request) -> None: ...

    def wait(self) -> list[tuple[str, Reply]]: ...


def make_engine(
    name: str, workers: int | None, folder: Path, options: Mapping[str, Any]
) -> AbstractContextManager[Engine]:
    """The engine of that name. Raises UserError for an unknown one, or one that is not to be had here."""
    if name not in ENGINES:
        raise UserError(f"unknown engine {name!r}: choose one of {', '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise UserError(f"the number of workers must be at least 1, not {workers}")
    return resolve(ENGINES[name])(workers, folder, **options)


def resolve(name: str) -> Any:
    """The object called "package.module:name"."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def perform(request: Request) -> Reply:
    """Run a job in this process, on one thread, so that its result does not depend on what runs beside it.

    Returns {"result": ...} or {"error": text}, with seconds, versions and hardware. No exception but those that end the
    process gets out.
    """
    from relevit.experiments.records import hardware, versions

    for name in _THREADS:
        os.environ[name] = "1"
    about: Reply = {"versions": versions(), "hardware": hardware()}
    began = time.monotonic()
    try:
        function = resolve(request["function"])
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        wanted = inspect.signature(function).parameters
        arguments = dict(request["arguments"])
        if "after" in wanted:
            arguments["after"] = request["after"]
        if "folder" in wanted:
            arguments["folder"] = Path(request["folder"])
        result = json.loads(json.dumps(function(**arguments), allow_nan=False))
    except UserError as error:
        return {**about, "error": str(error) or "UserError", "seconds": time.monotonic() - began}
    except Exception as error:
        lines = traceback.format_exc().rstrip()
        return {**about, "error": lines or repr(error), "seconds": time.monotonic() - began}
    return {**about, "result": result, "seconds": time.monotonic() - began}
