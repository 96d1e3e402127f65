"""Every experiment by name: the paper's, in the order in which they are best run, and those of other distributions (extensions.py)."""

from __future__ import annotations

from collections.abc import Iterable

from relevit.errors import UserError
from relevit.experiments.experiment import Data, Design, Experiment
from relevit.experiments.paper import PAPER
from relevit.experiments.plan import DesignPlan, Plan
from relevit.experiments.sources.builtin import Builtin
from relevit.experiments.sources.real import Real
from relevit.extensions import Table

EXPERIMENTS: Table[Experiment] = Table("experiments", PAPER)


def chosen(names: Iterable[str], data: str) -> list[str]:
    """The experiments of those names in the order in which they are best run; "all" are those that can be done on the data
    ("builtin", or a folder). Raises UserError for a name that there is none of."""
    wanted = list(dict.fromkeys(names))
    listed = ", ".join(sorted(EXPERIMENTS))
    if not wanted:
        raise UserError(f"name an experiment: all, {listed}")
    unknown = [name for name in wanted if name != "all" and name not in EXPERIMENTS]
    if unknown:
        raise UserError(f"unknown experiment {unknown[0]!r}: choose among all, {listed}")
    if "all" in wanted:
        wanted = [name for name, row in EXPERIMENTS.items() if row.on(data) is not None and not row.apart]
    for name in wanted:
        if EXPERIMENTS[name].on(data) is None:
            other = "--data builtin" if data != "builtin" else "--data ROOT"
            raise UserError(f"{name} cannot be run on --data {data}: it is there for {other}")
    return [name for name in EXPERIMENTS if name in wanted]


def plan_for(name: str, data: Data) -> Plan:
    """How an experiment is done on these data. Raises UserError if it is not."""
    (name,) = chosen([name], data.name)
    declared = EXPERIMENTS[name].on(data.name)
    if isinstance(declared, Design):
        return plan_of(declared, data)
    assert declared is not None
    return declared(data)


def plan_of(design: Design, data: Data) -> DesignPlan:
    """How a design is done on these data."""
    return DesignPlan(design, Builtin(data) if data.name == "builtin" else Real(data))
