"""Every experiment by name: the paper's, in the order in which they are best run, and those of other distributions (extensions.py)."""

from __future__ import annotations

from collections.abc import Iterable

from relevit.errors import UserError
from relevit.experiments.paper import PAPER, Experiment
from relevit.experiments.plan import Plan
from relevit.extensions import Table

EXPERIMENTS: Table[Experiment] = Table("experiments", PAPER)


def chosen(names: Iterable[str], data: str) -> list[str]:
    """The experiments of those names in the order in which they are best run; "all" are those that have a plan for the
    data. Raises UserError for a name that there is none of."""
    wanted = list(dict.fromkeys(names))
    listed = ", ".join(sorted(EXPERIMENTS))
    if not wanted:
        raise UserError(f"name an experiment: all, {listed}")
    unknown = [name for name in wanted if name != "all" and name not in EXPERIMENTS]
    if unknown:
        raise UserError(f"unknown experiment {unknown[0]!r}: choose among all, {listed}")
    if "all" in wanted:
        wanted = [name for name, row in EXPERIMENTS.items() if plan_for(name, data) is not None and not row.apart]
    for name in wanted:
        if plan_for(name, data) is None:
            other = "--data builtin" if data != "builtin" else "--data ROOT"
            raise UserError(f"{name} cannot be run on --data {data}: it is there for {other}")
    return [name for name in EXPERIMENTS if name in wanted]


def plan_for(name: str, data: str) -> Plan | None:
    """How an experiment is done on "builtin" or on a folder of data sets; None if it is not."""
    row = EXPERIMENTS[name]
    return row.builtin if data == "builtin" else row.real
