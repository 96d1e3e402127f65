"""Jobs on a Ray cluster of two nodes, one of which is killed on the way."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import job_functions
from relevit.errors import UserError
from relevit.experiments.jobs import Job, run_jobs
from relevit.experiments.records import read_record

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]  # Ray's own


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one core each; the driver is connected to the first."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    path = os.pathsep.join([str(Path(job_functions.__file__).parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nodes = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20},
        )
        second = nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        nodes.wait_for_nodes()
        try:
            yield nodes, second
        finally:
            if ray.is_initialized():
                ray.shutdown()
            nodes.shutdown()


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_ends_as_an_undisturbed_one(cluster: Any, tmp_path: Path) -> None:
    nodes, second = cluster
    jobs = job_functions.grid(0.5)
    calm = run_jobs(jobs, tmp_path / "calm", workers=2, say=lambda _: None)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 3:  # while both nodes work
            nodes.remove_node(second, allow_graceful=False)

    found = run_jobs(jobs, tmp_path / "wild", "ray", say=say, options={"address": nodes.address})
    assert [outcome.state for outcome in found.values()] == ["done"] * len(jobs)
    assert {key: o.result for key, o in found.items()} == {key: o.result for key, o in calm.items()}
    assert len(said) == len(jobs)  # each ended once
    for job in jobs:
        record = read_record(tmp_path / "wild", job.key)
        starts = list((tmp_path / "wild" / "notes").glob(f"{job.key}-*"))
        assert record is not None and 1 <= len(starts) <= 2
        last = max(int(path.name.rpartition("-")[2]) for path in starts)
        assert last < (tmp_path / "wild" / "jobs" / f"{job.key}.json").stat().st_mtime_ns
    before = time.time()
    run_jobs(jobs, tmp_path / "wild", "ray", say=said.append, options={"address": nodes.address})
    assert len(said) == len(jobs) and time.time() - before < 60


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"relevit\[ray\]"):
        run_jobs([Job("a", "job_functions:threads")], tmp_path, "ray")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"relevit\[slurm\]"):
        run_jobs([Job("a", "job_functions:threads")], tmp_path, "slurm")
