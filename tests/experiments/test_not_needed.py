"""Which jobs on real data are not needed, since nothing that reads them has its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from relevit.experiments.experiment import Data
from relevit.experiments.jobs import Outcome, ends
from relevit.experiments.paper import ALL_SETS, PAPER
from relevit.experiments.reproduce import plan
from relevit.experiments.sources.models import PAPER_MODELS
from relevit.experiments.sources.places import GTSEGS, IMAGENET_S
from relevit.experiments.sources.real import USUAL, Real
from relevit.experiments.table import plan_for

SETS = sorted(ALL_SETS)
REAL = [name for name, row in PAPER.items() if row.real is not None]


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
def test_tables_are_made_of_what_no_job_comes_after(name: str, tmp_path: Path) -> None:
    """So that what is idle is nothing that a table shows; beside it, the choice of samples tells the groups of classes."""
    data = Data("/data", found={IMAGENET_S: "/s"}, models=PAPER_MODELS[2:4])
    plan = plan_for(name, data)
    jobs = plan.jobs()
    outcomes = {key: Outcome("skipped", reason="not run") for key in (*ends(jobs), Real(data).samples(USUAL)[-1].key)}
    found = plan.results(outcomes, tmp_path)  # a KeyError, if it looks at another
    assert found.cells and all(cell.ours is None for cell in found.cells)
