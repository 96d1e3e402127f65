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
Place = tuple[str, str, str]  # column, group, figure


@dataclass(frozen=True)
class Cell:
    """A figure of one run, or of a cell of a table, in percent; or why there is none.

    Attributes:
        row: the arm's, or ORIGINAL; in a table with the model before it.
        column: the test set; in a table of a measurement its figure.
        figure: r1, r5, ...; of SHARE "share". group: of the classes.
        ours: with an interval over images where it is known, over runs where there are several; None where nothing was measured.
        change: from the original, in points; of a run on the same images.
        published: the paper's figure for the same model, data and measurement.
        reason: why there is no figure ("no data: imagenet-a").
        model: of a run on real data; "" where there is one alone. seed, rate: of a run, None for the original.
    """

    row: str
    column: str
    figure: str = "r1"
    group: str = "all"
    ours: Estimate | None = None
    change: Estimate | None = None
    published: float | None = None
    reason: str = "not run"
    model: str = ""
    seed: int | None = None
    rate: float | None = None

    @property
    def place(self) -> Place:
        """What was measured."""
        return self.column, self.group, self.figure

    @property
    def state(self) -> str:
        """MEASURED, or why there is no figure."""
        return self.reason if self.ours is None else MEASURED

    @property
    def difference(self) -> float | None:
        """Ours less the published figure, in points."""
        return None if self.ours is None or self.published is None else self.ours.value - self.published

    @property
    def seeds(self) -> int:
        """Of how many runs it is; 0 for one with an interval over images."""
        return self.ours.count if self.ours is not None and self.ours.over == "seeds" else 0

    def to_dict(self) -> dict[str, Any]:
        """Of a table, ready for CSV and JSON; the ends of an interval where there is one."""
        told: dict[str, Any] = {key: getattr(self, key) for key in ("row", "column", "figure", "group")}
        for name, estimate in (("ours", self.ours), ("change", self.change)):
            known = estimate is not None and not (estimate.over in ("seeds", "models") and estimate.count < 2)
            low, high = ("low", "high") if name == "ours" else ("change_low", "change_high")
            told[name] = None if estimate is None else estimate.value
            told |= {low: estimate.low if known else None, high: estimate.high if known else None}  # type: ignore[union-attr]
            told |= {"seeds": self.seeds} if name == "ours" else {}
        return {**told, "published": self.published, "state": self.state, "difference": self.difference}


@dataclass(frozen=True)
class Results:
    """What an experiment yields. protocol: how it was measured, in a sentence. values: of the single runs. pages: what is on them,
    and where they are, below the output folder."""

    cells: Sequence[Cell]
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    protocol: str = ""
    values: Sequence[Cell] = ()
    pages: Sequence[tuple[str, str]] = ()


def point(value: float) -> Estimate:
    """The figure of a single run, whose interval is not known."""
    return over_seeds.mean([value])


def with_changes(values: Iterable[Cell]) -> list[Cell]:
    """The values with the changes from the original, where these were not computed image by image."""
    known = list(values)
    first = {(v.model, v.place): v.ours.value for v in known if v.row == ORIGINAL and v.ours is not None}

    def moved(value: Cell) -> Cell:
        start = first.get((value.model, value.place))
        if value.row == ORIGINAL or value.change is not None or value.ours is None or start is None:
            return value
        return replace(value, change=point(value.ours.value - start))

    return [moved(value) for value in known]


def cells_of(design: Design, values: Iterable[Cell], classes: Mapping[str, str] | None = None) -> list[Cell]:
    """A cell for each row and place: a single run's own figure, or the mean over runs.

    values: with their changes. classes: how each class is called, where these are the rows.
    """
    together: dict[Cell, list[Cell]] = {}
    for value in values:
        cell = _cell_of(design, value, classes or {})
        if cell is not None:
            together.setdefault(cell, []).append(value)
    cells = [_filled(cell, own) for cell, own in together.items()]
    order = list(dict.fromkeys((cell.figure, cell.group) for cell in cells))
    if design.test == ACCURACY:
        groups = {group: number for number, group in enumerate(design.groups)}
        order.sort(key=lambda kind: (design.figures.index(kind[0]), groups.get(kind[1], 0)))
    return sorted(cells, key=lambda cell: order.index((cell.figure, cell.group)))


def _cell_of(design: Design, value: Cell, classes: Mapping[str, str]) -> Cell | None:
    """The cell that shows a value, without its figure; None for one that no cell shows."""
    row = f"{value.model} {value.row}".strip()
    if design.test == EFFECTS:
        return Cell(f"{row}, {value.column}", value.figure, "count")
    if design.test != ACCURACY:
        return Cell(row, value.figure, "share")
    if EACH_CLASS in design.groups:
        title = classes.get(value.group, value.group)
        return None if value.row == ORIGINAL else Cell(title, value.column, value.figure)
    figure = design.figures[0] if value.column == SHARE else value.figure
    return Cell(row, value.column, figure, value.group) if design.rows else None


def _filled(cell: Cell, values: Sequence[Cell]) -> Cell:
    figures = [value.ours for value in values if value.ours is not None]
    changes = [value.change for value in values if value.change is not None]
    return replace(
        cell,
        ours=_mean(figures) if figures else None,
        change=_mean(changes) if changes else None,
        published=values[0].published,
        reason=values[0].reason,
    )


def _mean(runs: Sequence[Estimate]) -> Estimate:
    """Of a single run what is known of it; of several the mean over them."""
    return runs[0] if len(runs) == 1 else over_seeds.mean([run.value for run in runs])


def changes_by_model(values: Iterable[Cell]) -> dict[tuple[str, Place], dict[str, float]]:
    """Row and place to model to the change in points, a mean over the runs of the row."""
    runs: dict[tuple[str, Place], dict[str, list[float]]] = {}
    for value in values:
        if value.change is not None:
            runs.setdefault((value.row, value.place), {}).setdefault(value.model, []).append(value.change.value)
    return {
        key: {model: over_seeds.mean(own).value for model, own in by_model.items()} for key, by_model in runs.items()
    }


def findings_of(design: Design, values: Iterable[Cell], over: str = "seeds") -> list[Finding]:
    """The claims of a design, each as a paired difference over the runs that both sides have."""
    known: dict[tuple[str, Place], dict[str, dict[int | None, float]]] = {}
    for value in values:
        if value.ours is not None:
            by_model = known.setdefault((value.row, value.place), {})
            by_model.setdefault(value.model, {})[value.seed] = value.ours.value
    test = design.test if design.test == ACCURACY else f"{design.test} on {design.sets[0]}"
    findings = []
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
        findings.append(finding(claim, test, differences, over))
    return findings
