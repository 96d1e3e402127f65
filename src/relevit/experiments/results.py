"""From the figures of single runs to an experiment's results: cells of its table, and findings about its claims.

This is done in the same way for runs on any data, and for rows that are read back from a file (tables.py): the page, CSV, JSON and
Markdown all show these values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from relevit.experiments.claims import Finding, finding
from relevit.experiments.experiment import ACCURACY, EACH_CLASS, EFFECTS, SHARE, Design
from relevit.statistics import over_seeds
from relevit.statistics.estimate import Estimate

MEASURED, ORIGINAL = "measured", "original"
Place = tuple[str, str, str]  # set, group, figure


@dataclass(frozen=True)
class Value:
    """A figure of one run, in percent, or why there is none.

    Attributes:
        row: the arm's, or ORIGINAL. model: on real data; "" where there is one alone.
        set, group, figure: what was measured; of SHARE the figure is "share".
        seed: of the run, None for the original.
        estimate: with an interval where it is over images; None where there is no figure, `state` then says why.
        change: from the original on the same images, in points.
        rate: the learning rate of the run. published: the paper's figure.
    """

    row: str
    set: str
    figure: str = "r1"
    group: str = "all"
    seed: int | None = None
    estimate: Estimate | None = None
    change: Estimate | None = None
    rate: float | None = None
    model: str = ""
    published: float | None = None
    state: str = "not run"

    @property
    def place(self) -> Place:
        """What was measured."""
        return self.set, self.group, self.figure


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        row: the model or the method. column: the test set, or the figure of a measurement.
        figure: r1, r5, ...; group: of the classes.
        ours: in percent, None unless state is MEASURED. published: the paper's figure for the same model, data and measurement.
        change: from the original, in points.
        state: MEASURED, or why there is no figure ("no data: imagenet-a").
    """

    row: str
    column: str
    figure: str = "r1"
    group: str = "all"
    ours: Estimate | None = None
    published: float | None = None
    change: Estimate | None = None
    state: str = "not run"

    def __post_init__(self) -> None:
        if (self.ours is None) == (self.state == MEASURED):
            raise ValueError(f"a cell has a figure if it was measured, and no other: {self}")

    @property
    def difference(self) -> float | None:
        """Ours less the published figure, in points."""
        return None if self.ours is None or self.published is None else self.ours.value - self.published

    @property
    def seeds(self) -> int:
        """Of how many runs it is; 0 for one with an interval over images."""
        return self.ours.count if self.ours is not None and self.ours.over == "seeds" else 0

    def to_dict(self) -> dict[str, Any]:
        """Ready for CSV and JSON; the ends of an interval where there is one."""
        found: dict[str, Any] = {key: getattr(self, key) for key in ("row", "column", "figure", "group")}
        for name, estimate in (("ours", self.ours), ("change", self.change)):
            known = estimate is not None and not (estimate.over in ("seeds", "models") and estimate.count < 2)
            low, high = ("low", "high") if name == "ours" else ("change_low", "change_high")
            found[name] = None if estimate is None else estimate.value
            found |= {low: estimate.low if known else None, high: estimate.high if known else None}  # type: ignore[union-attr]
            found |= {"seeds": self.seeds} if name == "ours" else {}
        return {**found, "published": self.published, "state": self.state, "difference": self.difference}


@dataclass(frozen=True)
class Results:
    """What an experiment yields. protocol: how it was measured, in a sentence. values: of the single runs. pages: what is on them,
    and where they are, below the output folder."""

    cells: Sequence[Cell]
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    protocol: str = ""
    values: Sequence[Value] = ()
    pages: Sequence[tuple[str, str]] = ()


def point(value: float) -> Estimate:
    """The figure of a single run, whose interval is not known."""
    return over_seeds.mean([value])


def with_changes(values: Iterable[Value]) -> list[Value]:
    """The values with the changes from the original, where these were not computed image by image."""
    known = list(values)
    first = {(v.model, v.place): v.estimate.value for v in known if v.row == ORIGINAL and v.estimate is not None}

    def moved(value: Value) -> Value:
        start = first.get((value.model, value.place))
        if value.row == ORIGINAL or value.change is not None or value.estimate is None or start is None:
            return value
        return replace(value, change=point(value.estimate.value - start))

    return [moved(value) for value in known]


