"""Which jobs on real data are not needed, since nothing that reads them has its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from relevit.experiments.filled import Data
from relevit.experiments.jobs import Outcome, ends
from relevit.experiments.real.declared import REAL
from relevit.experiments.real.models import PAPER_MODELS
from relevit.experiments.real.places import GTSEGS, IMAGENET_S
from relevit.experiments.real.variants import default_split
from relevit.experiments.reproduce import plan

SETS = sorted({*REAL["table1"].benchmarks, *REAL["table2"].benchmarks})  # type: ignore[attr-defined]


def states(out: Path, names: list[str], *absent: str) -> dict[str, str]:
    data = Data("/data", found={IMAGENET_S: "/s"}, missing=dict.fromkeys(absent, "not there"), models=PAPER_MODELS[2:4])
    return {entry.job.key: entry.state for entry in plan(names, data, out)}


def test_a_fine_tuning_that_nothing_can_measure_is_not_run(tmp_path: Path) -> None:
    alone = states(tmp_path, ["table3"], GTSEGS)
    idle = f"not needed: nothing that reads it has its data ({GTSEGS})"
    assert alone["AR-S-ours-seed-0"] == alone["samples-annotated-500x3"] == alone["masks-annotated"] == idle
    assert alone["AR-S-ours-seed-0-segmentation-gtsegs_ijcv.mat"] == f"no data: {GTSEGS}"
    assert "to do" not in alone.values()
    # Table 1 measures it on what is there.
    shared = states(tmp_path, ["table1", "table3"], GTSEGS, *(name for name in SETS if name != "imagenet-r"))
    assert shared["AR-S-ours-seed-0"] == shared["AR-S-ours-seed-0-on-imagenet-r"] == "to do"
    assert shared["masks-annotated"] == shared["AR-S-gradmask-seed-0"] == "to do"
    assert set(states(tmp_path, ["table3"]).values()) == {"to do"}
    # Without masks the original is measured for the table, and not for pages of what changed.
    assert states(tmp_path, ["table1", "figure2"], IMAGENET_S)["AR-B-original-on-imagenet"] == "to do"
    page = states(tmp_path, ["figure2"], IMAGENET_S)
    assert page["AR-B-original-on-imagenet"] == f"not needed: nothing that reads it has its data ({IMAGENET_S})"


@pytest.mark.parametrize("name", REAL)
def test_tables_are_made_of_what_no_job_comes_after(name: str) -> None:
    """So that what is idle is nothing that a table shows; beside it, the choice of samples tells the groups of classes."""
    data = Data("/data", found={IMAGENET_S: "/s"}, models=PAPER_MODELS[2:4])
    jobs = REAL[name].jobs(data)
    outcomes = {key: Outcome("skipped", reason="not run") for key in (*ends(jobs), default_split(data))}
    found = REAL[name].fill(outcomes, data)  # a KeyError, if it looks at another
    assert found.rows and all(row.ours is None for row in found.rows)
