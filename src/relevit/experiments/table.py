"""Every experiment of the paper by name: what it asks, where it is in the paper, and how it is done on which data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relevit.errors import UserError
from relevit.experiments.builtin_plan import GridPlan
from relevit.experiments.filled import Plan
from relevit.experiments.grids import GRIDS


@dataclass(frozen=True)
class Experiment:
    """builtin: on the built-in benchmark; real: on data sets in the layouts of their publishers; None where there is no
    such plan."""

    description: str
    where: str
    builtin: Plan | None = None
    real: Plan | None = None


def _grid(name: str) -> Plan:
    return GridPlan(GRIDS[name])


EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment("robustness: ours, GradMask, RRR, cross-entropy, background swap", "Table 1", _grid("table1")),
    "table2": Experiment("robustness to place, rotation and size", "Table 2", _grid("table2")),
    "table4": Experiment("ablation of the loss", "Table 4", _grid("table4")),
    "figure4": Experiment("classes of the training samples against the rest", "Figure 4", _grid("figure4")),
    "beyond": Experiment("other losses of masks alone, without labels", "not in the paper", _grid("beyond")),
    "appendix_d": Experiment("the baselines as released and as written", "Appendix D", _grid("appendix_d")),
    "appendix_e": Experiment("small changes of the learning rate", "Appendix E", _grid("appendix_e")),
    "appendix_f": Experiment("seeds and choices of classes", "Appendix F", _grid("appendix_f")),
    "appendix_h": Experiment("samples per class and number of classes", "Appendix H", _grid("appendix_h")),
    "appendix_i": Experiment(
        "classes of the training samples against the rest, every method", "Appendix I", _grid("appendix_i")
    ),
    "appendix_j": Experiment("other explainers as the training signal", "Appendix J", _grid("appendix_j")),
}
ORDER = (
    "table1",
    "table2",
    "table4",
    "beyond",
    "appendix_j",
    "appendix_h",
    "appendix_e",
    "figure4",
    "appendix_i",
    "appendix_f",
    "appendix_d",
)


def chosen(names: Sequence[str], data: str) -> list[str]:
    """The experiments of those names in the order in which they are best run; "all" are those that have a plan for the
    data. Raises UserError for a name that there is none of."""
    order = [*ORDER, *(name for name in EXPERIMENTS if name not in ORDER)]
    unknown = [name for name in names if name != "all" and name not in EXPERIMENTS]
    if unknown:
        raise UserError(f"unknown experiment {unknown[0]!r}: choose among all, {', '.join(sorted(EXPERIMENTS))}")
    if not names:
        raise UserError(f"name an experiment: all, {', '.join(sorted(EXPERIMENTS))}")
    wanted = set(names) if "all" not in names else {name for name in order if plan_for(name, data) is not None}
    for name in wanted:
        if plan_for(name, data) is None:
            other = "--data builtin" if data != "builtin" else "--data ROOT"
            raise UserError(f"{name} cannot be run on --data {data}: it is there for {other}")
    return [name for name in order if name in wanted]


def plan_for(name: str, data: str) -> Plan | None:
    """How an experiment is done on "builtin" or on a folder of data sets; None if it is not."""
    experiment = EXPERIMENTS[name]
    return experiment.builtin if data == "builtin" else experiment.real