def cells_of(design: Design, values: Iterable[Value], classes: Mapping[str, str] | None = None) -> list[Cell]:
    """A cell for each row and place: a single run's own figure, or the mean over runs.

    values: with their changes. classes: how each class is called, where these are the rows.
    """
    together: dict[tuple[str, str, str, str], list[Value]] = {}
    for value in values:
        for place in _cell_place(design, value, classes or {}):
            together.setdefault(place, []).append(value)
    cells = [_cell(*place, own) for place, own in together.items()]
    order = list(dict.fromkeys((cell.figure, cell.group) for cell in cells))
    if design.test == ACCURACY:
        order.sort(key=lambda kind: (design.figures.index(kind[0]), _number(design.groups, kind[1])))
    return sorted(cells, key=lambda cell: order.index((cell.figure, cell.group)))


def _number(groups: Sequence[str], group: str) -> int:
    return groups.index(group) if group in groups else 0


def _cell_place(design: Design, value: Value, classes: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    """Row, column, figure and group of the cell that shows a value; none for one that no cell shows."""
    row = f"{value.model} {value.row}".strip()
    if design.test == EFFECTS:
        return [(f"{row}, {value.set}", value.figure, "count", "all")]
    if design.test != ACCURACY:
        return [(row, value.figure, "share", "all")]
    if EACH_CLASS in design.groups:
        return (
            [] if value.row == ORIGINAL else [(classes.get(value.group, value.group), value.set, value.figure, "all")]
        )
    if not design.rows:
        return []
    return [(row, value.set, design.figures[0] if value.set == SHARE else value.figure, value.group)]


def _cell(row: str, column: str, figure: str, group: str, values: Sequence[Value]) -> Cell:
    paper = values[0].published
    known = [value for value in values if value.estimate is not None]
    if not known:
        return Cell(row, column, figure, group, published=paper, state=values[0].state)
    figures = [value.estimate for value in known if value.estimate is not None]
    changes = [value.change for value in known if value.change is not None]
    return Cell(row, column, figure, group, mean(figures), paper, mean(changes) if changes else None, MEASURED)


def mean(runs: Sequence[Estimate]) -> Estimate:
    """Of a single run what is known of it; of several the mean over them."""
    return runs[0] if len(runs) == 1 else over_seeds.mean([run.value for run in runs])


def changes_by_model(values: Iterable[Value]) -> dict[tuple[str, Place], dict[str, float]]:
    """Row and place to model to the change in points, a mean over the runs of the row."""
    runs: dict[tuple[str, Place], dict[str, list[float]]] = {}
    for value in values:
        if value.change is not None:
            runs.setdefault((value.row, value.place), {}).setdefault(value.model, []).append(value.change.value)
    return {
        key: {model: over_seeds.mean(own).value for model, own in by_model.items()} for key, by_model in runs.items()
    }


def findings_of(design: Design, values: Iterable[Value], over: str = "seeds") -> list[Finding]:
    """The claims of a design, each as a paired difference over the runs that both sides have."""
    known: dict[tuple[str, Place], dict[str, dict[int | None, float]]] = {}
    for value in values:
        if value.estimate is not None:
            by_model = known.setdefault((value.row, value.place), {})
            by_model.setdefault(value.model, {})[value.seed] = value.estimate.value
    test = design.test if design.test == ACCURACY else f"{design.test} on {design.sets[0]}"
    found = []
    for claim in design.claims:
        place = (claim.on or design.sets[0], claim.group, claim.figure)
        ours, theirs = known.get((claim.arm, place), {}), known.get((claim.against, place), {})
        differences: dict[str, list[float]] = {}
        for model in (name for name in ours if name in theirs):
            start = theirs[model]
            pairs = [
                value - (start[None] if claim.against == ORIGINAL else start[seed])
                for seed, value in sorted(ours[model].items(), key=lambda item: item[0] or 0)
                if claim.against == ORIGINAL or seed in start
            ]
            differences |= {model: pairs} if pairs else {}
        found.append(finding(claim, test, differences, over))
    return found
