"""The figures that a report shows, and their tables as text: for a terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from markupsafe import Markup
from rich.table import Table as RichTable

from relevit.report.table import Cell, Kind, Table
from relevit.report.words import DASH, MINUS, ends_text, readable, signed
from relevit.statistics.estimate import Estimate

__all__ = ["MINUS", "Results", "Values", "accuracy_table", "markdown_table", "readable", "signed", "terminal_table"]


Values = dict[str, dict[str, Estimate]]  # model -> test set -> accuracy in percent


@dataclass(frozen=True)
class Results:
    """Accuracy of every model on every test set.

    models: in the order of the table's rows; one of them is `original`, which the others are compared with.
    sets: the test sets, in the order of the table's columns.
    values: model -> set -> accuracy; complete.
    groups: further tables of the same models and sets by title (such as the classes seen in fine-tuning and the rest).
    foreground_share: model -> share of the relevance that lies on the foreground, in percent; may lack models.
    differences: model -> set -> paired difference from the original in percentage points, with its own interval; may
        lack entries. Where there is none, the difference of the means is shown, and it counts as open if the two
        intervals overlap.
    """

    models: list[str]
    sets: list[str]
    values: Values
    original: str
    groups: dict[str, Values] = field(default_factory=dict)
    foreground_share: dict[str, Estimate] = field(default_factory=dict)
    differences: Values = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.original not in self.models:
            raise ValueError(f"the original model {self.original!r} is not among the models {self.models}")
        for title, values in {"values": self.values, **self.groups}.items():
            lacking = [f"{m} on {s}" for m in self.models for s in self.sets if s not in values.get(m, {})]
            if lacking:
                raise ValueError(f"results lack figures in {title!r}: {', '.join(lacking)}")
            infinite = [f"{m} on {s}" for m in self.models for s in self.sets if not _finite(values[m][s])]
            if infinite:
                raise ValueError(f"results need finite figures, in {title!r} these are not: {', '.join(infinite)}")

    def difference(self, model: str, name: str, values: Values | None = None) -> tuple[float, Kind] | None:
        """Percentage points above the original on a set and whether they are settled; None for the original itself.

        `values` is one of `groups`; the paired `differences` belong to the main table only.
        """
        if model == self.original:
            return None
        table = self.values if values is None else values
        here, there = table[model][name], table[self.original][name]
        paired = self.differences.get(model, {}).get(name) if values is None else None
        points = paired.value if paired else here.value - there.value
        low, high = paired.ends if paired else (here.ends[0] - there.ends[1], here.ends[1] - there.ends[0])
        if low <= 0 <= high:
            return points, "open"
        return points, "better" if points > 0 else "worse"

    def best(self, name: str, values: Values | None = None) -> set[str]:
        """The models with the highest mean on a set, as far as the shown decimal tells."""
        table = self.values if values is None else values
        shown = {model: round(table[model][name].value, 1) for model in self.models}
        return {model for model, mean in shown.items() if mean == max(shown.values())}


def _finite(figure: Estimate) -> bool:
    return all(map(math.isfinite, (figure.value, *figure.ends)))


def accuracy_table(
    results: Results,
    values: Values | None = None,
    *,
    title: str = "",
    definitions: Mapping[str, str] | None = None,
    icons: Mapping[str, Markup] | None = None,
) -> Table:
    """A row per model, a column per test set: mean, interval, difference from the original; the best of a column in bold.

    values: one of `results.groups` in place of the main table. definitions: what a model or a set is; icons: what stands before a
    model's name; both on a page alone.
    """
    means = results.values if values is None else values
    shares = results.foreground_share if values is None else {}
    titles = definitions or {}
    columns = [Cell("model", hidden=True), *(Cell(readable(name), title=titles.get(name, "")) for name in results.sets)]
    columns += [Cell("relevance on foreground", classes="share")] if shares else []
    rows = []
    for model in results.models:
        head = Cell(readable(model), title=titles.get(model, ""), icon=(icons or {}).get(model, Markup()))
        row = [head, *(_accuracy(results, model, name, values, means) for name in results.sets)]
        share = shares.get(model)
        if shares:
            row.append(
                Cell(DASH, classes="share")
                if share is None
                else Cell(f"{share.value:.1f}", below=_ends(share), classes="share")
            )
        rows.append(row)
    return Table(title, columns, rows, marked=[results.models.index(results.original)])


def markdown_table(results: Results, values: Values | None = None) -> str:
    """`accuracy_table` as Markdown."""
    return accuracy_table(results, values).markdown()


def terminal_table(results: Results, values: Values | None = None, title: str = "") -> RichTable:
    """`accuracy_table` for a terminal, turned (a row per test set) so that 80 columns hold five models."""
    table = accuracy_table(results, values, title=title).turned()
    return replace(table, marked=[len(results.sets)]).terminal()


def _accuracy(results: Results, model: str, name: str, values: Values | None, means: Values) -> Cell:
    figure, difference = means[model][name], results.difference(model, name, values)
    return Cell(
        f"{figure.value:.1f}",
        best=model in results.best(name, values),
        change=signed(difference[0]) if difference else "",
        kind=difference[1] if difference else "open",
        below=_ends(figure),
    )


def _ends(figure: Estimate) -> list[str]:
    return [ends_text(figure)] if ends_text(figure) else []
