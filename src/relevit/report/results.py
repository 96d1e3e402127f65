"""The figures that a report shows, and their tables as text: for a terminal and for Markdown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from relevit.statistics.estimate import Estimate

DASH, MINUS = "\u2013", "\u2212"  # the dash between figures; the minus that is as wide as the plus

Verdict = Literal["better", "worse", "open"]


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

    def difference(self, model: str, name: str, values: Values | None = None) -> tuple[float, Verdict] | None:
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


def ends_text(figure: Estimate) -> str:
    """ "88.1-90.3" with an en dash; empty where no interval is known."""
    return "" if figure.low == figure.high else f"{figure.low:.1f}{DASH}{figure.high:.1f}"


def readable(name: str) -> str:
    """A name of the code as words: `background_swap+relevance` becomes `background swap + relevance`."""
    return " + ".join(part.strip().replace("_", " ") for part in name.split("+"))


def signed(points: float) -> str:
    """Percentage points with their sign, one decimal, a true minus; what rounds to zero has no sign."""
    text = f"{abs(points):.1f}"
    if text == "0.0":
        return text
    return ("+" if points > 0 else MINUS) + text


def _share(results: Results, model: str) -> str:
    share = results.foreground_share.get(model)
    if share is None:
        return DASH
    return f"{share.value:.1f}" + (f" ({ends_text(share)})" if ends_text(share) else "")


def markdown_table(results: Results, values: Values | None = None) -> str:
    """The table as Markdown: mean, interval, difference from the original; the best of a column in bold.

    `values`: one of `results.groups` in place of the main table.
    """
    table = results.values if values is None else values
    with_share = bool(results.foreground_share) and values is None
    header = ["model", *map(readable, results.sets), *(["relevance on foreground"] if with_share else [])]
    rows = []
    for model in results.models:
        row = [readable(model)]
        for name in results.sets:
            value, difference = table[model][name], results.difference(model, name, values)
            cell = f"**{value.value:.1f}**" if model in results.best(name, values) else f"{value.value:.1f}"
            cell += f" ({ends_text(value)})" if ends_text(value) else ""
            cell += f" {signed(difference[0])}" if difference else ""
            row.append(cell)
        rows.append([*row, *([_share(results, model)] if with_share else [])])

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "| --- |" + " ---: |" * (len(header) - 1)
    return "\n".join([line(header), rule, *map(line, rows)]) + "\n"


def terminal_table(results: Results, values: Values | None = None, title: str | None = None) -> Table:
    """The table for a terminal, turned (a row per test set) so that 80 columns hold five models.

    Mean, signed difference and the interval beneath; the best of a row in bold.
    """
    source = results.values if values is None else values
    colours = {"better": "blue", "worse": "yellow", "open": "dim"}
    table = Table(title=title, title_justify="left", box=box.HORIZONTALS, show_lines=True, pad_edge=False)
    table.add_column("")
    for model in results.models:
        table.add_column(readable(model), justify="right")
    for name in results.sets:
        cells = [Text(readable(name))]
        for model in results.models:
            value, difference = source[model][name], results.difference(model, name, values)
            cell = Text(f"{value.value:.1f}", style="bold" if model in results.best(name, values) else "")
            if difference:
                cell.append(f" {signed(difference[0])}", style=f"not bold {colours[difference[1]]}")
            if ends_text(value):
                cell.append(f"\n{ends_text(value)}", style="not bold dim")
            cells.append(cell)
        table.add_row(*cells)
    if results.foreground_share and values is None:
        shares = [_share(results, model).replace(" (", "\n").replace(")", "") for model in results.models]
        table.add_row("relevance on foreground", *shares, style="dim")
    return table
